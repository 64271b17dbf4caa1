// Package httpapi serves membership on a master, from before it has its place:
// to other masters, to agents, to the operator on the host itself, and to the
// gateway.
package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/membership"
	"dcos.example/dcos/runtime/membership/keeper"
)

const (
	// longest is how long a question for news may stay open.
	longest = 5 * time.Minute
	maxBody = 64 << 10
	// succession is how long a request waits for a master to lead.
	succession = 10 * time.Second
)

// seat is this master's place: package seat.
type seat interface {
	View(context.Context) membership.View
	Leader() (m config.Member, self, ok bool)
	Recover(context.Context, membership.RecoverRequest) error
}

// Config is what a Server answers from.
type Config struct {
	Self   netip.Addr
	Seat   seat
	Source *membership.Source
	Client membership.Client
	Log    *slog.Logger
}

// Server answers for one master.
type Server struct {
	cfg    Config
	keeper atomic.Pointer[keeper.Keeper]
}

// New returns a Server. It changes nothing until it has a Keeper.
func New(cfg Config) *Server { return &Server{cfg: cfg} }

// SetKeeper gives the server what changes the ensemble while this master leads.
func (s *Server) SetKeeper(k *keeper.Keeper) { s.keeper.Store(k) }

// View asks any master about itself, this one without a detour.
func (s *Server) View(ctx context.Context, master netip.Addr) (membership.View, error) {
	if master == s.cfg.Self {
		return s.cfg.Seat.View(ctx), nil
	}
	return s.cfg.Client.View(ctx, master)
}

// Readers is what agents may ask.
func (s *Server) Readers() http.Handler {
	mux := http.NewServeMux()
	s.readers(mux)
	return mux
}

func (s *Server) readers(mux *http.ServeMux) {
	mux.HandleFunc("GET "+membership.PathStatus, func(w http.ResponseWriter, r *http.Request) {
		st, err := s.status(r.Context())
		membership.Reply(w, st, err)
	})
	mux.HandleFunc("GET "+membership.PathList, s.list)
}

// Masters is what masters may ask of each other.
func (s *Server) Masters() http.Handler {
	mux := http.NewServeMux()
	s.masters(mux)
	return mux
}

func (s *Server) masters(mux *http.ServeMux) {
	s.readers(mux)
	mux.HandleFunc("GET "+membership.PathView, func(w http.ResponseWriter, r *http.Request) {
		membership.Reply(w, s.cfg.Seat.View(r.Context()), nil)
	})
	mux.HandleFunc("POST "+membership.PathJoin, func(w http.ResponseWriter, r *http.Request) {
		var req membership.JoinRequest
		if err := read(w, r, &req); err != nil {
			membership.Reply(w, nil, err)
			return
		}
		reply, err := s.join(r.Context(), req)
		membership.Reply(w, reply, err)
	})
	mux.HandleFunc("POST "+membership.PathLeave, func(w http.ResponseWriter, r *http.Request) {
		var req membership.LeaveRequest
		if err := read(w, r, &req); err != nil {
			membership.Reply(w, nil, err)
			return
		}
		l, err := s.leave(r.Context(), req)
		membership.Reply(w, l, err)
	})
}

// Local is what whoever is on this master's host may ask.
func (s *Server) Local() http.Handler {
	mux := http.NewServeMux()
	s.masters(mux)
	mux.HandleFunc("POST "+membership.PathRecover, func(w http.ResponseWriter, r *http.Request) {
		var req membership.RecoverRequest
		if err := read(w, r, &req); err != nil {
			membership.Reply(w, nil, err)
			return
		}
		membership.Reply(w, struct{}{}, s.cfg.Seat.Recover(r.Context(), req))
	})
	return mux
}

// Gateway is what users may ask: GET /members, DELETE /members/{name}?force=.
func (s *Server) Gateway() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /members", func(w http.ResponseWriter, r *http.Request) {
		st, err := s.status(r.Context())
		membership.Reply(w, st, err)
	})
	mux.HandleFunc("DELETE /members/{name}", func(w http.ResponseWriter, r *http.Request) {
		force := false
		if v := r.URL.Query().Get("force"); v != "" {
			var err error
			if force, err = strconv.ParseBool(v); err != nil {
				membership.Reply(w, nil, fault.Newf("remove a master", fault.Invalid, "force=%s: must be true or false", v))
				return
			}
		}
		l, err := s.leave(r.Context(), membership.LeaveRequest{Name: r.PathValue("name"), Force: force})
		membership.Reply(w, l, err)
	})
	return mux
}

