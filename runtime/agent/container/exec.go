package container

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	statsv1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	statsv2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"github.com/google/uuid"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"dcos.example/dcos/runtime/fault"
)

// Exec runs a further process in a running container.
func (d *Containerd) Exec(ctx context.Context, id string, cmd Command) (Process, error) {
	op := "run command in container " + id
	ctx = d.ctx(ctx)
	c, err := d.client.LoadContainer(ctx, id)
	if err != nil {
		return nil, fault.New(op, kind(err), err)
	}
	t, err := c.Task(ctx, nil)
	if err != nil {
		return nil, fault.New(op, kind(err), err)
	}
	spec, err := c.Spec(ctx)
	if err != nil {
		return nil, fault.New(op, kind(err), err)
	}
	ps, err := process(*spec.Process, cmd)
	if err != nil {
		return nil, fault.New(op, fault.Invalid, err)
	}
	p := &execution{d: d}
	execID := "exec-" + uuid.NewString()
	p.Process, err = t.Exec(ctx, execID, &ps, p.streams(ctx, cmd, filepath.Join(d.o.RunDir, "fifo")))
	if err != nil {
		return nil, fault.New(op, kind(err), err)
	}
	if p.exit, err = p.Process.Wait(ctx); err == nil {
		err = p.Process.Start(ctx)
	}
	p.started() // or what waits for it would wait forever
	if err != nil {
		err = errorsJoin(err, p.Close(context.WithoutCancel(ctx)))
		if why, ok := notRunnable(err); ok {
			return nil, fault.Newf("start "+cmd.Args[0], fault.Invalid, "%s", why)
		}
		return nil, fault.New(op, kind(err), err)
	}
	if cmd.TTY && cmd.Rows > 0 {
		if err := p.Resize(ctx, cmd.Rows, cmd.Cols); err != nil {
			d.o.Log.Debug("set window size", "container", id, "error", err)
		}
	}
	return p, nil
}

// notRunnable finds in runc's words why a program cannot be executed, which is
// the caller's mistake. runc has no code for it: its shim passes text on.
func notRunnable(err error) (why string, ok bool) {
	_, program, ok := strings.Cut(err.Error(), ": exec: ")
	if !ok {
		return "", false
	}
	for _, why := range []string{"executable file not found", "no such file or directory", "permission denied", "is a directory"} {
		if strings.Contains(program, why) {
			return why, true
		}
	}
	return "", false
}

func errorsJoin(err, other error) error {
	if other != nil {
		return fmt.Errorf("%w (and then: %w)", err, other)
	}
	return err
}

// process derives a further process from the container's first one.
func process(p specs.Process, cmd Command) (specs.Process, error) {
	p.Args, p.Terminal, p.ConsoleSize = cmd.Args, cmd.TTY, nil
	p.Env = mergeEnv(p.Env, cmd.Env)
	if cmd.TTY && !slices.ContainsFunc(p.Env, func(e string) bool { return strings.HasPrefix(e, "TERM=") }) {
		p.Env = append(p.Env, "TERM=xterm")
	}
	if cmd.Cwd != "" {
		p.Cwd = cmd.Cwd
	}
	if cmd.User != "" {
		u, g, _ := strings.Cut(cmd.User, ":")
		uid, err := strconv.ParseUint(u, 10, 32)
		if err != nil {
			return p, fmt.Errorf("user %q must be a number", u)
		}
		gid := uint64(0)
		if g != "" {
			if gid, err = strconv.ParseUint(g, 10, 32); err != nil {
				return p, fmt.Errorf("group %q must be a number", g)
			}
		}
		p.User = specs.User{UID: uint32(uid), GID: uint32(gid)}
	}
	return p, nil
}

func mergeEnv(base, more []string) []string {
	out := slices.Clone(base)
	for _, e := range more {
		name, _, _ := strings.Cut(e, "=")
		i := slices.IndexFunc(out, func(o string) bool { return strings.HasPrefix(o, name+"=") })
		if i >= 0 {
			out[i] = e
		} else {
			out = append(out, e)
		}
	}
	return out
}

// execution is a running Exec.
type execution struct {
	containerd.Process
	d     *Containerd
	exit  <-chan containerd.ExitStatus
	ready chan struct{}

	once sync.Once
	code int
	err  error
}

func (p *execution) started() {
	if p.ready != nil {
		close(p.ready)
	}
}

