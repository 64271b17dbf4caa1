package pypi_test

import (
	"archive/tar"
	"archive/zip"
	"io"
	"os"
	"path/filepath"
	"testing"

	"dcos.example/dcos/universe/images/layer"
	"dcos.example/dcos/universe/images/lock"
	"dcos.example/dcos/universe/images/pypi"
	"dcos.example/dcos/universe/images/store"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func unpack(t *testing.T, members map[string]string) (map[string]string, error) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "x.whl")
	f, err := os.Create(file)
	must(t, err)
	z := zip.NewWriter(f)
	for name, text := range members {
		w, err := z.Create(name)
		must(t, err)
		_, err = io.WriteString(w, text)
		must(t, err)
	}
	must(t, z.Close())
	must(t, f.Close())
	files, err := store.New(filepath.Join(dir, "files"))
	must(t, err)
	sum, err := files.Take(file, "x", "")
	must(t, err)
	s, err := pypi.New(filepath.Join(dir, "state"), files)
	must(t, err)
	cache, err := layer.NewCache(filepath.Join(dir, "layers"))
	must(t, err)
	l, err := cache.Get("x", func(w *layer.Writer) error {
		return s.Unpack("3.11", []lock.Wheel{{Name: "x", Version: "1", File: "x-1-py3-none-any.whl", SHA256: sum}}, w)
	})
	if err != nil {
		return nil, err
	}
	r, err := l.Uncompressed()
	must(t, err)
	defer r.Close()
	got := map[string]string{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return got, nil
		}
		must(t, err)
		b, err := io.ReadAll(tr)
		must(t, err)
		got[h.Name] = string(b)
	}
}

func TestWheel(t *testing.T) {
	got, err := unpack(t, map[string]string{
		"x/__init__.py":                  "1",
		"x-1.data/scripts/tool":          "#!python\nprint(1)\n",
		"x-1.data/data/share/x/page":     "page",
		"x-1.dist-info/RECORD":           "of another place",
		"x-1.dist-info/entry_points.txt": "[console_scripts]\ncmd = x.main:App.run\n[other]\nno = x:y\n",
	})
	must(t, err)
	for p, want := range map[string]string{
		"usr/local/lib/python3.11/dist-packages/x/__init__.py": "1",
		"usr/local/bin/tool":     "#!/usr/bin/python3\nprint(1)\n",
		"usr/local/share/x/page": "page",
		"usr/local/bin/cmd":      "#!/usr/bin/python3\nimport sys\nfrom x.main import App\nsys.exit(App.run())\n",
	} {
		if got[p] != want {
			t.Errorf("%s is %q, want %q", p, got[p], want)
		}
	}
	for _, p := range []string{"usr/local/bin/no", "usr/local/lib/python3.11/dist-packages/x-1.dist-info/RECORD"} {
		if _, ok := got[p]; ok {
			t.Errorf("there is a %s", p)
		}
	}
}

func TestWheelStaysInItsPlace(t *testing.T) {
	if got, err := unpack(t, map[string]string{"../../../etc/passwd": "x"}); err == nil {
		t.Errorf("unpacked to %v", got)
	}
}
