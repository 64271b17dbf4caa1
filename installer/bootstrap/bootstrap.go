// Package bootstrap turns hosts into a cluster. It is the provider "dcos":
//
//	dcos:cluster:Secrets  what a cluster keeps secret, made once
//	dcos:host:Node        a host that runs a release with its files and units
//	dcos:cluster:Cluster  exists when the cluster answers
//
// A Node is a list of small steps, each of which looks at the host, does what
// is missing, and can be repeated. What was done is recorded on the host, by
// content: an apply after a failure goes on where the last one stopped, and a
// change restarts the units it concerns and no others.
package bootstrap

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"

	"dcos.example/dcos/installer/bundle"
	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/providers"
	"dcos.example/dcos/runtime/fault"
)

// Types of the resources.
const (
	TypeSecrets = tokens.Type("dcos:cluster:Secrets")
	TypeNode    = tokens.Type("dcos:host:Node")
	TypeCluster = tokens.Type("dcos:cluster:Cluster")
)

// Options configure the provider.
type Options struct {
	// Cache is where bundles are unpacked; "" means bundle.CacheDir.
	Cache string
	// Trust are the keys whose bundles are taken.
	Trust bundle.Trust
	// Open reaches a host; nil means those on this machine only.
	Open host.Opener
	// Abandon says that a host which cannot be reached may be given up when it is
	// to be removed; nil: none may.
	Abandon func(name string) bool
	// Destroy says that the whole cluster goes: then masters need not leave each
	// other.
	Destroy bool
	// Dial reaches addresses of the cluster; nil means the network.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Poll is how often something is looked at that is waited for; 0 means
	// 50 ms.
	Poll time.Duration
	// Patience bounds the wait for the cluster; 0 means 3 minutes.
	Patience time.Duration
	Log      *slog.Logger // nil: none
}

// Provider is the provider "dcos".
type Provider struct {
	o      Options
	unpack sync.Mutex    // hosts of a cluster want the same bundle at the same time
	leave  chan struct{} // holds a token while a master leaves: they go one by one
	kinds  map[tokens.Type]kind
}

// kind is one resource type.
type kind interface {
	check(r plugin.CheckRequest) plugin.CheckResponse
	diff(r plugin.DiffRequest) plugin.DiffResponse
	create(ctx context.Context, r plugin.CreateRequest) (plugin.CreateResponse, error)
	// The rest is optional where nothing outside the record exists: see reader,
	// updater and deleter.
}

type reader interface {
	read(ctx context.Context, r plugin.ReadRequest) (plugin.ReadResponse, error)
}

type updater interface {
	update(ctx context.Context, r plugin.UpdateRequest) (plugin.UpdateResponse, error)
}

type deleter interface {
	delete(ctx context.Context, r plugin.DeleteRequest) error
}

var _ providers.Provider = (*Provider)(nil)

// New returns the provider. It touches nothing yet.
func New(o Options) *Provider {
	if o.Cache == "" {
		o.Cache = bundle.CacheDir
	}
	if o.Open == nil {
		o.Open = host.OpenLocal
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{}).DialContext
	}
	if o.Poll == 0 {
		o.Poll = 50 * time.Millisecond
	}
	if o.Patience == 0 {
		o.Patience = 3 * time.Minute
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	p := &Provider{o: o, leave: make(chan struct{}, 1)}
	p.kinds = map[tokens.Type]kind{TypeSecrets: secrets{}, TypeNode: nodes{p}, TypeCluster: clusters{p}}
	return p
}

func (p *Provider) kind(t tokens.Type) (kind, error) {
	if k := p.kinds[t]; k != nil {
		return k, nil
	}
	return nil, fault.Newf("use provider dcos", fault.Invalid, "there is no resource type %s", t)
}

// Check implements providers.Provider.
func (p *Provider) Check(_ context.Context, req plugin.CheckRequest) (plugin.CheckResponse, error) {
	k, err := p.kind(req.Type)
	if err != nil {
		return plugin.CheckResponse{}, err
	}
	return k.check(req), nil
}

// Diff implements providers.Provider.
func (p *Provider) Diff(_ context.Context, req plugin.DiffRequest) (plugin.DiffResponse, error) {
	k, err := p.kind(req.Type)
	if err != nil {
		return plugin.DiffResponse{}, err
	}
	return k.diff(req), nil
}

// Create implements providers.Provider.
func (p *Provider) Create(ctx context.Context, req plugin.CreateRequest) (plugin.CreateResponse, error) {
	k, err := p.kind(req.Type)
	if err != nil {
		return plugin.CreateResponse{}, err
	}
	if err := refused(req.URN, k.check(plugin.CheckRequest{URN: req.URN, Type: req.Type, News: req.Properties})); err != nil {
		return plugin.CreateResponse{}, err
	}
	return k.create(ctx, req)
}

func refused(urn resource.URN, r plugin.CheckResponse) error {
	if len(r.Failures) == 0 {
		return nil
	}
	return fault.Newf("make "+urn.Name(), fault.Invalid, "%s %s", r.Failures[0].Property, r.Failures[0].Reason)
}

// Read implements providers.Provider.
func (p *Provider) Read(ctx context.Context, req plugin.ReadRequest) (plugin.ReadResponse, error) {
	k, err := p.kind(req.Type)
	if err != nil {
		return plugin.ReadResponse{}, err
	}
	if r, ok := k.(reader); ok {
		return r.read(ctx, req)
	}
	// It exists in the record only.
	return plugin.ReadResponse{ReadResult: plugin.ReadResult{ID: req.ID, Inputs: req.Inputs, Outputs: req.State}}, nil
}

// Update implements providers.Provider.
func (p *Provider) Update(ctx context.Context, req plugin.UpdateRequest) (plugin.UpdateResponse, error) {
	k, err := p.kind(req.Type)
	if err != nil {
		return plugin.UpdateResponse{}, err
	}
	if err := refused(req.URN, k.check(plugin.CheckRequest{URN: req.URN, Type: req.Type, News: req.NewInputs})); err != nil {
		return plugin.UpdateResponse{}, err
	}
	if u, ok := k.(updater); ok {
		return u.update(ctx, req)
	}
	made, err := k.create(ctx, plugin.CreateRequest{URN: req.URN, Name: req.Name, Type: req.Type, Properties: req.NewInputs, Preview: req.Preview})
	return plugin.UpdateResponse{Properties: made.Properties}, err
}

// Delete implements providers.Provider.
func (p *Provider) Delete(ctx context.Context, req plugin.DeleteRequest) (plugin.DeleteResponse, error) {
	k, err := p.kind(req.Type)
	if err != nil {
		return plugin.DeleteResponse{}, err
	}
	if d, ok := k.(deleter); ok {
		return plugin.DeleteResponse{}, d.delete(ctx, req)
	}
	return plugin.DeleteResponse{}, nil
}

// poll calls f until it reports true or an error, or ctx ends.
func (p *Provider) poll(ctx context.Context, f func() (bool, error)) error {
	t := time.NewTicker(p.o.Poll)
	defer t.Stop()
	for {
		if done, err := f(); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-t.C:
		}
	}
}

var (
	errTime    = errors.New("time is up")
	errStopped = errors.New("the operator asked to stop")
)
