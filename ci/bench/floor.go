package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/layout"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"dcos.example/dcos/installer/bundle"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/state"
	"dcos.example/dcos/runtime/state/etcd"
)

// Floors are what the bare parts cost, with nothing of a cluster around them:
//
//   - a host: a process in namespaces of its own with an overlay over the
//     machine's root, /proc, /run and /dev. No disk, no link, no units.
//   - the store: a process with one member of the ensemble and nothing else.
//   - a container: `runc run` of the same image with a network namespace that
//     has no link. No snapshot, no supervisor, no log files, no address.
//   - containerd: the same image through its plain client (engine.go).
//   - a server: a process that answers HTTPS and does nothing else.
//
// This program is its own helper: it starts itself under these names.
const (
	floorStore  = "floor-store"
	floorServer = "floor-server"
	floorHost   = "floor-host"
)

type floor struct {
	work string
	runc string
	root string // of the hello image
	next atomic.Int64
	cpu  atomic.Int64 // nanoseconds that the calls of runc run took, with the containers' own
}

func newFloor(ctx context.Context, s settings, work string) (*floor, error) {
	trust, err := bundle.FindTrust(os.Getenv)
	if err != nil {
		return nil, err
	}
	release, _, err := bundle.Unpack(s.bundle, filepath.Join(work, "releases"), trust)
	if err != nil {
		return nil, err
	}
	f := &floor{work: work, runc: filepath.Join(release, "bin", "runc"), root: filepath.Join(work, "rootfs")}
	return f, unpackImage(ctx, filepath.Join(release, "images", "hello.tar"), f.root)
}

// unpackImage lays out the root file system of an OCI archive.
func unpackImage(ctx context.Context, archive, dir string) error {
	oci := dir + ".oci"
	for _, d := range []string{oci, dir} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	if err := exec.CommandContext(ctx, "tar", "-xf", archive, "-C", oci).Run(); err != nil {
		return fmt.Errorf("unpack %s: %w", archive, err)
	}
	index, err := layout.ImageIndexFromPath(oci)
	if err != nil {
		return err
	}
	m, err := index.IndexManifest()
	if err != nil {
		return err
	}
	if len(m.Manifests) != 1 {
		return fmt.Errorf("%s holds %d images, not one", archive, len(m.Manifests))
	}
	img, err := index.Image(m.Manifests[0].Digest)
	if err != nil {
		return err
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for _, l := range layers {
		r, err := l.Uncompressed()
		if err != nil {
			return err
		}
		tar := exec.CommandContext(ctx, "tar", "-x", "-C", dir)
		tar.Stdin = r
		if err := tar.Run(); err != nil {
			return fmt.Errorf("unpack layer: %w", err)
		}
		if err := r.Close(); err != nil {
			return err
		}
	}
	return nil
}

// container runs the image with runc; the time is that of the call, which
// returns when the image's program has begun.
func (f *floor) container(ctx context.Context) (remove func() error, took time.Duration, err error) {
	id := fmt.Sprintf("dcos-bench-%d-%d", os.Getpid(), f.next.Add(1))
	dir := filepath.Join(f.work, "runc", id)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, 0, err
	}
	spec := exec.CommandContext(ctx, f.runc, "spec", "--bundle", dir)
	if err := spec.Run(); err != nil {
		return nil, 0, fmt.Errorf("runc spec: %w", err)
	}
	file := filepath.Join(dir, "config.json")
	var c map[string]any
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, 0, err
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return nil, 0, err
	}
	process, _ := c["process"].(map[string]any)
	process["terminal"], process["args"] = false, []string{"/hello"}
	delete(process, "rlimits") // they may not be ours to set
	c["root"] = map[string]any{"path": f.root, "readonly": true}
	linux, _ := c["linux"].(map[string]any)
	linux["cgroupsPath"] = "/" + id
	linux["resources"] = map[string]any{"memory": map[string]any{"limit": 64 << 20}, "pids": map[string]any{"limit": 100}}
	if text, err = json.Marshal(c); err != nil {
		return nil, 0, err
	}
	if err := os.WriteFile(file, text, 0o644); err != nil {
		return nil, 0, err
	}
	root := filepath.Join(f.work, "runc-root")
	log := filepath.Join(dir, "log")
	// No pipes: the container would keep them open.
	run := exec.CommandContext(ctx, f.runc, "--root", root, "--log", log, "run", "--detach", "--bundle", dir, id)
	start := time.Now()
	if err := run.Run(); err != nil {
		why, _ := os.ReadFile(log) // best effort: it says more than the status
		return nil, 0, fmt.Errorf("runc run: %w\n%s", err, why)
	}
	took = time.Since(start)
	inside, err := used(id)
	if err != nil {
		return nil, 0, err
	}
	f.cpu.Add(int64(inside + run.ProcessState.UserTime() + run.ProcessState.SystemTime()))
	return func() error {
		if out, err := exec.Command(f.runc, "--root", root, "delete", "--force", id).CombinedOutput(); err != nil {
			return fmt.Errorf("runc delete: %w\n%s", err, out)
		}
		return os.RemoveAll(dir)
	}, took, nil
}