// streams connects the process over pipes. The end of stdin must be told to
// the shim, which holds the pipe open.
func (p *execution) streams(ctx context.Context, cmd Command, dir string) cio.Creator {
	if cmd.Stdin == nil && cmd.Stdout == nil && cmd.Stderr == nil && !cmd.TTY {
		return cio.NullIO
	}
	var in io.Reader
	if cmd.Stdin != nil {
		p.ready = make(chan struct{})
		in = &closing{Reader: cmd.Stdin, onEOF: func() {
			<-p.ready
			if err := p.CloseIO(context.WithoutCancel(ctx), containerd.WithStdinCloser); err != nil && !errdefs.IsNotFound(err) {
				p.d.o.Log.Debug("close stdin of command", "error", err)
			}
		}}
	}
	opts := []cio.Opt{cio.WithStreams(in, orDiscard(cmd.Stdout), orDiscard(cmd.Stderr)), cio.WithFIFODir(dir)}
	if cmd.TTY {
		opts = append(opts, cio.WithTerminal)
	}
	return cio.NewCreator(opts...)
}

func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

// closing calls onEOF once its reader has ended.
type closing struct {
	io.Reader
	onEOF func()
	once  sync.Once
}

func (c *closing) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	if err != nil {
		c.once.Do(func() { go c.onEOF() })
	}
	return n, err
}

// Wait implements Process.
func (p *execution) Wait(ctx context.Context) (int, error) {
	var cancelled error
	p.once.Do(func() {
		select {
		case st := <-p.exit:
			p.code, p.err = int(st.ExitCode()), st.Error()
			if io := p.IO(); io != nil {
				io.Wait()
			}
		case <-ctx.Done():
			cancelled = context.Cause(ctx)
			p.err = cancelled
		}
	})
	if p.err != nil {
		return 0, fault.New("wait for command", kind(p.err), p.err)
	}
	return p.code, nil
}

// Signal implements Process.
func (p *execution) Signal(ctx context.Context, sig syscall.Signal) error {
	err := p.Kill(p.d.ctx(ctx), sig)
	if err != nil && !errdefs.IsNotFound(err) {
		return fault.New("signal command", kind(err), err)
	}
	return nil
}

// Resize implements Process.
func (p *execution) Resize(ctx context.Context, rows, cols uint32) error {
	if err := p.Process.Resize(p.d.ctx(ctx), cols, rows); err != nil {
		return fault.New("resize terminal", kind(err), err)
	}
	return nil
}

// Close implements Process.
func (p *execution) Close(ctx context.Context) error {
	_, err := p.Delete(p.d.ctx(ctx), containerd.WithProcessKill)
	if err != nil && !errdefs.IsNotFound(err) {
		return fault.New("end command", kind(err), err)
	}
	return nil
}

// Stats returns what a container uses now.
func (d *Containerd) Stats(ctx context.Context, id string) (Stats, error) {
	op := "read usage of container " + id
	ctx = d.ctx(ctx)
	c, err := d.client.LoadContainer(ctx, id)
	if err != nil {
		return Stats{}, fault.New(op, kind(err), err)
	}
	t, err := c.Task(ctx, nil)
	if err != nil {
		return Stats{}, fault.New(op, kind(err), err)
	}
	m, err := t.Metrics(ctx)
	if err != nil {
		return Stats{}, fault.New(op, kind(err), err)
	}
	v, err := typeurl.UnmarshalAny(m.Data)
	if err != nil {
		return Stats{}, fault.New(op, fault.Internal, err)
	}
	switch v := v.(type) {
	case *statsv1.Metrics:
		return fromV1(v), nil
	case *statsv2.Metrics:
		return fromV2(v), nil
	}
	return Stats{}, fault.Newf(op, fault.Internal, "the runtime answered with a %T", v)
}

func fromV1(m *statsv1.Metrics) Stats {
	cpu, mem := m.GetCPU(), m.GetMemory()
	return Stats{
		CPUUser: time.Duration(cpu.GetUsage().GetUser()), CPUSystem: time.Duration(cpu.GetUsage().GetKernel()),
		Throttled: time.Duration(cpu.GetThrottling().GetThrottledTime()),
		Periods:   cpu.GetThrottling().GetPeriods(), ThrottledPeriods: cpu.GetThrottling().GetThrottledPeriods(),
		MemoryTotal: mem.GetUsage().GetUsage(), MemoryRSS: mem.GetTotalRSS(), MemoryCache: mem.GetTotalCache(),
		MemoryLimit: mem.GetUsage().GetLimit(), Pids: m.GetPids().GetCurrent(),
	}
}

func fromV2(m *statsv2.Metrics) Stats {
	cpu, mem := m.GetCPU(), m.GetMemory()
	return Stats{
		CPUUser:   time.Duration(cpu.GetUserUsec()) * time.Microsecond,
		CPUSystem: time.Duration(cpu.GetSystemUsec()) * time.Microsecond,
		Throttled: time.Duration(cpu.GetThrottledUsec()) * time.Microsecond,
		Periods:   cpu.GetNrPeriods(), ThrottledPeriods: cpu.GetNrThrottled(),
		MemoryTotal: mem.GetUsage(), MemoryRSS: mem.GetAnon(), MemoryCache: mem.GetFile(),
		MemoryLimit: mem.GetUsageLimit(), Pids: m.GetPids().GetCurrent(),
	}
}
