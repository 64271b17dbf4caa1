package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/installer/host/facts"
	"dcos.example/dcos/runtime/fault"
)

// maxSessions is how many sessions one connection has at once. sshd allows 10
// unless it is told otherwise; two are left for the operator's own.
const maxSessions = 8

// connectTime bounds the first step of a connection. It takes a round trip; what
// comes after waits for programs on the machine.
const connectTime = 5 * time.Second

// missed is how many unanswered questions in a row end a connection.
const missed = 3

// line is the way to one machine, with the connection that is open on it.
type line struct {
	pool  *Pool
	slots chan struct{} // one for each session

	mu   sync.Mutex
	busy chan struct{} // closed when the dialing under way is over; nil: none
	conn *conn
	gone bool
	// A machine that does not answer is not tried again for as long as it took
	// to find out: several resources stand for one host.
	silent error
	until  time.Time
}

// conn is one open connection.
type conn struct {
	client  *gossh.Client
	beneath []func() error // what else to close
	dead    chan struct{}  // closed when the connection is over
	ends    sync.WaitGroup
	key     gossh.PublicKey // that the machine proved to have
	facts   facts.Facts
	here    bool  // it is this machine: there is no connection
	denied  error // why one cannot become root; asking again would only count as another attempt
}

func (c *conn) alive() bool {
	select {
	case <-c.dead:
		return false
	default:
		return true
	}
}

func (c *conn) close() error {
	err := c.client.Close()
	for _, f := range c.beneath {
		f() // they end with what they carried
	}
	c.ends.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (l *line) close() error {
	l.mu.Lock()
	c := l.conn
	l.conn, l.gone = nil, true
	l.mu.Unlock()
	if c == nil {
		return nil
	}
	return c.close()
}

// connected returns the connection, made if there is none that lives. Callers
// that come meanwhile wait for the first.
func (m *machine) connected(ctx context.Context) (*conn, error) {
	for {
		m.mu.Lock()
		switch {
		case m.gone:
			m.mu.Unlock()
			return nil, fault.Newf("reach host "+m.ref.Name, fault.Unavailable, "the installer is ending")
		case m.conn != nil && m.conn.alive():
			c := m.conn
			m.mu.Unlock()
			return c, m.accepts(c)
		case m.silent != nil && time.Now().Before(m.until):
			err := m.silent
			m.mu.Unlock()
			return nil, m.fail(err)
		case m.busy != nil:
			busy := m.busy
			m.mu.Unlock()
			select {
			case <-busy:
				continue
			case <-ctx.Done():
				return nil, m.fail(stop(ctx))
			}
		}
		busy, old := make(chan struct{}), m.conn
		m.busy, m.conn = busy, nil
		m.mu.Unlock()
		if old != nil {
			old.close()
		}
		start := time.Now()
		c, err := m.dial(ctx)
		m.mu.Lock()
		m.busy, m.silent = nil, nil
		if ctx.Err() == nil && fault.Is(err, fault.Unavailable) {
			m.silent, m.until = err, time.Now().Add(time.Since(start))
		}
		close(busy)
		if err == nil && m.gone {
			m.mu.Unlock()
			return nil, errors.Join(fault.Newf("reach host "+m.ref.Name, fault.Unavailable, "the installer is ending"), c.close())
		}
		m.conn = c
		m.mu.Unlock()
		if err != nil {
			return nil, m.fail(err)
		}
		return c, c.denied
	}
}

// accepts says whether a connection, which another reference may have made, is
// good for this one.
func (m *machine) accepts(c *conn) error {
	if c.denied != nil || c.here {
		return c.denied
	}
	id, err := m.pool.identity(m.ref.SSH.Login)
	if err == nil {
		err = id.check(m.ref.SSH.Endpoint(), c.client.RemoteAddr(), c.key)
	}
	if err != nil {
		return m.fail(err)
	}
	return nil
}

// fail says which host it was.
func (m *machine) fail(err error) error {
	return fault.New("reach host "+m.ref.Name, fault.KindOf(err), err)
}

func stop(ctx context.Context) error {
	return fault.New("wait for the connection", fault.Unavailable, context.Cause(ctx))
}

// dial connects, again after failures that pass by themselves: sshd that
// starts just now, or has too many logins at once.
func (m *machine) dial(ctx context.Context) (*conn, error) {
	pause := 300 * time.Millisecond
	for n := 1; ; n++ {
		c, passes, err := m.dialOnce(ctx)
		if err == nil || !passes || n >= m.pool.o.Attempts || ctx.Err() != nil {
			return c, err
		}
		m.pool.o.Log.Info("connect again", "host", m.ref.Name, "attempt", n, "err", err)
		if !sleep(ctx, pause) {
			return nil, err
		}
		pause *= 2
	}
}

// sleep returns false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (m *machine) timeout() time.Duration {
	if m.ref.SSH.Timeout > 0 {
		return m.ref.SSH.Timeout
	}
	return m.pool.o.Timeout
}