// containers runs n of them, as many at once as an agent would, and returns
// how many start in a second.
func (f *floor) containers(ctx context.Context, n, atOnce int) (float64, error) {
	removes := make(chan func() error, n)
	var g errgroup.Group
	g.SetLimit(atOnce)
	start := time.Now()
	for range n {
		g.Go(func() error {
			remove, _, err := f.container(ctx)
			if err != nil {
				return err
			}
			removes <- remove
			return nil
		})
	}
	err := g.Wait()
	rate := float64(n) / time.Since(start).Seconds()
	close(removes)
	for remove := range removes {
		if e := remove(); err == nil {
			err = e
		}
	}
	return rate, err
}

// helper is a process of this program that plays a floor.
type helper struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startHelper(role string, attr *syscall.SysProcAttr, args ...string) (*helper, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	h := &helper{cmd: exec.Command(self, append([]string{role}, args...)...)}
	h.cmd.Stderr, h.cmd.SysProcAttr = os.Stderr, attr
	if h.in, err = h.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	h.out = bufio.NewReader(out)
	return h, h.cmd.Start()
}

// line waits for a line of the helper's.
func (h *helper) line() (string, error) {
	text, err := h.out.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("%s ended: %w", h.cmd.Args[1], err)
	}
	return strings.TrimSpace(text), nil
}

func (h *helper) say(text string) error {
	_, err := io.WriteString(h.in, text+"\n")
	return err
}

// kill ends the helper without a chance to tidy up.
func (h *helper) kill() {
	_ = h.cmd.Process.Kill() // it may have ended
	_ = h.cmd.Wait()         // killed, as wanted
}

// hosts boots n bare hosts at once and returns when all are up.
func (f *floor) hosts(n int) (off func(), err error) {
	all := make([]*helper, n)
	off = func() {
		for _, h := range all {
			if h != nil {
				h.kill()
			}
		}
	}
	var g errgroup.Group
	for i := range all {
		g.Go(func() error {
			dir := filepath.Join(f.work, "hosts", fmt.Sprint(f.next.Add(1)))
			h, err := startHelper(floorHost, &syscall.SysProcAttr{
				Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWCGROUP,
			}, dir)
			if err != nil {
				return err
			}
			all[i] = h
			_, err = h.line()
			return err
		})
	}
	if err := g.Wait(); err != nil {
		off()
		return nil, err
	}
	return off, nil
}

