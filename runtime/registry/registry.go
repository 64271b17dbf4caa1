// Package registry serves container images from the masters, so that a cluster
// needs no other registry: what is pushed to one master is on most of them
// when the push ends and on all soon after. Images that came with the release
// are there from the start.
//
// The blobs are on each master's disk (blob), what they mean is in the store
// (index), replica sees that every master has them, httpapi speaks the
// protocol.
package registry

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"

	"github.com/distribution/reference"
	"golang.org/x/sync/errgroup"

	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/pki"
	"dcos.example/dcos/runtime/registry/blob"
	"dcos.example/dcos/runtime/registry/httpapi"
	"dcos.example/dcos/runtime/registry/index"
	"dcos.example/dcos/runtime/registry/release"
	"dcos.example/dcos/runtime/registry/replica"
	"dcos.example/dcos/runtime/state"
)

// users is who knows the cluster's users; runtime/identity does.
type users interface {
	Authenticate(r *http.Request) (uid string, err error)
	Login(ctx context.Context, uid, password, remote string) (token string, err error)
}

// Options is what a Registry is made from.
type Options struct {
	Dir       string // for blobs
	Current   string // the link to the release; the releases lie in "releases" beside it
	Self      string // name of this master
	Store     state.Backend
	Users     users
	Admin     string // the user who may push
	Masters   func() []config.Member
	Transport http.RoundTripper // reaches masters by their certificates, and nobody else
	Log       *slog.Logger
}

// Registry is one master's part of the cluster's registry.
type Registry struct {
	index   *index.Index
	replica *replica.Replica
	release *release.Importer
	handler http.Handler
}

// New returns a Registry over what lies in its directory.
func New(o Options) (*Registry, error) {
	blobs, err := blob.Open(o.Dir, filepath.Join(o.Current, "packages", release.Blobs))
	if err != nil {
		return nil, err
	}
	x := index.New(o.Store, o.Log)
	rep := replica.New(replica.Config{
		Blobs: blobs, Index: x, Self: o.Self, Masters: o.Masters, Client: &http.Client{Transport: o.Transport},
		Releases: filepath.Join(filepath.Dir(o.Current), "releases"), Log: o.Log,
	})
	r := &Registry{index: x, replica: rep}
	r.release = release.New(release.Config{
		Current: o.Current, Remember: filepath.Join(o.Dir, "release"), Blobs: blobs, Index: x, Changed: rep.Recheck, Log: o.Log,
	})
	mux := http.NewServeMux()
	mux.Handle(replica.Path, pki.RequireRole(rep.Handler(), pki.RoleMaster))
	mux.Handle("/", httpapi.New(httpapi.Config{Blobs: blobs, Index: x, Images: rep, Guard: httpapi.NewGuard(o.Users, o.Admin), Log: o.Log}))
	r.handler = mux
	return r, nil
}

// Handler answers the distribution protocol. It is for a TLS listener that
// asks for certificates and lets those through who have none.
func (r *Registry) Handler() http.Handler { return r.handler }

// Run keeps this master's images until ctx ends. It returns nil.
func (r *Registry) Run(ctx context.Context) error {
	var g errgroup.Group
	for _, run := range []func(context.Context){r.index.Run, r.replica.Run, r.release.Run} {
		g.Go(func() error {
			run(ctx)
			return nil
		})
	}
	return g.Wait()
}

// Has reports whether the registry has the image ref, "NAME:TAG" or
// "NAME@DIGEST" with or without config.RegistryHost before it.
func (r *Registry) Has(ctx context.Context, ref string) (bool, error) {
	repo, tag, d, err := parse(ref)
	if err != nil {
		return false, err
	}
	if tag != "" {
		_, err = r.index.Tag(ctx, repo, tag)
	} else {
		_, err = r.index.Manifest(ctx, d)
	}
	if fault.Is(err, fault.NotFound) {
		return false, nil
	}
	return err == nil, err
}

// Delete removes the tag, or the manifest with all its tags, that ref names;
// fault.NotFound when there is none. What no other image needs goes later.
func (r *Registry) Delete(ctx context.Context, ref string) error {
	repo, tag, d, err := parse(ref)
	if err != nil {
		return err
	}
	if tag != "" {
		return r.index.DeleteTag(ctx, repo, tag)
	}
	return r.index.DeleteManifest(ctx, d)
}

// parse returns the tag, or the manifest, that ref names.
func parse(ref string) (repo, tag string, d index.Ref, err error) {
	op := "read image name " + ref
	named, err := reference.ParseNamed(config.RegistryHost + "/" + strings.TrimPrefix(ref, config.RegistryHost+"/"))
	if err != nil {
		return "", "", d, fault.New(op, fault.Invalid, err)
	}
	repo = reference.Path(named)
	if c, ok := named.(reference.Canonical); ok {
		return repo, "", index.Ref{Repository: repo, Digest: c.Digest()}, nil
	}
	if t, ok := named.(reference.NamedTagged); ok {
		return repo, t.Tag(), d, nil
	}
	return "", "", d, fault.New(op, fault.Invalid, errors.New("it has neither a tag nor a digest"))
}
