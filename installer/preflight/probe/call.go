package probe

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// dialTime bounds one attempt to connect. A lost packet is sent again after
	// a second.
	dialTime = 1200 * time.Millisecond
	retry    = 30 * time.Millisecond // between attempts, while peers may still begin
	// roundsTime is after how long no more round trips are measured, unless
	// there were less than leastRounds.
	roundsTime  = 500 * time.Millisecond
	leastRounds = 5
	datagrams   = 50
	// udpTime is how long the last answers may take, bulkTime how long a bulk,
	// both beyond the round trips they need.
	udpTime  = 300 * time.Millisecond
	bulkTime = 800 * time.Millisecond
)

// sizes are the packet sizes that are tried when whole packets get lost.
var sizes = []int{1450, 1400, 1280, 576}

// caller measures one peer.
type caller struct {
	s Spec
	p Peer
}

// line is a connection to a probe that has said who it is.
type line struct {
	net.Conn
	r *bufio.Reader
}

func (c *caller) measure(ctx context.Context) Link {
	l := Link{Peer: c.p.Name, Ports: map[int]string{}}
	meet := time.Now().Add(c.s.Meet)
	var mu sync.Mutex
	var lines = map[int]*line{}
	var wg sync.WaitGroup
	for _, p := range c.p.Ports {
		wg.Go(func() {
			conn, err := c.meet(ctx, p, meet)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				l.Ports[p] = short(err)
				return
			}
			l.Ports[p], lines[p] = Open, conn
		})
	}
	for _, p := range c.p.Busy {
		wg.Go(func() {
			conn, err := c.dial(ctx, p, 0)
			mu.Lock()
			defer mu.Unlock()
			l.Ports[p] = Open
			if err != nil {
				l.Ports[p] = short(err)
				return
			}
			conn.Close()
		})
	}
	wg.Wait()
	if c.p.DNS {
		l.UDP = Open
		if a := ask(ctx, netip.AddrPortFrom(c.p.Addr, 53), ours); a.Error != "" {
			l.UDP = a.Error
		}
	}
	var best *line
	for _, p := range c.p.Ports {
		if n := lines[p]; n != nil && best == nil {
			best = n
			defer n.Close()
		} else if n != nil {
			n.Close()
		}
	}
	if best == nil {
		return l
	}
	port := best.RemoteAddr().(*net.TCPAddr).Port
	c.rounds(ctx, best, &l)
	if c.p.UDP != 0 {
		c.datagrams(ctx, &l)
	}
	c.packets(ctx, port, &l)
	best.SetDeadline(deadline(ctx, idle))
	if _, err := best.Write([]byte{opDone}); err == nil {
		best.r.ReadByte() // so that it is not lost with the connection
	}
	return l
}

// meet connects to a peer's probe, which may not have begun yet.
func (c *caller) meet(ctx context.Context, port int, until time.Time) (*line, error) {
	for {
		conn, err := c.dial(ctx, port, 0)
		if err == nil {
			var n *line
			if n, err = c.greet(ctx, conn); err == nil {
				return n, nil
			}
			conn.Close()
		}
		if time.Now().After(until) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(retry):
		}
	}
}

var errOther = errors.New("something else answers there")

func (c *caller) greet(ctx context.Context, conn net.Conn) (*line, error) {
	conn.SetDeadline(deadline(ctx, dialTime))
	if _, err := io.WriteString(conn, greeting+c.s.Nonce+" "+c.s.Name+"\n"); err != nil {
		return nil, err
	}
	n := &line{conn, bufio.NewReader(conn)}
	b, err := n.r.ReadSlice('\n')
	if err != nil {
		return nil, errOther
	}
	name, ok := strings.CutPrefix(strings.TrimSpace(string(b)), greeting+c.s.Nonce+" ")
	if !ok {
		return nil, errOther
	}
	if name != c.p.Name {
		return nil, fmt.Errorf("host %s answers there", name)
	}
	return n, nil
}

// dial connects, with segments of at most mss bytes if that is not 0.
func (c *caller) dial(ctx context.Context, port, mss int) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTime}
	if mss > 0 {
		d.Control = func(_, _ string, raw syscall.RawConn) error {
			var err error
			return errors.Join(raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, mss) }), err)
		}
	}
	// From the host's own address: that is what the cluster's programs do.
	if c.s.Addr.IsValid() && interfaceOf(c.s.Addr).Name != "" {
		d.LocalAddr = &net.TCPAddr{IP: c.s.Addr.AsSlice()}
	}
	return d.DialContext(ctx, "tcp", netip.AddrPortFrom(c.p.Addr, uint16(port)).String())
}

