// Package dns answers DNS queries on a host: the cluster's own names from a
// zone that follows the feed, everything else by asking the configured
// resolvers. It also serves the small HTTP API of Mesos-DNS.
package dns

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"

	"dcos.example/dcos/runtime/dns/zone"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/feed"
)

// Config says where to listen and whom to ask.
type Config struct {
	// Listen are the addresses ("198.51.100.1:53") to answer on, UDP and TCP.
	Listen []string
	// Resolvers are asked for names outside the cluster, as "ip:port". With
	// none such queries are refused.
	Resolvers []string
	// Options returns what the zone has besides the view; nil: nothing. It is
	// asked again for every view; VIPs in it is ignored.
	Options func() zone.Options
	// VIPs, if set, returns the addresses of named VIPs in a view.
	VIPs func(*feed.View) map[string]netip.Addr
	Log  *slog.Logger
}

const (
	ttl = 5 // seconds; tasks come and go
	// forwards bounds the queries waiting for other resolvers.
	forwards       = 1024
	forwardTimeout = 2 * time.Second
	// rebuild is the least time between two zones. A zone costs O(tasks), so
	// this bounds the share of a core that a busy cluster costs.
	rebuild = 50 * time.Millisecond
	// ednsSize is what we offer to take and send over UDP: what passes
	// without fragments everywhere.
	ednsSize = 1232
)

// Server answers queries while Run runs.
type Server struct {
	cfg       Config
	zone      atomic.Pointer[zone.Zone]
	forwards  chan struct{}
	packets   []net.PacketConn
	listeners []net.Listener
}

// New opens the server's sockets. The names that need no master resolve at
// once; Run answers.
func New(ctx context.Context, cfg Config) (*Server, error) {
	for _, r := range cfg.Resolvers {
		if _, err := netip.ParseAddrPort(r); err != nil {
			return nil, fault.Newf("configure DNS", fault.Invalid, "resolver %q is not ip:port", r)
		}
		if slices.Contains(cfg.Listen, r) {
			return nil, fault.Newf("configure DNS", fault.Invalid, "resolver %s is this server itself", r)
		}
	}
	if cfg.Options == nil {
		cfg.Options = func() zone.Options { return zone.Options{} }
	}
	s := &Server{cfg: cfg, forwards: make(chan struct{}, forwards)}
	s.zone.Store(zone.Build(feed.Empty(), cfg.Options()))
	if err := s.listen(ctx); err != nil {
		s.close()
		return nil, fault.New("listen for DNS", fault.Unavailable, err)
	}
	return s, nil
}

func (s *Server) listen(ctx context.Context) error {
	lc := net.ListenConfig{Control: freebind}
	for _, addr := range s.cfg.Listen {
		l, err := lc.Listen(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		s.listeners = append(s.listeners, l)
		// With port 0 both protocols use the one that TCP got.
		p, err := lc.ListenPacket(ctx, "udp", l.Addr().String())
		if err != nil {
			return err
		}
		s.packets = append(s.packets, p)
	}
	return nil
}

func (s *Server) close() {
	for _, l := range s.listeners {
		l.Close()
	}
	for _, p := range s.packets {
		p.Close()
	}
}

// Addrs returns the addresses that the server listens on.
func (s *Server) Addrs() (out []string) {
	for _, l := range s.listeners {
		out = append(out, l.Addr().String())
	}
	return out
}

// Zone returns the zone that queries are answered from now.
func (s *Server) Zone() *zone.Zone { return s.zone.Load() }

// Run answers queries, and follows f, until ctx ends or a socket fails.
func (s *Server) Run(ctx context.Context, f *feed.Feed) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		s.follow(ctx, f)
		return nil
	})
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) { s.serve(ctx, w, q) })
	servers := make([]*dns.Server, 0, 2*len(s.listeners))
	for i, l := range s.listeners {
		servers = append(servers, &dns.Server{Listener: l, Handler: handler}, &dns.Server{PacketConn: s.packets[i], Handler: handler, UDPSize: 4096})
	}
	for _, srv := range servers {
		started := make(chan struct{})
		srv.NotifyStartedFunc = func() { close(started) }
		failed := make(chan struct{})
		g.Go(func() error {
			defer close(failed)
			if err := srv.ActivateAndServe(); err != nil && ctx.Err() == nil {
				return fault.New("serve DNS", fault.Unavailable, err)
			}
			return nil
		})
		g.Go(func() error { // a server can only be stopped once it has started
			select {
			case <-started:
				<-ctx.Done()
				_ = srv.Shutdown()
			case <-failed:
			}
			return nil
		})
	}
	err := g.Wait()
	s.close()
	return err
}

func (s *Server) follow(ctx context.Context, f *feed.Feed) {
	for v := range f.Changes(ctx) {
		s.Update(v)
		select {
		case <-ctx.Done():
		case <-time.After(rebuild):
		}
	}
}

// Update answers from v from now on. Run calls it for every change.
func (s *Server) Update(v *feed.View) {
	o := s.cfg.Options()
	o.VIPs = nil
	if s.cfg.VIPs != nil {
		o.VIPs = s.cfg.VIPs(v)
	}
	s.zone.Store(zone.Build(v, o))
}