func runFloorHost(args []string) error {
	dir := args[0]
	for _, d := range []string{"root", "upper", "work"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	root := filepath.Join(dir, "root")
	for _, m := range []struct {
		kind, at, data string
		flags          uintptr
	}{
		{"", "/", "", unix.MS_REC | unix.MS_PRIVATE},
		{"overlay", root, fmt.Sprintf("lowerdir=/,upperdir=%s/upper,workdir=%s/work", dir, dir), 0},
		{"proc", root + "/proc", "", 0}, {"tmpfs", root + "/run", "", 0}, {"tmpfs", root + "/dev", "", 0},
	} {
		if err := unix.Mount(m.kind, m.at, m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	if err := unix.Chroot(root); err != nil {
		return err
	}
	fmt.Println("up")
	_, err := io.Copy(io.Discard, os.Stdin) // until the parent is gone
	return err
}

// ensemble is a bare store of n members, each in a process of its own.
type ensemble []*helper

// store starts n members and returns when the first write is done.
func (f *floor) store(n int) (ensemble, error) {
	var peers []string
	for i := range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		peers = append(peers, fmt.Sprintf("m%d=%s", i, l.Addr()))
		if err := l.Close(); err != nil {
			return nil, err
		}
	}
	var e ensemble
	for i := range n {
		dir := filepath.Join(f.work, "store", fmt.Sprint(f.next.Add(1)))
		h, err := startHelper(floorStore, nil, append([]string{dir, fmt.Sprint(i)}, peers...)...)
		if err != nil {
			e.kill()
			return nil, err
		}
		e = append(e, h)
	}
	for _, h := range e {
		if _, err := h.line(); err != nil {
			e.kill()
			return nil, err
		}
	}
	if err := e[0].put(); err != nil {
		e.kill()
		return nil, err
	}
	return e, nil
}

func (e ensemble) kill() {
	for _, h := range e {
		h.kill()
	}
}

// put writes once, trying until it works.
func (h *helper) put() error {
	if err := h.say("put"); err != nil {
		return err
	}
	_, err := h.line()
	return err
}

func (h *helper) leads() (bool, error) {
	if err := h.say("leads"); err != nil {
		return false, err
	}
	answer, err := h.line()
	return answer == "true", err
}

// failOver kills the member that leads and returns how long no write worked.
func (e ensemble) failOver() (time.Duration, error) {
	for i, h := range e {
		leads, err := h.leads()
		if err != nil {
			return 0, err
		}
		if !leads {
			continue
		}
		start := time.Now()
		if err := h.cmd.Process.Kill(); err != nil {
			return 0, err
		}
		err = e[(i+1)%len(e)].put()
		return time.Since(start), err
	}
	return 0, fmt.Errorf("no member leads")
}

// runFloorStore is one member: DIR INDEX NAME=ADDR...
func runFloorStore(ctx context.Context, args []string) error {
	defaults := config.DefaultMaster()
	o := etcd.Options{
		Token: "bench", DataDir: args[0],
		Heartbeat: time.Duration(defaults.HeartbeatInterval), Election: time.Duration(defaults.ElectionTimeout),
	}
	for i, p := range args[2:] {
		name, addr, _ := strings.Cut(p, "=")
		at, err := netip.ParseAddrPort(addr)
		if err != nil {
			return err
		}
		o.Peers = append(o.Peers, etcd.Peer{Name: name, Addr: at})
		if fmt.Sprint(i) == args[1] {
			o.Self = o.Peers[i]
		}
	}
	m, err := etcd.Start(ctx, o)
	if err != nil {
		return err
	}
	defer m.Close()
	fmt.Println("up")
	store := etcd.New(m.Client())
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		if lines.Text() == "leads" {
			fmt.Println(m.Leads())
			continue
		}
		if err := put(ctx, store); err != nil {
			return err
		}
		fmt.Println("done")
	}
	return nil
}

func put(ctx context.Context, store state.Backend) error {
	key := state.Key{Kind: "bench", ID: fmt.Sprint(time.Now().UnixNano())}
	for {
		try, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		_, err := store.Commit(try, state.Op{Key: key, Value: []byte("x")})
		cancel()
		if err == nil {
			return nil
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
}

// runFloorServer answers HTTPS until its input ends.
func runFloorServer(ctx context.Context, _ []string) error {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }))
	defer srv.Close()
	// One request, so that what TLS needs is in memory.
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	req, err := http.NewRequestWithContext(ctx, "GET", srv.URL, nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	if err := res.Body.Close(); err != nil {
		return err
	}
	fmt.Println("up")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}
