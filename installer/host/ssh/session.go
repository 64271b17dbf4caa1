package ssh

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/installer/host/facts"
	"dcos.example/dcos/runtime/fault"
)

const (
	// maxOutput bounds what a command may print, in bytes.
	maxOutput = 64 << 20
	// maxErrors bounds what is kept of its errors: the last of them.
	maxErrors = 8 << 10
	// cut is the status of a script whose data did not arrive whole.
	cut = 97
)

// command is a script for the machine's shell, run as root.
type command struct {
	what   string // for messages: "write 3 files"
	script string
	data   func() io.Reader // standard input of the script; nil for none
	once   bool             // must not be tried again once it may have begun
}

// result is what a script left.
type result struct {
	code        int
	out, errors string
	noise       string // of login scripts
}

// errLost says that the connection broke under a call.
var errLost = errors.New("the connection was lost")

// run runs a command on the machine. The error is about the way there, the
// result about what happened there.
func (m *machine) run(ctx context.Context, c command) (result, error) {
	pause := 200 * time.Millisecond
	for n := 1; ; n++ {
		conn, err := m.connected(ctx)
		if err != nil {
			return result{}, err
		}
		r, begun, err := m.session(ctx, conn, c)
		if err == nil && r.code != cut {
			return r, nil
		}
		if err == nil { // the data was cut off, so the connection was
			err = errLost
		}
		if ctx.Err() != nil {
			return r, fault.New("do it", fault.Unavailable, context.Cause(ctx))
		}
		if c.once && begun {
			return r, fault.Newf("do it", fault.Unavailable, "%w; whether it was done is not known", err)
		}
		if n >= m.pool.o.Attempts {
			return r, fault.Newf("do it", fault.Unavailable, "tried %d times: %w", n, err)
		}
		m.pool.o.Log.Info("try again", "host", m.ref.Name, "what", c.what, "attempt", n, "err", err)
		if !sleep(ctx, pause) {
			return r, fault.New("do it", fault.Unavailable, context.Cause(ctx))
		}
		pause *= 2
	}
}

// session runs a command in a session of its own. Begun tells whether the
// machine may have seen it.
func (m *machine) session(ctx context.Context, c *conn, cmd command) (r result, begun bool, err error) {
	select {
	case m.slots <- struct{}{}:
		defer func() { <-m.slots }()
	case <-ctx.Done():
		return r, false, context.Cause(ctx)
	}
	if c.here {
		return m.shell(ctx, cmd)
	}
	s, err := m.channel(ctx, c)
	if err != nil {
		return r, false, err
	}
	defer s.Close()
	in := m.wrap(cmd)
	out, errs := &limited{max: maxOutput}, &tail{max: maxErrors}
	s.Stdin, s.Stdout, s.Stderr = in.stdin, out, errs
	if err := s.Start(in.command); err != nil {
		return r, true, fmt.Errorf("%w: %w", errLost, err)
	}
	done := make(chan error, 1)
	var wait sync.WaitGroup
	wait.Go(func() { done <- s.Wait() })
	select {
	case err = <-done:
	case <-ctx.Done():
		s.Signal(gossh.SIGKILL) // if it can still hear
		s.Close()
		select {
		case <-done:
		case <-time.After(2 * time.Second):
			c.client.Close() // then it ends for certain
		}
		wait.Wait()
		return r, true, context.Cause(ctx)
	}
	wait.Wait()
	exit, ended := errors.AsType[*gossh.ExitError](err)
	switch {
	case err == nil:
	case ended && exit.Signal() != "":
		r.code = 128 + signals[exit.Signal()]
	case ended:
		r.code = exit.ExitStatus()
	case out.full:
		return r, true, fault.Newf("read its output", fault.Invalid, "it is more than %d MiB", maxOutput>>20)
	default:
		return r, true, fmt.Errorf("%w: %w", errLost, err)
	}
	// Login scripts may print something of their own before.
	text := out.String()
	before, after, found := strings.Cut(text, in.mark+"\n")
	if found {
		text, r.noise = after, before
	}
	r.out, r.errors = text, errs.String()
	if !found && cmd.script != "" {
		r.errors = strings.TrimSpace(text + "\n" + r.errors)
		if r.code == 0 {
			r.code = 255
		}
		return r, true, m.shut(r)
	}
	return r, true, nil
}

