// Package sandbox lays out the directories in which tasks run, as Mesos agents
// do, and removes those of finished tasks after a while or when the disk fills:
//
//	<work>/slaves/<agent>/frameworks/<framework>/executors/<executor>/runs/<container>
//	<work>/slaves/<agent>/frameworks/<framework>/executors/<executor>/runs/latest → <container>
package sandbox

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sort"
	"time"

	"golang.org/x/sys/unix"

	"dcos.example/dcos/runtime/fault"
)

// How long sandboxes of finished tasks stay on an empty disk, and the share of
// the disk that is treated as full already.
const (
	Delay    = 7 * 24 * time.Hour
	Headroom = 0.1
)

// Layout knows where sandboxes are.
type Layout struct{ Work string }

// Agents is the directory above all agents' directories.
func (l Layout) Agents() string { return filepath.Join(l.Work, "slaves") }

// Agent is the directory of one agent id.
func (l Layout) Agent(agent string) string { return filepath.Join(l.Agents(), agent) }

// Run is the sandbox of one container.
func (l Layout) Run(agent, framework, executor, container string) string {
	return filepath.Join(l.runs(agent, framework, executor), container)
}

func (l Layout) runs(agent, framework, executor string) string {
	return filepath.Join(l.Agent(agent), "frameworks", framework, "executors", executor, "runs")
}

// Create makes a container's sandbox, owned by uid and gid, with empty stdout
// and stderr files in it, and points "latest" at it.
func (l Layout) Create(agent, framework, executor, container string, uid, gid int) (string, error) {
	const op = "create sandbox"
	dir := l.Run(agent, framework, executor, container)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fault.New(op, fault.Internal, err)
	}
	err := os.Chown(dir, uid, gid)
	for _, name := range []string{"stdout", "stderr"} {
		f, ferr := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if ferr == nil {
			ferr = errors.Join(f.Chown(uid, gid), f.Close())
		}
		err = errors.Join(err, ferr)
	}
	tmp := filepath.Join(filepath.Dir(dir), ".latest-"+container)
	if e := os.Symlink(container, tmp); e != nil && !errors.Is(e, fs.ErrExist) {
		err = errors.Join(err, e)
	}
	if err = errors.Join(err, os.Rename(tmp, filepath.Join(filepath.Dir(dir), "latest"))); err != nil {
		return "", fault.New(op, fault.Internal, err)
	}
	return dir, nil
}

// Collector removes sandboxes of finished tasks.
type Collector struct {
	Layout Layout
	Log    *slog.Logger
	// Live reports whether a container's sandbox is in use.
	Live func(container string) bool
	// Usage returns the share of the disk in use; nil asks the kernel.
	Usage func() (float64, error)
}

// Run collects every interval until ctx ends.
func (c *Collector) Run(ctx context.Context, interval time.Duration) {
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			if n, err := c.Collect(now); err != nil {
				c.Log.Warn("collect sandboxes", "removed", n, "error", err)
			} else if n > 0 {
				c.Log.Info("collected sandboxes", "removed", n)
			}
		}
	}
}

// Collect removes every sandbox older than the delay that the disk's fill
// allows: Delay * (1 - Headroom - usage), so all of them on a full disk. A
// sandbox's age counts from its last change, as finished tasks change nothing.
func (c *Collector) Collect(now time.Time) (removed int, err error) {
	usage := c.Usage
	if usage == nil {
		usage = c.kernelUsage
	}
	used, err := usage()
	if err != nil {
		return 0, fault.New("read disk usage", fault.Internal, err)
	}
	keep := time.Duration(float64(Delay) * max(0, 1-Headroom-used))
	type run struct {
		path    string
		changed time.Time
	}
	var runs []run
	dirs, err := filepath.Glob(filepath.Join(c.Layout.Agents(), "*", "frameworks", "*", "executors", "*", "runs", "*"))
	if err != nil {
		return 0, fault.New("list sandboxes", fault.Internal, err)
	}
	for _, d := range dirs {
		fi, err := os.Lstat(d)
		if err != nil || !fi.IsDir() || c.Live(fi.Name()) {
			continue
		}
		runs = append(runs, run{d, lastChange(d, fi.ModTime())})
	}
	sort.Slice(runs, func(i, j int) bool { return runs[i].changed.Before(runs[j].changed) })
	var errs []error
	for _, r := range runs {
		if now.Sub(r.changed) < keep {
			break
		}
		if err := os.RemoveAll(r.path); err != nil {
			errs = append(errs, err)
			continue
		}
		removed++
		c.prune(r.path)
	}
	if len(errs) > 0 {
		return removed, fault.New("remove sandboxes", fault.Internal, errors.Join(errs...))
	}
	return removed, nil
}

// lastChange is the newest time of the directory and its log files.
func lastChange(dir string, t time.Time) time.Time {
	for _, name := range []string{"stdout", "stderr"} {
		if fi, err := os.Lstat(filepath.Join(dir, name)); err == nil && fi.ModTime().After(t) {
			t = fi.ModTime()
		}
	}
	return t
}

// prune removes directories above a removed sandbox that are empty now.
func (c *Collector) prune(dir string) {
	runs := filepath.Dir(dir)
	latest := filepath.Join(runs, "latest")
	if _, err := os.Stat(latest); errors.Is(err, fs.ErrNotExist) {
		_ = os.Remove(latest) // a dangling link, or nothing
	}
	for p := runs; p != c.Layout.Agents() && len(p) > len(c.Layout.Agents()); p = filepath.Dir(p) {
		if os.Remove(p) != nil { // refuses a directory that is not empty
			return
		}
	}
}

func (c *Collector) kernelUsage() (float64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(c.Layout.Work, &st); err != nil {
		return 0, err
	}
	if st.Blocks == 0 {
		return 0, nil
	}
	return 1 - float64(st.Bavail)/float64(st.Blocks), nil
}
