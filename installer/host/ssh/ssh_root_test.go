//go:build root

package ssh_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"dcos.example/dcos/installer/bundle"
	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/installer/host/ssh"
	"dcos.example/dcos/runtime/fault"
)

// lab is an sshd with a file system of its own.
type lab struct {
	*testing.T
	dir  string
	port int
	cmd  *exec.Cmd
}

func newLab(t *testing.T, env ...string) *lab {
	t.Helper()
	l := &lab{T: t, dir: t.TempDir()}
	for _, k := range []string{"ed25519", "rsa"} {
		l.sh("ssh-keygen -q -N '' -t %s -f %s/host_%s", k, l.dir, k)
	}
	l.sh("ssh-keygen -q -N '' -t ed25519 -f %[1]s/key; cp %[1]s/key.pub %[1]s/authorized_keys; chmod 755 %[1]s; chmod 755 $(dirname %[1]s)", l.dir)
	l.sh("cp testdata/systemctl %s/systemctl", l.dir)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.port = listener.Addr().(*net.TCPAddr).Port
	listener.Close()
	l.start(env...)
	return l
}

func (l *lab) start(env ...string) {
	l.Helper()
	var log lockedBuffer
	l.cmd = exec.Command("unshare", "-m", "--propagation", "private", "/bin/sh", "testdata/machine.sh", l.dir, strconv.Itoa(l.port))
	l.cmd.Env = append(os.Environ(), env...)
	l.cmd.Stderr = &log
	l.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := l.cmd.Start(); err != nil {
		l.Fatal(err)
	}
	l.Cleanup(l.stop)
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(log.String(), "Server listening"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			l.Fatalf("sshd does not come up: %s", log.String())
		}
	}
}

