// Package volume keeps the persistent volumes of a host: directories that
// outlive the tasks that use them, agents and reboots, until they are
// destroyed. They lie where Mesos agents have them:
//
//	<work>/volumes/roles/<role>/<persistence id>
//	<root>/volumes/roles/<role>/<persistence id>     of a PATH disk
//	<root>                                           of a MOUNT disk, which is one volume
//
// A role below another is one directory, with a space for each slash, which no
// role has in its name: what is in a volume is never a volume.
//
// Which volumes there are is in the agent's checkpoint, not here. Data that the
// checkpoint never knew is not removed but set aside, below <work>/volumes/aside.
// A directory that is not there any more is not made again: its data is lost, and
// whoever uses it must learn so.
package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/moby/sys/mountinfo"

	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/resource"
)

// Layout knows where volumes are.
type Layout struct{ Work string }

// Volume is one persistent volume.
type Volume struct {
	Role, ID string
	Path     string // of its data
	// Disk is the mount point of the disk that is the volume; empty: the
	// volume is a directory of a disk that has other things as well.
	Disk string
	// base is the directory with all volumes of the disk; empty with Disk.
	base string
}

// Of returns the volume that an item is; ok is false if it is none.
func (l Layout) Of(it resource.Item) (v Volume, ok bool, err error) {
	id, role, disk := it.VolumeID(), it.Role(), it.Disk()
	if disk.GetPersistence() == nil {
		return v, false, nil
	}
	const op = "find volume"
	if id == "" || id == "." || id == ".." || strings.ContainsAny(id, "/\x00") {
		return v, false, fault.Newf(op, fault.Invalid, "persistence id %q is not the name of a directory", id)
	}
	if err := resource.CheckRole(role); err != nil || role == resource.AnyRole {
		return v, false, fault.Newf(op, fault.Invalid, "volume %s is reserved to no role", id)
	}
	v = Volume{Role: role, ID: id, base: filepath.Join(l.Work, "volumes")}
	switch src := disk.GetSource(); {
	case src == nil:
	case src.GetType() == mesos.Resource_DiskInfo_Source_PATH:
		v.base = filepath.Join(l.root(src.GetPath().GetRoot()), "volumes")
	case src.GetType() == mesos.Resource_DiskInfo_Source_MOUNT && src.GetMount().GetRoot() != "":
		v.base, v.Disk = "", l.root(src.GetMount().GetRoot())
		v.Path = v.Disk
		return v, true, nil
	default:
		return v, false, fault.Newf(op, fault.Invalid, "volume %s is on a disk of type %s, which is not supported", id, src.GetType())
	}
	v.Path = filepath.Join(v.base, "roles", strings.ReplaceAll(role, "/", " "), id)
	return v, true, nil
}

// root is the directory of a disk; relative ones are below the work directory.
func (l Layout) root(dir string) string {
	if filepath.IsAbs(dir) {
		return filepath.Clean(dir)
	}
	return filepath.Join(l.Work, dir)
}

// All returns the volumes of r. Two that share a directory are an error.
func (l Layout) All(r resource.Resources) ([]Volume, error) {
	var out []Volume
	var errs []error
	seen := map[string]bool{}
	for it := range r.All() {
		v, ok, err := l.Of(it)
		if err != nil {
			errs = append(errs, err)
		}
		if !ok {
			continue
		}
		if seen[v.Path] {
			errs = append(errs, fmt.Errorf("%s is there twice", v))
		}
		seen[v.Path] = true
		out = append(out, v)
	}
	if len(errs) > 0 {
		return nil, fault.New("list volumes", fault.Invalid, errors.Join(errs...))
	}
	return out, nil
}

// String names the volume for people.
func (v Volume) String() string { return fmt.Sprintf("volume %s of role %s", v.ID, v.Role) }

// lostFound is what a file system has of its own in its root.
const lostFound = "lost+found"

// Make makes the empty directory of a new volume. What is there already, which
// no list knows, is set aside, to the path returned; a MOUNT disk must be empty.
func (v Volume) Make() (aside string, err error) {
	op := "make " + v.String()
	if v.Disk != "" {
		if err := v.Ready(); err != nil {
			return "", err
		}
		if full, err := holds(v.Path); err != nil {
			return "", fault.New(op, fault.Internal, err)
		} else if full {
			return "", fault.Newf(op, fault.Conflict, "%s is not empty: it has data of no volume that this agent knows; move it away", v.Path)
		}
		return "", nil
	}
	full, err := holds(v.Path)
	if err == nil && full {
		aside, err = setAside(v.base, v.Path, filepath.Base(filepath.Dir(v.Path))+"-"+v.ID)
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = v.mkdir()
	}
	if err != nil {
		return aside, fault.New(op, fault.Internal, err)
	}
	return aside, nil
}

// holds reports whether something is in a directory.
func holds(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if e.Name() != lostFound {
			return true, nil
		}
	}
	return false, err
}

// setAside moves a directory to where nobody looks for volumes.
func setAside(base, dir, name string) (string, error) {
	to := filepath.Join(base, "aside", name+"-"+uuid.NewString()[:8])
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return "", err
	}
	return to, os.Rename(dir, to)
}

