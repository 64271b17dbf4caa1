// Package catalog answers what can be installed and what is, and installs it:
// the package API of DC/OS (Cosmos). Every master has one and answers from its
// own memory; the list of repositories is in the store.
package catalog

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/state"
)

// Endpoint is an HTTP API of another component, usually in this process.
type Endpoint struct {
	URL    string // scheme and host, without a path
	Client *http.Client
}

// Options are what a catalog needs. All but Repositories are required.
type Options struct {
	Store state.Backend // any master writes: every write names its revision
	// Dir is where the content of repositories is kept, config.VarDir/catalog.
	Dir string
	// Release of the cluster, told to repositories.
	Release string

	Orchestrator Endpoint // /v2/apps
	Master       Endpoint // /master/frameworks and /master/teardown
	Services     Endpoint // /services/, of the operator

	// HasImage reports whether the registry of the cluster has an image named
	// as in "registry.dcos/kafka:4.1.0-1".
	HasImage func(ctx context.Context, image string) (bool, error)
	// Repositories is how repositories are reached; nil means directly.
	Repositories http.RoundTripper

	Log *slog.Logger
}

// Catalog is the catalog of one master.
type Catalog struct {
	options Options
}

// New returns a catalog that knows what its directory has. Run keeps it
// current.
func New(o Options) (*Catalog, error) {
	if o.Store == nil || o.Dir == "" || o.HasImage == nil || o.Log == nil ||
		o.Orchestrator.Client == nil || o.Master.Client == nil || o.Services.Client == nil {
		return nil, fault.New("make catalog", fault.Invalid, errors.New("an option is missing"))
	}
	return &Catalog{options: o}, nil
}

// Handler serves /package/…, /cosmos/service/…, /service/{describe,update} and
// /capabilities.
func (c *Catalog) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "The catalog is not ready.", http.StatusServiceUnavailable)
	})
}

// Run follows the list of repositories and fetches their content until ctx
// ends.
func (c *Catalog) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}
