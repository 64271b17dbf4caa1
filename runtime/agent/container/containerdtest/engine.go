//go:build root

// Package containerdtest starts a private containerd for tests, from the
// programs in the directory that DCOS_RUNTIME_BIN names, and removes all of it
// afterwards.
package containerdtest

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sys/unix"

	"dcos.example/dcos/runtime/agent/container"
)

// Image is the name of the test image, whose only program is tiny.
const Image = "test.local/tiny:1"

// Engine is a running containerd.
type Engine struct {
	Dir     string // everything of it
	Socket  string
	Images  string // a directory with the archive of Image
	Options container.Options

	conf string
	bin  string
	cmd  *exec.Cmd
	log  *os.File
}

// Start starts an engine that ends with the test.
func Start(t testing.TB) *Engine {
	t.Helper()
	bin := os.Getenv("DCOS_RUNTIME_BIN")
	if bin == "" {
		t.Fatal("DCOS_RUNTIME_BIN is not set: it must name the directory with containerd, containerd-shim-runc-v2 and runc")
	}
	// Not t.TempDir: sockets have short names, and mounts must go first.
	dir, err := os.MkdirTemp("", "dct3-")
	if err != nil {
		t.Fatal(err)
	}
	e := &Engine{Dir: dir, Socket: filepath.Join(dir, "c.sock"), Images: filepath.Join(dir, "images"), bin: bin, conf: filepath.Join(dir, "containerd.toml")}
	e.Options = container.Options{
		Socket: e.Socket, Namespace: "dct3", Runc: filepath.Join(bin, "runc"), RunDir: filepath.Join(dir, "run"),
		CgroupParent: "/" + filepath.Base(dir), Hide: []string{dir}, Root: filepath.Join(dir, "root"), Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	t.Cleanup(func() { e.clean(t) })
	if err := os.WriteFile(e.conf, []byte(Config(filepath.Join(dir, "root"), filepath.Join(dir, "state"), e.Socket)), 0o600); err != nil {
		t.Fatal(err)
	}
	if e.log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(e.Images, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := archive(e.tiny(t), filepath.Join(e.Images, "tiny.tar")); err != nil {
		t.Fatal(err)
	}
	e.Up(t)
	return e
}

// Config is a configuration for containerd as hosts have it.
func Config(root, state, socket string) string {
	return fmt.Sprintf(`version = 4
root = %q
state = %q
imports = []
disabled_plugins = [
  'io.containerd.cri.v1.images', 'io.containerd.cri.v1.runtime', 'io.containerd.grpc.v1.cri', 'io.containerd.nri.v1.nri',
  'io.containerd.snapshotter.v1.blockfile', 'io.containerd.snapshotter.v1.erofs', 'io.containerd.differ.v1.erofs',
  'io.containerd.mount-handler.v1.erofs', 'io.containerd.monitor.container.v1.restart', 'io.containerd.image-verifier.v1.bindir',
  'io.containerd.internal.v1.opt',
]
[plugins.'io.containerd.server.v1.grpc']
  address = %q
[plugins.'io.containerd.server.v1.ttrpc']
  address = %q
`, root, state, socket, socket+".ttrpc")
}

// Up starts containerd, again after Down or Kill.
func (e *Engine) Up(t testing.TB) {
	t.Helper()
	e.cmd = exec.Command(filepath.Join(e.bin, "containerd"), "--config", e.conf, "--log-level", "warn")
	e.cmd.Env = append(os.Environ(), "PATH="+e.bin+":"+os.Getenv("PATH"))
	e.cmd.Stdout, e.cmd.Stderr = e.log, e.log
	if err := e.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		d, err := container.NewContainerd(t.Context(), e.Options)
		if err == nil {
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("containerd does not answer: %v\n%s", err, e.Log())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Log is what containerd wrote.
func (e *Engine) Log() string {
	b, err := os.ReadFile(e.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Kill ends containerd as a crash would.
func (e *Engine) Kill(t testing.TB) {
	t.Helper()
	if err := e.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = e.cmd.Wait() // tells of the kill
}

// Driver returns a driver for the engine, with Image imported.
func (e *Engine) Driver(t testing.TB) *container.Containerd {
	t.Helper()
	d, err := container.NewContainerd(t.Context(), e.Options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := d.Import(t.Context(), e.Images); err != nil {
		t.Fatal(err)
	}
	return d
}

// clean removes containers, mounts, cgroups and files.
func (e *Engine) clean(t testing.TB) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var errs []error
	if d, err := container.NewContainerd(ctx, e.Options); err != nil {
		errs = append(errs, err)
	} else {
		list, err := d.List(ctx)
		errs = append(errs, err)
		for _, c := range list {
			errs = append(errs, d.Remove(ctx, c.ID))
		}
		errs = append(errs, d.ReleaseHost(), d.Close())
	}
	if err := e.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		errs = append(errs, err)
	} else {
		_ = e.cmd.Wait()
	}
	errs = append(errs, e.log.Close(), unmountBelow(e.Dir), e.removeCgroups())
	if err := errors.Join(errs...); err != nil {
		t.Errorf("clean up: %v", err)
	}
	if err := os.RemoveAll(e.Dir); err != nil {
		t.Errorf("clean up: %v", err)
	}
}

func unmountBelow(dir string) error {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	var errs []error
	for i := len(lines) - 1; i >= 0; i-- {
		if f := strings.Fields(lines[i]); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			errs = append(errs, unix.Unmount(f[4], unix.MNT_DETACH))
		}
	}
	return errors.Join(errs...)
}

func (e *Engine) removeCgroups() error {
	dirs, err := filepath.Glob("/sys/fs/cgroup/*" + e.Options.CgroupParent)
	if err != nil {
		return err
	}
	dirs = append(dirs, "/sys/fs/cgroup"+e.Options.CgroupParent)
	var errs []error
	for _, d := range dirs {
		if err := os.Remove(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// tiny builds the test program.
func (e *Engine) tiny(t testing.TB) string {
	t.Helper()
	file := filepath.Join(e.Dir, "tiny")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", file, "dcos.example/dcos/runtime/agent/container/containerdtest/tiny")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build tiny: %v: %s", err, out)
	}
	return file
}

// archive writes an image that holds one program and a user "app".
func archive(program, out string) error {
	img, err := newImage(program)
	if err != nil {
		return err
	}
	tag, err := name.NewTag(Image)
	if err != nil {
		return err
	}
	return tarball.WriteToFile(out, tag, img)
}

// Tiny returns the test image for pushing it to a registry.
func (e *Engine) Tiny(t testing.TB) v1.Image {
	t.Helper()
	img, err := newImage(filepath.Join(e.Dir, "tiny"))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// newImage makes an image whose entrypoint is the program at path.
func newImage(path string) (v1.Image, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	file := func(name string, mode int64, content []byte) {
		err = errors.Join(err, w.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(content))}))
		_, werr := w.Write(content)
		err = errors.Join(err, werr)
	}
	for _, d := range []string{"etc/", "tmp/", "proc/", "sys/", "dev/", "bin/"} {
		err = errors.Join(err, w.WriteHeader(&tar.Header{Name: d, Typeflag: tar.TypeDir, Mode: 0o755}))
	}
	file("tiny", 0o755, b)
	err = errors.Join(err, w.WriteHeader(&tar.Header{Name: "bin/sh", Typeflag: tar.TypeSymlink, Linkname: "/tiny"}))
	file("etc/passwd", 0o644, []byte("root:x:0:0::/:/bin/sh\napp:x:1234:1234::/:/bin/sh\n"))
	file("etc/group", 0o644, []byte("root:x:0:\napp:x:1234:\nextra:x:77:app\n"))
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil })
	if err != nil {
		return nil, err
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, err
	}
	cf, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	cf = cf.DeepCopy()
	cf.OS, cf.Architecture = "linux", runtime.GOARCH
	cf.Config = v1.Config{Entrypoint: []string{"/tiny"}, Cmd: []string{"print", "default"}, Env: []string{"FROM_IMAGE=yes", "PATH=/"}}
	return mutate.ConfigFile(img, cf)
}
