package rolepackage

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"dcos.example/dcos/runtime/fault"
)

// Names in a Directory.
const (
	ScriptName  = "dcos_install.sh"
	ProgramName = "dcos-install"
	packagesDir = "packages"
	keyName     = "server.key"
	certName    = "server.crt"
)

//go:embed dcos_install.sh.tmpl
var scriptText string

var scriptTemplate = template.Must(template.New(ScriptName).Parse(scriptText))

// Directory is what Write makes and a Server hands out.
type Directory struct{ Path string }

// Contents is what Write puts into a Directory.
type Contents struct {
	Packages []Package // of one cluster and release
	Program  string    // this program's file
	Bundle   string    // the release's file
}

// Write makes the directory, or replaces what is in it. It is for its owner
// only: packages hold secrets.
func (d Directory) Write(c Contents) error {
	op := "write " + d.Path
	fail := func(err error) error { return fault.New(op, fault.Denied, err) }
	if len(c.Packages) == 0 {
		return fault.Newf(op, fault.Invalid, "there are no hosts")
	}
	packages := filepath.Join(d.Path, packagesDir)
	if err := os.RemoveAll(packages); err != nil {
		return fail(err)
	}
	for _, dir := range []string{d.Path, packages} {
		if err := errors.Join(os.MkdirAll(dir, 0o700), os.Chmod(dir, 0o700)); err != nil {
			return fail(err)
		}
	}
	if err := copyFile(filepath.Join(d.Path, ProgramName), c.Program, 0o755); err != nil {
		return fail(err)
	}
	bundle := c.Packages[0].Release.Bundle
	if err := d.removeBundles(bundle); err != nil {
		return fail(err)
	}
	if err := copyFile(filepath.Join(d.Path, bundle), c.Bundle, 0o644); err != nil {
		return fail(err)
	}
	for _, p := range c.Packages {
		b, err := p.encode()
		if err != nil {
			return err
		}
		if err := replace(filepath.Join(d.Path, packageFile(p)), b, 0o600); err != nil {
			return fail(err)
		}
	}
	script, err := d.script(c.Packages[0], "")
	if err != nil {
		return err
	}
	return replace(filepath.Join(d.Path, ScriptName), script, 0o755)
}

// removeBundles removes bundles of other releases.
func (d Directory) removeBundles(keep string) error {
	old, err := filepath.Glob(filepath.Join(d.Path, "*.bundle"))
	for _, f := range old {
		if filepath.Base(f) != keep {
			err = errors.Join(err, os.Remove(f))
		}
	}
	return err
}

// Packages reads all packages.
func (d Directory) Packages() ([]Package, error) {
	files, err := filepath.Glob(filepath.Join(d.Path, packagesDir, "*.json"))
	if err != nil {
		return nil, fault.New("read "+d.Path, fault.Invalid, err)
	}
	var out []Package
	for _, f := range files {
		p, err := Read(f)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	if len(out) == 0 {
		return nil, fault.Newf("read "+d.Path, fault.NotFound, "there are no packages in it; make them with: dcos-install genconf")
	}
	return out, nil
}

// script renders dcos_install.sh. With an address it fetches from there,
// otherwise from the directory that it lies in.
func (d Directory) script(p Package, url string) ([]byte, error) {
	const op = "write " + ScriptName
	sum, err := digestOf(filepath.Join(d.Path, ProgramName))
	if err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	pin := ""
	if url != "" {
		c, err := d.certificate()
		if err != nil {
			return nil, err
		}
		pin = pinOf(c)
	}
	var b strings.Builder
	err = scriptTemplate.Execute(&b, map[string]string{
		"Cluster": p.Cluster.Cluster.Name, "Version": p.Release.Version, "URL": url, "Pin": pin, "Program": ProgramName, "SHA256": sum, "Dir": workPrefix,
	})
	if err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	return []byte(b.String()), nil
}

func digestOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), err
}

// replace writes a file at once, or not at all.
func replace(path string, b []byte, mode fs.FileMode) error {
	return put(path, mode, func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
}

func copyFile(to, from string, mode fs.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	return put(to, mode, func(w io.Writer) error {
		_, err := io.Copy(w, in)
		return err
	})
}

func put(path string, mode fs.FileMode, write func(io.Writer) error) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // nothing is there after the rename
	err = write(tmp)
	if err = errors.Join(err, tmp.Chmod(mode), tmp.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(tmp.Name(), path)
}
