package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"dcos.example/dcos/installer/bootstrap"
	"dcos.example/dcos/installer/bundle"
	"dcos.example/dcos/installer/cli/view"
	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/installer/preflight"
	"dcos.example/dcos/installer/rolepackage"
	"dcos.example/dcos/providers"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
)

// tell shows the steps of an installation on this machine as they go.
func (r *run) tell(ctx context.Context) context.Context {
	var mu sync.Mutex
	return providers.WithReporter(ctx, func(p providers.Progress) {
		if r.json {
			return // the end is what programs wait for
		}
		mu.Lock()
		defer mu.Unlock()
		switch {
		case p.Message != "":
			fmt.Fprintf(r.app.Stdout, "  %s: %s\n", p.Step, p.Message)
		case p.Done && p.Err == nil:
			fmt.Fprintf(r.app.Stdout, "  %s: done\n", p.Step)
		case p.Done: // the error comes at the end
			fmt.Fprintf(r.app.Stdout, "  %s: failed\n", p.Step)
		}
	})
}

// preflightHere makes the checks of a host on this machine. Between hosts
// nothing is measured: each installs itself when it is told to.
func (r *run) preflightHere(ctx context.Context, i rolepackage.Installation, release string, m bundle.Manifest, all bool) error {
	p := i.Package
	ignore, err := r.ignored(p.Cluster.Preflight.Ignore)
	if err != nil {
		return err
	}
	known, err := recorded(ctx, i.Here, p.Secrets.ClusterID)
	if err != nil {
		return err
	}
	o := preflight.Options{
		Targets:   []preflight.Target{{Name: p.Host.Name, Role: p.Host.Role, Addr: p.Host.Addr, Known: known, Ref: host.Ref{Kind: host.KindHere, Name: p.Host.Name}}},
		Open:      func(context.Context, host.Ref) (host.Host, error) { return i.Here, nil },
		Resolvers: p.Cluster.Cluster.Resolvers, ProbePath: host.ReleasePath(m.Release()) + "/" + probeFile, Parallel: 1,
	}
	if o.Probe, err = os.ReadFile(filepath.Join(release, filepath.FromSlash(probeFile))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.New("read "+probeFile, fault.Internal, err)
	}
	start := time.Now()
	hosts := r.app.Preflight(ctx, o)
	if ctx.Err() != nil {
		return fault.New("check this machine", fault.Unavailable, context.Cause(ctx))
	}
	in := preflight.Input{Hosts: hosts, Resolvers: p.Cluster.Cluster.Resolvers, Ignore: ignore, ClusterID: p.Secrets.ClusterID,
		Release: preflight.Release{Name: m.Release(), Arch: preflight.Arch(o.Probe)}}
	in.Release.Bytes = m.Share(false).Size()
	in.Release.Packages = m.Share(true).Size() - in.Release.Bytes
	doc := view.NewPreflight(p.Cluster.Cluster.Name, hosts, preflight.Judge(in))
	doc.All, doc.Elapsed = all, time.Since(start)
	if !all {
		doc.Before = "install"
	}
	if err := r.show(doc); err != nil {
		return err
	}
	if doc.Stops() {
		return reported{exitFailed}
	}
	return nil
}

// recorded says whether this machine was installed for the cluster before.
func recorded(ctx context.Context, h host.Files, clusterID string) (bool, error) {
	f, err := h.ReadFile(ctx, config.VarDir+"/bootstrap.json")
	if fault.Is(err, fault.NotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var r struct {
		Owner string `json:"owner"`
	}
	if err := json.Unmarshal(f.Data, &r); err != nil {
		return false, fault.New("read the record of the last installation", fault.Internal, err)
	}
	return r.Owner == bootstrap.OwnerOf(clusterID), nil
}