// signals are the numbers of those that end programs.
var signals = map[string]int{"HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "ABRT": 6, "FPE": 8, "KILL": 9, "SEGV": 11, "PIPE": 13, "ALRM": 14, "TERM": 15}

// channel opens a session. An sshd with fewer sessions than usual refuses; then
// one has to end first.
func (m *machine) channel(ctx context.Context, c *conn) (*gossh.Session, error) {
	pause := 20 * time.Millisecond
	for n := 0; ; n++ {
		s, err := c.client.NewSession()
		if err == nil {
			return s, nil
		}
		if _, full := errors.AsType[*gossh.OpenChannelError](err); !full || n >= 10 {
			return nil, fmt.Errorf("%w: %w", errLost, err)
		}
		if !sleep(ctx, pause) {
			return nil, context.Cause(ctx)
		}
		pause = min(2*pause, time.Second)
	}
}

// wrapped is a command as sshd gets it.
type wrapped struct {
	command string
	stdin   io.Reader
	mark    string // printed before the script's own output
}

// wrap makes the script the input of a shell. The shell reads exactly the
// script's bytes, so the data follows it; and runs it only if its last line
// arrived. The command line holds no quotes within quotes: the login shell may
// be any.
func (m *machine) wrap(c command) wrapped {
	mark := "dcos-" + rand.Text()
	script := "run() {\n[ \"$1\" = END ] || exit " + fmt.Sprint(cut) + "\n" +
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C; export PATH LC_ALL\n" +
		"printf '%s\\n' " + mark + "\n" + c.script + "\n}\nrun END"
	body := fmt.Sprintf(`eval "$(head -c %d)"`, len(script))
	stdin := []io.Reader{strings.NewReader(script)}
	if c.data != nil {
		stdin = append(stdin, c.data())
	}
	w := wrapped{mark: mark}
	switch m.ref.SSH.Sudo {
	case host.SudoPassword:
		// sudo reads the first line, or it does not ask and the shell does.
		w.command = "sudo -S -p '' -- /bin/sh -c 'while IFS= read -r l; do [ \"$l\" = " + mark + " ] && break; done; " + body + "'"
		stdin = append([]io.Reader{strings.NewReader(m.ref.SSH.SudoPassword + "\n" + mark + "\n")}, stdin...)
	case host.SudoPasswordless:
		w.command = "sudo -n -- /bin/sh -c '" + body + "'"
	default:
		w.command = "/bin/sh -c '" + body + "'"
	}
	w.stdin = io.MultiReader(stdin...)
	return w
}

// hello sees that the machine can be worked on, and learns what it is.
func (m *machine) hello(ctx context.Context, c *conn) error {
	if m.ref.SSH.Sudo == host.SudoPassword {
		// The password alone, once: more would count as further attempts.
		if err := m.trySudo(ctx, c); err != nil {
			return err
		}
	}
	r, _, err := m.session(ctx, c, command{what: "look at the machine", script: facts.Script + "true"})
	if err != nil {
		return err
	}
	if r.code != 0 {
		return m.shut(r)
	}
	c.facts = facts.Parse(r.out)
	op := "work on " + m.ref.SSH.Endpoint()
	switch missing := c.facts.Missing(); {
	case !c.facts.Root:
		return fault.Newf(op, fault.Denied, "%s is not root; set sudo to passwordless or password in the provider block, or log in as root", m.ref.SSH.User)
	case !c.facts.Systemd:
		return fault.Newf(op, fault.Invalid, "its services are started by %q; only machines with systemd can be hosts", c.facts.Init)
	case len(missing) > 0:
		return fault.Newf(op, fault.Invalid, "it has no %s; install coreutils and systemd", strings.Join(missing, ", "))
	}
	return nil
}

func (m *machine) trySudo(ctx context.Context, c *conn) error {
	s, err := m.channel(ctx, c)
	if err != nil {
		return err
	}
	defer s.Close()
	unhook := context.AfterFunc(ctx, func() { s.Close() })
	defer unhook()
	var errs bytes.Buffer
	s.Stdin, s.Stderr = strings.NewReader(m.ref.SSH.SudoPassword+"\n"), &errs
	err = s.Run("sudo -S -p '' -- true")
	exit, ended := errors.AsType[*gossh.ExitError](err)
	switch {
	case err == nil:
		return nil
	case ended:
		return m.shut(result{code: exit.ExitStatus(), errors: errs.String()})
	case ctx.Err() != nil:
		return context.Cause(ctx)
	default:
		return fmt.Errorf("%w: %w", errLost, err)
	}
}

// shut explains why no shell of root was had.
func (m *machine) shut(r result) error {
	s := m.ref.SSH
	op := fmt.Sprintf("become root on %s as %s", s.Endpoint(), s.User)
	text := strings.TrimSpace(r.errors)
	has := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(text, p) {
				return true
			}
		}
		return false
	}
	switch {
	case has("a password is required", "a terminal is required to read the password"):
		return fault.Newf(op, fault.Denied, "sudo asks for a password; give it as sudo_password (a sensitive variable), or allow %s to use sudo without: echo '%s ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/dcos-install", s.User, s.User)
	case has("incorrect password", "Sorry, try again", "no password was provided"):
		return fault.Newf(op, fault.Denied, "sudo does not take the password in sudo_password; correct it")
	case has("not in the sudoers file", "may not run sudo", "is not allowed to"):
		return fault.Newf(op, fault.Denied, "%s may not use sudo for everything; as root there: echo '%s ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/dcos-install", s.User, s.User)
	case has("must have a tty"):
		return fault.Newf(op, fault.Denied, "sudo there wants a terminal; as root: echo 'Defaults:%s !requiretty' > /etc/sudoers.d/dcos-install-tty", s.User)
	case has("sudo: not found", "sudo: command not found"):
		return fault.Newf(op, fault.Invalid, "there is no sudo; log in as root, or install it")
	default:
		return fault.Newf(op, fault.Denied, "no shell: status %d: %s", r.code, text)
	}
}

// limited keeps everything up to a limit, past which it fails.
type limited struct {
	bytes.Buffer
	max  int
	full bool
}

func (b *limited) Write(p []byte) (int, error) {
	if b.Len()+len(p) > b.max {
		b.full = true
		return 0, errors.New("too much output")
	}
	return b.Buffer.Write(p)
}

// tail keeps the end of what is written.
type tail struct {
	buf []byte
	max int
}

func (t *tail) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - t.max; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string { return string(t.buf) }