func (m *machine) dialOnce(ctx context.Context) (_ *conn, passes bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, m.timeout(), errSlow)
	defer cancel()
	c := &conn{dead: make(chan struct{})}
	dialer := (&net.Dialer{Timeout: connectTime}).DialContext
	if b := m.ref.SSH.Bastion; b != nil {
		through, _, passes, err := m.pool.handshake(ctx, dialer, *b)
		if err != nil {
			return nil, passes, fault.Newf("go through bastion "+b.Endpoint(), fault.KindOf(err), "%w", err)
		}
		c.beneath = append(c.beneath, through.Close)
		dialer = through.DialContext
	}
	c.client, c.key, passes, err = m.pool.handshake(ctx, dialer, m.ref.SSH.Login)
	if err != nil {
		for _, f := range c.beneath {
			f()
		}
		if b := m.ref.SSH.Bastion; b != nil {
			err = fault.Newf("from bastion "+b.Endpoint(), fault.KindOf(err), "%w", err)
		}
		return nil, passes, err
	}
	c.ends.Go(func() { c.client.Wait(); close(c.dead) })
	c.ends.Go(func() { m.pool.keepAlive(c) })
	if err := m.hello(ctx, c); err != nil {
		if fault.Is(err, fault.Denied) || fault.Is(err, fault.Invalid) {
			c.denied = m.fail(err) // kept with the connection
			return c, false, nil
		}
		return nil, true, errors.Join(err, c.close())
	}
	return c, false, nil
}

var errSlow = errors.New("it takes too long")

// handshake connects to the machine at l and logs in.
func (p *Pool) handshake(ctx context.Context, dial func(context.Context, string, string) (net.Conn, error), l host.Login) (_ *gossh.Client, key gossh.PublicKey, passes bool, err error) {
	id, err := p.identity(l)
	if err != nil {
		return nil, nil, false, err
	}
	pr, err := p.proof(l)
	if err != nil {
		return nil, nil, false, err
	}
	defer pr.close()
	raw, err := dial(ctx, "tcp", l.Endpoint())
	if err != nil {
		passes, err := unreachable(ctx, l, err)
		return nil, nil, passes, err
	}
	shown := func(name string, remote net.Addr, k gossh.PublicKey) error {
		key = k
		return id.check(name, remote, k)
	}
	// The handshake itself knows no context.
	unhook := context.AfterFunc(ctx, func() { raw.Close() })
	cc, chans, reqs, err := gossh.NewClientConn(raw, l.Endpoint(), &gossh.ClientConfig{
		User: l.User, Auth: pr.methods, HostKeyCallback: shown, HostKeyAlgorithms: id.algos, ClientVersion: "SSH-2.0-dcos-install",
	})
	if !unhook() && err == nil {
		err = context.Cause(ctx)
		cc.Close()
	}
	if err != nil {
		raw.Close()
		passes, err := refused(ctx, l, pr, err)
		return nil, nil, passes, err
	}
	return gossh.NewClient(cc, chans, reqs), key, false, nil
}

