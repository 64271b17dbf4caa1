package membership

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
)

// maxAnswer bounds an answer; a list of masters is a page of text.
const maxAnswer = 1 << 20

// Client asks masters. It shows the certificate of its host.
type Client struct {
	HTTP *http.Client
	// Base returns the URL of a master; nil means its TLS port.
	Base func(netip.Addr) string
}

// List asks for a master's list: see SourceConfig.Ask.
func (c Client) List(ctx context.Context, master netip.Addr, after List, wait time.Duration) (l List, err error) {
	ctx, cancel := context.WithTimeout(ctx, wait+10*time.Second)
	defer cancel()
	q := url.Values{
		"generation": {strconv.FormatInt(after.Generation, 10)}, "revision": {strconv.FormatInt(after.Revision, 10)}, "wait": {wait.String()},
	}
	return l, c.call(ctx, http.MethodGet, master, PathList+"?"+q.Encode(), nil, &l)
}

// View asks a master about itself.
func (c Client) View(ctx context.Context, master netip.Addr) (v View, err error) {
	return v, c.call(ctx, http.MethodGet, master, PathView, nil, &v)
}

// Status asks how all masters are.
func (c Client) Status(ctx context.Context, master netip.Addr) (s Status, err error) {
	return s, c.call(ctx, http.MethodGet, master, PathStatus, nil, &s)
}

// Join asks for a place. Any master passes it on to the leading one.
func (c Client) Join(ctx context.Context, master netip.Addr, req JoinRequest) (r JoinReply, err error) {
	return r, c.call(ctx, http.MethodPost, master, PathJoin, req, &r)
}

// Leave removes a master and returns the list without it. Any master passes it
// on to the leading one.
func (c Client) Leave(ctx context.Context, master netip.Addr, req LeaveRequest) (l List, err error) {
	return l, c.call(ctx, http.MethodPost, master, PathLeave, req, &l)
}

// Recover makes the master that is asked go on alone.
func (c Client) Recover(ctx context.Context, master netip.Addr, req RecoverRequest) error {
	return c.call(ctx, http.MethodPost, master, PathRecover, req, nil)
}

// failure is the body of an answer that is not 200.
type failure struct {
	Message string `json:"message"`
}

// statuses are how kinds of errors travel; each stands for one of them.
var statuses = map[fault.Kind]int{
	fault.Invalid: http.StatusBadRequest, fault.NotFound: http.StatusNotFound, fault.Exists: http.StatusUnprocessableEntity,
	fault.Conflict: http.StatusConflict, fault.Denied: http.StatusForbidden, fault.Exhausted: http.StatusTooManyRequests,
	fault.Unavailable: http.StatusServiceUnavailable, fault.Internal: http.StatusInternalServerError,
}

func (c Client) call(ctx context.Context, method string, master netip.Addr, path string, in, out any) error {
	op := "ask master " + master.String()
	base := "https://" + net.JoinHostPort(master.String(), strconv.Itoa(config.PortMaster))
	if c.Base != nil {
		base = c.Base(master)
	}
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fault.New(op, fault.Internal, err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, base+path, body)
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.HTTP.Do(req)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // the address is in op
		}
		return fault.New(op, fault.Unavailable, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	switch {
	case err != nil:
		return fault.New(op, fault.Unavailable, err)
	case resp.StatusCode == http.StatusOK && out != nil:
		if err := json.Unmarshal(b, out); err != nil {
			return fault.New(op, fault.Internal, err)
		}
		return nil
	case resp.StatusCode == http.StatusOK:
		return nil
	}
	kind := fault.Unavailable // an answer of somebody else, perhaps
	for k, status := range statuses {
		if status == resp.StatusCode {
			kind = k
		}
	}
	var f failure
	if err := json.Unmarshal(b, &f); err != nil || f.Message == "" {
		f.Message = fmt.Sprintf("status %d", resp.StatusCode)
	}
	return fault.Newf(op, kind, "%s", f.Message)
}

// Reply writes v, or err by its kind.
func Reply(w http.ResponseWriter, v any, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if err != nil {
		w.WriteHeader(statuses[fault.KindOf(err)])
		v = failure{err.Error()}
	}
	_ = json.NewEncoder(w).Encode(v) // the connection is gone: nobody to tell
}
