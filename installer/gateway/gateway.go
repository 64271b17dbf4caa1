// Package gateway is the installer's client of a running cluster. It speaks to
// the gateways of the masters as an administrator, trusts the cluster's own CA
// and nothing else, and takes the first master that answers.
package gateway

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
)

// Config says which cluster, and who asks.
type Config struct {
	Masters        []string // addresses
	CA             string   // PEM
	User, Password string
	// Dial reaches a master; nil means the network.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Client is safe for concurrent use.
type Client struct {
	c    Config
	http *http.Client

	mu    sync.Mutex
	token string
	first int // index of the master that answered last
}

// maxAnswer bounds what is read of a JSON answer, in bytes.
const maxAnswer = 256 << 20

// New returns a client. It asks nothing yet.
func New(c Config) (*Client, error) {
	const op = "reach the cluster"
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(c.CA)) {
		return nil, fault.Newf(op, fault.Invalid, "there is no certificate in what is known of the cluster's CA")
	}
	if len(c.Masters) == 0 {
		return nil, fault.Newf(op, fault.Invalid, "no master is known")
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{Timeout: 3 * time.Second}).DialContext
	}
	return &Client{c: c, http: &http.Client{
		Transport: &http.Transport{DialContext: c.Dial, TLSClientConfig: &tls.Config{RootCAs: pool},
			TLSHandshakeTimeout: 5 * time.Second, ResponseHeaderTimeout: time.Minute},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // an answer that leads elsewhere is not the one asked for
		},
	}}, nil
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// JSON asks for path, with in as the body unless it is nil, and reads the
// answer into out unless that is nil. An answer that is not 2xx is a fault of
// the kind that its status says, with the cluster's words.
func (c *Client) JSON(ctx context.Context, method, path string, in, out any) error {
	op := strings.ToLower(method) + " " + path
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return fault.New(op, fault.Internal, err)
		}
	}
	resp, err := c.Do(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fault.New(op, fault.Unavailable, err)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fault.Newf(op, fault.Internal, "the answer cannot be read: %w", err)
	}
	return nil
}

// Do asks for path and returns a 2xx answer, whose body the caller closes.
func (c *Client) Do(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	op := strings.ToLower(method) + " " + path
	for again := range 2 {
		token, err := c.login(ctx, again > 0)
		if err != nil {
			return nil, err
		}
		resp, err := c.send(ctx, method, path, body, token)
		if err != nil {
			return nil, fault.New(op, fault.Unavailable, err)
		}
		if resp.StatusCode == http.StatusUnauthorized && again == 0 {
			resp.Body.Close() // the token may have ended
			continue
		}
		if resp.StatusCode/100 != 2 {
			defer resp.Body.Close()
			return nil, refused(op, resp)
		}
		return resp, nil
	}
	return nil, fault.Newf(op, fault.Denied, "the cluster takes no token of its own")
}

// Login sees that the administrator can sign in.
func (c *Client) Login(ctx context.Context) error {
	_, err := c.login(ctx, false)
	return err
}

func (c *Client) login(ctx context.Context, anew bool) (string, error) {
	const path = "/acs/api/v1/auth/login"
	op := "sign in as " + c.c.User
	c.mu.Lock()
	if anew {
		c.token = ""
	}
	token := c.token
	c.mu.Unlock()
	if token != "" {
		return token, nil
	}
	body, err := json.Marshal(map[string]string{"uid": c.c.User, "password": c.c.Password})
	if err != nil {
		return "", fault.New(op, fault.Internal, err)
	}
	resp, err := c.send(ctx, http.MethodPost, path, body, "")
	if err != nil {
		return "", fault.New(op, fault.Unavailable, err)
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusUnauthorized:
		return "", fault.Newf(op, fault.Denied, "the cluster does not take the installer's password; if it was changed there, set admin_password in the cluster block to the new one")
	case resp.StatusCode != http.StatusOK:
		return "", refused(op, resp)
	}
	var t struct {
		Token string `json:"token"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&t); err != nil || t.Token == "" {
		return "", fault.Newf(op, fault.Internal, "no token in the answer")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.token = t.Token
	return t.Token, nil
}

// send asks the masters one after the other, beginning with the one that
// answered last, until one does.
func (c *Client) send(ctx context.Context, method, path string, body []byte, token string) (*http.Response, error) {
	c.mu.Lock()
	first := c.first
	c.mu.Unlock()
	var errs []error
	for i := range c.c.Masters {
		at := (first + i) % len(c.c.Masters)
		resp, err := c.ask(ctx, c.c.Masters[at], method, path, body, token)
		if err == nil {
			c.mu.Lock()
			c.first = at
			c.mu.Unlock()
			return resp, nil
		}
		errs = append(errs, fmt.Errorf("master %s: %w", c.c.Masters[at], err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// Reach returns the first of the masters whose gateway does not answer, with
// the reason, or "". Who asks need not be able to sign in, and the masters do
// next to nothing for it.
func (c *Client) Reach(ctx context.Context) (master string, err error) {
	for _, m := range c.c.Masters {
		resp, err := c.ask(ctx, m, http.MethodGet, "/acs/api/v1/auth/jwks", nil, "")
		if err != nil {
			return m, fault.New("reach master "+m, fault.Unavailable, err)
		}
		io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20)) // so that the connection serves again
		resp.Body.Close()
	}
	return "", nil
}

// ask asks one master.
func (c *Client) ask(ctx context.Context, master, method, path string, body []byte, token string) (*http.Response, error) {
	url := "https://" + net.JoinHostPort(master, strconv.Itoa(config.PortGateway)) + path
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "token="+token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, cause(err)
	}
	return resp, nil
}

// cause is the innermost error: the outer ones name the URL once more.
func cause(err error) error {
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return errors.New("no answer")
	}
	for u := errors.Unwrap(err); u != nil; u = errors.Unwrap(u) {
		err = u
	}
	return err
}

// refused is the fault of an answer that is not 2xx.
func refused(op string, resp *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10)) // what was read of it will do
	said := strings.TrimSpace(string(b))
	var m struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(b, &m) == nil && m.Message != "" {
		said = m.Message
	}
	kind := fault.Internal
	switch resp.StatusCode {
	case http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusUnsupportedMediaType:
		kind = fault.Invalid
	case http.StatusUnauthorized, http.StatusForbidden:
		kind = fault.Denied
	case http.StatusNotFound:
		kind = fault.NotFound
	case http.StatusConflict, http.StatusPreconditionFailed:
		kind = fault.Conflict
	case http.StatusInsufficientStorage, http.StatusTooManyRequests:
		kind = fault.Exhausted
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		kind = fault.Unavailable
	}
	if said == "" {
		said = http.StatusText(resp.StatusCode)
	}
	return fault.Newf(op, kind, "status %d: %s", resp.StatusCode, said)
}