// unreachable explains why there is no connection.
func unreachable(ctx context.Context, l host.Login, err error) (passes bool, _ error) {
	op := "connect to " + l.Endpoint()
	var dns *net.DNSError
	var ch *gossh.OpenChannelError
	switch {
	case errors.As(err, &dns):
		return false, fault.Newf(op, fault.Unavailable, "the name %s is not found (%s); correct it, or give the address", dns.Name, dns.Err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return true, fault.Newf(op, fault.Unavailable, "connection refused: the machine is up, but nothing listens on that port; start sshd there (systemctl start ssh or sshd), or correct port")
	case errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH):
		return false, fault.Newf(op, fault.Unavailable, "there is no route to it; is it switched on, and are you in the right network (VPN, bastion)?")
	case errors.As(err, &ch):
		return false, fault.Newf(op, fault.Unavailable, "the bastion cannot: %s; see AllowTcpForwarding in its sshd_config, and whether it can reach that address", ch.Message)
	case ctx.Err() != nil && !errors.Is(context.Cause(ctx), errSlow):
		return false, fault.New(op, fault.Unavailable, context.Cause(ctx))
	case ctx.Err() != nil || os.IsTimeout(err):
		return false, fault.Newf(op, fault.Unavailable, "no answer; the machine is off, the address is wrong, or a firewall drops packets to that port")
	default:
		return true, fault.New(op, fault.Unavailable, err)
	}
}

// refused explains why a connection came to nothing.
func refused(ctx context.Context, l host.Login, pr proof, err error) (passes bool, _ error) {
	if f, ok := errors.AsType[*fault.Error](err); ok { // our own check of its key
		return false, f
	}
	op := fmt.Sprintf("log in to %s as %s", l.Endpoint(), l.User)
	switch text := err.Error(); {
	case ctx.Err() != nil && !errors.Is(context.Cause(ctx), errSlow):
		return false, fault.New(op, fault.Unavailable, context.Cause(ctx))
	case ctx.Err() != nil:
		return false, fault.Newf(op, fault.Unavailable, "it accepts connections but does not answer in time; the machine may be overloaded, stuck or short of memory (raise timeout if it is only slow)")
	// The second: asked for a dialogue after a wrong password, a server that has
	// none says no, and the library takes that for a breach of the protocol.
	case strings.Contains(text, "unable to authenticate"), strings.Contains(text, "unexpected message type 51"):
		return false, fault.Newf(op, fault.Denied, "refused; tried %s. Is the user right? %s", strings.Join(pr.tried, " and "), remedy(l))
	case strings.Contains(text, "no common algorithm"):
		return false, fault.Newf(op, fault.Denied, "%w; its sshd is too old, or is set to algorithms that are not safe", err)
	default: // it hung up: MaxStartups, fail2ban, sshd that is just starting
		return true, fault.Newf(op, fault.Unavailable, "it ended the connection: %w; too many logins at once (MaxStartups), or a guard such as fail2ban", err)
	}
}

func remedy(l host.Login) string {
	switch {
	case l.KeyFile != "":
		return fmt.Sprintf("Then let the key in: ssh-copy-id -i %s.pub -p %d %s@%s", l.KeyFile, l.Port, l.User, l.Address)
	case l.UseAgent:
		return fmt.Sprintf("Then let a key of the agent in: ssh-copy-id -p %d %s@%s", l.Port, l.User, l.Address)
	default:
		return "Then check the password, and that sshd allows passwords (PasswordAuthentication)"
	}
}

// keepAlive ends a connection on which nothing is answered any more.
func (p *Pool) keepAlive(c *conn) {
	t := time.NewTicker(p.o.Alive)
	defer t.Stop()
	answers := make(chan error, 1)
	waiting, silent := false, 0
	var asks sync.WaitGroup
	defer asks.Wait()
	for {
		select {
		case <-c.dead:
			return
		case <-answers:
			waiting, silent = false, 0
		case <-t.C:
			if !waiting {
				waiting = true
				asks.Go(func() {
					_, _, err := c.client.SendRequest("keepalive@openssh.com", true, nil)
					answers <- err
				})
				continue
			}
			if silent++; silent >= missed {
				p.o.Log.Warn("no answer any more, connection closed", "to", c.client.RemoteAddr().String())
				c.client.Close()
			}
		}
	}
}
