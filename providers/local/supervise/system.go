package supervise

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"dcos.example/dcos/providers/local/cgroup"
	"dcos.example/dcos/providers/local/unit"
)

// exitExec is the exit status of a process that could not become its program,
// the one systemd uses.
const exitExec = 203

// System makes real processes. Each starts as this very program in its Enter
// mode, which moves into the service's cgroup and sets limits before it
// becomes the program wanted: version 1 hierarchies offer no other way to be
// in the cgroup from the first instruction on.
type System struct {
	layout    cgroup.Layout
	logDir    string
	notifyDir string
	logLimit  int64

	mu     sync.Mutex
	logs   map[string]*os.File // write end of each service's log pipe
	notify map[string]*notifier
	wg     sync.WaitGroup
	closed []io.Closer
}

type notifier struct {
	mu    sync.Mutex
	ready func()
}

// NewSystem returns a launcher that keeps logs of up to logLimit bytes, plus
// one older file of that size, per service in logDir.
func NewSystem(layout cgroup.Layout, logDir, notifyDir string, logLimit int64) *System {
	return &System{layout: layout, logDir: logDir, notifyDir: notifyDir, logLimit: logLimit, logs: map[string]*os.File{}, notify: map[string]*notifier{}}
}

// entry is what Enter is told.
type entry struct {
	Group  string            `json:"group,omitempty"`
	Dir    string            `json:"dir,omitempty"`
	Limits map[string]uint64 `json:"limits,omitempty"`
	Argv   []string          `json:"argv"`
}

// EnterArg marks a process that is to call Enter.
const EnterArg = "enter"

func groupName(service string) string {
	if service == "" {
		return "exec"
	}
	return service
}

// Start implements launcher.
func (s *System) Start(p Process) (int, error) {
	g := s.layout.Group(groupName(p.Service))
	if err := g.Create(cgroup.Limits{}); err != nil {
		return 0, err
	}
	spec, err := json.Marshal(entry{Group: groupName(p.Service), Dir: p.Dir, Limits: p.Limits, Argv: p.Argv})
	if err != nil {
		return 0, err
	}
	files := p.Files
	if p.Service != "" {
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			return 0, err
		}
		defer null.Close()
		out := null
		if !p.Discard {
			if out, err = s.log(p.Service); err != nil {
				return 0, err
			}
		}
		files = [3]*os.File{null, out, out}
	}
	return syscall.ForkExec("/proc/self/exe", []string{"dcos-init", EnterArg, string(spec)}, &syscall.ProcAttr{
		Env: p.Env, Files: []uintptr{files[0].Fd(), files[1].Fd(), files[2].Fd()},
		Sys: &syscall.SysProcAttr{Setsid: true},
	})
}

// Enter is the life of a process between its fork and its program. It returns
// only an error.
func Enter(layout cgroup.Layout, spec string) error {
	var e entry
	if err := json.Unmarshal([]byte(spec), &e); err != nil {
		return err
	}
	if err := layout.Group(e.Group).Join(os.Getpid()); err != nil {
		return err
	}
	for name, want := range e.Limits {
		if err := limit(name, want); err != nil {
			return err
		}
	}
	if e.Dir != "" {
		if err := os.Chdir(e.Dir); err != nil {
			return err
		}
	} else if err := os.Chdir("/"); err != nil {
		return err
	}
	path, err := exec.LookPath(e.Argv[0])
	if err != nil {
		return err
	}
	return fmt.Errorf("execute %s: %w", path, syscall.Exec(path, e.Argv, os.Environ()))
}

