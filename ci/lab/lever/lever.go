// Package lever pulls the levers of a cgroup that an experiment needs and a
// host's owner does not: it stops all of the group's processes, bounds what
// they ask of a disk, and tells the memory they use. It works with version 1
// and 2 of cgroups and needs the group to exist.
package lever

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dcos.example/dcos/providers/local/cgroup"
)

// Group is a cgroup, by its path in every hierarchy.
type Group struct {
	layout cgroup.Layout
	path   string
}

// New returns the group at path.
func New(l cgroup.Layout, path string) Group { return Group{l, path} }

// in returns the group's directory in the hierarchy that has a controller:
// that of version 1 if there is one, else that of version 2.
func (g Group) in(controller string) (dir string, v2, ok bool) {
	for _, h := range g.layout.Hierarchies {
		if !h.V2 && strings.Contains(","+h.Options+",", ","+controller+",") {
			return filepath.Join(h.Mount, g.path), false, true
		}
	}
	for _, h := range g.layout.Hierarchies {
		if h.V2 {
			return filepath.Join(h.Mount, g.path), true, true
		}
	}
	return "", false, false
}

// freezer returns the file that stops the group, and what to write to it.
func (g Group) freezer() (file, freeze, thaw string) {
	dir, v2, _ := g.in("freezer")
	if v2 {
		return filepath.Join(dir, "cgroup.freeze"), "1", "0"
	}
	return filepath.Join(dir, "freezer.state"), "FROZEN", "THAWED"
}

// Frozen reports whether the group is stopped, or is being stopped.
func (g Group) Frozen() (bool, error) {
	file, freeze, _ := g.freezer()
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	state := string(bytes.TrimSpace(b))
	return state == freeze || state == "FREEZING", err
}

// Freeze stops every process of the group and returns when they stand still.
// With version 1 they cannot die either, until Thaw.
func (g Group) Freeze(ctx context.Context) error {
	file, freeze, _ := g.freezer()
	return set(ctx, file, freeze)
}

// Thaw lets them go on. A group that is gone is fine.
func (g Group) Thaw(ctx context.Context) error {
	file, _, thaw := g.freezer()
	err := set(ctx, file, thaw)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

func set(ctx context.Context, file, value string) error {
	if err := os.WriteFile(file, []byte(value), 0); err != nil {
		return err
	}
	for {
		b, err := os.ReadFile(file)
		if err != nil || string(bytes.TrimSpace(b)) == value {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Throttle bounds the operations and bytes a second that a group asks of a
// device, reading and writing apart; 0 is no bound. With version 1 a bound
// holds for the processes of one group and not of those below it, so each gets
// it: the sum may be more.
type Throttle struct {
	Group                Group
	IOPS, BytesPerSecond int64
	done                 map[bound]bool
}

type bound struct {
	group  uint64
	device string
}

// Apply bounds the group and, with version 1, those below it that did not exist
// at the last call.
func (t *Throttle) Apply(device string) error {
	var st unix.Stat_t
	if err := unix.Stat(device, &st); err != nil {
		return err
	}
	dev := fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	dir, v2, ok := t.Group.in("blkio")
	if !ok {
		return errors.New("bound the disk: there are no cgroups here")
	}
	if t.done == nil {
		t.done = map[bound]bool{}
	}
	files := t.files(dev, v2)
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it has ended
		}
		if err != nil || !d.IsDir() {
			return err
		}
		var group unix.Stat_t // a new one may have an old one's path
		if err := unix.Stat(path, &group); err != nil {
			return nil
		}
		key := bound{group.Ino, dev}
		if t.done[key] {
			return nil
		}
		for file, line := range files {
			err := os.WriteFile(filepath.Join(path, file), []byte(line), 0)
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
				if path == dir && (t.IOPS > 0 || t.BytesPerSecond > 0) {
					return fmt.Errorf("bound the disk: %w", err)
				}
				continue // it has ended; or no controller, and no bound
			}
			if err != nil {
				return fmt.Errorf("bound the disk: %w", err)
			}
		}
		t.done[key] = true
		if v2 { // holds for those below as well
			return filepath.SkipAll
		}
		return nil
	})
}

// files are the contents of a group's files, by name.
func (t *Throttle) files(dev string, v2 bool) map[string]string {
	if v2 {
		max := func(v int64) string {
			if v == 0 {
				return "max"
			}
			return strconv.FormatInt(v, 10)
		}
		n, b := max(t.IOPS), max(t.BytesPerSecond)
		return map[string]string{"io.max": fmt.Sprintf("%s rbps=%s wbps=%s riops=%s wiops=%s", dev, b, b, n, n)}
	}
	files := map[string]string{}
	for file, v := range map[string]int64{
		"read_iops": t.IOPS, "write_iops": t.IOPS, "read_bps": t.BytesPerSecond, "write_bps": t.BytesPerSecond,
	} {
		files["blkio.throttle."+file+"_device"] = fmt.Sprintf("%s %d", dev, v)
	}
	return files
}

// Memory returns what the group and those below it use, in bytes, without page
// cache; 0 when the machine does not account for it.
func (g Group) Memory() int64 {
	dir, v2, _ := g.in("memory")
	b, _ := os.ReadFile(filepath.Join(dir, "memory.stat")) // none: not accounted for
	key := "total_rss"
	if v2 {
		key = "anon"
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == key {
			n, _ := strconv.ParseInt(f[1], 10, 64) // the kernel wrote it
			return n
		}
	}
	return 0
}
