package emulated

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/pki"
)

// World is machines and the network between them.
type World struct {
	mu       sync.Mutex
	machines []*Machine
	servers  map[string]*server // by address of the master
	wait     sync.WaitGroup
}

// NewWorld returns a world with these machines. Close it.
func NewWorld(machines ...*Machine) *World {
	return &World{machines: machines, servers: map[string]*server{}}
}

// Close ends what answers for masters.
func (w *World) Close() {
	w.mu.Lock()
	for _, s := range w.servers {
		s.close()
	}
	w.servers = map[string]*server{}
	w.mu.Unlock()
	w.wait.Wait()
}

// Machine returns the machine of that name or address, nil when there is none.
func (w *World) Machine(name string) *Machine {
	i := slices.IndexFunc(w.machines, func(m *Machine) bool { return m.Name == name || m.Address == name })
	if i < 0 {
		return nil
	}
	return w.machines[i]
}

// Open is a host.Opener for references of any kind: by the name of the host,
// or by the address that is logged in to.
func (w *World) Open(ctx context.Context, ref host.Ref) (host.Host, error) {
	op := "reach host " + ref.Name
	m := w.Machine(ref.Name)
	if m == nil {
		m = w.Machine(ref.SSH.Address)
	}
	if m == nil {
		return nil, fault.Newf(op, fault.Unavailable, "no answer")
	}
	if err := m.wait(ctx, m.Latency); err != nil {
		return nil, fault.New(op, fault.Unavailable, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		return nil, fault.New(op, fault.Unavailable, errDown)
	}
	if err := m.point("open"); err != nil {
		return nil, fault.New(op, fault.KindOf(err), err)
	}
	return handle{m}, nil
}

// Ask answers a script that asks a machine what it is, as the provider of
// machines of one's own does.
func (w *World) Ask(ctx context.Context, ref host.Ref) (string, error) {
	h, err := w.Open(ctx, ref)
	if err != nil {
		return "", err
	}
	f, err := h.ReadFile(ctx, machineID)
	if err != nil {
		return "", err
	}
	return "uid 0\ninit systemd\nsystemd yes\nos ID=debian\nos VERSION_ID=\"12\"\nos PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n" +
		"machine " + strings.TrimSpace(string(f.Data)) + "\nboot " + digest(f.Data)[:32] + "\narch x86_64\nkernel Linux 6.1.0\ncpus 4\nmemory 8000000\ndisk 10000000 4096\n" +
		"hostname " + h.(handle).m.Name + "\nnameserver 192.0.2.53\n", nil
}

// Dial reaches the gateway of a master whose unit runs. What answers there has
// the cluster's certificate, and counts the agents whose units run.
func (w *World) Dial(ctx context.Context, _, addr string) (net.Conn, error) {
	name, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	m := w.Machine(name)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if m == nil || port != strconv.Itoa(config.PortGateway) || !m.runs(config.UnitMaster) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	s, err := w.server(m)
	if err != nil {
		return nil, err
	}
	here, there := net.Pipe()
	select {
	case s.conns <- there:
		return here, nil
	case <-s.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (m *Machine) runs(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	u := m.units[name]
	return !m.down && u != nil && u.active && u.broken == ""
}

// content reads a file of the machine.
func (m *Machine) content(p string) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := m.tree.get(p, true); n != nil {
		return n.data
	}
	return nil
}

// server answers for one master.
type server struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
	http  *http.Server
}

func (s *server) Accept() (net.Conn, error) {
	select {
	case c := <-s.conns:
		return c, nil
	case <-s.done:
		return nil, net.ErrClosed
	}
}

func (s *server) Close() error   { s.once.Do(func() { close(s.done) }); return nil }
func (s *server) Addr() net.Addr { return &net.IPAddr{} }
func (s *server) close()         { s.http.Close() }

// server returns what answers for a master, made with the certificate of its
// cluster on first use.
func (w *World) server(m *Machine) (*server, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.servers[m.Address]; s != nil {
		return s, nil
	}
	ca, err := pki.ParseAuthority(m.content(config.CACertFile), m.content(config.CAKeyFile))
	if err != nil {
		return nil, fmt.Errorf("the CA on %s: %w", m.Name, err)
	}
	addr, err := netip.ParseAddr(m.Address)
	if err != nil {
		return nil, err
	}
	cert, err := ca.Issue(pki.MasterRequest(m.Name, addr))
	if err != nil {
		return nil, err
	}
	s := &server{conns: make(chan net.Conn), done: make(chan struct{})}
	s.http = &http.Server{Handler: w.gateway(), ReadHeaderTimeout: time.Minute}
	w.servers[m.Address] = s
	w.wait.Go(func() {
		if err := s.http.Serve(tls.NewListener(s, &tls.Config{Certificates: []tls.Certificate{cert}})); err != nil && !errors.Is(err, http.ErrServerClosed) {
			s.Close()
		}
	})
	return s, nil
}

// gateway is the part of a cluster's API that an installer asks for.
func (w *World) gateway() http.Handler {
	mux := http.NewServeMux()
	say := func(pattern, text string) {
		mux.HandleFunc(pattern, func(rw http.ResponseWriter, _ *http.Request) { io.WriteString(rw, text) })
	}
	say("GET /acs/api/v1/auth/jwks", `{"keys":[]}`)
	say("POST /acs/api/v1/auth/login", `{"token":"T"}`)
	say("GET /service/marathon/v2/info", `{}`)
	mux.HandleFunc("GET /mesos/slaves", func(rw http.ResponseWriter, _ *http.Request) {
		type agent struct {
			Hostname string `json:"hostname"`
			Active   bool   `json:"active"`
		}
		var list struct {
			Slaves []agent `json:"slaves"`
		}
		for _, m := range w.machines {
			if m.runs(config.UnitAgent) {
				list.Slaves = append(list.Slaves, agent{m.Address, true})
			}
		}
		json.NewEncoder(rw).Encode(list) // the client sees when it is cut off
	})
	return mux
}
