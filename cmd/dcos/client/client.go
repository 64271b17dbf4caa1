// Package client is HTTP to one cluster's front door: it knows the pinned
// certificate, the token, the protocols of the APIs behind it, and how to say
// what went wrong so that an operator can act.
package client

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/cmd/dcos/profile"
	"dcos.example/dcos/runtime/api/cosmos"
	"dcos.example/dcos/runtime/api/mesos/agent"
	"dcos.example/dcos/runtime/api/mesos/master"
	"dcos.example/dcos/runtime/api/wire"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/pki"
)

const (
	defaultTimeout = 60 * time.Second
	dialTimeout    = 10 * time.Second
	maxAnswer      = 1 << 30
)

// Client talks to one cluster.
type Client struct {
	cluster profile.Cluster
	http    *http.Client
	log     *slog.Logger
}

// New returns a Client of c.
func New(c profile.Cluster, log *slog.Logger) (*Client, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, fault.Newf("connect to cluster", fault.Invalid, "%q is no address of a cluster; it looks like https://198.51.100.7", c.URL)
	}
	cfg, err := TLS(c)
	if err != nil {
		return nil, err
	}
	return &Client{cluster: c, log: log, http: &http.Client{
		Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
			TLSClientConfig:     cfg,
			TLSHandshakeTimeout: dialTimeout,
		},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if req.URL.Host != via[0].URL.Host || len(via) > 5 {
				return http.ErrUseLastResponse // the token is for one host only
			}
			return nil
		},
	}}, nil
}

// TLS is how the masters of c are verified. With a pinned CA, a certificate
// that it signed for a master is good at any address, since a master does not
// know the addresses it is reached at from outside; or the certificate fits
// the address and chains to the pinned file, as behind a load balancer.
func TLS(c profile.Cluster) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.Insecure {
		cfg.InsecureSkipVerify = true
		return cfg, nil
	}
	if len(c.CAPEM) == 0 {
		return cfg, nil
	}
	isMaster, err := pki.VerifyMaster(c.CAPEM)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(c.CAPEM)
	u, err := url.Parse(c.URL)
	if err != nil {
		return nil, fault.New("connect to cluster", fault.Invalid, err)
	}
	cfg.InsecureSkipVerify = true // VerifyConnection does it
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		notMaster := isMaster(cs)
		if notMaster == nil {
			return nil
		}
		opts := x509.VerifyOptions{Roots: pool, DNSName: u.Hostname(), Intermediates: x509.NewCertPool()}
		for _, ic := range cs.PeerCertificates[1:] {
			opts.Intermediates.AddCert(ic)
		}
		if _, err := cs.PeerCertificates[0].Verify(opts); err != nil {
			return notMaster
		}
		return nil
	}
	return cfg, nil
}

// Cluster is what the client talks to.
func (c *Client) Cluster() profile.Cluster { return c.cluster }

// Request is one call. Path is below the cluster's URL and may have a query.
type Request struct {
	Method, Path string
	Body         io.Reader
	Header       map[string]string
	Stream       bool // no deadline
	Anonymous    bool // send no token
}

// Do sends a request and returns the answer whatever its status. The caller
// closes the body; the deadline ends then too.
func (c *Client) Do(ctx context.Context, r Request) (*http.Response, error) {
	cancel := context.CancelFunc(func() {})
	if !r.Stream {
		timeout := defaultTimeout
		if c.cluster.Timeout > 0 {
			timeout = time.Duration(c.cluster.Timeout) * time.Second
		}
		ctx, cancel = context.WithTimeout(ctx, timeout)
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, c.cluster.URL+r.Path, r.Body)
	if err != nil {
		cancel()
		return nil, fault.New("build request", fault.Invalid, err)
	}
	for k, v := range r.Header {
		req.Header.Set(k, v)
	}
	if req.Header.Get("Accept") == "" {
		req.Header.Set("Accept", "application/json")
	}
	req.Header.Set("User-Agent", "dcos-cli")
	if c.cluster.Token != "" && !r.Anonymous {
		req.Header.Set("Authorization", "token="+c.cluster.Token)
	}
	start := time.Now()
	resp, err := c.http.Do(req)
	if err != nil {
		cancel()
		c.log.Debug("request", "method", r.Method, "path", r.Path, "err", err)
		return nil, c.unreachable(err)
	}
	c.log.Debug("request", "method", r.Method, "path", r.Path, "status", resp.StatusCode, "duration", time.Since(start))
	resp.Body = &closer{resp.Body, cancel}
	return resp, nil
}