// stop ends sshd and every session of it.
func (l *lab) stop() {
	if l.cmd.ProcessState != nil {
		return
	}
	// Sessions are in process groups of their own: they are found as children.
	out, _ := exec.Command("pgrep", "-P", strconv.Itoa(l.cmd.Process.Pid)).Output()
	syscall.Kill(-l.cmd.Process.Pid, syscall.SIGKILL)
	for pid := range strings.FieldsSeq(string(out)) {
		if n, err := strconv.Atoi(pid); err == nil {
			syscall.Kill(n, syscall.SIGKILL)
		}
	}
	l.cmd.Wait()
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (l *lab) sh(format string, args ...any) string {
	l.Helper()
	out, err := exec.Command("/bin/sh", "-c", fmt.Sprintf(format, args...)).CombinedOutput()
	if err != nil {
		l.Fatalf("%s: %v: %s", fmt.Sprintf(format, args...), err, out)
	}
	return strings.TrimSpace(string(out))
}

// ref is a reference that works; with changes it.
func (l *lab) ref(with ...func(*host.SSH)) host.Ref {
	key, err := os.ReadFile(l.dir + "/host_ed25519.pub")
	if err != nil {
		l.Fatal(err)
	}
	s := host.SSH{Login: host.Login{Address: "127.0.0.1", Port: l.port, User: "root", KeyFile: l.dir + "/key", HostKey: string(key)}, Sudo: host.SudoNone}
	for _, f := range with {
		f(&s)
	}
	return host.Ref{Kind: host.KindSSH, Name: "m1", SSH: s}
}

func (l *lab) pool(with ...func(*ssh.Options)) *ssh.Pool {
	o := ssh.Options{Home: l.dir, Alive: 200 * time.Millisecond}
	for _, f := range with {
		f(&o)
	}
	p := ssh.New(o)
	l.Cleanup(func() {
		if err := p.Close(); err != nil {
			l.Error(err)
		}
	})
	return p
}

func (l *lab) open(p *ssh.Pool, ref host.Ref) host.Host {
	l.Helper()
	h, err := p.Open(l.Context(), ref)
	if err != nil {
		l.Fatal(err)
	}
	return h
}

func (l *lab) fails(err error, kind fault.Kind, words ...string) {
	l.Helper()
	if err == nil {
		l.Fatalf("no error with %q", words)
	}
	if !fault.Is(err, kind) {
		l.Errorf("kind %v, want %v: %v", fault.KindOf(err), kind, err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			l.Errorf("no %q in: %v", w, err)
		}
	}
}

func TestFiles(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	for _, way := range []func(*host.SSH){
		func(*host.SSH) {},
		func(s *host.SSH) { s.User, s.Sudo = "trusted", host.SudoPasswordless },
		func(s *host.SSH) { s.User, s.Sudo, s.SudoPassword = "asked", host.SudoPassword, "pw-asked" },
		// A password although none is asked for must not get into a file.
		func(s *host.SSH) { s.User, s.Sudo, s.SudoPassword = "trusted", host.SudoPassword, "pw-trusted" },
		func(s *host.SSH) {
			s.KeyFile, s.User, s.Password = "", "trusted", "pw-trusted"
			s.Sudo = host.SudoPasswordless
		},
	} {
		ref := l.ref(way)
		h := l.open(l.pool(), ref)
		noise := make([]byte, 300_000)
		rand.Read(noise)
		odd := "/etc/dcos/it's a \"file\" $HOME"
		if err := h.Change(ctx,
			host.Put("/etc/dcos/a/b/noise", host.File{Data: noise, Mode: 0o640, UID: 7, GID: 8}),
			host.Put(odd, host.File{Data: []byte("\x00one\n\n"), Mode: 0o600}),
			host.Put("/etc/dcos/empty", host.File{Mode: 0o644}),
			host.Put("/etc/dcos/gone", host.File{Data: []byte("x"), Mode: 0o644}),
			host.Put("/etc/dcos/link", host.File{Link: "a/b/noise"}),
			host.Gone("/etc/dcos/gone"), host.Gone("/etc/dcos/never was"),
		); err != nil {
			t.Fatal(err)
		}
		f, err := h.ReadFile(ctx, "/etc/dcos/link")
		if err != nil || !bytes.Equal(f.Data, noise) || f.Mode != 0o640 || f.UID != 7 || f.GID != 8 {
			t.Errorf("%d bytes, %o, %d:%d, %v", len(f.Data), f.Mode, f.UID, f.GID, err)
		}
		if f, err = h.ReadFile(ctx, odd); err != nil || string(f.Data) != "\x00one\n\n" || f.Mode != 0o600 {
			t.Errorf("%q %o, %v", f.Data, f.Mode, err)
		}
		_, err = h.ReadFile(ctx, "/etc/dcos/gone")
		l.fails(err, fault.NotFound, "host m1: read /etc/dcos/gone")
		v, err := h.Look(ctx, host.Query{Files: []string{odd, "/etc/dcos/gone", "/etc/dcos/link", "/etc/dcos"}, Content: []string{"/etc/dcos/empty", "/etc/dcos/a/b/noise"}})
		if err != nil {
			t.Fatal(err)
		}
		if len(v.Files) != 5 || v.Files["/etc/dcos/link"].Link != "a/b/noise" || !bytes.Equal(v.Files["/etc/dcos/a/b/noise"].Data, noise) ||
			v.Files["/etc/dcos/a/b/noise"].UID != 7 || v.Files[odd].SHA256 == "" || v.Files["/etc/dcos"].SHA256 != "" || v.Files["/etc/dcos/empty"].Mode != 0o644 {
			t.Errorf("%+v", v)
		}
		if to, err := h.ReadLink(ctx, "/etc/dcos/link"); err != nil || to != "a/b/noise" {
			t.Error(to, err)
		}
		out, err := h.Run(ctx, "/bin/sh", "-c", "id -u; ls -A /etc/dcos /etc/dcos/a/b; stat -c %a /etc/dcos; echo oops >&2; exit 5")
		if err != nil || out.Code != 5 || out.Stderr != "oops\n" || strings.Contains(out.Stdout, "new") || !strings.HasPrefix(out.Stdout, "0\n") || !strings.HasSuffix(out.Stdout, "\n755\n") {
			t.Errorf("%+v, %v", out, err)
		}
		if out, err := h.Run(ctx, "/bin/sh", "-c", "kill -9 $$"); err != nil || out.Code != 137 {
			t.Errorf("killed: %+v, %v", out, err)
		}
		if err := h.Remove(ctx, "/etc/dcos"); err != nil {
			t.Fatal(err)
		}
	}
	// A full disk is named as such, and nothing half is left.
	h := l.open(l.pool(), l.ref())
	err := h.WriteFile(ctx, "/opt/full", host.File{Data: make([]byte, 70<<20), Mode: 0o644})
	l.fails(err, fault.Exhausted, "host m1: write /opt/full", "disk is full", "MiB free on /opt")
	// One that nobody can write to as well.
	if _, err := h.Run(ctx, "/bin/mount", "-o", "remount,ro", "/opt"); err != nil {
		t.Fatal(err)
	}
	l.fails(h.WriteFile(ctx, "/opt/x", host.File{Data: []byte("x")}), fault.Denied, "Read-only file system")
}

func TestUnits(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	h := l.open(l.pool(), l.ref())
	if err := errors.Join(h.EnableUnit(ctx, "a.service", true), h.StartUnit(ctx, "a.service"), h.StopUnit(ctx, "never.service"), h.EnableUnit(ctx, "never.service", false)); err != nil {
		t.Fatal(err)
	}
	v, err := h.Look(ctx, host.Query{Files: []string{"/etc/passwd"}, Units: []string{"never.service", "a.service"}})
	if err != nil || len(v.Units) != 1 || !v.Units["a.service"].Active || v.Units["a.service"].Restarts != 2 || v.Units["a.service"].LastExit != "exit status 3" || len(v.Files) != 1 {
		t.Errorf("%+v, %v", v, err)
	}
	if age := time.Since(v.Units["a.service"].Since); age < time.Second {
		t.Errorf("it runs for %s", age)
	}
	if _, err := h.UnitStatus(ctx, "never.service", 100); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	l.fails(h.StartUnit(ctx, "broken.service"), fault.Internal, "host m1: start broken.service", "Job for broken.service failed")
	// Init is told once, and only of unit files.
	if err := h.Change(ctx, host.Put("/etc/systemd/system/a.service", host.File{Data: []byte("[Service]\n"), Mode: 0o644}), host.Put("/etc/dcos/x", host.File{}), host.Gone("/etc/systemd/system/a.service")); err != nil {
		t.Fatal(err)
	}
	if err := h.WriteFile(ctx, "/etc/dcos/y", host.File{}); err != nil {
		t.Fatal(err)
	}
	if log, err := h.ReadFile(ctx, "/run/units.log"); err != nil || strings.Count(string(log.Data), "daemon-reload") != 1 {
		t.Errorf("%s, %v", log.Data, err)
	}
}

func (l *lab) release(version string, files map[string]string) (string, bundle.Manifest) {
	l.Helper()
	dir := l.TempDir()
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			l.Fatal(err)
		}
		mode := os.FileMode(0o644)
		if strings.HasPrefix(name, "bin/") {
			mode = 0o755
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			l.Fatal(err)
		}
	}
	m, err := bundle.Write(io.Discard, bundle.Contents{Dir: dir, Version: version}, nil)
	if err != nil {
		l.Fatal(err)
	}
	text, err := json.MarshalIndent(m, "", " ") // as it is unpacked
	if err != nil {
		l.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, bundle.ManifestName), append(text, '\n'), 0o644); err != nil {
		l.Fatal(err)
	}
	return dir, m
}

