package container

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/reference"

	"dcos.example/dcos/runtime/fault"
)

// Registry is the cluster's own registry: images whose name begins with Host
// are asked of Endpoints, each of which has all of them.
type Registry struct {
	Host string // "registry.dcos"; empty: there is none
	// Endpoints returns "10.0.0.1:5000" for each master as they are now.
	Endpoints func() []string
	Client    *http.Client // presents the host's certificate
}

const (
	// connectTimeout bounds connecting to a registry, and headerTimeout its
	// answer, but not the transfer. The cluster's registry may have to bring a
	// layer from another master before it answers.
	connectTimeout = 10 * time.Second
	headerTimeout  = 2 * time.Minute
	// layersAtOnce is how many layers of an image are transferred side by side.
	layersAtOnce = 6
	// clusterTries is how often the cluster's registry is asked for an image
	// while masters come and go.
	clusterTries = 3
)

func (d *Containerd) pull(ctx context.Context, name string) (containerd.Image, error) {
	op := "pull image " + name
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return nil, fault.New(op, fault.Invalid, err)
	}
	start := time.Now()
	registry := reference.Domain(named)
	var asked *asking
	var img containerd.Image
	if r := d.o.Registry; r.Host != "" && (registry == r.Host || strings.HasPrefix(registry, r.Host+":")) {
		img, asked, err = d.pullCluster(ctx, name)
	} else {
		img, asked, err = d.pullOther(ctx, name)
	}
	if err == nil {
		d.o.Log.Info("pulled image", "image", name, "took", time.Since(start).Round(time.Millisecond))
		return img, nil
	}
	verb := "does not give it"
	if asked.silent() {
		verb = "does not answer"
	}
	k := kind(err)
	if _, ok := errors.AsType[net.Error](err); ok {
		k, verb = fault.Unavailable, "does not answer"
	}
	return nil, fault.Newf(op, k, "image %s is not on this host and registry %s %s%s: %w", name, registry, verb, asked, err)
}

// pullOther asks a registry outside the cluster.
func (d *Containerd) pullOther(ctx context.Context, name string) (containerd.Image, *asking, error) {
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: connectTimeout}).DialContext,
		TLSHandshakeTimeout:   connectTimeout,
		ResponseHeaderTimeout: headerTimeout,
	}
	defer transport.CloseIdleConnections()
	asked := &asking{next: transport}
	client := &http.Client{Transport: asked}
	img, err := d.transfer(ctx, name, docker.ConfigureDefaultRegistries(
		docker.WithClient(client), docker.WithPlainHTTP(d.plainHTTP),
		docker.WithAuthorizer(docker.NewDockerAuthorizer(docker.WithAuthClient(client))),
	))
	return img, asked, err
}

// pullCluster asks the masters, beginning with another one each time. What has
// arrived of an image when a master ends is not transferred again.
func (d *Containerd) pullCluster(ctx context.Context, name string) (img containerd.Image, asked *asking, err error) {
	for try := range clusterTries {
		if try > 0 {
			select {
			case <-ctx.Done():
				return nil, asked, err
			case <-time.After(time.Duration(try) * time.Second):
			}
		}
		asked = &asking{next: d.o.Registry.Client.Transport}
		if asked.next == nil {
			asked.next = http.DefaultTransport
		}
		client := *d.o.Registry.Client
		client.Transport = asked
		endpoints := d.o.Registry.Endpoints()
		if len(endpoints) == 0 {
			return nil, asked, fault.Newf("find registry", fault.Unavailable, "no master is known")
		}
		first := int(d.turn.Add(1)) % len(endpoints)
		var hosts []docker.RegistryHost
		for _, e := range slices.Concat(endpoints[first:], endpoints[:first]) {
			hosts = append(hosts, docker.RegistryHost{
				Client: &client, Scheme: "https", Host: e, Path: "/v2", Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve,
			})
		}
		img, err = d.transfer(ctx, name, func(string) ([]docker.RegistryHost, error) { return hosts, nil })
		if err == nil || kind(err) == fault.NotFound || kind(err) == fault.Invalid {
			break
		}
	}
	return img, asked, err
}

func (d *Containerd) transfer(ctx context.Context, name string, hosts docker.RegistryHosts) (containerd.Image, error) {
	return d.client.Pull(ctx, name, containerd.WithResolver(docker.NewResolver(docker.ResolverOptions{Hosts: hosts})),
		containerd.WithPullUnpack, containerd.WithPullSnapshotter(d.o.Snapshotter), containerd.WithMaxConcurrentDownloads(layersAtOnce))
}

// plainHTTP reports whether a registry is reached without TLS.
func (d *Containerd) plainHTTP(host string) (bool, error) {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	if slices.Contains(d.o.PlainHTTP, host) || slices.Contains(d.o.PlainHTTP, name) {
		return true, nil
	}
	return docker.MatchLocalhost(host)
}

// asking remembers who was asked during a pull and did not help, which
// containerd's own errors do not say. A nil one was never asked.
type asking struct {
	next http.RoundTripper

	mu       sync.Mutex
	answered bool
	failures []string
}

// RoundTrip implements http.RoundTripper.
func (a *asking) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(r.Context())
	timer := time.AfterFunc(headerTimeout, func() { cancel(errors.New("no answer in " + headerTimeout.String())) })
	resp, err := a.next.RoundTrip(r.WithContext(ctx))
	timer.Stop()
	a.mu.Lock()
	defer a.mu.Unlock()
	var failure string
	switch {
	case err != nil:
		failure = fmt.Sprintf("%s: %v", r.URL.Host, err)
		cancel(nil)
	default:
		// The body is read under the same context, which ends with its parent.
		a.answered = true
		if resp.StatusCode >= http.StatusBadRequest && resp.StatusCode != http.StatusUnauthorized {
			failure = r.URL.Host + ": " + resp.Status
		}
	}
	if failure != "" && !slices.Contains(a.failures, failure) {
		a.failures = append(a.failures, failure)
	}
	return resp, err
}

// silent reports whether nobody answered at all.
func (a *asking) silent() bool {
	if a == nil {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.answered
}

// String lists the failures, for the middle of a sentence.
func (a *asking) String() string {
	if a == nil {
		return ""
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.failures) == 0 {
		return ""
	}
	return " (" + strings.Join(a.failures, "; ") + ")"
}
