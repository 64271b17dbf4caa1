// Command bundle builds the release bundle: dcosd, dcos and what runs
// containers, from source at pinned versions, with the demo image and a bill
// of materials, in one content-addressed, signed archive. The same source and
// the same key give the same bytes.
//
// The key is made once, outside of the repository, and its public half is then
// trusted by this user's dcos-install. With -public-key it is printed, to be
// linked into dcos-install.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"

	"dcos.example/dcos/installer/bundle"
	"dcos.example/dcos/universe/images"
)

func main() {
	version := flag.String("version", "", "version of the release")
	work := flag.String("work", "build", "directory for intermediate files; DIR/release is what gets packed")
	out := flag.String("out", "", "the bundle to write")
	keyFile := flag.String("key", "", "minisign secret key to sign with, made if it is not there (default dcos/signing.key in the user's configuration directory)")
	public := flag.Bool("public-key", false, "print the key's public half and do nothing else")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	key, err := signingKey(*keyFile, os.Getenv)
	switch {
	case err != nil:
	case *public:
		fmt.Println(key.PublicLine())
	default:
		err = build(ctx, *version, *work, *out, key)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bundle:", err)
		os.Exit(1)
	}
}

// program is one binary of the bundle.
type program struct {
	pkg     string
	dir     string // in the bundle
	mod     string // go.mod that pins it, relative to the repository's root
	tags    string
	ldflags string
	cgo     bool
}

const (
	containerd = "github.com/containerd/containerd/v2"
	plugins    = "github.com/containernetworking/plugins/plugins/"
)

// components returns the versions of what a release is made of. Those of other
// projects are in the two go.mod files and nowhere else.
func components(ctx context.Context, version string) (map[string]string, error) {
	m := map[string]string{"dcosd": version, "dcos-cli": version}
	for _, c := range []struct{ name, module, mod string }{
		{"containerd", containerd, "tools/go.mod"},
		{"runc", "github.com/opencontainers/runc", "tools/go.mod"},
		{"cni-plugins", "github.com/containernetworking/plugins", "tools/go.mod"},
		{"etcd", "go.etcd.io/etcd/server/v3", "go.mod"},
	} {
		cmd := exec.CommandContext(ctx, "go", "list", "-m", "-mod=mod", "-modfile="+c.mod, "-f", "{{.Version}}", c.module)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("read version of %s: %w", c.module, err)
		}
		m[c.name] = strings.TrimPrefix(strings.TrimSpace(string(out)), "v")
	}
	return m, nil
}

// programs lists everything that is built. ldflags name the version that the
// program prints; modules lose it when built as a dependency.
func programs(version string, of map[string]string) []program {
	ours := "-X dcos.example/dcos/runtime/config.Version=" + version
	list := []program{
		{pkg: "./cmd/dcosd", dir: "bin", ldflags: ours},
		{pkg: "./cmd/dcos", dir: "bin", ldflags: ours},
		{pkg: "./providers/local/cmd/dcos-init", dir: "bin"},
		{pkg: "./installer/cmd/dcos-probe", dir: "bin"},
		{pkg: "./installer/cmd/dcos-unpack", dir: "bin"},
		{pkg: containerd + "/cmd/containerd", dir: "bin", mod: "tools/go.mod", tags: "no_btrfs no_zfs no_devmapper", ldflags: "-X " + containerd + "/version.Version=v" + of["containerd"]},
		{pkg: containerd + "/cmd/containerd-shim-runc-v2", dir: "bin", mod: "tools/go.mod", tags: "no_grpc"},
		{pkg: "github.com/opencontainers/runc", dir: "bin", mod: "tools/go.mod", tags: "seccomp urfave_cli_no_docs osusergo netgo", ldflags: "-extldflags -static -X main.version=" + of["runc"], cgo: true},
	}
	for _, p := range []string{"ipam/host-local", "main/bridge", "main/loopback", "main/ptp", "meta/portmap"} {
		list = append(list, program{pkg: plugins + p, dir: "cni", mod: "tools/go.mod"})
	}
	return list
}

func build(ctx context.Context, version, work, out string, key bundle.Key) error {
	of, err := components(ctx, version)
	if err != nil {
		return err
	}
	release := filepath.Join(work, "release")
	if err := os.RemoveAll(release); err != nil {
		return err
	}
	for _, dir := range []string{"bin", "cni", "images"} {
		if err := os.MkdirAll(filepath.Join(release, dir), 0o755); err != nil {
			return err
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(2) // each is a parallel build of its own
	for _, p := range programs(version, of) {
		g.Go(func() error { return compile(gctx, p, filepath.Join(release, p.dir)) })
	}
	g.Go(func() error { return demoImage(gctx, work, filepath.Join(release, "images")) })
	if err := g.Wait(); err != nil {
		return err
	}
	if err := materials(ctx, version, of, release); err != nil {
		return err
	}
	return pack(bundle.Contents{
		Dir: release, Version: version, Platform: runtime.GOOS + "/" + runtime.GOARCH, Components: of, Formats: formats(),
	}, out, key)
}

func compile(ctx context.Context, p program, dir string) error {
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid= " + p.ldflags, "-o", dir + "/"}
	if p.mod != "" {
		args = append(args, "-modfile="+p.mod)
	}
	if p.tags != "" {
		args = append(args, "-tags", p.tags)
	}
	cgo := "CGO_ENABLED=0"
	if p.cgo {
		cgo = "CGO_ENABLED=1"
	}
	cmd := exec.CommandContext(ctx, "go", append(args, p.pkg)...)
	cmd.Env = append(os.Environ(), cgo, "GOFLAGS=")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", p.pkg, err, strings.TrimSpace(string(text)))
	}
	return nil
}

// The demo app's image.
const (
	demoName    = "docker.io/dcos/hello:0.1"
	demoArchive = "hello.tar"
)

func demoImage(ctx context.Context, work, dir string) error {
	tmp := filepath.Join(work, "demo")
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return err
	}
	if err := compile(ctx, program{pkg: "./demo/hello"}, tmp); err != nil {
		return err
	}
	return images.WriteArchive(images.Spec{
		Name: demoName, Program: filepath.Join(tmp, "hello"), Path: "/hello",
		User: "65534:65534", Port: "8080/tcp",
	}, filepath.Join(dir, demoArchive))
}

// pack writes the bundle beside its name and renames it, so that a half
// written one is never picked up.
func pack(c bundle.Contents, out string, key bundle.Key) error {
	tmp, err := os.CreateTemp(filepath.Dir(out), ".bundle-")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	m, err := bundle.Write(tmp, c, &key)
	if err != nil {
		return err
	}
	if err := tmp.Chmod(0o644); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), out); err != nil {
		return err
	}
	fmt.Printf("%s  %s  signed by %s\n", m.Release(), out, bundle.KeyID(key.Public().ID()))
	return nil
}