// With the program that unpacks streams, and as releases from before it are
// sent.
func TestStage(t *testing.T) {
	t.Run("streamed", func(t *testing.T) { testStage(t, unpacker(t), "share/own arrived damaged") })
	t.Run("file by file", func(t *testing.T) { testStage(t, nil, "share/own has 3 bytes, not 5") })
}

// unpacker builds dcos-unpack.
func unpacker(t *testing.T) []byte {
	path := filepath.Join(t.TempDir(), "dcos-unpack")
	cmd := exec.Command("go", "build", "-o", path, "dcos.example/dcos/installer/cmd/dcos-unpack")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func testStage(t *testing.T, unpacker []byte, damaged string) {
	l := newLab(t)
	release := func(version string, files map[string]string) (string, bundle.Manifest) {
		if unpacker != nil {
			files["bin/dcos-unpack"] = string(unpacker)
		}
		return l.release(version, files)
	}
	ctx := t.Context()
	h := l.open(l.pool(), l.ref())
	big := strings.Repeat("0123456789abcdef", 1<<16)
	dir, m := release("1.0.0", map[string]string{"bin/tool": "#!/bin/sh\n", "share/big": big, "share/own": "one"})
	for range 2 {
		if err := h.Stage(ctx, dir, m.Share(true)); err != nil {
			t.Fatal(err)
		}
	}
	at := host.ReleasePath(m.Release())
	out, err := h.Run(ctx, "/bin/sh", "-c", "cd "+at+" && sha256sum manifest.json && stat -c %a bin/tool share/big share && ls /opt/dcos/releases && cat share/own")
	if err != nil || out.Stdout != m.Digest()+"  manifest.json\n755\n644\n755\n"+m.Release()+"\none" {
		t.Errorf("%+v, %v", out, err)
	}
	// What the next release shares is not sent.
	dir2, m2 := release("2.0.0", map[string]string{"bin/tool": "#!/bin/sh\n", "share/big": big, "share/own": "two"})
	if err := os.WriteFile(filepath.Join(dir2, "share/big"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := h.Stage(ctx, dir2, m2.Share(true)); err != nil {
		t.Fatal(err)
	}
	out, err = h.Run(ctx, "/bin/sh", "-c", "stat -c %h "+host.ReleasePath(m2.Release())+"/share/big; cat "+host.ReleasePath(m2.Release())+"/share/own")
	if err != nil || out.Stdout != "2\ntwo" {
		t.Errorf("%+v, %v", out, err)
	}
	// An agent gets no packages, and the same manifest.
	dirA, mA := release("2.1.0", map[string]string{"bin/tool": "#!/bin/sh\n", "share/own": "agent", "packages/images/x": "image"})
	if err := h.Stage(ctx, dirA, mA.Share(false)); err != nil {
		t.Fatal(err)
	}
	out, err = h.Run(ctx, "/bin/sh", "-c", "cd "+host.ReleasePath(mA.Release())+" && sha256sum manifest.json && cat share/own && ls -d packages")
	if err != nil || out.Stdout != mA.Digest()+"  manifest.json\nagent" || out.Code == 0 {
		t.Errorf("%+v, %v", out, err)
	}
	if err := h.Remove(ctx, host.ReleasePath(mA.Release())); err != nil {
		t.Fatal(err)
	}
	// What broke off is taken up; a damaged older release is found out.
	dir3, m3 := release("3.0.0", map[string]string{"bin/tool": "#!/bin/sh\n", "share/own": "three", "share/whole": "whole"})
	if err := errors.Join(h.WriteFile(ctx, host.ReleasePath(m3.Release())+".part/share/whole", host.File{Data: []byte("whole"), Mode: 0o644}),
		os.WriteFile(filepath.Join(dir3, "share/whole"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Run(ctx, "/bin/sh", "-c", "echo bad > "+at+"/bin/tool"); err != nil {
		t.Fatal(err)
	}
	l.fails(h.Stage(ctx, dir3, m3.Share(true)), fault.Internal, "stage release 3.0.0", "older release")
	if err := os.WriteFile(filepath.Join(dir3, "share/own"), []byte("thr"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(h.Remove(ctx, at), h.Remove(ctx, host.ReleasePath(m2.Release())), h.Remove(ctx, host.ReleasePath(m3.Release())+".part")); err != nil {
		t.Fatal(err)
	}
	l.fails(h.Stage(ctx, dir3, m3.Share(true)), fault.Internal, damaged)
}

// A connection that breaks in the middle of what is sent: nothing of it is
// put into place, and it goes on by itself.
func TestBrokenConnections(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	front := newFront(t, l.port)
	h := l.open(l.pool(), l.ref(func(s *host.SSH) { s.Port, s.Timeout = front.port, 2*time.Second }))
	if err := h.WriteFile(ctx, "/etc/dcos/f", host.File{Data: []byte("old"), Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	noise := make([]byte, 3<<20)
	rand.Read(noise)
	for _, after := range []int64{10, 1000, 4000, 1 << 20} {
		front.breakAfter(after)
		if err := h.WriteFile(ctx, "/etc/dcos/f", host.File{Data: noise, Mode: 0o644}); err != nil {
			t.Fatalf("broken after %d bytes: %v", after, err)
		}
		if f, err := h.ReadFile(ctx, "/etc/dcos/f"); err != nil || !bytes.Equal(f.Data, noise) {
			t.Errorf("broken after %d bytes: %d bytes, %v", after, len(f.Data), err)
		}
	}
	files := map[string]string{"bin/a": strings.Repeat("a", 1<<20), "bin/b": strings.Repeat("b", 1<<20)}
	dir, m := l.release("1.0.0", files)
	front.breakAfter(3 << 19)
	if err := h.Stage(ctx, dir, m.Share(true)); err != nil {
		t.Fatal(err)
	}
	// A command of unknown outcome is not repeated.
	ended := make(chan struct{})
	var breaker sync.WaitGroup
	breaker.Go(func() {
		for {
			select {
			case <-ended:
				return
			case <-time.After(500 * time.Millisecond):
				front.cut()
			}
		}
	})
	_, err := h.Run(ctx, "/bin/sh", "-c", "sleep 30")
	close(ended)
	breaker.Wait()
	l.fails(err, fault.Unavailable, "host m1: run /bin/sh", "connection was lost")
	// Silence is noticed.
	front.silence(true)
	_, err = h.Run(ctx, "/bin/true")
	l.fails(err, fault.Unavailable, "host m1: run /bin/true", "does not answer in time")
	// One that did not answer is not asked at once again, but soon.
	front.silence(false)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		_, err := h.ReadFile(ctx, "/etc/passwd")
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func TestStopInTheMiddle(t *testing.T) {
	l := newLab(t)
	h := l.open(l.pool(), l.ref())
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := h.Run(ctx, "/bin/sleep", "60")
	if !fault.Is(err, fault.Unavailable) || time.Since(start) > 3*time.Second {
		t.Errorf("after %s: %v", time.Since(start), err)
	}
	if out, err := h.Run(t.Context(), "/bin/echo", "still here"); err != nil || out.Stdout != "still here\n" {
		t.Errorf("%+v, %v", out, err)
	}
}

// More calls at once than the machine allows sessions.
func TestManySessions(t *testing.T) {
	l := newLab(t, "MAX_SESSIONS=2")
	h := l.open(l.pool(), l.ref())
	var wg sync.WaitGroup
	for n := range 12 {
		wg.Go(func() {
			out, err := h.Run(t.Context(), "/bin/sh", "-c", "sleep 0.05; echo "+strconv.Itoa(n))
			if err != nil || out.Stdout != strconv.Itoa(n)+"\n" {
				t.Errorf("%+v, %v", out, err)
			}
		})
	}
	wg.Wait()
}

func TestKnownHosts(t *testing.T) {
	l := newLab(t)
	file := l.dir + "/sub/known_hosts"
	unpinned := func(s *host.SSH) { s.HostKey, s.KnownHosts = "", file }
	shown := strings.Fields(l.sh("ssh-keygen -lf %s/host_ed25519.pub", l.dir))[1]
	_, err := l.pool().Open(t.Context(), l.ref(unpinned))
	l.fails(err, fault.Denied, "not known yet", shown, "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub", "echo '[127.0.0.1]:"+strconv.Itoa(l.port), "trust_on_first_use = true")
	// What it says to type works.
	_, command, _ := strings.Cut(err.Error(), "  echo ")
	command, _, _ = strings.Cut(command, "\n")
	l.sh("mkdir -p %s/sub && echo %s", l.dir, command)
	l.open(l.pool(), l.ref(unpinned))

	// Trusted when asked for, and said so; then known.
	if err := os.WriteFile(file, []byte("# no newline at the end"), 0o600); err != nil {
		t.Fatal(err)
	}
	var said []string
	l.open(l.pool(func(o *ssh.Options) { o.Notice = func(s string) { said = append(said, s) } }), l.ref(unpinned, func(s *host.SSH) { s.TrustOnFirstUse = true }))
	if len(said) != 1 || !strings.Contains(said[0], shown) || !strings.Contains(said[0], file) {
		t.Error(said)
	}
	l.open(l.pool(), l.ref(unpinned))

	// A machine of which only another kind of key is known shows that one.
	l.sh("echo \"[127.0.0.1]:%d $(cut -d' ' -f1,2 %s/host_rsa.pub)\" > %s", l.port, l.dir, file)
	l.open(l.pool(), l.ref(unpinned))

	// Another key than before is refused, also with trust on first use.
	l.sh("ssh-keygen -q -N '' -t ed25519 -f %[1]s/other; echo \"[127.0.0.1]:%[2]d $(cut -d' ' -f1,2 %[1]s/other.pub)\" > %[3]s", l.dir, l.port, file)
	old := strings.Fields(l.sh("ssh-keygen -lf %s/other.pub", l.dir))[1]
	_, err = l.pool().Open(t.Context(), l.ref(unpinned, func(s *host.SSH) { s.TrustOnFirstUse = true }))
	l.fails(err, fault.Denied, "REFUSED", shown, old, "ssh-keygen -R")
	other, err := os.ReadFile(l.dir + "/other.pub")
	if err != nil {
		t.Fatal(err)
	}
	_, err = l.pool().Open(t.Context(), l.ref(func(s *host.SSH) { s.HostKey = string(other) }))
	l.fails(err, fault.NotFound, "REFUSED", shown, old, "it had")
	// Also on a connection that is there.
	p := l.pool()
	h := l.open(p, l.ref())
	_, err = p.Open(t.Context(), l.ref(func(s *host.SSH) { s.HostKey = string(other) }))
	l.fails(err, fault.NotFound, "REFUSED", "it had")
	if k, ok := h.(interface{ HostKey() string }); !ok || !strings.HasPrefix(l.ref().SSH.HostKey, k.HostKey()) || k.HostKey() == "" {
		t.Errorf("the key is not told: %v", h)
	}
}

func TestLogins(t *testing.T) {
	l := newLab(t)
	l.sh("ssh-keygen -q -N secret -t ed25519 -f %[1]s/locked; cat %[1]s/locked.pub >> %[1]s/authorized_keys; ssh-keygen -q -N '' -t ed25519 -f %[1]s/stranger", l.dir)
	ctx := t.Context()
	open := func(p *ssh.Pool, with func(*host.SSH)) error { _, err := p.Open(ctx, l.ref(with)); return err }
	locked := func(s *host.SSH) { s.KeyFile = l.dir + "/locked" }
	l.fails(open(l.pool(), locked), fault.Denied, "encrypted", "DCOS_SSH_PASSPHRASE")
	l.fails(open(l.pool(func(o *ssh.Options) { o.Passphrase = "wrong" }), locked), fault.Denied, "DCOS_SSH_PASSPHRASE does not open it")
	if err := open(l.pool(func(o *ssh.Options) { o.Passphrase = "secret" }), locked); err != nil {
		t.Error(err)
	}
	l.fails(open(l.pool(), func(s *host.SSH) { s.KeyFile = l.dir + "/none" }), fault.Invalid, "no such file", "ssh-keygen -t ed25519")
	l.fails(open(l.pool(), func(s *host.SSH) { s.KeyFile = l.dir + "/key.pub" }), fault.Invalid, "not the .pub")
	l.fails(open(l.pool(), func(s *host.SSH) { s.KeyFile = l.dir + "/stranger" }), fault.Denied, "refused; tried key", "SHA256:", "ssh-copy-id -i "+l.dir+"/stranger.pub")
	l.fails(open(l.pool(), func(s *host.SSH) { s.KeyFile = "" }), fault.Invalid, "nothing to log in with")
	l.fails(open(l.pool(), func(s *host.SSH) { s.KeyFile, s.Password, s.User = "", "wrong", "plain" }), fault.Denied, "tried the password")
	if err := open(l.pool(), func(s *host.SSH) { s.KeyFile = "~/key" }); err != nil {
		t.Error(err)
	}

	// The operator's agent.
	l.fails(open(l.pool(), func(s *host.SSH) { s.KeyFile, s.UseAgent = "", true }), fault.Invalid, "SSH_AUTH_SOCK")
	socket := l.agent(l.dir + "/key")
	withAgent := l.pool(func(o *ssh.Options) { o.Agent = socket })
	if err := open(withAgent, func(s *host.SSH) { s.KeyFile, s.UseAgent = "", true }); err != nil {
		t.Error(err)
	}

	// Becoming root.
	l.fails(open(l.pool(), func(s *host.SSH) { s.User = "plain" }), fault.Denied, "plain is not root", "sudo")
	l.fails(open(l.pool(), func(s *host.SSH) { s.User, s.Sudo = "plain", host.SudoPasswordless }), fault.Denied, "become root", "NOPASSWD")
	l.fails(open(l.pool(), func(s *host.SSH) { s.User, s.Sudo = "asked", host.SudoPasswordless }), fault.Denied, "sudo asks for a password", "sudo_password")
	p := l.pool()
	wrong := func(s *host.SSH) { s.User, s.Sudo, s.SudoPassword = "asked", host.SudoPassword, "wrong" }
	for range 3 { // asked once only: more would lock the account
		l.fails(open(p, wrong), fault.Denied, "sudo does not take the password")
	}
	l.fails(open(l.pool(), func(s *host.SSH) { s.User, s.Sudo, s.SudoPassword = "plain", host.SudoPassword, "pw-plain" }), fault.Denied, "plain may not use sudo")

	// No machine, or none that answers.
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := closed.Addr().(*net.TCPAddr).Port
	closed.Close()
	l.fails(open(l.pool(func(o *ssh.Options) { o.Attempts = 2 }), func(s *host.SSH) { s.Port = port }), fault.Unavailable, "reach host m1", "connection refused", "sshd")
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	l.fails(open(l.pool(), func(s *host.SSH) { s.Port, s.Timeout = mute.Addr().(*net.TCPAddr).Port, 100*time.Millisecond }), fault.Unavailable, "does not answer in time")
	l.fails(open(l.pool(), func(s *host.SSH) { s.Address = "no-such-host.invalid" }), fault.Unavailable, "name no-such-host.invalid is not found")
}

// agent serves a key as ssh-agent does.
func (l *lab) agent(keyFile string) string {
	b, err := os.ReadFile(keyFile)
	if err != nil {
		l.Fatal(err)
	}
	key, err := gossh.ParseRawPrivateKey(b)
	if err != nil {
		l.Fatal(err)
	}
	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: key}); err != nil {
		l.Fatal(err)
	}
	path := l.dir + "/agent.sock"
	in, err := net.Listen("unix", path)
	if err != nil {
		l.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := in.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { agent.ServeAgent(ring, c); c.Close() })
		}
	})
	l.Cleanup(func() { in.Close(); wg.Wait() })
	return path
}

func TestBastion(t *testing.T) {
	l, b := newLab(t), newLab(t)
	through := func(s *host.SSH) { login := b.ref().SSH.Login; s.Bastion = &login }
	h := l.open(l.pool(), l.ref(through))
	// The bastion is a way only: what is done is done on the host.
	if err := h.WriteFile(t.Context(), "/etc/dcos/here", host.File{Data: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.open(b.pool(), b.ref()).ReadFile(t.Context(), "/etc/dcos/here"); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	_, err := l.pool().Open(t.Context(), l.ref(through, func(s *host.SSH) { s.Bastion.User = "nobody-here" }))
	l.fails(err, fault.Denied, "go through bastion 127.0.0.1:"+strconv.Itoa(b.port), "as nobody-here")
	_, err = l.pool(func(o *ssh.Options) { o.Attempts = 1 }).Open(t.Context(), l.ref(through, func(s *host.SSH) { s.Port = 1 }))
	l.fails(err, fault.Unavailable, "from bastion", "connect to 127.0.0.1:1")
}

func TestMachineComesBack(t *testing.T) {
	l := newLab(t)
	h := l.open(l.pool(), l.ref())
	l.stop()
	l.start()
	if _, err := h.ReadFile(t.Context(), "/etc/passwd"); err != nil {
		t.Error(err)
	}
}

// front forwards connections and breaks them.
type front struct {
	port int
	mu   sync.Mutex
	left int64 // bytes to the machine until all break; negative: never
	mute bool
	all  []net.Conn
}

func newFront(t *testing.T, to int) *front {
	in, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &front{port: in.Addr().(*net.TCPAddr).Port, left: -1}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := in.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(to))
			if err != nil {
				c.Close()
				continue
			}
			f.mu.Lock()
			f.all = append(f.all, c, out)
			f.mu.Unlock()
			wg.Go(func() { f.pump(out, c, true) })
			wg.Go(func() { f.pump(c, out, false) })
		}
	})
	t.Cleanup(func() { in.Close(); f.cut(); wg.Wait() })
	return f
}

func (f *front) pump(to, from net.Conn, counted bool) {
	defer to.Close()
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		f.mu.Lock()
		mute, broken := f.mute, false
		if counted && f.left >= 0 {
			if f.left -= int64(n); f.left <= 0 {
				f.left, broken = -1, true
			}
		}
		f.mu.Unlock()
		if broken {
			f.cut()
			return
		}
		if mute {
			continue
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (f *front) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.all {
		c.Close()
	}
	f.all = nil
}

func (f *front) breakAfter(n int64) { f.mu.Lock(); f.left = n; f.mu.Unlock() }

func (f *front) silence(on bool) {
	f.mu.Lock()
	f.mute = on
	f.mu.Unlock()
	if !on {
		f.cut()
	}
}
