package ssh

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/runtime/fault"
)

// Here is this machine, called name. It is worked on with the same scripts as
// others, in a shell of its own instead of one over SSH. The process must be
// root.
func Here(ctx context.Context, name string) (host.Host, error) {
	m := &machine{line: &line{pool: New(Options{}), slots: make(chan struct{}, maxSessions)}, ref: host.Ref{Kind: host.KindHere, Name: name}}
	m.ref.SSH.Sudo, m.ref.SSH.User, m.ref.SSH.Address = host.SudoNone, "this process", "this machine"
	c := &conn{here: true, dead: make(chan struct{})}
	if err := m.hello(ctx, c); err != nil {
		return nil, m.fail(err)
	}
	m.conn = c
	return m, nil
}

// shell runs a command in a shell on this machine.
func (m *machine) shell(ctx context.Context, c command) (r result, begun bool, err error) {
	in := m.wrap(c)
	out, errs := &limited{max: maxOutput}, &tail{max: maxErrors}
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", in.command)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in.stdin, out, errs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // the terminal's Ctrl-C is the installer's
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 2 * time.Second
	err = cmd.Run()
	exit, ended := errors.AsType[*exec.ExitError](err)
	switch {
	case ctx.Err() != nil:
		return r, true, context.Cause(ctx)
	case out.full:
		return r, true, fault.Newf("read its output", fault.Invalid, "it is more than %d MiB", maxOutput>>20)
	case ended:
		if r.code = exit.ExitCode(); r.code < 0 {
			r.code = 128 + int(exit.Sys().(syscall.WaitStatus).Signal())
		}
	case err != nil && cmd.ProcessState == nil:
		return r, false, fmt.Errorf("start a shell: %w", err)
	}
	_, r.out, _ = strings.Cut(out.String(), in.mark+"\n")
	r.errors = errs.String()
	return r, true, nil
}
