//go:build root

package membership_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/leader"
	"dcos.example/dcos/runtime/membership"
	"dcos.example/dcos/runtime/membership/httpapi"
	"dcos.example/dcos/runtime/membership/keeper"
	"dcos.example/dcos/runtime/membership/seat"
	"dcos.example/dcos/runtime/state"
	"dcos.example/dcos/runtime/state/etcd"
)

// Masters in these tests are processes of their own, so that they can be killed
// as real ones are: this test binary, told by the environment to be a master.
// Each has an address of its own on loopback.

const (
	envDir  = "DCOS_TEST_MASTER_DIR"
	envName = "DCOS_TEST_MASTER_NAME"
	envAddr = "DCOS_TEST_MASTER_ADDR"

	portPeer, portAPI = 12380, 15050
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(envDir); dir != "" {
		if err := runTestMaster(dir, os.Getenv(envName), netip.MustParseAddr(os.Getenv(envAddr))); err != nil {
			fmt.Fprintln(os.Stderr, "master ends:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func base(a netip.Addr) string { return fmt.Sprintf("http://%s:%d", a, portAPI) }

// runTestMaster is the part of `dcosd master` that is about membership, with a
// store that tests write to. As there, the process starts anew when it has lost
// its place; here by itself.
func runTestMaster(dir, name string, addr netip.Addr) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil)).With("master", name)
	for ctx.Err() == nil {
		if err := testMaster(ctx, dir, name, addr, log); err != nil && ctx.Err() == nil {
			log.Error("start anew", "err", err)
			time.Sleep(100 * time.Millisecond)
		}
	}
	return nil
}

func testMaster(ctx context.Context, dir, name string, addr netip.Addr, log *slog.Logger) error {
	self := config.Member{Name: name, Addr: addr}
	client := membership.Client{HTTP: &http.Client{}, Base: base}
	source, err := membership.NewSource(membership.SourceConfig{
		Cluster: "c", Self: addr, Seed: filepath.Join(dir, "seed.json"), Saved: filepath.Join(dir, "saved.json"), Log: log, Ask: client.List,
	})
	if err != nil {
		return err
	}
	place := seat.New(seat.Config{
		Cluster: "c", Self: self, Release: "test", Source: source, Others: client, Log: log,
		Etcd: etcd.Options{
			Self: etcd.Peer{Name: name, Addr: netip.AddrPortFrom(addr, portPeer)}, Token: "c", DataDir: filepath.Join(dir, "data"),
			Heartbeat: 50 * time.Millisecond, Election: 500 * time.Millisecond,
		},
	})
	api := httpapi.New(httpapi.Config{Self: addr, Seat: place, Source: source, Client: client, Log: log})
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { source.Run(ctx); return nil })
	mux := http.NewServeMux()
	mux.Handle("/membership", api.Local())
	mux.Handle("/membership/", api.Local())
	l, err := net.Listen("tcp", netip.AddrPortFrom(addr, portAPI).String())
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: mux}
	g.Go(func() error {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		// What is being answered is, as by runtime/server: who asks a master to go
		// on alone is told before it starts anew.
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if srv.Shutdown(stop) == nil {
			return nil
		}
		return srv.Close()
	})
	var m *etcd.Member
	g.Go(func() (err error) {
		if m, err = place.Take(ctx, false); err != nil {
			return err
		}
		g.Go(func() error { return place.Keep(ctx, m) })
		store := etcd.New(m.Client())
		g.Go(func() error { source.FollowStore(ctx, store); return nil })
		k := keeper.New(keeper.Config{Cluster: "c", Member: m, Port: portPeer, View: api.View, Learn: source.Learn, Log: log})
		api.SetKeeper(k)
		mux.Handle("/kv/{id}", kv(store))
		elector := leader.New(store, m, name, addr, log)
		g.Go(func() error {
			return elector.Run(ctx, func(ctx context.Context, store state.Backend) error { k.Run(ctx, store); return nil })
		})
		return nil
	})
	err = g.Wait()
	if m != nil {
		err = errors.Join(err, m.Close())
	}
	return err
}

// kv writes with PUT what is not there yet, and reads with GET.
func kv(b state.Backend) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
		defer cancel()
		key := state.Key{Kind: "kv", ID: r.PathValue("id")}
		var err error
		if r.Method == http.MethodPut {
			_, err = b.Commit(ctx, state.Op{Key: key, Value: []byte(key.ID)})
		} else {
			_, err = b.Get(ctx, key)
		}
		membership.Reply(w, struct{}{}, err)
	})
}

// world is a set of hosts, some of which run a master.
type world struct {
	t     testing.TB
	net   int // the second number of addresses
	hosts map[string]*hostProcess
	where sync.Map // address by name, for writers that run meanwhile
	seed  config.Masters
	c     membership.Client
}

type hostProcess struct {
	name string
	addr netip.Addr
	dir  string
	cmd  *exec.Cmd
	log  *bytes.Buffer
	done chan struct{}
}

func newWorld(t testing.TB, net int, founders ...string) *world {
	w := &world{t: t, net: net, hosts: map[string]*hostProcess{}, c: membership.Client{HTTP: &http.Client{}, Base: base}}
	w.seed.Founders = founders
	t.Cleanup(func() {
		for _, name := range w.names() {
			w.kill(name)
			if t.Failed() {
				t.Logf("log of %s:\n%s", name, w.hosts[name].log)
			}
		}
	})
	return w
}

