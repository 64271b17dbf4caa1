package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/moby/sys/mountinfo"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"dcos.example/dcos/runtime/fault"
)

// maxOpenFiles is what other engines give a container as well, if the host
// allows it.
const maxOpenFiles = 1 << 20

// imageSpec is what a container of an image looks like.
func (d *Containerd) imageSpec(s Spec, img *image) []oci.SpecOpts {
	args := append(slices.Clone(s.Entrypoint), s.Cmd...)
	if s.Entrypoint == nil {
		cmd := s.Cmd
		if len(cmd) == 0 {
			cmd = img.config.Cmd
		}
		args = append(slices.Clone(img.config.Entrypoint), cmd...)
	}
	cwd := s.Cwd
	if cwd == "" {
		cwd = img.config.WorkingDir
	}
	if cwd == "" {
		cwd = "/"
	}
	name := s.User
	if name == "" {
		name = img.config.User
	}
	env := img.config.Env
	if len(env) == 0 {
		env = []string{defaultPath}
	}
	opts := []oci.SpecOpts{
		checkArgs(args),
		oci.WithProcessArgs(args...), oci.WithProcessCwd(cwd), oci.WithEnv(env), oci.WithEnv(s.Env),
		d.withUser(img, name),
		oci.WithDefaultUnixDevices, oci.WithoutRunMount, oci.WithNewPrivileges, withCgroupView,
	}
	if s.ShmSize > 0 {
		opts = append(opts, oci.WithDevShmSize(s.ShmSize/1024))
	}
	opts = append(opts, d.common(s)...)
	if s.Privileged {
		opts = append(opts, oci.WithPrivileged, oci.WithAllDevicesAllowed, oci.WithHostDevices)
	}
	return append(opts, capabilities(s)...)
}

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func checkArgs(args []string) oci.SpecOpts {
	return func(context.Context, oci.Client, *containers.Container, *oci.Spec) error {
		if len(args) == 0 {
			return fault.Newf("choose command", fault.Invalid, "neither the task nor the image names a command")
		}
		return nil
	}
}

// withUser finds a user in the image's passwd and group files. That takes a
// mount, so what was found is remembered per image.
func (d *Containerd) withUser(img *image, name string) oci.SpecOpts {
	return func(ctx context.Context, cl oci.Client, c *containers.Container, s *oci.Spec) error {
		key := img.chainID + " " + name
		d.mu.Lock()
		known, ok := d.users[key]
		d.mu.Unlock()
		if !ok {
			lookup := name
			if lookup == "" {
				lookup = "0"
			}
			if err := oci.WithUser(lookup)(ctx, cl, c, s); err != nil {
				return fault.Newf("find user", fault.Invalid, "user %q in image %s: %w", name, img.Name(), err)
			}
			if err := oci.WithAdditionalGIDs(strconv.FormatUint(uint64(s.Process.User.UID), 10))(ctx, cl, c, s); err != nil {
				return err
			}
			known = s.Process.User
			d.mu.Lock()
			d.users[key] = known
			d.mu.Unlock()
		}
		s.Process.User = known
		return nil
	}
}

// withCgroupView shows the container its own cgroup, where programs look for
// their limits.
func withCgroupView(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
	s.Mounts = append(s.Mounts, specs.Mount{
		Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup",
		Options: []string{"ro", "nosuid", "noexec", "nodev"},
	})
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	return nil
}

// hostSpec is what a command on the host's own root looks like: its own mount
// table, the host's processes, and limits. The process sees and may do what
// its user may do on the host.
func (d *Containerd) hostSpec(s Spec, mounts []specs.Mount) ([]oci.SpecOpts, error) {
	args := append(slices.Clone(s.Entrypoint), s.Cmd...)
	if len(args) == 0 {
		return nil, fault.Newf("choose command", fault.Invalid, "the task has neither an image nor a command")
	}
	who, err := hostUser(s.User)
	if err != nil {
		return nil, err
	}
	cwd := s.Cwd
	if cwd == "" {
		cwd = "/"
	}
	opts := []oci.SpecOpts{
		oci.WithProcessArgs(args...), oci.WithProcessCwd(cwd), oci.WithEnv([]string{defaultPath}), oci.WithEnv(s.Env),
		oci.WithHostNamespace(specs.PIDNamespace), oci.WithHostNamespace(specs.IPCNamespace),
		oci.WithAllCurrentCapabilities, oci.WithAllDevicesAllowed,
		oci.WithMaskedPaths(nil), oci.WithReadonlyPaths(nil), oci.WithNewPrivileges,
		func(_ context.Context, _ oci.Client, _ *containers.Container, spec *oci.Spec) error {
			spec.Process.User = who
			spec.Mounts = slices.Clone(mounts)
			return nil
		},
	}
	return append(append(opts, d.common(s)...), capabilities(s)...), nil
}

