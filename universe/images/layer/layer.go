// Package layer writes layers of images: tars whose bytes depend on nothing but
// what goes into them, compressed, and kept by what they were made of.
package layer

import (
	"archive/tar"
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
)

// Layer is a compressed layer in a file.
type Layer struct {
	file  string
	about about
}

type about struct {
	Digest, DiffID v1.Hash
	Size, Unpacked int64
}

// The methods of v1.Layer.
func (l *Layer) Digest() (v1.Hash, error)            { return l.about.Digest, nil }
func (l *Layer) DiffID() (v1.Hash, error)            { return l.about.DiffID, nil }
func (l *Layer) Size() (int64, error)                { return l.about.Size, nil }
func (l *Layer) MediaType() (types.MediaType, error) { return types.OCILayerZStd, nil }
func (l *Layer) Compressed() (io.ReadCloser, error)  { return os.Open(l.file) }

// Unpacked returns the bytes of the layer's tar.
func (l *Layer) Unpacked() int64 { return l.about.Unpacked }

// Uncompressed returns the layer's tar.
func (l *Layer) Uncompressed() (io.ReadCloser, error) {
	f, err := os.Open(l.file)
	if err != nil {
		return nil, err
	}
	z, err := zstd.NewReader(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return unpacking{z.IOReadCloser(), f}, nil
}

type unpacking struct {
	io.ReadCloser
	f *os.File
}

func (u unpacking) Close() error { return errors.Join(u.ReadCloser.Close(), u.f.Close()) }

// format changes whenever the same input gives other bytes.
const format = "1"

// Cache keeps layers by the key of what they are made of.
type Cache struct{ dir string }

// NewCache returns the cache in dir.
func NewCache(dir string) (*Cache, error) { return &Cache{dir}, os.MkdirAll(dir, 0o755) }

// Get returns the layer made of input, a value whose JSON names all that goes
// into it; write writes it when it is not there yet.
func (c *Cache) Get(input any, write func(*Writer) error) (*Layer, error) {
	b, err := json.Marshal([]any{format, input})
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b)
	file := filepath.Join(c.dir, hex.EncodeToString(sum[:]))
	l := &Layer{file: file + ".zst"}
	b, err = os.ReadFile(file + ".json")
	if err == nil && json.Unmarshal(b, &l.about) == nil {
		if i, err := os.Stat(l.file); err == nil && i.Size() == l.about.Size {
			return l, nil
		}
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if l.about, err = c.pack(l.file, write); err != nil {
		return nil, err
	}
	if b, err = json.Marshal(l.about); err != nil {
		return nil, err
	}
	return l, os.WriteFile(file+".json", b, 0o644)
}

func (c *Cache) pack(file string, write func(*Writer) error) (about, error) {
	out, err := os.CreateTemp(c.dir, ".new-")
	if err != nil {
		return about{}, err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	packed, plain := sha256.New(), sha256.New()
	buf := bufio.NewWriterSize(io.MultiWriter(out, packed), 1<<20)
	// One worker: how many there are must not be seen in the bytes.
	z, err := zstd.NewWriter(buf, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return about{}, err
	}
	count := &counter{}
	tw := tar.NewWriter(io.MultiWriter(z, plain, count))
	if err := write(&Writer{tw: tw, seen: map[string]bool{}}); err != nil {
		return about{}, err
	}
	if err := errors.Join(tw.Close(), z.Close(), buf.Flush()); err != nil {
		return about{}, err
	}
	i, err := out.Stat()
	if err != nil {
		return about{}, err
	}
	if err := out.Chmod(0o644); err != nil {
		return about{}, err
	}
	if err := os.Rename(out.Name(), file); err != nil {
		return about{}, fmt.Errorf("keep layer: %w", err)
	}
	return about{
		Digest: v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(packed.Sum(nil))},
		DiffID: v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(plain.Sum(nil))},
		Size:   i.Size(), Unpacked: count.n,
	}, nil
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) { c.n += int64(len(p)); return len(p), nil }

// epoch is every file's time: a build must not depend on when it ran.
var epoch = time.Unix(0, 0).UTC()
