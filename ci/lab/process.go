package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"dcos.example/dcos/providers/local/cgroup"
	"dcos.example/dcos/runtime/fault"
)

var noLimits = cgroup.Limits{}

// child is a process of the lab that this process started. It outlives it.
type child struct {
	part string
	done chan struct{} // closed when it has ended
}

// spawn starts one of the lab's own processes and returns when it says that it
// is ready. What it says goes to the part's console.
func (l *Lab) spawn(ctx context.Context, cmd *exec.Cmd, part string) error {
	console := l.console(part)
	if err := os.MkdirAll(filepath.Dir(console), 0o700); err != nil {
		return err
	}
	out, err := os.OpenFile(console, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = "/", out, out, []*os.File{w}
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return fmt.Errorf("start %s: %w", part, err)
	}
	c := &child{part, make(chan struct{})}
	go func() { // ends when the process does, at the latest in Down
		cmd.Wait()
		close(c.done)
	}()
	l.mu.Lock()
	l.children = append(l.children, c)
	l.mu.Unlock()

	stop := context.AfterFunc(ctx, func() { r.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := io.ReadFull(r, make([]byte, 1)); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fault.Newf("start "+part, fault.Internal, "%s", l.tail(part))
	}
	return nil
}

// announce says that a process of the lab is ready.
func announce(ready *os.File) error {
	if _, err := ready.Write([]byte{1}); err != nil {
		return fmt.Errorf("say that it is ready: %w", err)
	}
	return ready.Close()
}

func (l *Lab) console(part string) string {
	if part == "switch" {
		return filepath.Join(l.Dir, consoleFile)
	}
	for _, kind := range []string{"wire", "slow"} {
		if host, ok := strings.CutPrefix(part, kind+"-"); ok {
			return filepath.Join(l.hostDir(host), kind+".log")
		}
	}
	return filepath.Join(l.hostDir(part), consoleFile)
}

// tail returns the end of what a part of the lab said.
func (l *Lab) tail(part string) string {
	b, err := os.ReadFile(l.console(part))
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-8):], []byte("\n")))
}

// child returns the newest process of a part that this process started, nil
// when there is none.
func (l *Lab) child(part string) *child {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range slices.Backward(l.children) {
		if c.part == part {
			return c
		}
	}
	return nil
}

// reap waits for the children of the parts, or of all, which have been killed.
func (l *Lab) reap(parts ...string) {
	l.mu.Lock()
	mine := func(c *child) bool { return len(parts) == 0 || slices.Contains(parts, c.part) }
	var wait []*child
	for _, c := range l.children {
		if mine(c) {
			wait = append(wait, c)
		}
	}
	l.children = slices.DeleteFunc(l.children, mine)
	l.mu.Unlock()
	for _, c := range wait {
		<-c.done
	}
}

// inLAN starts one of the lab's own processes in the lab's network.
func (l *Lab) inLAN(ctx context.Context, cmd *exec.Cmd, part string) error {
	lan, err := l.lan()
	if err != nil {
		return err
	}
	defer lan.Close()
	return within(lan, func() error { return l.spawn(ctx, cmd, part) })
}

// first returns the first process of the host's own, by its id here; 0 when
// the host has no power.
func (l *Lab) first(host string) (int, error) {
	pids, err := l.group(host + "/machine").Procs()
	if err != nil {
		return 0, err
	}
	mine, err := ids(os.Getpid())
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		theirs, err := ids(pid)
		if err != nil {
			continue // it has ended
		}
		if len(theirs) == len(mine)+1 && theirs[len(mine)] == 1 {
			return pid, nil
		}
	}
	return 0, nil
}

// ids returns the ids that a process has, from this namespace inwards.
func ids(pid int) ([]int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(b)) {
		rest, ok := strings.CutPrefix(line, "NSpid:")
		if !ok {
			continue
		}
		var out []int
		for f := range strings.FieldsSeq(rest) {
			id, err := strconv.Atoi(f)
			if err != nil {
				return nil, err
			}
			out = append(out, id)
		}
		return out, nil
	}
	return nil, errors.New("the kernel does not tell ids in namespaces")
}
