// Package catalog answers what can be installed and what is, and installs it:
// the package API of DC/OS (Cosmos). Every master has one and answers from its
// own memory; the list of repositories is in the store, their content on disk.
package catalog

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"golang.org/x/sync/errgroup"

	"dcos.example/dcos/runtime/catalog/httpapi"
	"dcos.example/dcos/runtime/catalog/install"
	"dcos.example/dcos/runtime/catalog/repo"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/state"
)

// Endpoint is an HTTP API of another component, usually in this process.
type Endpoint = install.Endpoint

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
	shelf     *shelf
	installer *install.Installer
	handler   http.Handler
}

// New returns a catalog. Run fills it and keeps it current; until it has read
// what is on disk, requests are answered with 503.
func New(o Options) (*Catalog, error) {
	if o.Store == nil || o.Dir == "" || o.HasImage == nil || o.Log == nil ||
		o.Orchestrator.Client == nil || o.Master.Client == nil || o.Services.Client == nil {
		return nil, fault.New("make catalog", fault.Invalid, errors.New("an option is missing"))
	}
	via := o.Repositories
	if via == nil {
		via = http.DefaultTransport.(*http.Transport).Clone()
	}
	content, err := repo.New(o.Dir, via, o.Release)
	if err != nil {
		return nil, err
	}
	c := &Catalog{shelf: newShelf(o.Store, content, o.Log)}
	c.installer = install.New(install.Options{
		Index: c.shelf.index.Load, Orchestrator: o.Orchestrator, Master: o.Master, Services: o.Services,
		HasImage: o.HasImage, Log: o.Log,
	})
	c.handler = httpapi.New(httpapi.Config{
		Index: c.shelf.index.Load, Repositories: c.shelf, Installer: c.installer, Resources: via, Log: o.Log,
	})
	return c, nil
}

// Handler serves /package/…, /cosmos/service/…, /service/{describe,update} and
// /capabilities.
func (c *Catalog) Handler() http.Handler { return c.handler }

// Run follows the list of repositories and fetches their content until ctx
// ends.
func (c *Catalog) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.shelf.run(ctx) })
	g.Go(func() error {
		c.installer.Run(ctx)
		return nil
	})
	return g.Wait()
}
