package feed

import (
	"hash/maphash"
	"iter"
	"maps"
)

// shards is a map that is cheap to freeze: it is cut into parts, and a frozen
// map shares with its successor the parts that did not change. Freezing copies
// 256 pointers. The first write to a part after a freeze copies that part, so
// a write costs at most O(n/256) and a burst of them between two freezes O(n)
// in all, however long it is. At 100,000 entries a part has about 400.
type shards[K comparable, V any] struct {
	parts [shardCount]map[K]V
	owned [shardCount]bool // not shared with a frozen copy
	n     int
}

const shardCount = 256

// hashSeed spreads keys over parts; it need not be the same in two processes.
var hashSeed = maphash.MakeSeed()

func (s *shards[K, V]) index(k K) int {
	return int(maphash.Comparable(hashSeed, k) % shardCount)
}

func (s *shards[K, V]) get(k K) (V, bool) {
	v, ok := s.parts[s.index(k)][k]
	return v, ok
}

func (s *shards[K, V]) own(i int) map[K]V {
	if !s.owned[i] {
		s.owned[i] = true
		if s.parts[i] = maps.Clone(s.parts[i]); s.parts[i] == nil {
			s.parts[i] = map[K]V{}
		}
	}
	return s.parts[i]
}

func (s *shards[K, V]) set(k K, v V) {
	part := s.own(s.index(k))
	before := len(part)
	part[k] = v
	s.n += len(part) - before
}

func (s *shards[K, V]) delete(k K) {
	i := s.index(k)
	if _, ok := s.parts[i][k]; ok {
		delete(s.own(i), k)
		s.n--
	}
}

// freeze returns a copy that later writes to s do not touch.
func (s *shards[K, V]) freeze() *shards[K, V] {
	s.owned = [shardCount]bool{}
	return &shards[K, V]{parts: s.parts, n: s.n}
}

func (s *shards[K, V]) all() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for _, part := range s.parts {
			for k, v := range part {
				if !yield(k, v) {
					return
				}
			}
		}
	}
}
