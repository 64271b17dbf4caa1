package cli

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/spf13/cobra"

	"dcos.example/dcos/installer/blueprint"
	"dcos.example/dcos/installer/cli/view"
	"dcos.example/dcos/installer/diag"
	"dcos.example/dcos/runtime/fault"
)

func (r *run) validateCommand() *cobra.Command {
	return r.withVariables(&cobra.Command{
		Use:   "validate [FILE]",
		Short: "Check the file without touching anything",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			in, err := r.load(r.file(args))
			if err != nil {
				return err
			}
			if err := r.check(in); err != nil {
				return err
			}
			return r.show(validation(in))
		},
	})
}

func (r *run) fmtCommand() *cobra.Command {
	var check bool
	c := &cobra.Command{
		Use:   "fmt [FILE…]",
		Short: "Write the file in the usual layout",
		Long:  "Write files in the usual layout of HCL. With - as FILE, read standard input and write standard output.",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = []string{defaultFile}
			}
			var changed []string
			for _, path := range args {
				did, err := r.format(path, check)
				if err != nil {
					return err
				}
				if did {
					changed = append(changed, path)
				}
			}
			if len(args) == 1 && args[0] == "-" {
				return nil
			}
			if r.json || len(changed) > 0 {
				if err := r.show(view.Message{What: "fmt", Text: strings.Join(changed, "\n"), Fields: map[string]string{"changed": strings.Join(changed, "\n")}}); err != nil {
					return err
				}
			}
			if check && len(changed) > 0 {
				return reported{exitFailed}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&check, "check", false, "write nothing; name the files that would change and exit with 1")
	return c
}

func (r *run) format(path string, check bool) (changed bool, err error) {
	var src blueprint.Source
	if path == "-" {
		b, err := io.ReadAll(r.app.Stdin)
		if err != nil {
			return false, fault.New("read standard input", fault.Unavailable, err)
		}
		src = blueprint.Source{Name: "<stdin>", Text: b}
	} else if src, err = r.read(path); err != nil {
		return false, err
	}
	f, hd := hclsyntax.ParseConfig(src.Text, src.Name, hcl.InitialPos)
	if hd.HasErrors() { // the layout of what cannot be read is a guess
		l := diag.FromHCL(hd)
		if r.json {
			v := view.Validation{File: path, Errors: len(l), Diagnostics: l.JSON()}
			return false, errors.Join(r.show(v), reported{exitInvalid})
		}
		p := r.printer(r.app.Stderr)
		return false, errors.Join(l.WriteText(r.app.Stderr, map[string]*hcl.File{src.Name: f}, 100, p.Color), reported{exitInvalid})
	}
	out := hclwrite.Format(src.Text)
	changed = !bytes.Equal(out, src.Text)
	switch {
	case path == "-" && !check:
		_, err = r.app.Stdout.Write(out)
	case changed && !check:
		err = replace(r.abs(path), out)
	}
	if err != nil {
		return false, fault.New("write "+path, fault.Denied, err)
	}
	return changed, nil
}

// replace writes a file so that a crash leaves the old or the new one, with
// the old one's mode.
func replace(path string, b []byte) error {
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".fmt-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // nothing is there after the rename
	_, err = tmp.Write(b)
	if err = errors.Join(err, tmp.Chmod(fi.Mode().Perm()), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

func (r *run) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return r.show(view.Message{What: "version", Text: "dcos-install " + r.app.Version,
				Fields: map[string]string{"version": r.app.Version, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH}})
		},
	}
}
