package main

import (
	"context"

	"dcos.example/dcos/installer/cli"
	"dcos.example/dcos/providers/local/simhost"
)

// switches controls local hosts.
type switches struct{ machine simhost.Machine }

// power returns power over the hosts of a kind, nil where there is none.
func power(o cli.ProviderOptions) (cli.HostControl, error) {
	if o.Kind != "local" {
		return nil, nil
	}
	p, err := localProvider(o)
	if err != nil {
		return nil, err
	}
	return switches{p.Machine()}, nil
}

func (p switches) Stop(ctx context.Context, cluster, name string, now bool) error {
	if now {
		return p.machine.PowerOff(ctx, cluster, name)
	}
	return p.machine.Shutdown(ctx, cluster, name)
}

func (p switches) Start(ctx context.Context, cluster, name string) error {
	st, err := p.machine.Inspect(cluster, name)
	if err != nil {
		return err
	}
	if st.Host.Name == "" {
		return cli.HostGone(name)
	}
	_, err = p.machine.Ensure(ctx, st.Host)
	return err
}
