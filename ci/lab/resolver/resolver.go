// Package resolver is the DNS server of a lab's site: it knows the hosts, says
// of every other name that there is none, and remembers who asked for what.
package resolver

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// ttl of answers, in seconds.
const ttl = 5

// Server answers DNS queries.
type Server struct {
	// Lookup returns the address of a host by its bare name.
	Lookup func(name string) (netip.Addr, bool)
	// Asked is a file that gets a line for each name and type that is not a
	// host's, the first time that it is asked for.
	Asked string

	mu   sync.Mutex
	seen map[string]bool
}

// Run serves UDP and TCP on address until ctx ends. It calls ready when both
// listen.
func (s *Server) Run(ctx context.Context, address string, ready func() error) error {
	packets, err := net.ListenPacket("udp", address)
	if err != nil {
		return err
	}
	streams, err := net.Listen("tcp", address)
	if err != nil {
		return errors.Join(err, packets.Close())
	}
	servers := []*dns.Server{
		{PacketConn: packets, Handler: s}, {Listener: streams, Handler: s, IdleTimeout: func() time.Duration { return 10 * time.Second }},
	}
	done := make(chan error, len(servers))
	started := make(chan struct{}, len(servers))
	for _, d := range servers {
		d.NotifyStartedFunc = func() { started <- struct{}{} }
		go func() { done <- d.ActivateAndServe() }()
	}
	for range servers {
		select {
		case <-started:
		case err := <-done:
			return err
		}
	}
	if err := ready(); err != nil {
		return err
	}
	<-ctx.Done()
	var errs []error
	for _, d := range servers {
		errs = append(errs, d.Shutdown())
	}
	for range servers {
		errs = append(errs, <-done)
	}
	return errors.Join(errs...)
}

// ServeDNS implements dns.Handler.
func (s *Server) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(q)
	m.RecursionAvailable = true
	if len(q.Question) != 1 {
		m.Rcode = dns.RcodeFormatError
		w.WriteMsg(m)
		return
	}
	asked := q.Question[0]
	name := strings.TrimSuffix(strings.ToLower(asked.Name), ".")
	if a, ok := s.Lookup(name); ok {
		if asked.Qtype == dns.TypeA {
			m.Answer = append(m.Answer, &dns.A{
				Hdr: dns.RR_Header{Name: asked.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: ttl}, A: a.AsSlice(),
			})
		}
	} else {
		m.Rcode = dns.RcodeNameError
		if err := s.note(name + " " + dns.TypeToString[asked.Qtype]); err != nil {
			m.Rcode = dns.RcodeServerFailure // loudly: what is not noted was not asked
		}
	}
	w.WriteMsg(m) // who does not wait for the answer asks again
}

func (s *Server) note(line string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen[line] {
		return nil
	}
	f, err := os.OpenFile(s.Asked, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line + "\n")
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if s.seen == nil {
		s.seen = map[string]bool{}
	}
	s.seen[line] = true
	return nil
}
