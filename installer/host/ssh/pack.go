package ssh

import (
	"fmt"
	"io"
	"os"
	"sync"

	"dcos.example/dcos/installer/bundle"
	"dcos.example/dcos/installer/host/unpack"
	"dcos.example/dcos/runtime/fault"
)

// pack is a part of a release as it is sent. All hosts that lack the same
// files share it; it is a file without a name.
type pack struct {
	once sync.Once
	file *os.File
	size int64
	err  error
}

// pack returns the files of a release in dir, packed when first asked for.
func (p *Pool) pack(dir string, rel bundle.Manifest, files []int) (*pack, error) {
	key := fmt.Sprint(rel.Digest(), files)
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
	k.once.Do(func() { k.err = k.make(dir, rel, files) })
	return k, k.err
}

func (k *pack) make(dir string, rel bundle.Manifest, files []int) error {
	f, err := os.CreateTemp("", "dcos-release-")
	if err != nil {
		return err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return err
	}
	names := make([]string, len(files))
	for i, n := range files {
		names[i] = rel.Files[n].Path
	}
	if err := unpack.Pack(f, dir, names); err != nil {
		f.Close()
		return err
	}
	size, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		f.Close()
		return err
	}
	k.file, k.size = f, size
	return nil
}

func (k *pack) reader() io.Reader { return io.NewSectionReader(k.file, 0, k.size) }

func (k *pack) close() error {
	k.once.Do(func() {}) // one that is being made is waited for
	if k.file == nil {
		return nil
	}
	return k.file.Close()
}
