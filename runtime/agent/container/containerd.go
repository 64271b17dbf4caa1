package container

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	runcopts "github.com/containerd/containerd/api/types/runc/options"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sync/singleflight"

	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
)

// Options say how to reach containerd. Zero fields have the defaults of a host.
type Options struct {
	Socket       string   // default config.ContainerdSock
	Namespace    string   // containerd's, default "dcos"
	Runc         string   // default /opt/dcos/current/bin/runc
	Snapshotter  string   // default "overlayfs"
	CgroupParent string   // default "/dcos"
	RunDir       string   // default config.RunDir + "/agent": pipes, the host's root
	PlainHTTP    []string // registries (host or host:port) reached without TLS; loopback always is
	Registry     Registry // the cluster's own
	Root         string   // containerd's, on whose disk images are; default config.VarDir + "/containerd"
	Hide         []string // host directories that containers on the host's root do not see mounts below
	Log          *slog.Logger
}

// startsPerCPU bounds how many containers start at once. Starting is mostly
// CPU work of short processes; more of them only wait for each other.
const startsPerCPU = 4

// Labels that this driver keeps for itself. The nerdctl ones let an operator
// use `nerdctl --namespace dcos ps`, exec and inspect on a host.
const (
	labelOwned = "dcos/agent"
	labelQuota = "dcos/cpu-quota"
	labelName  = "nerdctl/name"
	labelSpace = "nerdctl/namespace"
	labelNets  = "nerdctl/networks"
	labelHost  = "nerdctl/hostname"
)

// Containerd runs containers with containerd and runc. It is safe for
// concurrent use.
type Containerd struct {
	o       Options
	client  *containerd.Client
	cgroups cgroupTree
	clamp   clamp
	pulls   singleflight.Group
	starts  chan struct{} // holds one token per start under way
	shims   shims

	gc   sync.RWMutex // read by starts, from their image to their container
	turn atomic.Uint32

	mu      sync.Mutex
	images  map[string]*image // by normal reference
	users   map[string]specs.User
	bundled map[string]bool      // images of archives that are on this host
	used    map[string]time.Time // images since the last collection
}

// NewContainerd connects to containerd. It fails with Unavailable when nothing
// answers at the socket.
func NewContainerd(ctx context.Context, o Options) (*Containerd, error) {
	const op = "connect to containerd"
	setDefault(&o.Socket, config.ContainerdSock)
	setDefault(&o.Namespace, "dcos")
	setDefault(&o.Runc, config.CurrentLink+"/bin/runc")
	setDefault(&o.Snapshotter, "overlayfs")
	setDefault(&o.CgroupParent, "/dcos")
	setDefault(&o.RunDir, config.RunDir+"/agent")
	setDefault(&o.Root, config.VarDir+"/containerd")
	if err := os.MkdirAll(o.RunDir, 0o700); err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	client, err := containerd.New(o.Socket, containerd.WithDefaultNamespace(o.Namespace))
	if err != nil {
		return nil, fault.Newf(op, fault.Unavailable, "%s: %w", o.Socket, err)
	}
	vctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if _, err := client.Version(vctx); err != nil {
		return nil, fault.Newf(op, fault.Unavailable, "%s: %w", o.Socket, errors.Join(err, client.Close()))
	}
	d := &Containerd{o: o, client: client, cgroups: detectCgroups(), images: make(map[string]*image), users: make(map[string]specs.User),
		bundled: make(map[string]bool), used: make(map[string]time.Time), starts: make(chan struct{}, startsPerCPU*runtime.NumCPU()),
	}
	d.clamp, err = detectClamp()
	if err != nil {
		return nil, fault.New(op, fault.Internal, errors.Join(err, client.Close()))
	}
	if d.clamp.limited {
		o.Log.Info("resource limits above what this host allows are lowered", "reason", "no CAP_SYS_RESOURCE", "nofile", d.clamp.hard["RLIMIT_NOFILE"])
	}
	return d, nil
}

func setDefault(s *string, v string) {
	if *s == "" {
		*s = v
	}
}

