package cli

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/spf13/cobra"

	"dcos.example/dcos/installer/cli/view"
	"dcos.example/dcos/installer/dcosconfig"
	"dcos.example/dcos/runtime/fault"
)

func (r *run) importCommand() *cobra.Command {
	var out string
	var masters, agents, public []string
	c := &cobra.Command{
		Use:   "import CONFIG.yaml",
		Short: "Write the file that describes the cluster of a DC/OS config.yaml",
		Long: `Read the config.yaml of DC/OS's installer, 1.7 to 2.2, and write a cluster file for provider onprem,
with a report of what became of each key. Hosts that config.yaml does not name (it named no agents
after 1.11, and no masters behind a load balancer) are given with -masters, -agents and
-public-agents.`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			o := dcosconfig.Options{}
			var err error
			for _, l := range []struct {
				flag string
				text []string
				to   *[]netip.Addr
			}{{"-masters", masters, &o.Masters}, {"-agents", agents, &o.Agents}, {"-public-agents", public, &o.PublicAgents}} {
				if *l.to, err = parseAddresses(l.flag, l.text); err != nil {
					return err
				}
			}
			return r.convert(args[0], out, o)
		},
	}
	c.Flags().StringVar(&out, "out", defaultFile, "`file` to write, which must not be there; - is standard output")
	c.Flags().StringSliceVar(&masters, "masters", nil, "`addresses` of masters that config.yaml does not list")
	c.Flags().StringSliceVar(&agents, "agents", nil, "`addresses` of agents that config.yaml does not list")
	c.Flags().StringSliceVar(&public, "public-agents", nil, "`addresses` of public agents that config.yaml does not list")
	return c
}

func parseAddresses(flag string, texts []string) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, t := range texts {
		a, err := netip.ParseAddr(strings.TrimSpace(t))
		if err != nil || !a.Is4() {
			return nil, usageError{fmt.Errorf("%s: %q is not an IPv4 address", flag, t)}
		}
		out = append(out, a)
	}
	return out, nil
}

func (r *run) convert(file, out string, o dcosconfig.Options) error {
	src, err := r.read(file)
	if err != nil {
		return err
	}
	for _, name := range dcosconfig.Companions() {
		if _, err := os.Stat(filepath.Join(filepath.Dir(r.abs(file)), name)); err == nil {
			o.Beside = append(o.Beside, name)
		}
	}
	res, l := dcosconfig.Convert(dcosconfig.Source{Name: src.Name, Text: src.Text}, o)
	if !r.json && len(l) > 0 {
		p := r.printer(r.app.Stderr)
		width := uint(100)
		if p.Width > 0 {
			width = uint(p.Width)
		}
		if err := l.WriteText(r.app.Stderr, map[string]*hcl.File{src.Name: {Bytes: src.Text}}, width, p.Color); err != nil {
			return err
		}
	}
	doc := view.Import{File: file, Cluster: res.Cluster, Keys: []view.ImportKey{}, Diagnostics: l.JSON()}
	for _, e := range res.Entries {
		doc.Keys = append(doc.Keys, view.ImportKey{Key: e.Key, Line: e.Line, Value: e.Value, Status: string(e.Status), Became: e.Became, Note: e.Note})
	}
	if l.HasErrors() {
		return errors.Join(r.showOn(r.app.Stderr, doc), reported{exitInvalid})
	}
	if out == "-" {
		if r.json {
			return usageError{errors.New("-out - and -json do not go together: both write to standard output")}
		}
		_, err := r.app.Stdout.Write(res.HCL)
		return errors.Join(err, r.showOn(r.app.Stderr, doc))
	}
	if err := writeNew(r.abs(out), out, res.HCL); err != nil {
		return err
	}
	doc.Written = out
	return r.show(doc)
}

// writeNew writes a file that must not be there.
func writeNew(path, name string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, os.ErrExist) {
		return fault.Newf("write "+name, fault.Exists, "the file exists; it is left as it is. Another name: -out FILE")
	}
	if err != nil {
		return fault.New("write "+name, fault.Denied, err)
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return fault.New("write "+name, fault.Denied, err)
	}
	return nil
}
