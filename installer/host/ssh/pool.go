// Package ssh reaches hosts that one can log into. It is host.Host for any
// machine with sshd, a POSIX shell, coreutils and systemd: neither an agent
// nor Python nor SFTP is needed there.
//
// A Pool holds one connection per machine. Each call is one session on it: a
// script that goes in on standard input together with its data, so that
// nothing of what is sent is ever seen in a list of processes. Every call but
// Run may be repeated, and is when the connection breaks under it.
package ssh

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/runtime/fault"
)

// Options configure a Pool. The zero value is usable.
type Options struct {
	// Passphrase opens key files that are encrypted; main takes it from
	// DCOS_SSH_PASSPHRASE.
	Passphrase string
	// Agent is the socket of the operator's SSH agent, "" for none.
	Agent string
	// Home stands for ~ in paths.
	Home string
	// Notice is told what the operator should know: a key that was trusted.
	Notice func(text string)
	// Timeout bounds one attempt to connect where a host does not say; 0 means
	// 10 s.
	Timeout time.Duration
	// Alive is how often a connection is asked whether it lives; after three
	// times without an answer it is closed. 0 means 5 s.
	Alive time.Duration
	// Attempts bounds how often a call is tried that broken connections
	// interrupt; 0 means 4.
	Attempts int
	Log      *slog.Logger // nil: none
}

// FromEnv returns the options that an operator's environment sets.
func FromEnv(getenv func(string) string) Options {
	return Options{Passphrase: getenv("DCOS_SSH_PASSPHRASE"), Agent: getenv("SSH_AUTH_SOCK"), Home: getenv("HOME")}
}

// Pool reaches hosts and keeps the connections to them until it is closed.
type Pool struct {
	o    Options
	keys keyring
	file sync.Mutex // of known hosts, while one is added

	mu     sync.Mutex
	lines  map[string]*line
	packs  map[string]*pack
	old    []*pack // that are not used any more
	closed bool
}

// New returns a pool without connections.
func New(o Options) *Pool {
	if o.Timeout <= 0 {
		o.Timeout = 10 * time.Second
	}
	if o.Alive <= 0 {
		o.Alive = 5 * time.Second
	}
	if o.Attempts <= 0 {
		o.Attempts = 4
	}
	if o.Notice == nil {
		o.Notice = func(string) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Pool{o: o, lines: map[string]*line{}, packs: map[string]*pack{}, keys: keyring{parsed: map[string]parsedKey{}}}
}

// Close ends all connections. Calls that run fail.
func (p *Pool) Close() error {
	p.mu.Lock()
	lines, packs := p.lines, slices.Concat(slices.Collect(maps.Values(p.packs)), p.old)
	p.lines, p.packs, p.closed = nil, nil, true
	p.mu.Unlock()
	var errs []error
	for _, k := range packs {
		errs = append(errs, k.close())
	}
	for _, l := range lines {
		errs = append(errs, l.close())
	}
	return errors.Join(errs...)
}

// Open is a host.Opener. It connects, unless a connection is there, and sees
// that one is root or can become it.
func (p *Pool) Open(ctx context.Context, ref host.Ref) (host.Host, error) {
	l, err := p.line(ref)
	if err != nil {
		return nil, err
	}
	m := &machine{line: l, ref: ref}
	if _, err := m.connected(ctx); err != nil {
		return nil, err
	}
	return m, nil
}

// line returns the way to the machine of ref, made on first use. References
// that log in in another way are other ways; which key is expected is for each
// reference to check.
func (p *Pool) line(ref host.Ref) (*line, error) {
	if ref.Kind != host.KindSSH {
		return nil, fault.Newf("reach host "+ref.Name, fault.Invalid, "it is not reached over SSH but as %q", ref.Kind)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, fault.Newf("reach host "+ref.Name, fault.Unavailable, "the installer is ending")
	}
	key := ref.Name + "\x00" + wayTo(ref.SSH)
	l := p.lines[key]
	if l == nil {
		l = &line{pool: p, slots: make(chan struct{}, maxSessions)}
		p.lines[key] = l
	}
	return l, nil
}

// wayTo is everything that makes two ways to a machine different. With its
// passwords it stays in memory.
func wayTo(s host.SSH) string {
	parts := []string{login(s.Login), string(s.Sudo), s.SudoPassword}
	if s.Bastion != nil {
		parts = append(parts, login(*s.Bastion), s.Bastion.KnownHosts, s.Bastion.HostKey)
	}
	return strings.Join(parts, "\x00")
}

func login(l host.Login) string {
	return strings.Join([]string{l.Endpoint(), l.User, l.KeyFile, l.Password, strconv.FormatBool(l.UseAgent)}, "\x01")
}

// expand replaces a leading ~ of a path.
func (p *Pool) expand(path string) string {
	if rest, ok := strings.CutPrefix(path, "~/"); ok && p.o.Home != "" {
		return p.o.Home + "/" + rest
	}
	return os.ExpandEnv(path)
}