func (s *Server) serve(ctx context.Context, w dns.ResponseWriter, q *dns.Msg) {
	_, udp := w.RemoteAddr().(*net.UDPAddr)
	m := new(dns.Msg)
	switch {
	case q.Opcode != dns.OpcodeQuery:
		m.SetRcode(q, dns.RcodeNotImplemented)
	case len(q.Question) != 1:
		m.SetRcode(q, dns.RcodeFormatError)
	default:
		name := strings.ToLower(q.Question[0].Name)
		if apex, ours := zone.Apex(name); ours {
			answer(m, q, s.zone.Load(), name, apex)
		} else {
			m = s.forward(ctx, q, udp)
		}
	}
	size := dns.MaxMsgSize
	if udp {
		size = dns.MinMsgSize
	}
	if opt := q.IsEdns0(); opt != nil {
		if udp {
			size = min(max(int(opt.UDPSize()), dns.MinMsgSize), ednsSize)
		}
		if m.IsEdns0() == nil {
			m.SetEdns0(ednsSize, false)
		}
	}
	m.Truncate(size)
	if err := w.WriteMsg(m); err != nil {
		s.cfg.Log.Debug("DNS answer not sent", "to", w.RemoteAddr().String(), "err", err)
	}
}

// answer fills m from z.
func answer(m, q *dns.Msg, z *zone.Zone, name, apex string) {
	m.SetReply(q)
	m.Authoritative, m.RecursionAvailable = true, true
	question := q.Question[0]
	if question.Qclass != dns.ClassINET && question.Qclass != dns.ClassANY {
		m.Rcode = dns.RcodeRefused
		return
	}
	set, ok := z.Lookup(name)
	if !ok && !z.Ready() {
		m.Rcode, m.Authoritative = dns.RcodeServerFailure, false // it may exist
		return
	}
	switch {
	case !ok:
		m.Rcode = dns.RcodeNameError
	default:
		m.Answer, m.Extra = records(z, set, question)
	}
	if name == apex && (question.Qtype == dns.TypeSOA || question.Qtype == dns.TypeANY) {
		m.Answer = append(m.Answer, soa(apex))
	}
	if name == apex && (question.Qtype == dns.TypeNS || question.Qtype == dns.TypeANY) {
		m.Answer = append(m.Answer, &dns.NS{Hdr: header(question.Name, dns.TypeNS), Ns: "ns.spartan."})
	}
	if len(m.Answer) == 0 {
		m.Ns = []dns.RR{soa(apex)}
	}
}

// records answers in random order, so that clients that take the first one
// spread. The name is spelled as it was asked for.
func records(z *zone.Zone, set *zone.Set, q dns.Question) (answer, extra []dns.RR) {
	if q.Qtype == dns.TypeA || q.Qtype == dns.TypeANY {
		for _, i := range rand.Perm(len(set.A)) {
			answer = append(answer, &dns.A{Hdr: header(q.Name, dns.TypeA), A: set.A[i].AsSlice()})
		}
	}
	if q.Qtype == dns.TypeSRV || q.Qtype == dns.TypeANY {
		seen := map[string]bool{}
		for _, i := range rand.Perm(len(set.SRV)) {
			srv := set.SRV[i]
			answer = append(answer, &dns.SRV{Hdr: header(q.Name, dns.TypeSRV), Target: srv.Target, Port: srv.Port, Weight: 1})
			if target, ok := z.Lookup(srv.Target); ok && !seen[srv.Target] {
				seen[srv.Target] = true
				for _, addr := range target.A {
					extra = append(extra, &dns.A{Hdr: header(srv.Target, dns.TypeA), A: addr.AsSlice()})
				}
			}
		}
	}
	return answer, extra
}

func header(name string, rrtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: ttl}
}

func soa(apex string) dns.RR {
	return &dns.SOA{
		Hdr: header(apex, dns.TypeSOA), Ns: "ns.spartan.", Mbox: "root.ns.spartan.",
		Serial: 1, Refresh: ttl, Retry: ttl, Expire: ttl, Minttl: ttl,
	}
}

// forward asks the resolvers in random order until one answers.
func (s *Server) forward(ctx context.Context, q *dns.Msg, udp bool) *dns.Msg {
	m := new(dns.Msg)
	if len(s.cfg.Resolvers) == 0 {
		return m.SetRcode(q, dns.RcodeRefused)
	}
	select {
	case s.forwards <- struct{}{}:
		defer func() { <-s.forwards }()
	default:
		return m.SetRcode(q, dns.RcodeServerFailure)
	}
	client := &dns.Client{Net: "tcp", Timeout: forwardTimeout}
	if udp {
		client.Net = "udp"
	}
	for _, i := range rand.Perm(len(s.cfg.Resolvers)) {
		ask := q.Copy()
		ask.Id = dns.Id() // ours, so that the other side of our socket has to guess it
		got, _, err := client.ExchangeContext(ctx, ask, s.cfg.Resolvers[i])
		if err != nil {
			s.cfg.Log.Debug("resolver does not answer", "resolver", s.cfg.Resolvers[i], "err", err)
			continue
		}
		got.Id = q.Id
		return got
	}
	return m.SetRcode(q, dns.RcodeServerFailure)
}
