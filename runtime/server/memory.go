package server

import (
	"context"
	"net"
	"net/http"
	"sync"
)

// Memory is a listener whose connections never leave the process.
type Memory struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

// NewMemory returns an open Memory.
func NewMemory() *Memory {
	return &Memory{conns: make(chan net.Conn), done: make(chan struct{})}
}

// Accept waits for a Dial.
func (m *Memory) Accept() (net.Conn, error) {
	select {
	case c := <-m.conns:
		return c, nil
	case <-m.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept and Dial; open connections stay.
func (m *Memory) Close() error {
	m.once.Do(func() { close(m.done) })
	return nil
}

// Addr is the same for every Memory.
func (m *Memory) Addr() net.Addr { return memoryAddr{} }

// DialContext connects to the listener, whatever network and address say: it
// has the shape of http.Transport.DialContext.
func (m *Memory) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case m.conns <- server:
		return client, nil
	case <-m.done:
		return nil, &net.OpError{Op: "dial", Net: "memory", Addr: m.Addr(), Err: net.ErrClosed}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Transport sends every http:// request to the listener.
func (m *Memory) Transport() *http.Transport {
	return &http.Transport{DialContext: m.DialContext, MaxIdleConnsPerHost: 16, DisableCompression: true}
}

// Client is an http.Client over Transport.
func (m *Memory) Client() *http.Client { return &http.Client{Transport: m.Transport()} }

type memoryAddr struct{}

func (memoryAddr) Network() string { return "memory" }
func (memoryAddr) String() string  { return "memory" }