func read(w http.ResponseWriter, r *http.Request, v any) error {
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(v); err != nil {
		return fault.New("read the request", fault.Invalid, err)
	}
	return nil
}

// list answers when it knows a list that is newer than the caller's, or when
// the caller's time is up.
func (s *Server) list(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	var have membership.List
	var wait time.Duration
	var errs [3]error
	for i, f := range []func(string) error{
		func(v string) (err error) { have.Generation, err = strconv.ParseInt(v, 10, 64); return },
		func(v string) (err error) { have.Revision, err = strconv.ParseInt(v, 10, 64); return },
		func(v string) (err error) { wait, err = time.ParseDuration(v); return },
	} {
		if v := q.Get([]string{"generation", "revision", "wait"}[i]); v != "" {
			errs[i] = f(v)
		}
	}
	if err := errors.Join(errs[:]...); err != nil {
		membership.Reply(w, nil, fault.New("read the request", fault.Invalid, err))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), min(wait, longest))
	defer cancel()
	var l membership.List
	for c := range s.cfg.Source.Changes(ctx) {
		if l = c.List; l.Newer(have) {
			break
		}
	}
	membership.Reply(w, l, nil)
}

// status is how all masters are, as seen from this one.
func (s *Server) status(ctx context.Context) (membership.Status, error) {
	l := s.cfg.Source.Current().List
	if !l.Known() {
		return membership.Status{}, fault.Newf("list the masters", fault.Unavailable, "%s", reason(s.cfg.Seat.View(ctx)))
	}
	leader, _, _ := s.cfg.Seat.Leader()
	return membership.Survey(ctx, l, leader.Name, s.View), nil
}

func reason(v membership.View) string {
	if v.Reason == "" {
		return "this master has not learned yet who the masters are"
	}
	return v.Reason
}

// errAway says that nobody leads.
func (s *Server) errAway(ctx context.Context) error {
	why := "no master leads at this moment"
	if v := s.cfg.Seat.View(ctx); v.Reason != "" {
		why += "; " + v.Reason
	}
	return fault.Newf("change the masters", fault.Unavailable, "%s", why)
}

// lead finds who can change the ensemble: this master's keeper, or others to
// pass the request on to.
func (s *Server) lead(ctx context.Context, passed bool) (*keeper.Keeper, []netip.Addr, error) {
	m, self, ok := s.cfg.Seat.Leader()
	k := s.keeper.Load()
	switch {
	case ok && self && k != nil:
		return k, nil, nil
	case passed:
		return nil, nil, s.errAway(ctx)
	case ok && !self:
		return nil, []netip.Addr{m.Addr}, nil
	}
	// One that has no place itself does not see who leads.
	var others []netip.Addr
	for _, v := range s.cfg.Source.Current().List.Voters() {
		if v.Addr != s.cfg.Self {
			others = append(others, v.Addr)
		}
	}
	if len(others) == 0 {
		return nil, nil, s.errAway(ctx)
	}
	return nil, others, nil
}

func (s *Server) join(ctx context.Context, req membership.JoinRequest) (r membership.JoinReply, err error) {
	k, others, err := s.lead(ctx, req.Passed)
	if err != nil {
		return r, err
	}
	if k != nil {
		return k.Join(ctx, req)
	}
	req.Passed = true
	for _, addr := range others {
		if r, err = s.cfg.Client.Join(ctx, addr, req); !fault.Is(err, fault.Unavailable) {
			break
		}
	}
	return r, err
}

// leave tries until it is clear whether the master can be removed: who was
// about to lead, or to hand leadership over, may need a moment.
func (s *Server) leave(ctx context.Context, req membership.LeaveRequest) (membership.List, error) {
	deadline := time.Now().Add(succession)
	for {
		l, err := s.tryLeave(ctx, req)
		if !fault.Is(err, fault.Unavailable) || req.Passed || time.Now().After(deadline) || !wait(ctx) {
			return l, err
		}
	}
}

func (s *Server) tryLeave(ctx context.Context, req membership.LeaveRequest) (l membership.List, err error) {
	k, others, err := s.lead(ctx, req.Passed)
	if err != nil {
		return l, err
	}
	if k != nil {
		return k.Leave(ctx, req)
	}
	req.Passed = true
	for _, addr := range others {
		if l, err = s.cfg.Client.Leave(ctx, addr, req); !fault.Is(err, fault.Unavailable) {
			break
		}
	}
	return l, err
}

func wait(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(100 * time.Millisecond):
		return true
	}
}
