// Package boot turns a fresh set of namespaces into a host: it mounts the
// host's disk, lays a writable layer over the machine's own root, and shows
// only what belongs to the host. dcos-init calls it once, as the first process
// of the namespaces, before it supervises anything.
//
// All mounts are made in the host's private mount namespace: they vanish with
// its last process, and with them the loop device of the disk.
package boot

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"dcos.example/dcos/providers/local/cgroup"
)

// Files in a host's directory on the machine.
const (
	SpecFile    = "boot.json"
	ImageFile   = "disk.img"
	ConsoleFile = "console.log" // what dcos-init says
)

// Spec is what dcos-init needs to know of its host.
type Spec struct {
	Cluster   string        `json:"cluster"`
	Name      string        `json:"name"`
	Boot      string        `json:"boot"`    // id of this boot, new each time
	Address   string        `json:"address"` // of the host, for /etc/hosts
	Cgroup    string        `json:"cgroup"`  // the host's group
	Layout    cgroup.Layout `json:"layout"`
	Resolvers []string      `json:"resolvers,omitempty"` // addresses for /etc/resolv.conf
	// Hide are directories of the machine that the host sees empty.
	Hide []string `json:"hide,omitempty"`
	// Show are directories of the machine that the host sees read-only as they
	// are, at the same path.
	Show []string `json:"show,omitempty"`
	// Clear are directories that start empty on the host's first boot,
	// whatever the machine has there.
	Clear []string `json:"clear,omitempty"`
}

// Load reads the spec in the host directory dir.
func Load(dir string) (s Spec, err error) {
	b, err := os.ReadFile(filepath.Join(dir, SpecFile))
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(b, &s)
}

// Enter makes the namespaces of the calling process the host described by s.
// The working directory must be the host's directory and is "/" afterwards.
func Enter(s Spec) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := mountDisk(); err != nil {
		return err
	}
	if err := layRoot(s); err != nil {
		return err
	}
	if err := os.Chdir("root"); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("change root: %w", err)
	}
	// The old root lies on top of the new one: take it away.
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave old root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	return identify(s)
}

func mountDisk() error {
	loop, err := Attach(ImageFile)
	if err != nil {
		return fmt.Errorf("attach disk: %w", err)
	}
	// The mount keeps the device; with autoclear it goes when the mount does.
	defer loop.Close()
	if err := mount(loop.Name(), "disk", "ext4", unix.MS_NOATIME, ""); err != nil {
		return err
	}
	if err := os.RemoveAll("disk/tmp"); err != nil {
		return err
	}
	for _, d := range []string{"upper", "work", "dcos", "tmp"} {
		if err := os.MkdirAll(filepath.Join("disk", d), 0o755); err != nil {
			return err
		}
	}
	return os.Chmod("disk/tmp", 0o1777)
}