// mkdir makes the directory and syncs those above it. What leads to volumes is
// for the agent alone; a task sees its volumes through mounts.
func (v Volume) mkdir() error {
	roles := filepath.Join(v.base, "roles")
	for _, dir := range []string{v.base, roles, filepath.Dir(v.Path), v.Path} {
		mode := fs.FileMode(0o700)
		if dir == v.Path {
			mode = 0o755
		}
		err := os.Mkdir(dir, mode)
		if dir == v.base && errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s is not there", filepath.Dir(v.base))
		}
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err == nil {
			err = syncDir(filepath.Dir(dir))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Unmake undoes Make: it removes the directory if nothing is in it.
func (v Volume) Unmake() error {
	if v.Disk != "" {
		return nil
	}
	if err := os.Remove(v.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.New("give up "+v.String(), fault.Internal, err)
	}
	return nil
}

// Ready reports why a volume can not be used, or nil.
func (v Volume) Ready() error {
	op := "use " + v.String()
	fi, err := os.Stat(v.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault.Newf(op, fault.NotFound, "its directory %s is gone, and its data with it", v.Path)
	case err != nil:
		return fault.New(op, fault.Internal, err)
	case !fi.IsDir():
		return fault.Newf(op, fault.Invalid, "%s is not a directory", v.Path)
	}
	if v.Disk == "" {
		return nil
	}
	mounted, err := mountinfo.Mounted(v.Disk)
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	if !mounted {
		return fault.Newf(op, fault.Unavailable, "its disk is not mounted at %s", v.Disk)
	}
	return nil
}

// trash is where data goes that was destroyed and is not removed yet.
const trash = "trash"

// Retire takes a volume's data away from where it was, however much it is, and
// returns the directory that is to be removed, empty if there is none. A
// volume that is not there is no error. A MOUNT disk is emptied at once.
func (v Volume) Retire() (left string, err error) {
	op := "destroy " + v.String()
	if v.Disk != "" {
		if err := v.Ready(); err != nil {
			return "", err
		}
		entries, err := os.ReadDir(v.Path)
		errs := []error{err}
		for _, e := range entries {
			if e.Name() != lostFound {
				errs = append(errs, os.RemoveAll(filepath.Join(v.Path, e.Name())))
			}
		}
		if err := errors.Join(errs...); err != nil {
			return "", fault.New(op, fault.Internal, err)
		}
		return "", nil
	}
	dir := filepath.Join(v.base, trash)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fault.New(op, fault.Internal, err)
	}
	left = filepath.Join(dir, uuid.NewString())
	err = os.Rename(v.Path, left)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err == nil {
		err = errors.Join(syncDir(filepath.Dir(v.Path)), syncDir(dir))
	}
	if err != nil {
		return "", fault.New(op, fault.Internal, err)
	}
	_ = os.Remove(filepath.Dir(v.Path)) // of the role; refuses while others are in it
	return left, nil
}

// Tidy brings the host's disks in line with the list of volumes at the start of
// an agent. What the list does not have was destroyed just before the agent
// ended, and is retired; the directories to remove are returned, with what
// former runs have left of theirs.
func (l Layout) Tidy(host resource.Resources, listed []Volume) (left []string, err error) {
	known := map[string]bool{}
	for _, v := range listed {
		known[v.Path] = true
	}
	var errs []error
	for _, base := range l.bases(host) {
		dirs, err := filepath.Glob(filepath.Join(base, "roles", "*", "*"))
		errs = append(errs, err)
		for _, dir := range dirs {
			if known[dir] {
				continue
			}
			v := Volume{Role: strings.ReplaceAll(filepath.Base(filepath.Dir(dir)), " ", "/"), ID: filepath.Base(dir), Path: dir, base: base}
			_, err := v.Retire()
			errs = append(errs, err)
		}
		dirs, err = filepath.Glob(filepath.Join(base, trash, "*"))
		left, errs = append(left, dirs...), append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return left, fault.New("tidy volumes", fault.Internal, err)
	}
	return left, nil
}

// SetAside moves all volumes out of the way and returns where they are now. It
// is for an agent that begins anew: their data is nobody's, and for people to
// judge.
func (l Layout) SetAside(host resource.Resources) (moved []string, err error) {
	var errs []error
	for _, base := range l.bases(host) {
		from := filepath.Join(base, "roles")
		full, err := holds(from)
		if err == nil && full {
			var to string
			to, err = setAside(base, from, "all")
			moved = append(moved, to)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return moved, fault.New("set volumes aside", fault.Internal, errors.Join(errs...))
	}
	return moved, nil
}

// bases are the directories with volumes on the disks of a host.
func (l Layout) bases(host resource.Resources) []string {
	out := []string{filepath.Join(l.Work, "volumes")}
	for it := range host.All() {
		if src := it.Disk().GetSource(); src.GetType() == mesos.Resource_DiskInfo_Source_PATH {
			if dir := filepath.Join(l.root(src.GetPath().GetRoot()), "volumes"); !slices.Contains(out, dir) {
				out = append(out, dir)
			}
		}
	}
	return out
}

// Remove removes a directory that Retire returned, piece by piece until ctx
// ends; Tidy finds the rest.
func Remove(ctx context.Context, dir string) error {
	entries, err := os.ReadDir(dir)
	errs := []error{err}
	for _, e := range entries {
		if ctx.Err() != nil {
			return nil
		}
		errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	if err := errors.Join(append(errs, os.RemoveAll(dir))...); err != nil {
		return fault.New("remove destroyed volume", fault.Internal, err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
