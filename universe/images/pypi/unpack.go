package pypi

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"

	"dcos.example/dcos/universe/images/layer"
	"dcos.example/dcos/universe/images/lock"
)

// prefix is where Debian's Python looks for what did not come from Debian.
const prefix = "usr/local/"

// Unpack writes the packages into a layer: modules into Python's own folder for
// them, scripts and data under /usr/local.
func (s *Source) Unpack(python string, files []lock.Wheel, w *layer.Writer) error {
	site := prefix + "lib/python" + python + "/dist-packages/"
	for _, f := range files {
		var err error
		if strings.HasSuffix(f.File, ".whl") {
			err = s.wheel(f, site, w)
		} else {
			err = s.archive(f, site, w)
		}
		if err != nil {
			return fmt.Errorf("unpack %s: %w", f.File, err)
		}
	}
	return nil
}

func (s *Source) wheel(f lock.Wheel, site string, w *layer.Writer) error {
	z, err := zip.OpenReader(s.files.Path(f.SHA256))
	if err != nil {
		return err
	}
	defer z.Close()
	slices.SortFunc(z.File, func(a, b *zip.File) int { return strings.Compare(a.Name, b.Name) })
	for _, e := range z.File {
		if strings.HasSuffix(e.Name, "/") || strings.HasSuffix(e.Name, ".dist-info/RECORD") {
			continue
		}
		if path.Clean("/"+e.Name) != "/"+e.Name {
			return fmt.Errorf("it holds a file %q", e.Name)
		}
		to, mode := site+e.Name, int64(e.Mode().Perm()|0o644)
		first, rest, _ := strings.Cut(e.Name, "/")
		script := false
		if strings.HasSuffix(first, ".data") {
			kind, name, _ := strings.Cut(rest, "/")
			switch kind {
			case "purelib", "platlib":
				to = site + name
			case "scripts":
				to, mode, script = prefix+"bin/"+name, 0o755, true
			case "data":
				to = prefix + name
			default: // headers
				continue
			}
		}
		r, err := e.Open()
		if err != nil {
			return err
		}
		b, err := io.ReadAll(r)
		r.Close()
		if err != nil {
			return err
		}
		if script {
			b = shebang.ReplaceAll(b, []byte("#!/usr/bin/python3"))
		}
		if err := w.Bytes(to, mode, layer.Owner{}, b); err != nil {
			return err
		}
		if strings.HasSuffix(e.Name, ".dist-info/entry_points.txt") {
			if err := commands(string(b), w); err != nil {
				return err
			}
		}
	}
	return nil
}

var shebang = regexp.MustCompile(`\A#!.*python[w0-9.]*`)

// commands writes the commands that a package declares.
func commands(points string, w *layer.Writer) error {
	in := false
	for sc := bufio.NewScanner(strings.NewReader(points)); sc.Scan(); {
		line := strings.TrimSpace(sc.Text())
		if strings.HasPrefix(line, "[") {
			in = line == "[console_scripts]"
			continue
		}
		name, what, ok := strings.Cut(line, "=")
		if !in || !ok {
			continue
		}
		what, _, _ = strings.Cut(what, "[")
		module, function, ok := strings.Cut(strings.TrimSpace(what), ":")
		if !ok {
			continue
		}
		name = strings.TrimSpace(name)
		text := fmt.Sprintf("#!/usr/bin/python3\nimport sys\nfrom %s import %s\nsys.exit(%s())\n", module, strings.Split(function, ".")[0], function)
		if err := w.Bytes(prefix+"bin/"+name, 0o755, layer.Owner{}, []byte(text)); err != nil {
			return err
		}
	}
	return nil
}

// archive writes the folders of a source archive that are packages.
func (s *Source) archive(f lock.Wheel, site string, w *layer.Writer) error {
	return s.members(f, func(h *tar.Header, r io.Reader) error {
		_, p, _ := strings.Cut(path.Clean(h.Name), "/")
		top, _, below := strings.Cut(p, "/")
		// What is built with, and what tests, is not the package.
		if h.Typeflag != tar.TypeReg || !below || strings.HasPrefix(p, ".") || strings.Contains(top, ".") || top == "tests" || top == "test" || top == "docs" {
			return nil
		}
		return w.File(site+p, h.Mode&0o755|0o644, h.Size, layer.Owner{}, r)
	})
}

func (s *Source) members(f lock.Wheel, visit func(*tar.Header, io.Reader) error) error {
	file, err := os.Open(s.files.Path(f.SHA256))
	if err != nil {
		return err
	}
	defer file.Close()
	in, err := gzip.NewReader(file)
	if err != nil {
		return err
	}
	tr := tar.NewReader(in)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := visit(h, tr); err != nil {
			return err
		}
	}
}