// layRoot builds the host's root in "root".
func layRoot(s Spec) error {
	// Relative paths: a colon or comma in the host's directory would be read
	// as part of the options.
	if err := mount("overlay", "root", "overlay", 0, "lowerdir=/,upperdir=disk/upper,workdir=disk/work"); err != nil {
		return err
	}
	for _, dir := range s.Hide {
		if at, ok := existing(dir); ok {
			if err := mount("tmpfs", at, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755,size=1m"); err != nil {
				return err
			}
		}
	}
	// Container snapshots cannot lie on an overlay.
	for from, to := range map[string]string{"disk/dcos": "root/var/lib/dcos", "disk/tmp": "root/tmp"} {
		if err := os.MkdirAll(to, 0o755); err != nil {
			return err
		}
		if err := mount(from, to, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	const plain = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	for _, m := range []struct {
		kind  string
		at    string
		flags uintptr
		data  string
	}{
		{"proc", "root/proc", plain, ""},
		{"sysfs", "root/sys", plain, ""},
		{"tmpfs", "root/run", unix.MS_NOSUID | unix.MS_NODEV, "mode=755,size=64m"},
		{"tmpfs", "root/dev", unix.MS_NOSUID, "mode=755,size=64k"},
	} {
		if err := os.MkdirAll(m.at, 0o755); err != nil {
			return err
		}
		if err := mount(m.kind, m.at, m.kind, m.flags, m.data); err != nil {
			return err
		}
	}
	// After the rest: they may lie below a directory that is the host's own.
	for _, dir := range s.Show {
		at := filepath.Join("root", dir)
		if err := os.MkdirAll(at, 0o755); err != nil {
			return err
		}
		if err := mount(dir, at, "", unix.MS_BIND, ""); err != nil {
			return err
		}
		if err := mount("", at, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			return err
		}
	}
	if err := s.Layout.MountAt("root"); err != nil {
		return err
	}
	return devices("root/dev")
}

// existing returns where the machine's dir appears below root.
func existing(dir string) (string, bool) {
	at := filepath.Join("root", dir)
	st, err := os.Lstat(at)
	return at, err == nil && st.IsDir()
}

// devices fills a fresh /dev with what programs and containers need, and
// nothing of the machine's hardware.
func devices(dev string) error {
	for _, d := range []struct {
		name         string
		major, minor uint32
	}{
		{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0},
		{"net/tun", 10, 200}, {"fuse", 10, 229},
	} {
		at := filepath.Join(dev, d.name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return err
		}
		if err := unix.Mknod(at, unix.S_IFCHR|0o666, int(unix.Mkdev(d.major, d.minor))); err != nil {
			return fmt.Errorf("make device %s: %w", d.name, err)
		}
		if err := os.Chmod(at, 0o666); err != nil {
			return err
		}
	}
	for _, l := range [][2]string{{"pts/ptmx", "ptmx"}, {"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"}, {"/proc/self/fd/2", "stderr"}} {
		if err := os.Symlink(l[0], filepath.Join(dev, l[1])); err != nil {
			return err
		}
	}
	for _, m := range [][3]string{
		{"devpts", "pts", "newinstance,ptmxmode=0666,mode=620"},
		{"tmpfs", "shm", "mode=1777,size=64m"},
		{"mqueue", "mqueue", ""},
	} {
		at := filepath.Join(dev, m[1])
		if err := os.Mkdir(at, 0o755); err != nil {
			return err
		}
		if err := mount(m[0], at, m[0], unix.MS_NOSUID|unix.MS_NOEXEC, m[2]); err != nil {
			return err
		}
	}
	return nil
}

// identify gives the host its name, and clears on its first boot what it must
// not inherit from the machine.
func identify(s Spec) error {
	if err := unix.Sethostname([]byte(s.Name)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	const marker = "/etc/dcos-host"
	if _, err := os.Lstat(marker); err == nil {
		return nil
	}
	for _, d := range s.Clear {
		if err := os.RemoveAll(d); err != nil {
			return err
		}
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	var id [16]byte
	rand.Read(id[:])
	var resolv strings.Builder
	for _, r := range s.Resolvers {
		fmt.Fprintf(&resolv, "nameserver %s\n", r)
	}
	hosts := "127.0.0.1 localhost\n::1 localhost\n"
	if s.Address != "" {
		hosts += s.Address + " " + s.Name + "\n"
	}
	for _, f := range [][2]string{
		{"/etc/hostname", s.Name + "\n"}, {"/etc/hosts", hosts}, {"/etc/resolv.conf", resolv.String()},
		{"/etc/machine-id", fmt.Sprintf("%x\n", id)},
		{marker, fmt.Sprintf("local host %s of cluster %s\n", s.Name, s.Cluster)},
	} {
		// Not written through: the machine's may be a link into its /run.
		if err := os.Remove(f[0]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.WriteFile(f[0], []byte(f[1]), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func mount(source, target, kind string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", cmpOr(kind, source), strings.TrimPrefix(target, "root"), err)
	}
	return nil
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
