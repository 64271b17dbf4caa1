package main

import (
	"context"

	"dcos.example/dcos/installer/cli"
	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/providers/local/simhost"
)

// power controls local hosts.
type power struct{ machine simhost.Machine }

func hosts(o cli.ProviderOptions) (cli.HostControl, error) {
	p, err := localProvider(o)
	if err != nil {
		return nil, err
	}
	return power{p.Machine()}, nil
}

func (p power) Stop(ctx context.Context, cluster, name string, now bool) error {
	if now {
		return p.machine.PowerOff(ctx, cluster, name)
	}
	return p.machine.Shutdown(ctx, cluster, name)
}

func (p power) Start(ctx context.Context, cluster, name string) error {
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

func (power) Open(ctx context.Context, ref host.Ref) (host.Host, error) {
	return host.OpenLocal(ctx, ref)
}