// rounds measures round trips, and with them the peer's clock.
func (c *caller) rounds(ctx context.Context, n *line, l *Link) {
	var all []time.Duration
	var b [8]byte
	for begun := time.Now(); len(all) < c.p.Rounds && ctx.Err() == nil; {
		if len(all) >= leastRounds && time.Since(begun) > roundsTime {
			break
		}
		n.SetDeadline(deadline(ctx, idle))
		sent := time.Now()
		if _, err := n.Write([]byte{opEcho}); err != nil {
			break
		}
		if _, err := io.ReadFull(n.r, b[:]); err != nil {
			break
		}
		took := time.Since(sent)
		if len(all) == 0 || took < l.Min {
			l.Min = took
			there := time.Unix(0, int64(binary.BigEndian.Uint64(b[:])))
			l.Ahead = there.Round(0).Sub(sent.Round(0)) - took/2
		}
		all = append(all, took)
	}
	slices.Sort(all)
	l.Rounds, l.P50, l.P99 = len(all), percentile(all, 50), percentile(all, 99)
}

// datagrams counts those that come back.
func (c *caller) datagrams(ctx context.Context, l *Link) {
	conn, err := (&net.Dialer{Timeout: dialTime}).DialContext(ctx, "udp", netip.AddrPortFrom(c.p.Addr, uint16(c.p.UDP)).String())
	if err != nil {
		l.UDP = short(err)
		return
	}
	defer conn.Close()
	var wg sync.WaitGroup
	back, refused := map[string]bool{}, error(nil)
	wg.Go(func() {
		b := make([]byte, 2048)
		for len(back) < datagrams {
			n, err := conn.Read(b)
			if errors.Is(err, syscall.ECONNREFUSED) {
				refused = err
			}
			if err != nil {
				return
			}
			back[string(b[:n])] = true
		}
	})
	for i := range datagrams {
		fmt.Fprintf(conn, "%s%s %s %d", greeting, c.s.Nonce, c.s.Name, i) // a loss is what is measured
		l.Sent++
		time.Sleep(time.Millisecond)
	}
	conn.SetReadDeadline(deadline(ctx, udpTime+l.P99))
	wg.Wait()
	l.Lost = l.Sent - len(back)
	switch {
	case len(back) > 0:
		l.UDP = Open
	case refused != nil:
		l.UDP = short(refused)
	default:
		l.UDP = "no answer"
	}
}

// packets sends enough for whole packets to be used, and looks at what the
// kernel learnt. If they get lost without a word, smaller ones are tried.
func (c *caller) packets(ctx context.Context, port int, l *Link) {
	mtu, err := c.bulk(ctx, port, 0, l.P50)
	if err == nil {
		l.MTU = mtu
		return
	}
	l.Stalled = true
	for _, size := range sizes {
		if _, err := c.bulk(ctx, port, size-40, l.P50); err == nil { // less the headers of IP and TCP
			l.MTU = size
			return
		}
		if ctx.Err() != nil {
			return
		}
	}
}

func (c *caller) bulk(ctx context.Context, port, mss int, rtt time.Duration) (mtu int, err error) {
	conn, err := c.dial(ctx, port, mss)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	n, err := c.greet(ctx, conn)
	if err != nil {
		return 0, err
	}
	conn.SetDeadline(deadline(ctx, bulkTime+4*rtt))
	b := make([]byte, 1+bulkSize)
	b[0] = opBulk
	if _, err := conn.Write(b); err != nil {
		return 0, err
	}
	if _, err := n.r.ReadByte(); err != nil {
		return 0, err
	}
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var info *unix.TCPInfo
	var ierr error
	err = raw.Control(func(fd uintptr) { info, ierr = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if err = errors.Join(err, ierr); err != nil {
		return 0, err
	}
	return int(info.Pmtu), nil
}

// deadline is d from now, or the context's if that is sooner.
func deadline(ctx context.Context, d time.Duration) time.Time {
	at := time.Now().Add(d)
	if end, ok := ctx.Deadline(); ok && end.Before(at) {
		return end
	}
	return at
}

// Questions to a DNS server: a name, the type, and the class IN. Anybody can
// say who the root's name servers are. The address of leader.mesos a server of
// the cluster knows by itself: it passes the question on to nobody.
const (
	root = "\x00\x00\x02\x00\x01"
	ours = "\x06leader\x05mesos\x00\x00\x01\x00\x01"
)

// ask sends a server a question that it can answer. Any answer counts; what it
// says is the server's matter.
func ask(ctx context.Context, at netip.AddrPort, what string) Resolver {
	r := Resolver{Addr: at}
	const tries, each = 2, 500 * time.Millisecond
	// id, recursion desired, one question
	question := append([]byte{0xdc, 0x05, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, what...)
	for range tries {
		sent := time.Now()
		err := func() error {
			conn, err := (&net.Dialer{Timeout: each}).DialContext(ctx, "udp", at.String())
			if err != nil {
				return err
			}
			defer conn.Close()
			conn.SetDeadline(deadline(ctx, each))
			if _, err := conn.Write(question); err != nil {
				return err
			}
			b := make([]byte, 4096)
			n, err := conn.Read(b)
			if err != nil {
				return err
			}
			if n < 12 || b[0] != question[0] || b[1] != question[1] || b[2]&0x80 == 0 {
				return errors.New("the answer is not one of a DNS server")
			}
			return nil
		}()
		if err == nil {
			r.Took, r.Error = time.Since(sent), ""
			return r
		}
		r.Error = short(err)
	}
	return r
}
