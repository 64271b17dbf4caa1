package framework

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/scheduler"
	"dcos.example/dcos/runtime/api/wire"
	"dcos.example/dcos/runtime/fault"
)

// maxRedirects bounds how often one request is sent on to another master.
const maxRedirects = 5

// Call sends one call, other than SUBSCRIBE, in the current subscription. It
// fills the framework's id in where call has room for it. Success means that the master took the
// call, not that it had its effect. Errors are Invalid for what the master
// refuses, Denied for what the framework may not, Conflict, and Unavailable
// when there is no subscription or it turns out to be lost.
func (c *Client) Call(ctx context.Context, call *scheduler.Call) error {
	op := "call " + call.GetType().String()
	if call.GetType() == scheduler.Call_SUBSCRIBE {
		return fault.Newf(op, fault.Invalid, "subscribing is what Run does")
	}
	c.mu.Lock()
	s := c.session
	call.FrameworkId = c.info.GetId()
	if u := call.GetUpdateFramework(); u.GetFrameworkInfo() != nil {
		u.FrameworkInfo.Id = c.info.GetId()
	}
	c.mu.Unlock()
	if s == nil {
		return fault.Newf(op, fault.Unavailable, "not subscribed")
	}
	resp, leader, err := c.post(ctx, s.master, call, s.stream)
	if err != nil {
		return fault.New(op, fault.KindOf(err), err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusAccepted || resp.StatusCode == http.StatusOK {
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<10)) // lets the connection be used again
		if u := call.GetUpdateFramework(); u != nil {
			c.remember(u)
		}
		return nil
	}
	err = Refusal(op, resp)
	lost := resp.StatusCode == http.StatusForbidden && call.GetType() != scheduler.Call_UPDATE_FRAMEWORK
	if lost {
		err = fault.New(op, fault.Unavailable, err)
	}
	if lost || leader.Host != s.master.Host {
		s.end(err) // a master that does not know the subscription, or does not lead any more
	}
	return err
}

// Acknowledge confirms a status update. Updates without uuid must not be
// confirmed; for them it does nothing.
func (c *Client) Acknowledge(ctx context.Context, status *mesos.TaskStatus) error {
	if len(status.GetUuid()) == 0 {
		return nil
	}
	return c.Call(ctx, &scheduler.Call{
		Type: scheduler.Call_ACKNOWLEDGE.Enum(),
		Acknowledge: &scheduler.Call_Acknowledge{
			AgentId: status.GetAgentId(), TaskId: status.GetTaskId(), Uuid: status.GetUuid(),
		},
	})
}

// remember keeps what UPDATE_FRAMEWORK changed for later subscriptions.
func (c *Client) remember(u *scheduler.Call_UpdateFramework) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.info = proto.CloneOf(u.GetFrameworkInfo())
	c.suppressed = u.GetSuppressedRoles()
}

func (c *Client) post(ctx context.Context, master *url.URL, call *scheduler.Call, stream string) (*http.Response, *url.URL, error) {
	return Post(ctx, c.http, master, Path, c.cfg.Format, call, stream)
}

// Post sends m to an API of master, or of where that redirects, and returns
// the answer and the base URL of the master that gave it. The answer is wanted
// in format too; stream, if any, is the Mesos-Stream-Id. The client must leave
// redirects to Post: masters redirect to "//host:port/path", and a caller wants
// to know who leads. Errors are Unavailable, or Invalid for m.
func Post(ctx context.Context, client *http.Client, master *url.URL, path string, format wire.Format, m proto.Message, stream string) (*http.Response, *url.URL, error) {
	body, err := format.Marshal(m)
	if err != nil {
		return nil, nil, err
	}
	target := master.JoinPath(path)
	for range maxRedirects {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), bytes.NewReader(body))
		if err != nil {
			return nil, nil, fault.New("make request", fault.Internal, err)
		}
		req.Header.Set("Content-Type", format.ContentType())
		req.Header.Set("Accept", format.ContentType())
		if stream != "" {
			req.Header.Set(wire.HeaderStreamID, stream)
		}
		resp, err := client.Do(req)
		if err != nil {
			return nil, nil, fault.New("reach master", fault.Unavailable, err)
		}
		if resp.StatusCode != http.StatusTemporaryRedirect && resp.StatusCode != http.StatusPermanentRedirect {
			return resp, base(target, path), nil
		}
		resp.Body.Close()
		if target, err = resp.Location(); err != nil { // relative to the request: the scheme stays ours
			return nil, nil, fault.Newf("follow redirect", fault.Unavailable, "from %s: %w", req.URL.Host, err)
		}
	}
	return nil, nil, fault.Newf("follow redirect", fault.Unavailable, "masters send each other's way %d times", maxRedirects)
}

// NoRedirects returns a copy of client for use with Post.
func NoRedirects(client *http.Client) *http.Client {
	c := *client
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &c
}

// base returns the master's URL without the API's path.
func base(u *url.URL, path string) *url.URL {
	b := *u
	// JoinPath on a bare host leaves no leading slash.
	b.Path, b.RawPath = strings.TrimSuffix(strings.TrimSuffix(b.Path, path[1:]), "/"), ""
	return &b
}

// Refusal turns an HTTP answer into an error that carries the master's words.
func Refusal(op string, resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	kind := fault.Unavailable
	switch resp.StatusCode {
	case http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusNotAcceptable, http.StatusUnsupportedMediaType:
		kind = fault.Invalid
	case http.StatusUnauthorized, http.StatusForbidden:
		kind = fault.Denied
	case http.StatusConflict:
		kind = fault.Conflict
	}
	return fault.New(op, kind, fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(text))))
}

// errorEvent classifies the message of an ERROR event. The protocol has only
// the words of Mesos' master to tell the cases apart.
func errorEvent(op, message string) error {
	kind := fault.Invalid
	switch {
	case strings.Contains(message, "failed over"):
		kind = fault.Conflict
	case strings.Contains(message, "removed"):
		kind = fault.NotFound
	}
	return fault.New(op, kind, errors.New(message))
}
