package ssh

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"dcos.example/dcos/installer/bundle"
	"dcos.example/dcos/installer/host/unpack"
	"dcos.example/dcos/runtime/fault"
)

const (
	// packDir is beside the unpacked releases: packing takes as long as sending.
	packDir = ".packs"
	// keepPacks is how many are kept; each is about half a release.
	keepPacks = 3
)

// pack is a part of a release as it is sent. All hosts that lack the same
// files share it, and so do later runs.
type pack struct {
	once sync.Once
	file *os.File
	size int64
	err  error
}

// pack returns the files of a release in dir, packed when first asked for.
func (p *Pool) pack(dir string, rel bundle.Share, files []int) (*pack, error) {
	key := digest([]byte(fmt.Sprint(rel.Digest, rel.Partial, files)))[:24]
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, fault.Newf("pack", fault.Unavailable, "the installer is ending")
	}
	k := p.packs[key]
	if k == nil {
		k = &pack{}
		p.packs[key] = k
	}
	p.mu.Unlock()
	k.once.Do(func() {
		names := make([]string, len(files))
		for i, n := range files {
			names[i] = rel.Files[n].Path
		}
		k.err = k.open(dir, key, names)
	})
	return k, k.err
}

// open opens the pack of that key, made if there is none.
func (k *pack) open(dir, key string, names []string) error {
	packs := filepath.Join(filepath.Dir(dir), packDir)
	path := filepath.Join(packs, key)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = makePack(dir, packs, path, names); err == nil {
			f, err = os.Open(path)
		}
	}
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	now := time.Now()
	os.Chtimes(path, now, now) // in use: others are removed first
	k.file, k.size = f, st.Size()
	return nil
}

func makePack(dir, packs, path string, names []string) error {
	if err := os.MkdirAll(packs, 0o700); err != nil {
		return err
	}
	if err := prune(packs, keepPacks-1); err != nil {
		return err
	}
	f, err := os.CreateTemp(packs, ".new-")
	if err != nil {
		return err
	}
	err = unpack.Pack(f, dir, names)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// prune leaves the newest packs.
func prune(packs string, keep int) error {
	all, err := os.ReadDir(packs)
	if err != nil {
		return err
	}
	age := func(e os.DirEntry) time.Time {
		if i, err := e.Info(); err == nil {
			return i.ModTime()
		}
		return time.Time{}
	}
	slices.SortFunc(all, func(a, b os.DirEntry) int { return cmp.Compare(age(b).UnixNano(), age(a).UnixNano()) })
	for _, e := range all[min(keep, len(all)):] {
		if time.Since(age(e)) < time.Hour && e.Name()[0] == '.' {
			continue // another installer makes it just now
		}
		if err := os.Remove(filepath.Join(packs, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// reader reads all of it.
func (k *pack) reader() io.Reader { return io.NewSectionReader(k.file, 0, k.size) }

// spoilt removes a pack that did not arrive as it should: the next attempt
// makes it anew.
func (p *Pool) spoilt(k *pack) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, x := range p.packs {
		if x == k {
			delete(p.packs, key)
			p.old = append(p.old, k)
		}
	}
	if k.file != nil {
		os.Remove(k.file.Name()) // gone already is fine, and others have it open
	}
}

func (k *pack) close() error {
	k.once.Do(func() {}) // one that is being made is waited for
	if k.file == nil {
		return nil
	}
	return k.file.Close()
}
