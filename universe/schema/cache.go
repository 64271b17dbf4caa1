package schema

import (
	"container/list"
	"crypto/sha256"
	"sync"
)

// Cache keeps what was made of the config.json files used last: to make a
// checker of one takes longer than to check. Nil keeps nothing. It may be used
// by several at once.
type Cache struct {
	mu    sync.Mutex
	left  int
	byKey map[[sha256.Size]byte]*list.Element
	order list.List // of cached, the one used last in front
}

type cached struct {
	key    [sha256.Size]byte
	size   int
	config *Config
}

// NewCache returns a cache of config.json files of so many bytes in all. What is
// made of them takes some ten times that.
func NewCache(bytes int) *Cache {
	return &Cache{left: bytes, byKey: map[[sha256.Size]byte]*list.Element{}}
}

// Config is ParseConfig, which is done once for a text that is used often.
func (c *Cache) Config(text []byte) (*Config, error) {
	if c == nil {
		return ParseConfig(text)
	}
	key := sha256.Sum256(text)
	c.mu.Lock()
	e, ok := c.byKey[key]
	if ok {
		c.order.MoveToFront(e)
	}
	c.mu.Unlock()
	if ok {
		return e.Value.(cached).config, nil
	}
	config, err := ParseConfig(text)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.byKey[key]; ok {
		return e.Value.(cached).config, nil
	}
	c.byKey[key] = c.order.PushFront(cached{key, len(text), config})
	c.left -= len(text)
	for c.left < 0 && c.order.Len() > 1 {
		last := c.order.Remove(c.order.Back()).(cached)
		delete(c.byKey, last.key)
		c.left += last.size
	}
	return config, nil
}