// closer ends the deadline of a request with its body.
type closer struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (c *closer) Close() error {
	defer c.cancel()
	return c.ReadCloser.Close()
}

func (c *Client) unreachable(err error) error {
	op := "reach the cluster at " + c.cluster.URL
	if ue, ok := errors.AsType[*url.Error](err); ok {
		err = ue.Err
	}
	if errors.Is(err, context.Canceled) {
		return fault.New(op, fault.Unavailable, context.Canceled)
	}
	var unknown x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var invalid x509.CertificateInvalidError
	if fault.Is(err, fault.Denied) || errors.As(err, &unknown) || errors.As(err, &hostname) || errors.As(err, &invalid) {
		return fault.Newf(op, fault.Denied, "its certificate is not the one that this cluster was set up with (%w). "+
			"If the cluster was reinstalled, run `dcos cluster setup %s` again", err, c.cluster.URL)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fault.Newf(op, fault.Unavailable, "no answer in time; is the address right, and are its masters up?")
	}
	return fault.Newf(op, fault.Unavailable, "%w; is the address right, and are its masters up?", err)
}

// Call sends a request, and decodes a 2xx answer into out unless out is nil.
func (c *Client) Call(ctx context.Context, op string, r Request, out any) error {
	if r.Body != nil && r.Header == nil {
		r.Header = map[string]string{"Content-Type": "application/json"}
	}
	resp, err := c.Do(ctx, r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return c.Refused(op, resp)
	}
	if out == nil {
		_, err = io.Copy(io.Discard, resp.Body)
	} else {
		err = json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(out)
	}
	if err != nil {
		return fault.Newf(op, fault.Unavailable, "the answer of %s cannot be read: %w", c.cluster.URL, err)
	}
	return nil
}

// Get is Call with GET.
func (c *Client) Get(ctx context.Context, op, path string, out any) error {
	return c.Call(ctx, op, Request{Method: http.MethodGet, Path: path}, out)
}

// Send is Call with a JSON body.
func (c *Client) Send(ctx context.Context, op, method, path string, in, out any) error {
	b, ok := in.([]byte)
	if !ok {
		var err error
		if b, err = json.Marshal(in); err != nil {
			return fault.New(op, fault.Internal, err)
		}
	}
	return c.Call(ctx, op, Request{Method: method, Path: path, Body: bytes.NewReader(b)}, out)
}

// Refused turns an answer that is no success into an error. It is the one
// place where statuses become kinds.
func (c *Client) Refused(op string, resp *http.Response) error {
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		b = []byte(err.Error())
	}
	text := refusal(resp, b)
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		if c.cluster.Token == "" {
			return fault.Newf(op, fault.Denied, "not logged in to %s; run `dcos auth login`", c.cluster.URL)
		}
		return fault.Newf(op, fault.Denied, "the session at %s has ended; run `dcos auth login`", c.cluster.URL)
	case http.StatusForbidden:
		return fault.Newf(op, fault.Denied, "%w", text)
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		switch {
		case strings.HasSuffix(text.Type, "NotFound"), strings.HasSuffix(text.Type, "NotInstalled"), strings.HasSuffix(text.Type, "NotPresent"):
			return fault.Newf(op, fault.NotFound, "%w", text) // the catalog has 400 for it
		case strings.Contains(text.Type, "Already"), strings.HasPrefix(text.Type, "Ambiguous"):
			return fault.Newf(op, fault.Conflict, "%w", text)
		}
		return fault.Newf(op, fault.Invalid, "%w", text)
	case http.StatusNotFound:
		return fault.Newf(op, fault.NotFound, "%w", text)
	case http.StatusConflict:
		return fault.Newf(op, fault.Conflict, "%w", text)
	case http.StatusTooManyRequests:
		return fault.Newf(op, fault.Exhausted, "%w", text)
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return fault.Newf(op, fault.Unavailable, "%w", text)
	}
	return fault.Newf(op, fault.Internal, "%s answers %s: %w", c.cluster.URL, resp.Status, text)
}