// Close drops the connection. Containers run on.
func (d *Containerd) Close() error { return d.client.Close() }

func (d *Containerd) ctx(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, d.o.Namespace)
}

// Start implements Driver.
func (d *Containerd) Start(ctx context.Context, s Spec) (Running, error) {
	op := "start container " + s.ID
	ctx = d.ctx(ctx)
	var img *image
	if s.Image != "" {
		var err error
		d.gc.RLock()
		defer d.gc.RUnlock()
		if img, err = d.image(ctx, s.Image, s.ForcePull); err != nil {
			return Running{}, fault.New(op, fault.KindOf(err), err)
		}
	}
	select {
	case d.starts <- struct{}{}:
		defer func() { <-d.starts }()
	case <-ctx.Done():
		return Running{}, fault.New(op, fault.Unavailable, context.Cause(ctx))
	}
	var mounts []specs.Mount
	if img == nil {
		var err error
		if mounts, err = d.hostMounts(); err != nil {
			return Running{}, fault.Newf(op, fault.Internal, "read host mounts: %w", err)
		}
	}
	for {
		r, err := d.start(ctx, s, img, mounts)
		if err == nil {
			return r, nil
		}
		if kind(err) == fault.Exists { // what is there belongs to another start
			return Running{}, fault.New(op, fault.Exists, err)
		}
		err = errors.Join(err, d.Remove(context.WithoutCancel(ctx), s.ID))
		// The host's mounts were listed a moment before they were used, and
		// those of other engines come and go. What has gone is left out; as
		// nothing is added, this ends.
		left := present(mounts)
		if len(left) == len(mounts) || ctx.Err() != nil {
			return Running{}, fault.New(op, kind(err), err)
		}
		mounts = left
	}
}

// present returns the mounts whose source is still there.
func present(mounts []specs.Mount) []specs.Mount {
	return slices.DeleteFunc(slices.Clone(mounts), func(m specs.Mount) bool {
		_, err := os.Stat(m.Source)
		return errors.Is(err, fs.ErrNotExist)
	})
}

// start makes one attempt, of an image or, if img is nil, on the host's root
// with its mounts.
func (d *Containerd) start(ctx context.Context, s Spec, img *image, mounts []specs.Mount) (Running, error) {
	opts := []containerd.NewContainerOpts{
		containerd.WithRuntime("io.containerd.runc.v2", &runcopts.Options{BinaryName: d.o.Runc}),
		containerd.WithContainerLabels(d.labels(s)),
	}
	var taskOpts []containerd.NewTaskOpts
	var specOpts []oci.SpecOpts
	if img != nil {
		opts = append(opts, containerd.WithSnapshotter(d.o.Snapshotter), containerd.WithNewSnapshot(s.ID, img.Image), containerd.WithImage(img.Image))
		specOpts = d.imageSpec(s, img)
	} else {
		root, err := hostRoot(d.o.RunDir)
		if err != nil {
			return Running{}, err
		}
		taskOpts = append(taskOpts, containerd.WithRootFS([]mount.Mount{{Type: "bind", Source: root, Options: []string{"bind", "rw"}}}))
		if specOpts, err = d.hostSpec(s, mounts); err != nil {
			return Running{}, err
		}
	}
	g := d.shims.join()
	specOpts = append(specOpts, oci.WithAnnotations(map[string]string{groupAnnotation: g.id}))
	c, err := d.client.NewContainer(ctx, s.ID, append(opts, containerd.WithNewSpec(specOpts...))...)
	if err != nil {
		d.shims.arrived(g, s.ID, false)
		return Running{}, err
	}
	return d.run(ctx, c, s, g, taskOpts)
}

func (d *Containerd) run(ctx context.Context, c containerd.Container, s Spec, g *shim, opts []containerd.NewTaskOpts) (Running, error) {
	t, err := c.NewTask(ctx, logFiles(s.Stdout, s.Stderr), opts...)
	d.shims.arrived(g, s.ID, err == nil)
	if err != nil {
		return Running{}, err
	}
	if err := t.Start(ctx); err != nil {
		return Running{}, err
	}
	// The quota comes last: under a small one the runtime's own start-up
	// would take many times as long.
	if err := d.cgroups.setQuota(d.cgroup(s.ID), s.Limits.CPUQuota); err != nil {
		return Running{}, err
	}
	return Running{ID: s.ID, Labels: s.Labels, PID: int(t.Pid()), Started: time.Now()}, nil
}

