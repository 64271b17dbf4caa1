package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"golang.org/x/sync/errgroup"
)

// engine is the second floor of a start: containerd with nothing around it but
// its plain client. A container of it has a snapshot, limits and a shim, which
// a bare `runc run` has not, and no address, logs, checks or status, which an
// instance has.
type engine struct {
	client *containerd.Client
	image  containerd.Image
	daemon *exec.Cmd
	log    bytes.Buffer // of the daemon; complete when it has ended
	next   int
}

// engineCgroup is the parent of its containers' control groups.
const engineCgroup = "dcos-bench"

const engineConf = `version = 4
root = "%[1]s/root"
state = "%[1]s/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.nri.v1.nri"]
[plugins.'io.containerd.server.v1.grpc']
  address = "%[1]s/sock"
[plugins.'io.containerd.server.v1.ttrpc']
  address = "%[1]s/sock.ttrpc"
`

// startEngine runs the release's containerd in a directory of its own and
// loads the image.
func startEngine(ctx context.Context, f *floor) (*engine, error) {
	dir, err := os.MkdirTemp(f.work, "engine-")
	if err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(conf, fmt.Appendf(nil, engineConf, dir), 0o600); err != nil {
		return nil, err
	}
	bin := filepath.Dir(f.runc)
	e := &engine{daemon: exec.Command(filepath.Join(bin, "containerd"), "--config", conf, "--log-level", "error")}
	e.daemon.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	e.daemon.Stderr = &e.log // it grumbles about every container that ends
	e.daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := e.daemon.Start(); err != nil {
		return nil, err
	}
	if e.client, err = containerd.New(filepath.Join(dir, "sock"), containerd.WithTimeout(10*time.Second)); err != nil {
		return nil, errors.Join(err, e.stop())
	}
	archive, err := os.Open(filepath.Join(filepath.Dir(bin), "images", "hello.tar"))
	if err != nil {
		return nil, errors.Join(err, e.stop())
	}
	defer archive.Close()
	ctx = namespaces.WithNamespace(ctx, "bench")
	images, err := e.client.Import(ctx, archive)
	if err == nil && len(images) != 1 {
		err = fmt.Errorf("it holds %d images, not one", len(images))
	}
	if err == nil {
		e.image = containerd.NewImage(e.client, images[0])
		err = e.image.Unpack(ctx, "overlayfs")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("load %s: %w", archive.Name(), err), e.stop())
	}
	return e, nil
}

// containers starts n of them, as many at once as given, removes them, and
// returns how many started in a second.
func (e *engine) containers(ctx context.Context, n, atOnce int) (float64, error) {
	ctx = namespaces.WithNamespace(ctx, "bench")
	tasks := make([]containerd.Task, n)
	var g errgroup.Group
	g.SetLimit(atOnce)
	start := time.Now()
	for i := range n {
		id := fmt.Sprintf("c%d", e.next)
		e.next++
		g.Go(func() (err error) {
			tasks[i], err = e.start(ctx, id)
			return err
		})
	}
	err := g.Wait()
	rate := float64(n) / time.Since(start).Seconds()
	for _, t := range tasks {
		if t != nil {
			g.Go(func() error { return e.remove(ctx, t) })
		}
	}
	return rate, errors.Join(err, g.Wait())
}

func (e *engine) start(ctx context.Context, id string) (containerd.Task, error) {
	c, err := e.client.NewContainer(ctx, id,
		containerd.WithSnapshotter("overlayfs"), containerd.WithNewSnapshot(id, e.image),
		containerd.WithNewSpec(
			oci.WithImageConfig(e.image), oci.WithCgroup("/"+engineCgroup+"/"+id),
			oci.WithMemoryLimit(64<<20), oci.WithCPUShares(102), oci.WithPidsLimit(100),
		))
	if err != nil {
		return nil, err
	}
	t, err := c.NewTask(ctx, cio.NullIO)
	if err != nil {
		return nil, errors.Join(err, c.Delete(ctx, containerd.WithSnapshotCleanup))
	}
	return t, t.Start(ctx)
}

func (e *engine) remove(ctx context.Context, t containerd.Task) error {
	c, err := e.client.LoadContainer(ctx, t.ID())
	if err != nil {
		return err
	}
	_, err = t.Delete(ctx, containerd.WithProcessKill)
	return errors.Join(err, c.Delete(ctx, containerd.WithSnapshotCleanup))
}

// stop ends the daemon and removes the control groups of its containers.
func (e *engine) stop() error {
	var errs []error
	if e.client != nil {
		errs = append(errs, e.client.Close())
	}
	errs = append(errs, e.daemon.Process.Signal(syscall.SIGTERM))
	if err := e.daemon.Wait(); err != nil {
		errs = append(errs, fmt.Errorf("containerd: %w\n%s", err, e.log.Bytes()))
	}
	groups, err := filepath.Glob("/sys/fs/cgroup/*/" + engineCgroup)
	for _, g := range groups {
		errs = append(errs, os.Remove(g))
	}
	return errors.Join(append(errs, err)...)
}
