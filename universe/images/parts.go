package images

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"dcos.example/dcos/universe/images/layer"
	"dcos.example/dcos/universe/images/lock"
)

func (b *Builder) pypiPart(ctx context.Context, s *stage, locked *lock.File) (*layer.Layer, error) {
	want := s.recipe.PyPI
	if len(want.Packages)+len(want.Sources) == 0 {
		return nil, nil
	}
	request := append([]string{"python " + want.Python}, want.Packages...)
	for _, p := range want.Sources {
		request = append(request, "source "+p)
	}
	p := &lock.PyPI{Request: request}
	s.made.PyPI = p
	var err error
	if locked.PyPI != nil {
		if err := lock.Same(s.recipe.Lock(), "pypi", locked.PyPI.Request, request); err != nil {
			return nil, err
		}
		p.Files = locked.PyPI.Files
		err = b.pypi.Fetch(ctx, want.Python, p.Files)
	} else {
		p.Files, err = b.pypi.Resolve(ctx, want.Python, want.Packages, want.Sources)
	}
	if err != nil {
		return nil, err
	}
	input := struct {
		Python string
		PyPI   []lock.Wheel
	}{want.Python, p.Files}
	return b.layers.Get(input, func(w *layer.Writer) error { return b.pypi.Unpack(want.Python, p.Files, w) })
}

func (b *Builder) npmPart(ctx context.Context, s *stage, locked *lock.File) (*layer.Layer, error) {
	want := s.recipe.NPM
	if len(want.Packages) == 0 {
		return nil, nil
	}
	n := &lock.NPM{Request: slices.Clone(want.Packages)}
	s.made.NPM = n
	if locked.NPM != nil {
		if err := lock.Same(s.recipe.Lock(), "npm", locked.NPM.Request, n.Request); err != nil {
			return nil, err
		}
		n.Lock = locked.NPM.Lock
	} else {
		var err error
		if n.Lock, err = b.npm.Resolve(ctx, want.Packages); err != nil {
			return nil, err
		}
	}
	// However it is indented.
	var lines bytes.Buffer
	if err := json.Compact(&lines, n.Lock); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(lines.Bytes())
	input := struct{ Into, NPM string }{want.Into, hex.EncodeToString(sum[:])}
	return b.layers.Get(input, func(w *layer.Writer) error {
		dir, err := b.npm.Install(ctx, want.Packages, n.Lock)
		defer os.RemoveAll(dir)
		if err != nil {
			return err
		}
		return addTree(w, want.Into, dir)
	})
}

// addTree writes the files below dir in the order of their names.
func addTree(w *layer.Writer, into, dir string) error {
	return filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, file)
		if err != nil || rel == "." {
			return err
		}
		to := into + "/" + rel
		switch {
		case d.IsDir():
			return w.Dir(to, 0o755, layer.Owner{})
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(file)
			if err != nil {
				return err
			}
			return w.Symlink(to, target)
		}
		i, err := d.Info()
		if err != nil {
			return err
		}
		mode := int64(0o644)
		if i.Mode()&0o100 != 0 || strings.HasPrefix(rel, "bin/") {
			mode = 0o755
		}
		return addFile(w, to, mode, file)
	})
}

// addMembers writes the files below folders of a zip.
func addMembers(w *layer.Writer, into string, folders []string, file string) error {
	z, err := zip.OpenReader(file)
	if err != nil {
		return err
	}
	defer z.Close()
	slices.SortFunc(z.File, func(a, b *zip.File) int { return strings.Compare(a.Name, b.Name) })
	for _, e := range z.File {
		if !filepath.IsLocal(e.Name) || strings.HasSuffix(e.Name, "/") ||
			!slices.ContainsFunc(folders, func(f string) bool { return strings.HasPrefix(e.Name, f+"/") }) {
			continue
		}
		r, err := e.Open()
		if err != nil {
			return err
		}
		err = w.File(into+"/"+e.Name, 0o644, int64(e.UncompressedSize64), layer.Owner{}, r)
		if err := errors.Join(err, r.Close()); err != nil {
			return err
		}
	}
	return nil
}
