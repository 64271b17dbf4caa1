package probe

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"
)

// What a caller may ask for once it has said who it is. Everything else ends
// the connection.
const (
	opEcho = 'e' // 8 bytes, answered with the clock
	opBulk = 'b' // bulkSize bytes, answered with one
	opDone = 'd' // it has measured what it wanted
)

const (
	greeting = "dcos-probe "
	bulkSize = 32 << 10
	// idle bounds how long a caller may stay silent.
	idle = 3 * time.Second
)

// server answers peers.
type server struct {
	s      Spec
	failed map[int]string
	close  []io.Closer

	mu      sync.Mutex
	waiting map[string]bool // who has not said that it is done; true: it has called
	done    chan struct{}   // closed when nobody is waited for
	conns   map[net.Conn]bool
	wg      sync.WaitGroup
}

func serve(ctx context.Context, s Spec) *server {
	v := &server{s: s, failed: map[int]string{}, waiting: map[string]bool{}, done: make(chan struct{}), conns: map[net.Conn]bool{}}
	for _, n := range s.Expect {
		v.waiting[n] = false
	}
	if len(v.waiting) == 0 {
		close(v.done)
	}
	lc := net.ListenConfig{}
	for _, p := range s.Listen {
		l, err := lc.Listen(ctx, "tcp", netip.AddrPortFrom(s.Addr, uint16(p)).String())
		if err != nil {
			v.failed[p] = short(err)
			continue
		}
		v.close = append(v.close, l)
		v.wg.Go(func() { v.accept(l) })
	}
	if s.UDP != 0 {
		c, err := lc.ListenPacket(ctx, "udp", netip.AddrPortFrom(s.Addr, uint16(s.UDP)).String())
		if err != nil {
			v.failed[s.UDP] = short(err)
		} else {
			v.close = append(v.close, c)
			v.wg.Go(func() { v.echo(c) })
		}
	}
	return v
}

// wait returns when every peer is done or the time is up, and ends the server.
// Who has not called when it should have met this host will not come.
func (v *server) wait(ctx context.Context, begun time.Time) {
	late := time.NewTimer(time.Until(begun.Add(v.s.Meet + 2*dialTime)))
	defer late.Stop()
	for waiting := true; waiting; {
		select {
		case <-v.done:
			waiting = false
		case <-ctx.Done():
			waiting = false
		case <-late.C:
			v.mu.Lock()
			for n, called := range v.waiting {
				if !called {
					delete(v.waiting, n)
				}
			}
			waiting = len(v.waiting) > 0
			v.mu.Unlock()
		}
	}
	for _, c := range v.close {
		c.Close()
	}
	v.mu.Lock()
	for c := range v.conns {
		c.Close()
	}
	v.mu.Unlock()
	v.wg.Wait()
}

func (v *server) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return // closed
		}
		v.mu.Lock()
		v.conns[c] = true
		v.mu.Unlock()
		v.wg.Go(func() {
			v.answer(c)
			v.mu.Lock()
			delete(v.conns, c)
			v.mu.Unlock()
			c.Close()
		})
	}
}

func (v *server) answer(c net.Conn) {
	c.SetDeadline(time.Now().Add(idle))
	r := bufio.NewReader(c)
	line, err := r.ReadSlice('\n')
	if err != nil {
		return
	}
	who, ok := strings.CutPrefix(strings.TrimSpace(string(line)), greeting+v.s.Nonce+" ")
	if !ok {
		return
	}
	v.mu.Lock()
	if _, expected := v.waiting[who]; expected {
		v.waiting[who] = true
	}
	v.mu.Unlock()
	if _, err := io.WriteString(c, greeting+v.s.Nonce+" "+v.s.Name+"\n"); err != nil {
		return
	}
	for {
		c.SetDeadline(time.Now().Add(idle))
		op, err := r.ReadByte()
		if err != nil {
			return
		}
		var answer []byte
		switch op {
		case opEcho:
			answer = binary.BigEndian.AppendUint64(nil, uint64(time.Now().UnixNano()))
		case opBulk:
			if _, err := io.CopyN(io.Discard, r, bulkSize); err != nil {
				return
			}
			answer = []byte{opBulk}
		case opDone:
			v.finished(who)
			answer = []byte{opDone}
		default:
			return
		}
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

func (v *server) finished(who string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, expected := v.waiting[who]; expected {
		delete(v.waiting, who)
		if len(v.waiting) == 0 {
			close(v.done)
		}
	}
}

// echo answers datagrams with themselves.
func (v *server) echo(c net.PacketConn) {
	b := make([]byte, 2048)
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return // closed
		}
		if strings.HasPrefix(string(b[:n]), greeting+v.s.Nonce+" ") {
			c.WriteTo(b[:n], from) // a loss is what is measured
		}
	}
}

// short is the cause of a network error: the addresses in it are known.
func short(err error) string {
	for {
		switch e := err.(type) {
		case *net.OpError:
			if e.Timeout() {
				return "no answer"
			}
			err = e.Err
		case interface{ Unwrap() error }:
			next := e.Unwrap()
			if next == nil {
				return err.Error()
			}
			err = next
		case syscall.Errno:
			return e.Error()
		default:
			if t, ok := err.(net.Error); ok && t.Timeout() || err == context.DeadlineExceeded {
				return "no answer"
			}
			return err.Error()
		}
	}
}
