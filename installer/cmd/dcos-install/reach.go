package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"

	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/installer/host/ssh"
	"dcos.example/dcos/providers/onprem"
	"dcos.example/dcos/runtime/fault"
)

// reach opens hosts of every kind. It holds their connections for the whole
// run of the program.
type reach struct{ pool *ssh.Pool }

// newReach takes from the environment what belongs to the operator's SSH, and
// writes to notices which keys were trusted.
func newReach(getenv func(string) string, notices io.Writer) reach {
	o := ssh.FromEnv(getenv)
	o.Notice = func(text string) { fmt.Fprintln(notices, text) }
	return reach{pool: ssh.New(o)}
}

func (r reach) open(ctx context.Context, ref host.Ref) (host.Host, error) {
	return host.Kinds{host.KindLocal: host.OpenLocal, host.KindSSH: r.pool.Open}.Open(ctx, ref)
}

// ask is an onprem.Ask.
func (r reach) ask(ctx context.Context, name string, connection resource.PropertyMap, script string) (onprem.Answer, error) {
	ref, err := host.ReadRef(name, connection)
	if err != nil {
		return onprem.Answer{}, err
	}
	h, err := r.open(ctx, ref)
	if err != nil {
		return onprem.Answer{}, err
	}
	out, err := h.Run(ctx, "/bin/sh", "-c", script)
	if err != nil {
		return onprem.Answer{}, err
	}
	if out.Code != 0 {
		return onprem.Answer{}, fault.Newf("host "+name+": look at the machine", fault.Internal, "exit status %d: %s", out.Code, strings.TrimSpace(out.Stderr))
	}
	a := onprem.Answer{Text: out.Stdout}
	if k, ok := h.(interface{ HostKey() string }); ok {
		a.HostKey = k.HostKey()
	}
	return a, nil
}