// Refusal is what an answer that is no success says.
type Refusal struct {
	Status int
	Type   string // the catalog's name of the error: "PackageNotFound"
	Text   string
}

func (r *Refusal) Error() string { return r.Text }

// refusal finds the text of an error answer: Marathon's with its details, the
// catalog's and the operator's with their errors, the identity service's, or
// what was sent.
func refusal(resp *http.Response, b []byte) *Refusal {
	type item struct {
		Path     string   `json:"path"`
		Errors   []string `json:"errors"`
		Message  string   `json:"message"`
		Instance struct {
			Pointer string `json:"pointer"`
		} `json:"instance"`
	}
	var e struct {
		Type        string          `json:"type"`
		Message     string          `json:"message"`
		Description string          `json:"description"`
		Details     json.RawMessage `json:"details"`
		Errors      []item          `json:"errors"`
		Data        json.RawMessage `json:"data"`
	}
	r := &Refusal{Status: resp.StatusCode}
	if json.Unmarshal(b, &e) != nil || e.Message == "" && e.Description == "" {
		if r.Text = strings.TrimSpace(string(b)); r.Text == "" || strings.HasPrefix(r.Text, "<") {
			r.Text = resp.Status
		}
		return r
	}
	r.Type, r.Text = e.Type, e.Message+e.Description
	items := e.Errors
	var details []item
	if json.Unmarshal(e.Details, &details) == nil {
		items = append(items, details...)
	}
	var data struct {
		Errors []item `json:"errors"`
	}
	if json.Unmarshal(e.Data, &data) == nil {
		items = append(items, data.Errors...)
	}
	for _, it := range items {
		why := strings.Join(it.Errors, "; ")
		if why == "" {
			why = it.Message
		}
		r.Text += fmt.Sprintf("\n  %s: %s", cmp.Or(it.Path, it.Instance.Pointer, "/"), why)
	}
	var one string
	if json.Unmarshal(e.Details, &one) == nil && one != "" {
		r.Text += "\n  " + one
	}
	return r
}

// Cosmos calls the package API, which wants its own media types.
func (c *Client) Cosmos(ctx context.Context, op string, call cosmos.Call, in, out any) error {
	b, err := json.Marshal(in)
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	path := call.Path
	if strings.HasPrefix(path, "/service/") { // where services have theirs
		path = "/cosmos" + path
	}
	return c.Call(ctx, op, Request{
		Method: http.MethodPost, Path: path, Body: bytes.NewReader(b),
		Header: map[string]string{"Content-Type": call.Request, "Accept": call.Accept[0]},
	}, out)
}

// Master calls the operator API of the leading master.
func (c *Client) Master(ctx context.Context, op string, call *master.Call) (*master.Response, error) {
	out := &master.Response{}
	return out, c.operator(ctx, op, "/mesos/api/v1", call, out)
}

// Agent calls the operator API of an agent.
func (c *Client) Agent(ctx context.Context, op, id string, call *agent.Call, stream bool) (*agent.Response, error) {
	out := &agent.Response{}
	return out, c.operatorAt(ctx, op, "/agent/"+url.PathEscape(id)+"/api/v1", call, out, stream)
}

func (c *Client) operator(ctx context.Context, op, path string, in, out proto.Message) error {
	return c.operatorAt(ctx, op, path, in, out, false)
}

func (c *Client) operatorAt(ctx context.Context, op, path string, in, out proto.Message, stream bool) error {
	b, err := wire.Protobuf.Marshal(in)
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	kind := wire.Protobuf.ContentType()
	resp, err := c.Do(ctx, Request{
		Method: http.MethodPost, Path: path, Body: bytes.NewReader(b), Stream: stream,
		Header: map[string]string{"Content-Type": kind, "Accept": kind},
	})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return c.Refused(op, resp)
	}
	if b, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer)); err == nil && len(b) > 0 {
		err = wire.Protobuf.Unmarshal(b, out)
	}
	if err != nil {
		return fault.Newf(op, fault.Unavailable, "the answer of %s cannot be read: %w", c.cluster.URL, err)
	}
	return nil
}
