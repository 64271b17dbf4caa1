package rolepackage

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
	"golang.org/x/sys/unix"

	"dcos.example/dcos/installer/bootstrap"
	"dcos.example/dcos/installer/bundle"
	"dcos.example/dcos/installer/engine"
	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/installer/program"
	"dcos.example/dcos/providers"
	"dcos.example/dcos/providers/onprem"
	"dcos.example/dcos/runtime/fault"
)

// workPrefix begins the names of the directories where this program and the
// release lie while a host installs itself. /opt is where programs may be run.
const workPrefix = "/opt/dcos-install."

// lockFile is held while a host is changed.
const lockFile = "/run/dcos-install.lock"

// Installation is a host that installs itself.
type Installation struct {
	Package Package
	Bundle  string       // path of the release
	Trust   bundle.Trust // besides the keys of the package
	Here    host.Host    // this machine
	Cache   string       // where the release is unpacked
}

// ref is how the steps reach this machine.
func (i Installation) ref() resource.PropertyMap {
	return resource.PropertyMap{"kind": resource.NewProperty(string(host.KindHere)), "address": resource.NewProperty(i.Package.Host.Addr.String())}
}

func (i Installation) open(context.Context, host.Ref) (host.Host, error) { return i.Here, nil }

// trust are all keys that count.
func (i Installation) trust() (bundle.Trust, error) {
	t := i.Trust
	for _, line := range i.Package.Trust {
		if err := t.Add([]byte(line), "of this host's package"); err != nil {
			return t, err
		}
	}
	return t, nil
}

// Unpack verifies the release and returns where it was unpacked.
func (i Installation) Unpack() (dir string, m bundle.Manifest, err error) {
	t, err := i.trust()
	if err != nil {
		return "", m, err
	}
	if dir, m, err = bundle.Unpack(i.Bundle, i.Cache, t); err != nil {
		return "", m, err
	}
	if m.Digest() != i.Package.Release.Digest {
		return "", m, fault.Newf("open the release", fault.Conflict, "%s is release %s, and the package is for another one; fetch both again", i.Bundle, m.Release())
	}
	return dir, m, nil
}

// Run installs the host, or finishes that, or changes what has to be changed.
// It reports steps to the reporter in ctx.
func (i Installation) Run(ctx context.Context) error {
	t, err := i.trust()
	if err != nil {
		return err
	}
	in, err := i.node(ctx)
	if err != nil {
		return err
	}
	p := bootstrap.New(bootstrap.Options{Cache: i.Cache, Trust: t, Open: i.open})
	key := engine.Key{Type: program.TypeNode, Name: i.Package.Host.Name}
	_, err = p.Create(providers.WithToken(ctx, bootstrap.OwnerOf(i.Package.Secrets.ClusterID)), plugin.CreateRequest{
		URN: key.URN(i.Package.Cluster.Cluster.Name), Type: key.Type, Name: key.Name, Properties: in,
	})
	return err
}

// node returns the inputs of this host's Node, which are what they would be if
// the installer had looked at the machine over SSH.
func (i Installation) node(ctx context.Context) (resource.PropertyMap, error) {
	p := i.Package
	t := p.topology()
	name := t.Cluster.Name
	machine, err := i.look(ctx)
	if err != nil {
		return nil, err
	}
	goals := program.Goals(t, program.Release{Version: p.Release.Version, Digest: p.Release.Digest, Bundle: i.Bundle})
	key := engine.Key{Type: program.TypeNode, Name: p.Host.Name}
	at := slices.IndexFunc(goals, func(g engine.Goal) bool { return g.Key == key })
	if at < 0 {
		return nil, fault.Newf("install this host", fault.Internal, "it is not in its own package")
	}
	return goals[at].Inputs(engine.Known(map[engine.Key]resource.PropertyMap{
		program.SecretsKey(name): p.Secrets.properties(), program.HostKey(t.Provider, p.Host.Name): machine,
	}))
}

// look is what the provider of such machines would say of this one.
func (i Installation) look(ctx context.Context) (resource.PropertyMap, error) {
	h := i.Package.Host
	p := onprem.New(func(ctx context.Context, _ string, _ resource.PropertyMap, script string) (onprem.Answer, error) {
		out, err := i.Here.Run(ctx, "/bin/sh", "-c", script)
		if err == nil && out.Code != 0 {
			err = fault.Newf("look at this machine", fault.Internal, "exit status %d: %s", out.Code, out.Stderr)
		}
		return onprem.Answer{Text: out.Stdout}, err
	})
	key := program.HostKey(i.Package.Cluster.Provider, h.Name)
	res, err := p.Create(ctx, plugin.CreateRequest{URN: key.URN(i.Package.Cluster.Cluster.Name), Type: key.Type, Name: h.Name, Properties: resource.PropertyMap{
		"cluster": resource.NewProperty(i.Package.Cluster.Cluster.Name), "name": resource.NewProperty(h.Name), "role": resource.NewProperty(string(h.Role)),
		"address": resource.NewProperty(h.Addr.String()), "connection": resource.NewProperty(i.ref()),
	}})
	return res.Properties, err
}

// Uninstall stops and removes what was installed, with the host's data, and
// puts back what was there.
func Uninstall(ctx context.Context, here host.Host) error {
	p := bootstrap.New(bootstrap.Options{Open: func(context.Context, host.Ref) (host.Host, error) { return here, nil }})
	key := engine.Key{Type: program.TypeNode, Name: "here"}
	_, err := p.Delete(ctx, plugin.DeleteRequest{URN: key.URN("here"), Type: key.Type, Name: key.Name, ID: "here", Inputs: resource.PropertyMap{
		"host": resource.NewProperty(resource.PropertyMap{"kind": resource.NewProperty(string(host.KindHere)), "address": resource.NewProperty("127.0.0.1")}),
		"name": resource.NewProperty(key.Name),
	}})
	return err
}

// Begin keeps others from changing this machine at the same time, removes what
// a killed run left, and returns a directory to work in. End undoes it.
func Begin() (work string, end func() error, err error) {
	const op = "begin"
	f, err := os.OpenFile(lockFile, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", nil, fault.New(op, fault.Denied, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return "", nil, fault.Newf(op, fault.Conflict, "another installation of this machine is running; wait for it to end")
	}
	self, err := os.Executable()
	if err == nil {
		err = removeStale(self)
	}
	if err == nil {
		work, err = os.MkdirTemp(filepath.Dir(workPrefix), filepath.Base(workPrefix))
	}
	if err != nil {
		f.Close()
		return "", nil, fault.New(op, fault.Denied, err)
	}
	return work, func() error { return errors.Join(os.RemoveAll(work), f.Close()) }, nil
}

// removeStale removes the directories of earlier runs, but for the one that the
// program self lies in.
func removeStale(self string) error {
	found, err := filepath.Glob(workPrefix + "*")
	for _, dir := range found {
		if filepath.Dir(self) != dir {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}
	return err
}