// hostUser looks a user up on the host.
func hostUser(name string) (specs.User, error) {
	const op = "find user"
	name, group, hasGroup := strings.Cut(name, ":")
	if name == "" {
		name = "root"
	}
	u, err := user.Lookup(name)
	if err != nil {
		u, err = user.LookupId(name)
	}
	if err != nil {
		return specs.User{}, fault.Newf(op, fault.Invalid, "user %q does not exist on this host", name)
	}
	ids := []string{u.Gid}
	if more, err := u.GroupIds(); err == nil {
		ids = append(ids, more...)
	}
	if hasGroup {
		g, err := user.LookupGroup(group)
		if err != nil {
			g, err = user.LookupGroupId(group)
		}
		if err != nil {
			return specs.User{}, fault.Newf(op, fault.Invalid, "group %q does not exist on this host", group)
		}
		ids[0] = g.Gid
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	who := specs.User{UID: uint32(uid)}
	errs := []error{err1}
	for i, id := range ids {
		gid, err := strconv.ParseUint(id, 10, 32)
		errs = append(errs, err)
		if i == 0 {
			who.GID = uint32(gid)
		}
		who.AdditionalGids = append(who.AdditionalGids, uint32(gid))
	}
	if err := errors.Join(errs...); err != nil {
		return specs.User{}, fault.New(op, fault.Internal, err)
	}
	return who, nil
}

// common is what both kinds share.
func (d *Containerd) common(s Spec) []oci.SpecOpts {
	opts := []oci.SpecOpts{
		oci.WithCgroup(d.cgroup(s.ID)),
		d.withRlimits(s.Rlimits),
		d.withOOMScore,
		oci.WithAnnotations(map[string]string{labelName: s.ID}),
	}
	if s.Netns != "" {
		opts = append(opts, oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: s.Netns}))
	} else {
		opts = append(opts, oci.WithHostNamespace(specs.NetworkNamespace))
	}
	if s.Hostname != "" {
		opts = append(opts, oci.WithHostname(s.Hostname))
	} else {
		opts = append(opts, oci.WithHostNamespace(specs.UTSNamespace))
	}
	var mounts []specs.Mount
	for _, m := range s.Mounts {
		mode := "rw"
		if m.ReadOnly {
			mode = "ro"
		}
		propagation := "rprivate"
		if m.Follow {
			propagation = "rslave"
		}
		mounts = append(mounts, specs.Mount{Destination: m.Target, Type: "bind", Source: m.Source, Options: []string{"rbind", propagation, mode}})
	}
	slices.SortStableFunc(mounts, func(a, b specs.Mount) int { return cmp.Compare(depth(a.Destination), depth(b.Destination)) })
	opts = append(opts, oci.WithMounts(mounts), giving(s.Mounts))
	if n := s.Limits.CPUs; n > 0 {
		opts = append(opts, oci.WithCPUShares(max(2, uint64(n*1024))))
	}
	if n := s.Limits.Memory; n > 0 {
		opts = append(opts, oci.WithMemoryLimit(uint64(n)))
	}
	if n := s.Limits.Pids; n > 0 {
		opts = append(opts, oci.WithPidsLimit(n))
	}
	return opts
}

// depth is how many names a path has.
func depth(p string) int { return strings.Count(path.Clean(p), "/") }

// giving gives the sources of mounts to the user that was found before.
func giving(mounts []Mount) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		uid, gid := int(s.Process.User.UID), int(s.Process.User.GID)
		for _, m := range mounts {
			if err := give(m, uid, gid); err != nil {
				return fault.Newf("give "+m.Target+" to the container's user", fault.Internal, "%w", err)
			}
		}
		return nil
	}
}

func give(m Mount, uid, gid int) error {
	switch m.Give {
	case GiveEmpty:
		entries, err := os.ReadDir(m.Source)
		if err != nil || len(entries) > 0 {
			return err
		}
		return os.Lchown(m.Source, uid, gid)
	case GiveAll:
		return filepath.WalkDir(m.Source, func(p string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			fi, err := e.Info()
			if err != nil {
				return err
			}
			if st, ok := fi.Sys().(*syscall.Stat_t); ok && int(st.Uid) == uid && int(st.Gid) == gid {
				return nil
			}
			return os.Lchown(p, uid, gid)
		})
	}
	return nil
}

// withOOMScore keeps tasks from inheriting what protects containerd: short of
// memory, the kernel must not end everything else first. Who may not lower a
// score has no protected containerd.
func (d *Containerd) withOOMScore(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
	if !d.clamp.limited {
		s.Process.OOMScoreAdj = new(int)
	}
	return nil
}

