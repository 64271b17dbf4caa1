package check

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"

	mesos "dcos.example/dcos/runtime/api/mesos"
)

// Prober probes one task.
type Prober struct {
	// Dial connects inside the task's network.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Address is the task's own address, tried when nothing listens on its
	// loopback.
	Address string
	// Exec runs a command in the task's container and returns its exit code.
	Exec func(ctx context.Context, c *mesos.CommandInfo) (int, error)
}

// Probe makes one attempt of a check.
func (p *Prober) Probe(ctx context.Context, h *mesos.HealthCheck) error {
	switch Kind(h) {
	case mesos.HealthCheck_HTTP:
		return p.http(ctx, h.GetHttp())
	case mesos.HealthCheck_TCP:
		c, err := p.dial(ctx, h.GetTcp().GetPort())
		if err != nil {
			return err
		}
		return c.Close()
	case mesos.HealthCheck_COMMAND:
		code, err := p.Exec(ctx, h.GetCommand())
		if err == nil && code != 0 {
			err = fmt.Errorf("the command exited with status %d", code)
		}
		return err
	}
	return errors.New("the check has no type")
}

// dial connects to a port of the task: on its loopback, as Mesos does, and
// when that refuses on its address, for programs that listen only there.
func (p *Prober) dial(ctx context.Context, port uint32) (net.Conn, error) {
	n := strconv.FormatUint(uint64(port), 10)
	c, err := p.Dial(ctx, "tcp", net.JoinHostPort("127.0.0.1", n))
	if err != nil && errors.Is(err, syscall.ECONNREFUSED) && p.Address != "" {
		return p.Dial(ctx, "tcp", net.JoinHostPort(p.Address, n))
	}
	return c, err
}

func (p *Prober) http(ctx context.Context, h *mesos.HealthCheck_HTTPCheckInfo) error {
	scheme := h.GetScheme()
	if scheme == "" {
		scheme = "http"
	}
	path := h.GetPath()
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	host := net.JoinHostPort("127.0.0.1", strconv.FormatUint(uint64(h.GetPort()), 10))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+host+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "dcos-agent health check")
	tr := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return p.dial(ctx, h.GetPort()) },
		// The check asks whether the program answers, not who it is: its
		// certificate names a service, never 127.0.0.1.
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		DisableKeepAlives: true,
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.CopyN(io.Discard, resp.Body, 64<<10); err != nil && err != io.EOF {
		return err
	}
	if want := h.GetStatuses(); len(want) > 0 {
		if !slices.Contains(want, uint32(resp.StatusCode)) {
			return fmt.Errorf("GET %s answered %d, not one of %v", path, resp.StatusCode, want)
		}
		return nil
	}
	if resp.StatusCode < 200 || resp.StatusCode > 399 {
		return fmt.Errorf("GET %s answered %d", path, resp.StatusCode)
	}
	return nil
}
