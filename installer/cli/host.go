package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/spf13/cobra"

	"dcos.example/dcos/installer/cli/view"
	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/installer/program"
	"dcos.example/dcos/runtime/fault"
)

// HostControl is power over the hosts of a provider.
type HostControl interface {
	// Stop ends a host; its disk stays. Now pulls the plug.
	Stop(ctx context.Context, cluster, name string, now bool) error
	// Start boots a host that is down.
	Start(ctx context.Context, cluster, name string) error
}

// HostGone is the error of Start for a host of which nothing is left.
func HostGone(name string) error {
	return fault.Newf("start host "+name, fault.NotFound, "it is gone; dcos-install apply makes it anew")
}

// NotRoot is the error of App.Allowed for hosts on this machine.
func NotRoot() error {
	return fault.Newf("use provider local", fault.Denied,
		"hosts on this machine are made of namespaces, networks and control groups, which takes root; run it with sudo")
}

func (r *run) hostCommand() *cobra.Command {
	parent := &cobra.Command{
		Use:   "host",
		Short: "Stop, start and look into single hosts",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	now := false
	stop := &cobra.Command{
		Use: "stop NAME", Short: "End a host; its disk stays. An apply starts it again", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return r.withHost(args[0], "host stop", func(s *session, h HostControl) error {
				if err := h.Stop(c.Context(), s.cluster, args[0], now); err != nil {
					return err
				}
				return r.show(view.Message{What: "host", Text: args[0] + " is stopped.", Fields: map[string]string{"host": args[0], "state": "stopped"}})
			})
		},
	}
	stop.Flags().BoolVar(&now, "now", false, "pull the plug instead of stopping its units first")
	start := &cobra.Command{
		Use: "start NAME", Short: "Boot a host that is down", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return r.withHost(args[0], "host start", func(s *session, h HostControl) error {
				if err := h.Start(c.Context(), s.cluster, args[0]); err != nil {
					return err
				}
				return r.show(view.Message{What: "host", Text: args[0] + " is up.", Fields: map[string]string{"host": args[0], "state": "up"}})
			})
		},
	}
	exec := &cobra.Command{
		Use: "exec NAME -- COMMAND [ARG…]", Short: "Run a command on a host, to its end", Args: cobra.MinimumNArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return r.withRecord(args[0], "host exec", func(_ *session, outputs resource.PropertyMap) error {
				m, err := r.reach(c.Context(), args[0], outputs)
				if err != nil {
					return err
				}
				out, err := m.Run(c.Context(), args[1:]...)
				if err != nil {
					return err
				}
				_, werr := io.WriteString(r.app.Stdout, out.Stdout)
				_, eerr := io.WriteString(r.app.Stderr, out.Stderr)
				if err := errors.Join(werr, eerr); err != nil {
					return err
				}
				if out.Code != 0 {
					return reported{out.Code}
				}
				return nil
			})
		},
	}
	for _, c := range []*cobra.Command{stop, start, exec} {
		r.strictArgs(r.withCluster(c))
		parent.AddCommand(c)
	}
	return parent
}

// reach opens a recorded host.
func (r *run) reach(ctx context.Context, name string, outputs resource.PropertyMap) (host.Host, error) {
	ref, err := reference(name, outputs)
	if err != nil {
		return nil, err
	}
	return r.app.Open(ctx, ref)
}

// reference reads how to reach a recorded host.
func reference(name string, outputs resource.PropertyMap) (host.Ref, error) {
	c := outputs["connection"]
	for c.IsSecret() {
		c = c.SecretValue().Element
	}
	if c.IsObject() {
		return host.ReadRef(name, c.ObjectValue())
	}
	// Recorded by a release that knew hosts on this machine only.
	return host.Ref{Kind: host.KindLocal, Dir: text(outputs["dir"]), Name: name}, nil
}

// withRecord finds a recorded host. As the stack's lock is not taken, a host
// can be looked into in the middle of an apply too.
func (r *run) withRecord(name, command string, f func(*session, resource.PropertyMap) error) error {
	s, err := r.openExisting(nil, command)
	if err != nil {
		return err
	}
	st, err := s.stack.State()
	if err != nil {
		return err
	}
	res := st.Live(program.HostKey(s.meta.Provider, name).URN(s.stack.Name()))
	if res == nil {
		return fault.Newf("find host "+name, fault.NotFound, "cluster %s has no such host; dcos-install status lists them", s.cluster)
	}
	if err := r.app.Allowed(s.meta.Provider); err != nil {
		return err
	}
	return f(s, res.Outputs)
}

// withHost finds a recorded host and what controls it. It can be stopped in
// the middle of an apply: that is what drills do.
func (r *run) withHost(name, command string, f func(*session, HostControl) error) error {
	return r.withRecord(name, command, func(s *session, _ resource.PropertyMap) error {
		trust, err := r.trust(s.meta)
		if err != nil {
			return err
		}
		var h HostControl
		if r.app.Hosts != nil {
			h, err = r.app.Hosts(ProviderOptions{Kind: s.meta.Provider, StateDir: s.stack.Dir(), Dir: s.meta.Dir, Bundle: s.meta.Bundle, Trust: trust})
		}
		if err != nil {
			return fmt.Errorf("control host %s: %w", name, err)
		}
		if h == nil {
			return fault.Newf("control host "+name, fault.Invalid, "the installer has no power over hosts of provider %s; switch it on or off where it stands", s.meta.Provider)
		}
		return f(s, h)
	})
}