func (w *world) names() (out []string) {
	for i := range 100 {
		if name := "m" + strconv.Itoa(i); w.hosts[name] != nil {
			out = append(out, name)
		}
	}
	return out
}

// host makes a host without data; one of that name is gone then.
func (w *world) host(name string) {
	w.t.Helper()
	n, err := strconv.Atoi(strings.TrimPrefix(name, "m"))
	if err != nil {
		w.t.Fatal(err)
	}
	h := &hostProcess{name: name, dir: w.dir(), log: &bytes.Buffer{}}
	if old := w.hosts[name]; old != nil {
		w.kill(name)
		h.log = old.log
	}
	w.hosts[name] = h
	w.at(name, n)
}

// at gives a stopped host another address.
func (w *world) at(name string, n int) {
	w.hosts[name].addr = netip.AddrFrom4([4]byte{127, 40, byte(w.net), byte(n)})
	w.where.Store(name, w.hosts[name].addr)
}

// dir is a directory with a short path: sockets lie in it.
func (w *world) dir() string {
	d, err := os.MkdirTemp("", "dct4-")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { os.RemoveAll(d) })
	return d
}

// want is what the installer does: it lists the masters that are wanted on
// every host.
func (w *world) want(names ...string) {
	w.t.Helper()
	w.seed.Masters = nil
	for _, name := range names {
		if w.hosts[name] == nil {
			w.host(name)
		}
		w.seed.Masters = append(w.seed.Masters, config.Member{Name: name, Addr: w.hosts[name].addr})
	}
	b, err := json.Marshal(w.seed)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, h := range w.hosts {
		if err := os.WriteFile(filepath.Join(h.dir, "seed.json"), b, 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) start(names ...string) {
	w.t.Helper()
	for _, name := range names {
		h := w.hosts[name]
		h.cmd = exec.Command(os.Args[0])
		h.cmd.Env = append(os.Environ(), envDir+"="+h.dir, envName+"="+name, envAddr+"="+h.addr.String())
		h.cmd.Stderr = h.log
		h.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := h.cmd.Start(); err != nil {
			w.t.Fatal(err)
		}
		h.done = make(chan struct{})
		go func() { defer close(h.done); _ = h.cmd.Wait() }()
	}
}

// end ends a master with a signal.
func (w *world) end(name string, sig syscall.Signal) {
	h := w.hosts[name]
	if h.cmd == nil {
		return
	}
	_ = h.cmd.Process.Signal(sig)
	<-h.done
	h.cmd = nil
}

func (w *world) kill(name string) { w.end(name, syscall.SIGKILL) }
func (w *world) stop(name string) { w.end(name, syscall.SIGTERM) }

// eventually tries f until it returns nil.
func (w *world) eventually(what string, f func(context.Context) error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	for {
		err := f(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			w.t.Fatalf("%s: %v", what, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// settled waits until every one of names says that exactly names are masters,
// and that all are healthy.
func (w *world) settled(names ...string) membership.Status {
	w.t.Helper()
	var last membership.Status
	for _, name := range names {
		w.eventually(name+" sees "+strings.Join(names, " "), func(ctx context.Context) (err error) {
			if last, err = w.c.Status(ctx, w.hosts[name].addr); err != nil {
				return err
			}
			var got []string
			for _, m := range last.Members {
				if !m.Healthy || m.Role != membership.Voter {
					return fmt.Errorf("%s is a %s and %s", m.Name, m.Role, m.Reason)
				}
				got = append(got, m.Name)
			}
			if strings.Join(got, " ") != strings.Join(names, " ") || last.Leader == "" {
				return fmt.Errorf("masters %v, leader %q", got, last.Leader)
			}
			return nil
		})
	}
	return last
}

// leave does what the installer does before it takes a master down.
func (w *world) leave(name string) {
	w.t.Helper()
	w.eventually("remove "+name, func(ctx context.Context) error {
		_, err := w.c.Leave(ctx, w.hosts[name].addr, membership.LeaveRequest{Name: name})
		if fault.Is(err, fault.NotFound) { // done, and the answer was lost
			return nil
		}
		return err
	})
	w.stop(name)
}

// put writes id through the store of any of names, and returns when that was
// acknowledged.
func (w *world) put(ctx context.Context, id string, names ...string) error {
	for i := 0; ; i++ {
		err := w.kv(ctx, http.MethodPut, id, names[i%len(names)])
		if err == nil || fault.Is(err, fault.Conflict) { // the second: an attempt before succeeded
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (w *world) kv(ctx context.Context, method, id, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	addr, ok := w.where.Load(name)
	if !ok {
		return fault.Newf("reach "+name, fault.Unavailable, "there is no such host yet")
	}
	req, err := http.NewRequestWithContext(ctx, method, base(addr.(netip.Addr))+"/kv/"+id, nil)
	if err != nil {
		return err
	}
	resp, err := w.c.HTTP.Do(req)
	if err != nil {
		return fault.New("reach "+name, fault.Unavailable, err)
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusConflict:
		return fault.New("write "+id, fault.Conflict, nil)
	}
	b, _ := io.ReadAll(resp.Body)
	return fault.Newf("write "+id, fault.Unavailable, "%s %s", resp.Status, b)
}
