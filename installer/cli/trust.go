package cli

import (
	"bytes"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"dcos.example/dcos/installer/bundle"
	"dcos.example/dcos/runtime/fault"
)

// withTrust adds the flag of commands that use a release.
func (r *run) withTrust(c *cobra.Command) *cobra.Command {
	c.Flags().StringArrayVar(&r.trusted, "trust-key", nil, "take releases that are signed with the key whose public half is in `file`, too (also DCOS_TRUST_KEY, and ~/.config/dcos/trusted/*.pub)")
	return c
}

// trust returns the keys that count for a command about the cluster with m.
func (r *run) trust(m meta) (bundle.Trust, error) {
	t, err := bundle.FindTrust(r.env, r.keyFiles()...)
	if err != nil {
		return t, err
	}
	for _, line := range m.Trust {
		if err := t.Add([]byte(line), "trusted for this cluster before"); err != nil {
			return t, err
		}
	}
	return t, nil
}

func (r *run) keyFiles() []string {
	var out []string
	for _, f := range r.trusted {
		out = append(out, r.abs(f))
	}
	return out
}

// remember returns the keys of m and those given to this command: whoever
// trusted one to install a cluster need not say so again to repair it.
func (r *run) remember(m meta) ([]string, error) {
	files := r.keyFiles()
	if f := r.env(bundle.TrustVariable); f != "" {
		files = append(files, r.abs(f))
	}
	out := slices.Clone(m.Trust)
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return nil, fault.New("read trusted key", fault.Invalid, err)
		}
		b = bytes.TrimSpace(b)
		line := string(b[bytes.LastIndexByte(b, '\n')+1:]) // after the comment
		if !slices.Contains(out, line) {
			out = append(out, line)
		}
	}
	return out, nil
}
