package providertest

import (
	"cmp"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"
)

// Object is something that exists in the world.
type Object struct {
	ID       resource.ID    `json:"id"`
	URN      resource.URN   `json:"urn"`
	Type     tokens.Type    `json:"type"`
	Token    string         `json:"token"`
	Inputs   map[string]any `json:"inputs"`
	Address  string         `json:"address,omitempty"` // empty: made of the ID
	Complete bool           `json:"complete"`          // false: half made, or half changed
}

func (o Object) address() string { return cmp.Or(o.Address, string(o.ID)+".test") }

// world keeps objects in files below dir, or in memory when dir is empty. It is
// safe for concurrent use within one process.
type world struct {
	dir string
	mu  *sync.Mutex
	mem map[resource.ID]Object
}

func openWorld(dir string) world {
	return world{dir: dir, mu: &sync.Mutex{}, mem: map[resource.ID]Object{}}
}

func (w world) path(id resource.ID) string { return filepath.Join(w.dir, string(id)+".json") }

func (w world) get(id resource.ID) (o Object, ok bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if id == "" {
		return o, false, nil
	}
	if w.dir == "" {
		o, ok = w.mem[id]
		return o, ok, nil
	}
	raw, err := os.ReadFile(w.path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return o, false, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &o)
	}
	return o, err == nil, err
}

func (w world) put(o Object) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dir == "" {
		w.mem[o.ID] = o
		return nil
	}
	raw, err := json.Marshal(o)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(w.dir, 0o700); err != nil {
		return err
	}
	tmp := w.path(o.ID) + ".new"
	if err := os.WriteFile(tmp, raw, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, w.path(o.ID))
}

func (w world) remove(id resource.ID) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dir == "" {
		delete(w.mem, id)
		return nil
	}
	if err := os.Remove(w.path(id)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (w world) list() ([]Object, error) {
	w.mu.Lock()
	mem := w.mem
	var ids []resource.ID
	for id := range mem {
		ids = append(ids, id)
	}
	w.mu.Unlock()
	if w.dir != "" {
		files, err := filepath.Glob(w.path("*"))
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			ids = append(ids, resource.ID(strings.TrimSuffix(filepath.Base(f), ".json")))
		}
	}
	slices.Sort(ids)
	var out []Object
	for _, id := range ids {
		o, ok, err := w.get(id)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, o)
		}
	}
	return out, nil
}

// find returns the object that a create with that token made.
func (w world) find(u resource.URN, token string) (Object, bool, error) {
	all, err := w.list()
	for _, o := range all {
		if o.URN == u && (o.Token == token || o.Type == Slot) {
			return o, true, err
		}
	}
	return Object{}, false, err
}