// limit sets a resource limit as far as the hard limit allows: without
// CAP_SYS_RESOURCE nothing may raise that.
func limit(name string, want uint64) error {
	which := map[string]int{"NOFILE": unix.RLIMIT_NOFILE, "NPROC": unix.RLIMIT_NPROC, "MEMLOCK": unix.RLIMIT_MEMLOCK, "CORE": unix.RLIMIT_CORE}[name]
	if want == unit.Unlimited {
		want = unix.RLIM_INFINITY
	}
	// syscall's Setrlimit, unlike unix's, also keeps Go from restoring at exec
	// the NOFILE limit that this process was started with.
	if err := syscall.Setrlimit(which, &syscall.Rlimit{Cur: want, Max: want}); err == nil {
		return nil
	}
	var have syscall.Rlimit
	if err := syscall.Getrlimit(which, &have); err != nil {
		return fmt.Errorf("read limit %s: %w", name, err)
	}
	have.Cur = min(want, have.Max)
	if err := syscall.Setrlimit(which, &have); err != nil {
		return fmt.Errorf("set limit %s to %d: %w", name, have.Cur, err)
	}
	return nil
}

// Signal implements launcher.
func (s *System) Signal(service string, pid int, all bool, sig syscall.Signal) {
	if pid != 0 {
		syscall.Kill(pid, sig) // ESRCH: about to be reaped
	}
	if all {
		s.layout.Group(groupName(service)).Signal(sig)
	}
}

// Left implements launcher.
func (s *System) Left(service string) bool {
	pids, err := s.layout.Group(groupName(service)).Procs()
	return err != nil || len(pids) > 0
}

// Reap implements launcher.
func (s *System) Reap() (int, syscall.WaitStatus, bool) {
	for {
		var st syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &st, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		return pid, st, err == nil && pid > 0
	}
}

// NotifySocket implements launcher. Each service has a socket of its own, so
// that nobody has to find out who sent a message.
func (s *System) NotifySocket(service string, ready func()) (string, error) {
	path := filepath.Join(s.notifyDir, service)
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.notify[service]; n != nil {
		n.mu.Lock()
		n.ready = ready
		n.mu.Unlock()
		return path, nil
	}
	if err := os.MkdirAll(s.notifyDir, 0o755); err != nil {
		return "", err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return "", err
	}
	n := &notifier{ready: ready}
	s.notify[service] = n
	s.closed = append(s.closed, conn)
	s.wg.Go(func() {
		buf := make([]byte, 4096)
		for {
			k, err := conn.Read(buf)
			if err != nil {
				return
			}
			for l := range strings.Lines(string(buf[:k])) {
				if strings.TrimSpace(l) == "READY=1" {
					n.mu.Lock()
					f := n.ready
					n.mu.Unlock()
					f()
				}
			}
		}
	})
	return path, nil
}

// log returns where the service writes. The pipe lives as long as the host:
// what a service leaves behind (shims of containers) keeps writing into it.
func (s *System) log(service string) (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.logs[service]; w != nil {
		return w, nil
	}
	if err := os.MkdirAll(s.logDir, 0o755); err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s.logs[service] = w
	s.closed = append(s.closed, w, r)
	out := &capped{path: LogPath(s.logDir, service), limit: s.logLimit}
	s.wg.Go(func() {
		defer out.Close()
		buf := make([]byte, 32<<10)
		for {
			n, err := r.Read(buf)
			if n > 0 {
				out.Write(buf[:n]) // a full disk loses log lines, and must not stall the service
			}
			if err != nil {
				return
			}
		}
	})
	return w, nil
}

// Close ends the log and notify goroutines. Services that live on lose their
// output.
func (s *System) Close() {
	s.mu.Lock()
	for _, c := range s.closed {
		c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// capped is a log file that is moved to ".1" when it reaches limit.
type capped struct {
	path  string
	limit int64
	f     *os.File
	size  int64
}

func (c *capped) Write(b []byte) (int, error) {
	if c.f != nil && c.size+int64(len(b)) > c.limit {
		c.f.Close()
		c.f = nil
		if err := os.Rename(c.path, c.path+".1"); err != nil {
			return 0, err
		}
	}
	if c.f == nil {
		f, err := os.OpenFile(c.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
		if err != nil {
			return 0, err
		}
		st, err := f.Stat()
		if err != nil {
			f.Close()
			return 0, err
		}
		c.f, c.size = f, st.Size()
	}
	n, err := c.f.Write(b)
	c.size += int64(n)
	return n, err
}

func (c *capped) Close() error {
	if c.f == nil {
		return nil
	}
	return c.f.Close()
}