func (d *Containerd) cgroup(id string) string { return path.Join(d.o.CgroupParent, id) }

func (d *Containerd) labels(s Spec) map[string]string {
	l := map[string]string{labelOwned: "1", labelSpace: d.o.Namespace, labelName: s.ID, labelHost: s.Hostname}
	nets := []string{"host"}
	if s.Netns != "" {
		nets = []string{"dcos"}
	}
	b, _ := json.Marshal(nets) // cannot fail
	l[labelNets] = string(b)
	if s.Limits.CPUQuota > 0 {
		l[labelQuota] = strconv.FormatFloat(s.Limits.CPUQuota, 'g', -1, 64)
	}
	maps.Copy(l, s.Labels)
	return l
}

// logFiles has the shim append to files. Paths without a scheme are opened as
// they are, one each; the file:// scheme would put both streams in one file.
func logFiles(stdout, stderr string) cio.Creator {
	if stdout == "" && stderr == "" {
		return cio.NullIO
	}
	return func(string) (cio.IO, error) { return filesIO{cio.Config{Stdout: stdout, Stderr: stderr}}, nil }
}

type filesIO struct{ c cio.Config }

func (f filesIO) Config() cio.Config { return f.c }
func (filesIO) Cancel()              {}
func (filesIO) Wait()                {}
func (filesIO) Close() error         { return nil }

