// Package target is where backups are kept: a directory, or a bucket of an
// S3-compatible store. A backup is there when its entry is, which is written
// last and removed first.
package target

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"dcos.example/dcos/runtime/backup/archive"
	"dcos.example/dcos/runtime/fault"
)

// sorted puts the newest first.
func sorted(es []archive.Entry) []archive.Entry {
	slices.SortFunc(es, func(a, b archive.Entry) int { return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(b.ID, a.ID)) })
	return es
}

func checkID(op, id string) error {
	if !archive.ValidID(id) {
		return fault.Newf(op, fault.Invalid, "%q is not the name of a backup", id)
	}
	return nil
}

// Dir is a directory; it is made when first needed.
type Dir struct{ Path string }

func (d Dir) String() string { return d.Path }

// Put keeps the backup in the file at path.
func (d Dir) Put(_ context.Context, e archive.Entry, path string) error {
	in, err := os.Open(path)
	if err != nil {
		return fault.New("keep backup "+e.ID, fault.Internal, err)
	}
	defer in.Close()
	return d.Receive(e, in)
}

// Receive keeps the backup that r yields, if it is what e says.
func (d Dir) Receive(e archive.Entry, r io.Reader) error {
	op := "keep backup " + e.ID + " in " + d.Path
	if err := checkID(op, e.ID); err != nil {
		return err
	}
	if have, err := d.entry(e.ID); err == nil && have.SHA256 == e.SHA256 {
		return nil // the directory is shared
	}
	if err := os.MkdirAll(d.Path, 0o700); err != nil {
		return fault.New(op, fault.Unavailable, err)
	}
	err := d.write(archive.FileName(e.ID), func(w io.Writer) error {
		sum := newSum()
		n, err := io.Copy(io.MultiWriter(w, sum), r)
		if err == nil && (n != e.Size || sum.hex() != e.SHA256) {
			err = fault.Newf("compare it", fault.Invalid, "%d bytes came, not the %d that were announced, or other ones", n, e.Size)
		}
		return err
	})
	if err == nil {
		err = d.write(archive.EntryName(e.ID), func(w io.Writer) error { return json.NewEncoder(w).Encode(e) })
	}
	if err != nil {
		return fault.New(op, fault.Unavailable, err)
	}
	return nil
}

// write makes a file that is whole or not there.
func (d Dir) write(name string, fill func(io.Writer) error) error {
	f, err := os.CreateTemp(d.Path, ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // nothing is there after the rename
	err = fill(f)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(d.Path, name))
}

func (d Dir) entry(id string) (e archive.Entry, err error) {
	b, err := os.ReadFile(filepath.Join(d.Path, archive.EntryName(id)))
	if err == nil {
		err = json.Unmarshal(b, &e)
	}
	return e, err
}

// List returns what is there, the newest first. What is no backup is left out.
func (d Dir) List(context.Context) ([]archive.Entry, error) {
	files, err := os.ReadDir(d.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fault.New("list backups in "+d.Path, fault.Unavailable, err)
	}
	var out []archive.Entry
	for _, f := range files {
		id, ok := strings.CutSuffix(f.Name(), ".json")
		if !ok || !archive.ValidID(id) {
			continue
		}
		if e, err := d.entry(id); err == nil && e.ID == id {
			out = append(out, e)
		}
	}
	return sorted(out), nil
}

// Open reads a backup; fault.NotFound when it is not there.
func (d Dir) Open(_ context.Context, id string) (io.ReadCloser, error) {
	op := "read backup " + id
	if err := checkID(op, id); err != nil {
		return nil, err
	}
	f, err := os.Open(filepath.Join(d.Path, archive.FileName(id)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Newf(op, fault.NotFound, "it is not in %s", d.Path)
	}
	if err != nil {
		return nil, fault.New(op, fault.Unavailable, err)
	}
	return f, nil
}

// Remove removes a backup.
func (d Dir) Remove(_ context.Context, id string) error {
	op := "remove backup " + id
	if err := checkID(op, id); err != nil {
		return err
	}
	for _, name := range []string{archive.EntryName(id), archive.FileName(id)} {
		if err := os.Remove(filepath.Join(d.Path, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fault.New(op, fault.Unavailable, err)
		}
	}
	return nil
}

func encode(e archive.Entry) (*bytes.Reader, int64, error) {
	b, err := json.Marshal(e)
	return bytes.NewReader(b), int64(len(b)), err
}