func (d *Containerd) withRlimits(want []Rlimit) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		all := append([]Rlimit{{Type: "RLIMIT_NOFILE", Soft: maxOpenFiles, Hard: maxOpenFiles}}, want...)
		s.Process.Rlimits = nil
		for _, r := range all {
			r = d.clamp.apply(r)
			s.Process.Rlimits = slices.DeleteFunc(s.Process.Rlimits, func(o specs.POSIXRlimit) bool { return o.Type == r.Type })
			s.Process.Rlimits = append(s.Process.Rlimits, specs.POSIXRlimit{Type: r.Type, Soft: r.Soft, Hard: r.Hard})
		}
		return nil
	}
}

func capabilities(s Spec) (opts []oci.SpecOpts) {
	full := func(names []string) (out []string, all bool) {
		for _, n := range names {
			n = strings.ToUpper(n)
			if n == "ALL" {
				return nil, true
			}
			if !strings.HasPrefix(n, "CAP_") {
				n = "CAP_" + n
			}
			out = append(out, n)
		}
		return out, false
	}
	add, addAll := full(s.CapAdd)
	drop, dropAll := full(s.CapDrop)
	if dropAll {
		opts = append(opts, oci.WithCapabilities(nil))
	}
	if addAll {
		opts = append(opts, oci.WithAllCurrentCapabilities)
	}
	return append(opts, oci.WithAddedCapabilities(add), oci.WithDroppedCapabilities(drop))
}

// hostRoot returns a bind mount of the host's root that no mount event reaches
// or leaves. Binding / itself for every container would, where / is a shared
// mount, copy each container's mounts into all others.
func hostRoot(runDir string) (string, error) {
	dir := filepath.Join(runDir, "hostroot")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	mounted, err := mountinfo.Mounted(dir)
	if err != nil || mounted {
		return dir, err
	}
	if err := unix.Mount("/", dir, "", unix.MS_BIND, ""); err != nil {
		return "", fmt.Errorf("bind the host's root: %w", err)
	}
	if err := unix.Mount("", dir, "", unix.MS_PRIVATE, ""); err != nil {
		return "", fmt.Errorf("make the host's root private: %w", err)
	}
	return dir, nil
}

// ReleaseHost undoes what containers on the host's root needed. None may run.
func (d *Containerd) ReleaseHost() error {
	dir := filepath.Join(d.o.RunDir, "hostroot")
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fault.New("release host root", fault.Internal, err)
	}
	return nil
}

// hostMounts are the mounts that make the host's root complete: the kernel's
// file systems and every disk mounted below. Mounts of other containers are
// left out, or each new container would hold on to all older ones.
func (d *Containerd) hostMounts() ([]specs.Mount, error) {
	bind := func(p string, opts ...string) specs.Mount {
		return specs.Mount{Destination: p, Type: "bind", Source: p, Options: append(opts, "rprivate", "rw")}
	}
	mounts := []specs.Mount{bind("/proc", "rbind"), bind("/sys", "rbind"), bind("/dev", "rbind")}
	hide := append([]string{"/proc", "/sys", "/dev", d.o.RunDir, "/var/lib/docker", "/var/lib/containerd", "/var/lib/containers", "/var/lib/kubelet"}, d.o.Hide...)
	infos, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil, err
	}
	skip := func(i *mountinfo.Info) bool {
		switch i.FSType {
		case "overlay", "nsfs", "autofs", "fuse.lxcfs", "binfmt_misc":
			return true
		}
		// Below /run are sockets, namespaces and other engines' containers; a
		// second mount of the root is how this driver shows it to containers.
		if i.Mountpoint == "/" || strings.HasPrefix(i.Mountpoint, "/run/") || slices.ContainsFunc(infos, func(o *mountinfo.Info) bool {
			return o.Mountpoint == "/" && o.Major == i.Major && o.Minor == i.Minor && o.Root == i.Root
		}) {
			return true
		}
		return slices.ContainsFunc(hide, func(h string) bool { return i.Mountpoint == h || strings.HasPrefix(i.Mountpoint, h+"/") })
	}
	shown := slices.DeleteFunc(slices.Clone(infos), skip)
	seen := map[string]bool{}
	for _, i := range shown {
		if fi, err := os.Stat(i.Mountpoint); err != nil || !fi.IsDir() || seen[i.Mountpoint] {
			continue
		}
		seen[i.Mountpoint] = true
		mounts = append(mounts, bind(i.Mountpoint, "bind"))
	}
	return mounts, nil
}