// Wait implements Driver. It rides out restarts of containerd, whose end shows
// as errors of many classes: only an unknown container is final.
func (d *Containerd) Wait(ctx context.Context, id string) (Exit, error) {
	op := "wait for container " + id
	ctx = d.ctx(ctx)
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		e, err := d.wait(ctx, id)
		switch {
		case err == nil:
			return e, nil
		case ctx.Err() != nil:
			return Exit{}, fault.New(op, fault.Unavailable, context.Cause(ctx))
		case kind(err) == fault.NotFound:
			return Exit{}, fault.New(op, kind(err), err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

func (d *Containerd) wait(ctx context.Context, id string) (Exit, error) {
	c, err := d.client.LoadContainer(ctx, id)
	if err != nil {
		return Exit{}, err
	}
	t, err := c.Task(ctx, nil)
	if errdefs.IsNotFound(err) { // the host or the shim died
		return Exit{Lost: true, At: time.Now()}, nil
	}
	if err != nil {
		return Exit{}, err
	}
	ch, err := t.Wait(ctx)
	if err != nil {
		return Exit{}, err
	}
	var st containerd.ExitStatus
	select {
	case st = <-ch:
	case <-ctx.Done():
		return Exit{}, ctx.Err()
	}
	if errdefs.IsNotFound(st.Error()) {
		return Exit{Lost: true, At: time.Now()}, nil
	}
	if st.Error() != nil {
		return Exit{}, st.Error()
	}
	e := Exit{Code: int(st.ExitCode()), At: st.ExitTime(), OOM: d.cgroups.oomKills(d.cgroup(id)) > 0}
	if e.Code > 128 && e.Code <= 128+64 {
		e.Signal = syscall.Signal(e.Code - 128)
	}
	return e, nil
}

// Signal implements Driver.
func (d *Containerd) Signal(ctx context.Context, id string, sig syscall.Signal, all bool) error {
	op := "signal container " + id
	ctx = d.ctx(ctx)
	if sig != syscall.SIGKILL { // without the price of a runc process
		if err := d.cgroups.signal(d.cgroup(id), sig, all); err != nil {
			return fault.New(op, fault.Internal, err)
		}
		return nil
	}
	c, err := d.client.LoadContainer(ctx, id)
	if err != nil {
		return fault.New(op, kind(err), err)
	}
	t, err := c.Task(ctx, nil)
	if err == nil {
		err = t.Kill(ctx, sig, containerd.WithKillAll)
	}
	if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsFailedPrecondition(err) {
		return fault.New(op, kind(err), err)
	}
	return nil
}

// Remove implements Driver.
func (d *Containerd) Remove(ctx context.Context, id string) error {
	op := "remove container " + id
	ctx = d.ctx(ctx)
	d.shims.leave(id)
	c, err := d.client.LoadContainer(ctx, id)
	if errdefs.IsNotFound(err) {
		return d.removeSnapshot(ctx, id)
	}
	if err != nil {
		return fault.New(op, kind(err), err)
	}
	if t, err := c.Task(ctx, nil); err == nil {
		if _, err := t.Delete(ctx, containerd.WithProcessKill); err != nil && !errdefs.IsNotFound(err) {
			return fault.New(op, kind(err), err)
		}
	} else if !errdefs.IsNotFound(err) {
		return fault.New(op, kind(err), err)
	}
	if err := c.Delete(ctx, containerd.WithSnapshotCleanup); err != nil && !errdefs.IsNotFound(err) {
		return fault.New(op, kind(err), err)
	}
	return nil
}

// removeSnapshot cleans up after a start that did not get as far as a
// container.
func (d *Containerd) removeSnapshot(ctx context.Context, id string) error {
	err := d.client.SnapshotService(d.o.Snapshotter).Remove(ctx, id)
	if err != nil && !errdefs.IsNotFound(err) {
		return fault.New("remove snapshot "+id, kind(err), err)
	}
	return nil
}

// List implements Driver. Containers whose start was cut off before their
// process ran are removed. It also sets CPU quotas again, for a container whose
// start a crash interrupted before its quota was set.
func (d *Containerd) List(ctx context.Context) ([]Running, error) {
	const op = "list containers"
	ctx = d.ctx(ctx)
	cs, err := d.client.Containers(ctx, `labels."`+labelOwned+`"==1`)
	if err != nil {
		return nil, fault.New(op, kind(err), err)
	}
	out := make([]Running, 0, len(cs))
	for _, c := range cs {
		info, err := c.Info(ctx, containerd.WithoutRefreshedMetadata)
		if err != nil {
			return nil, fault.New(op, kind(err), err)
		}
		r := Running{ID: c.ID(), Labels: info.Labels, Started: info.CreatedAt}
		t, err := c.Task(ctx, nil)
		if err == nil {
			var st containerd.Status
			st, err = t.Status(ctx)
			switch {
			case err == nil && st.Status == containerd.Created: // its start was cut off
				if err := d.Remove(ctx, r.ID); err != nil {
					return nil, err
				}
				continue
			case err == nil && st.Status == containerd.Running:
				r.PID = int(t.Pid())
				d.restoreQuota(info)
			}
		}
		if err != nil && !errdefs.IsNotFound(err) {
			return nil, fault.New(op, kind(err), err)
		}
		out = append(out, r)
	}
	return out, nil
}

func (d *Containerd) restoreQuota(info containers.Container) {
	q, err := strconv.ParseFloat(info.Labels[labelQuota], 64)
	if err != nil {
		return // no quota
	}
	if err := d.cgroups.setQuota(d.cgroup(info.ID), q); err != nil {
		d.o.Log.Warn("set CPU quota again", "container", info.ID, "error", err)
	}
}

// kind translates containerd's error classes. What an exit channel carries is
// still in gRPC's terms; those are looked at second, as translating an error
// that has a class already takes the class away.
func kind(err error) fault.Kind {
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return f.Kind
	}
	for _, err := range []error{err, errgrpc.ToNative(err)} {
		switch {
		case errdefs.IsNotFound(err):
			return fault.NotFound
		case errdefs.IsAlreadyExists(err):
			return fault.Exists
		case errdefs.IsInvalidArgument(err):
			return fault.Invalid
		case errdefs.IsUnavailable(err), errdefs.IsDeadlineExceeded(err), errdefs.IsCanceled(err):
			return fault.Unavailable
		}
	}
	return fault.Internal
}
