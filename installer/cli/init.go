package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/spf13/cobra"

	_ "embed"

	"dcos.example/dcos/installer/blueprint"
	"dcos.example/dcos/installer/cli/view"
	"dcos.example/dcos/installer/diag"
	"dcos.example/dcos/runtime/fault"
)

//go:embed init.hcl
var initLocal []byte

//go:embed init_onprem.hcl
var initOnPrem []byte

// starts are the files to start from, by provider, with what to say of each.
var starts = []struct {
	provider string
	text     []byte
	what     string
	then     string
}{
	{blueprint.ProviderLocal, initLocal, "one master, two agents and a public agent on this machine", "Look at it, then run: dcos-install apply%s"},
	{blueprint.ProviderOnPrem, initOnPrem, "three masters, two agents and a public agent on machines of your own",
		"Write their addresses and how to log in, then run: dcos-install preflight%[1]s, and dcos-install apply%[1]s"},
}

func (r *run) initCommand() *cobra.Command {
	provider := blueprint.ProviderLocal
	var known []string
	for _, s := range starts {
		known = append(known, s.provider)
	}
	c := &cobra.Command{
		Use:   "init [FILE]",
		Short: "Write a commented file to start from",
		Long: `Write a commented file to start from: cluster.hcl in this directory, or FILE. With - as
FILE, or when standard output goes into a file or a program, it is written there:

  dcos-install init -provider onprem > cluster.hcl`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			i := slices.Index(known, provider)
			if i < 0 {
				return usageError{fmt.Errorf("-provider: there is no provider %q. %s", provider, diag.DidYouMean(provider, known))}
			}
			if len(args) == 1 && args[0] == "-" || len(args) == 0 && !r.app.Terminal && !r.json {
				if _, err := r.app.Stdout.Write(starts[i].text); err != nil {
					return fault.New("write standard output", fault.Unavailable, err)
				}
				return nil
			}
			path := r.file(args)
			if err := r.writeNew(path, starts[i].text); err != nil {
				return err
			}
			arg := ""
			if path != defaultFile {
				arg = " " + quoted(path)
			}
			return r.show(view.Message{What: "init", Fields: map[string]string{"file": path, "provider": provider},
				Text: fmt.Sprintf("Wrote %s: %s.\n"+starts[i].then, path, starts[i].what, arg)})
		},
	}
	c.Flags().StringVar(&provider, "provider", provider, "where machines come from: `local` (this machine) or onprem (your own, over SSH)")
	return c
}

// writeNew writes a file that is not there yet.
func (r *run) writeNew(path string, text []byte) error {
	f, err := os.OpenFile(r.abs(path), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return fault.Newf("write "+path, fault.Exists, "the file exists; it is left as it is")
	}
	if err == nil {
		_, err = f.Write(text)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fault.New("write "+path, fault.Denied, err)
	}
	return nil
}
