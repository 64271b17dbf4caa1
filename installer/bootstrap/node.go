package bootstrap

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"

	"dcos.example/dcos/installer/bundle"
	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/providers"
	"dcos.example/dcos/providers/input"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
)

const (
	// gatewayTime is how long a master may take to open its gateway before the
	// wait is left to the Cluster: of several masters, one alone cannot.
	gatewayTime = 10 * time.Second
	// stopTime is how long units may take to stop when a node is removed. It is
	// more than their own limit (TimeoutStopSec), at which they are killed.
	stopTime = 40 * time.Second
	// logTail is how much of a log an error quotes, in bytes.
	logTail = 2 << 10
	// settled is how long a unit must have run to count as up. A program that
	// finds fault with its configuration ends sooner.
	settled = 300 * time.Millisecond
	// crashes is how many restarts in a row say that a unit will not come up.
	crashes = 3
)

// nodes is TypeNode.
type nodes struct{ p *Provider }

func (nodes) check(req plugin.CheckRequest) plugin.CheckResponse {
	_, r := readNode(req.News)
	return plugin.CheckResponse{Properties: req.News, Failures: r.Failures()}
}

func (nodes) diff(req plugin.DiffRequest) plugin.DiffResponse {
	// The same release from another place is the same release.
	if _, known := input.Plain(req.NewInputs["bundle"]); known {
		req.IgnoreChanges = append(slices.Clone(req.IgnoreChanges), "bundle")
	}
	d := providers.DiffInputs(req, "name", "role")
	if moved(req.OldInputs, req.NewInputs) {
		d.ReplaceKeys = append(d.ReplaceKeys, "host")
	}
	d.DeleteBeforeReplace = len(d.ReplaceKeys) > 0
	if v := req.OldOutputs["active"]; v.IsBool() && !v.BoolValue() {
		d.Changes = plugin.DiffSome
		d.ChangedKeys = append(d.ChangedKeys, "active")
		if d.DetailedDiff == nil {
			d.DetailedDiff = map[string]plugin.PropertyDiff{}
		}
		d.DetailedDiff["active"] = plugin.PropertyDiff{Kind: plugin.DiffUpdate}
	}
	return d
}

// moved reports whether the new inputs are those of another host.
func moved(before, after resource.PropertyMap) bool {
	a, ra := readNode(before)
	b, rb := readNode(after)
	if ra.Unknown("host", "host.kind", "host.dir", "host.address") || rb.Unknown("host", "host.kind", "host.dir", "host.address") {
		return false
	}
	if a.machine != "" && b.machine != "" {
		return a.machine != b.machine
	}
	return a.ref.Identity() != b.ref.Identity()
}

func outputs(in resource.PropertyMap, active bool) resource.PropertyMap {
	return resource.PropertyMap{"release": in["release"], "address": in["address"], "active": resource.NewProperty(active)}
}

func nodeID(n node) resource.ID { return resource.ID(n.ref.Identity()) }

func (k nodes) create(ctx context.Context, req plugin.CreateRequest) (plugin.CreateResponse, error) {
	res := plugin.CreateResponse{Properties: outputs(req.Properties, true)}
	if req.Preview {
		return res, nil
	}
	n, _ := readNode(req.Properties)
	res.ID = nodeID(n)
	h, err := k.p.o.Open(ctx, n.ref)
	if err != nil {
		return plugin.CreateResponse{}, err
	}
	return res, partial(res.Properties, k.p.install(ctx, h, n, providers.Token(ctx)))
}

func (k nodes) update(ctx context.Context, req plugin.UpdateRequest) (plugin.UpdateResponse, error) {
	res := plugin.UpdateResponse{Properties: outputs(req.NewInputs, true)}
	if req.Preview {
		return res, nil
	}
	n, _ := readNode(req.NewInputs)
	h, err := k.p.o.Open(ctx, n.ref)
	if err != nil {
		return plugin.UpdateResponse{Properties: outputs(req.OldInputs, false)}, partial(nil, err)
	}
	return res, partial(res.Properties, k.p.install(ctx, h, n, ""))
}

// partial turns the error of a half-done installation into one that lets the
// engine keep the node and go on with it next time.
func partial(out resource.PropertyMap, err error) error {
	if err == nil {
		return nil
	}
	if out != nil {
		out["active"] = resource.NewProperty(false)
	}
	return providers.Partial(err)
}

// install drives the host to n, from wherever it is.
func (p *Provider) install(ctx context.Context, h host.Host, n node, owner string) error {
	r, err := loadRecord(ctx, h)
	if err != nil {
		return err
	}
	if owner != "" && r.Owner != "" && r.Owner != owner {
		return fault.Newf("install host "+n.ref.Name, fault.Exists, "another installation is on it; destroy that first")
	}
	if r.Owner == "" {
		r.Owner = owner
	}
	i := &installation{p: p, h: h, n: n, r: r}
	if err := i.look(ctx); err != nil {
		return err
	}
	for _, s := range i.steps() {
		if s.skip {
			continue
		}
		if err := ctx.Err(); err != nil {
			return fault.New("install host "+n.ref.Name, fault.Unavailable, context.Cause(ctx))
		}
		select {
		case <-providers.Stopping(ctx):
			return fault.Newf(s.name, fault.Unavailable, "not begun, because you asked to stop; apply again, it goes on here")
		default:
		}
		done := providers.Step(ctx, s.name)
		if err := done(s.do(ctx)); err != nil {
			return fault.Newf(s.name, fault.KindOf(err), "%w\nNothing else was changed on this host; repair the cause and apply again, it goes on here.", err)
		}
	}
	return nil
}

// look opens the release and compares the host with what is wanted.
func (i *installation) look(ctx context.Context) (err error) {
	i.p.unpack.Lock()
	i.dir, i.m, err = bundle.Unpack(i.n.bundle, i.p.o.Cache, i.p.o.Trust)
	i.p.unpack.Unlock()
	if err != nil {
		return err
	}
	if i.m.Digest() != i.n.digest {
		return fault.Newf("open bundle "+i.n.bundle, fault.Conflict, "it holds release %s, planned was %s; plan again", i.m.Digest(), i.n.digest)
	}
	have, current, active, err := observe(ctx, i.h, i.n.files, i.n.units, i.r)
	if err != nil {
		return err
	}
	i.have, i.c = have, diff(i.n, i.r, have, current, active)
	return nil
}

// observe reads what is on the host.
func observe(ctx context.Context, h host.Host, files map[string]host.File, units []string, r record) (have map[string]host.File, digest string, active map[string]bool, err error) {
	have, active = map[string]host.File{}, map[string]bool{}
	for _, path := range slices.Sorted(maps.Keys(files)) {
		f, err := h.ReadFile(ctx, path)
		if fault.Is(err, fault.NotFound) {
			continue
		}
		if err != nil {
			return nil, "", nil, err
		}
		have[path] = f
	}
	current, err := host.Current(ctx, h)
	if err != nil {
		return nil, "", nil, err
	}
	if current != "" && current == r.Release {
		digest = r.Digest
	}
	for _, u := range units {
		st, err := h.UnitStatus(ctx, u, 0)
		if err != nil && !fault.Is(err, fault.NotFound) && !fault.Is(err, fault.Invalid) {
			return nil, "", nil, err
		}
		active[u] = err == nil && st.Active
	}
	return have, digest, active, nil
}

func loadRecord(ctx context.Context, h host.Files) (r record, err error) {
	r = record{Files: map[string]writtenFile{}, Units: map[string]string{}}
	f, err := h.ReadFile(ctx, recordPath)
	if fault.Is(err, fault.NotFound) {
		return r, nil
	}
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(f.Data, &r); err != nil {
		return r, fault.New("read "+recordPath, fault.Internal, err)
	}
	r.found = true
	return r, nil
}

// installation is one run over one host.
type installation struct {
	p   *Provider
	h   host.Host
	n   node
	r   record
	dir string // of the unpacked release on this machine
	m   bundle.Manifest

	have map[string]host.File // the wanted files as they are on the host
	c    changes
}

type step struct {
	name string
	skip bool
	do   func(context.Context) error
}

func (i *installation) steps() []step {
	c := i.c
	return []step{
		{"check host", i.r.Digest != "", i.preflight},
		{"stage release " + i.m.Release(), !c.release, i.stage},
		{"stop units that are no longer wanted", len(c.stop) == 0, i.stop},
		{"write files", len(c.write) == 0 && len(c.remove) == 0 && len(i.r.Files) == len(i.n.files), i.write},
		{"switch to release " + i.m.Release(), !c.release, i.change},
		{"start units", len(c.start) == 0, i.start},
		{"verify", false, i.verify},
	}
}

func (i *installation) save(ctx context.Context) error {
	return i.h.WriteFile(ctx, recordPath, i.r.encode())
}

func (i *installation) stage(ctx context.Context) error {
	name := i.m.Release()
	i.r.Staged = append(slices.DeleteFunc(i.r.Staged, func(s string) bool { return s == name }), name)
	if err := i.save(ctx); err != nil {
		return err
	}
	return i.h.Stage(ctx, i.dir, i.m)
}

func (i *installation) stop(ctx context.Context) error {
	for _, u := range i.c.stop {
		if err := errors.Join(i.h.StopUnit(ctx, u), i.h.EnableUnit(ctx, u, false)); err != nil {
			return err
		}
		delete(i.r.Units, u)
	}
	i.r.Order = i.n.units
	return i.save(ctx)
}

func (i *installation) write(ctx context.Context) error {
	// Recorded before they are written: a Delete then finds them all.
	for p, f := range i.n.files {
		w := i.r.Files[p]
		if there, ok := i.have[p]; ok && w.SHA256 == "" {
			w.Before = &there
		}
		w.fingerprint = fingerprintOf(f)
		i.r.Files[p] = w
	}
	i.r.Order = i.n.units
	if err := i.save(ctx); err != nil {
		return err
	}
	for _, p := range i.c.write {
		if err := i.h.WriteFile(ctx, p, i.n.files[p]); err != nil {
			return err
		}
	}
	for _, p := range i.c.remove {
		if err := restore(ctx, i.h, p, i.r.Files[p]); err != nil {
			return err
		}
		delete(i.r.Files, p)
	}
	return i.save(ctx)
}

// restore puts back what was at path before us.
func restore(ctx context.Context, h host.Files, path string, w writtenFile) error {
	if w.Before != nil {
		return h.WriteFile(ctx, path, *w.Before)
	}
	return h.Remove(ctx, path)
}

func (i *installation) change(ctx context.Context) error {
	if err := i.h.Change(ctx, host.Switch(i.m.Release())); err != nil {
		return err
	}
	i.r.Digest, i.r.Release = i.n.digest, i.m.Release()
	// The release before this one stays: what it started still runs.
	for len(i.r.Staged) > 2 {
		if err := i.h.Remove(ctx, host.ReleasePath(i.r.Staged[0])); err != nil {
			return err
		}
		i.r.Staged = i.r.Staged[1:]
	}
	return i.save(ctx)
}

func (i *installation) start(ctx context.Context) error {
	for _, u := range i.c.start {
		providers.Note(ctx, "start units", u)
		if err := i.h.StopUnit(ctx, u); err != nil {
			return err
		}
		if err := errors.Join(i.h.EnableUnit(ctx, u, true), i.h.StartUnit(ctx, u)); err != nil {
			return err
		}
		i.r.Units[u] = unitDigest(i.n, u)
		if err := i.save(ctx); err != nil {
			return err
		}
	}
	return nil
}

// verify sees that every unit stays up, and that a master's gateway opens.
func (i *installation) verify(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, gatewayTime, errTime)
	defer cancel()
	before := map[string]int{} // restarts when we began to look
	gateway := i.n.role != roleMaster
	addr := net.JoinHostPort(i.n.address, strconv.Itoa(config.PortGateway))
	if !gateway {
		providers.Note(ctx, "verify", "waiting for the gateway on "+addr)
	}
	var down error
	err := i.p.poll(ctx, func() (bool, error) {
		down = nil
		for _, u := range i.n.units {
			st, err := i.h.UnitStatus(ctx, u, logTail)
			if err != nil {
				return false, err
			}
			if _, seen := before[u]; !seen {
				before[u] = st.Restarts
			}
			if st.Active && time.Since(st.Since) >= settled {
				continue
			}
			down = fault.Newf("start "+u, fault.Unavailable, "it does not stay up: it is %s, %s%s; the end of its log%s", st.State, st.LastExit, taken(st.Log), indent(st.Log))
			if st.State == "failed" || st.State == "inactive" || st.Restarts >= before[u]+crashes {
				return false, down
			}
		}
		if !gateway {
			gateway = i.answers(ctx, addr)
		}
		return down == nil && gateway, nil
	})
	switch {
	case errors.Is(err, errTime) && down != nil:
		return down
	case errors.Is(err, errTime):
		providers.Note(ctx, "verify", "its gateway does not answer yet; the cluster is waited for at the end")
		return nil
	default:
		return err
	}
}

// taken explains the most common reason why a daemon does not stay up.
func taken(log string) string {
	if strings.Contains(log, "address already in use") {
		return "; something else listens on a port that it needs: stop that first (ss -ltnp shows it)"
	}
	return ""
}

func (i *installation) answers(ctx context.Context, addr string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	conn, err := i.p.o.Dial(ctx, "tcp", addr)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

func (k nodes) read(ctx context.Context, req plugin.ReadRequest) (res plugin.ReadResponse, err error) {
	n, _ := readNode(req.Inputs)
	h, err := k.p.o.Open(ctx, n.ref)
	if fault.Is(err, fault.NotFound) {
		return res, nil
	}
	if fault.Is(err, fault.Unavailable) { // down: there, but not working
		if req.ID == "" {
			return res, nil // then nothing can have been begun that still counts
		}
		return plugin.ReadResponse{ReadResult: plugin.ReadResult{ID: req.ID, Inputs: req.Inputs, Outputs: outputs(req.Inputs, false)}}, nil
	}
	if err != nil {
		return res, err
	}
	r, err := loadRecord(ctx, h)
	if err != nil {
		return res, err
	}
	if !r.found || req.ID == "" && r.Owner != providers.Token(ctx) {
		return res, nil
	}
	have, digest, active, err := observe(ctx, h, n.files, n.units, r)
	if err != nil {
		return res, err
	}
	in := req.Inputs.Copy()
	in["release"] = resource.NewProperty(digest)
	in["files"] = resource.NewProperty(filesAsRead(have))
	up := true
	for _, u := range n.units {
		up = up && active[u] && r.Units[u] == unitDigest(n, u)
	}
	res.ReadResult = plugin.ReadResult{ID: nodeID(n), Inputs: in, Outputs: outputs(in, up)}
	return res, nil
}

func filesAsRead(have map[string]host.File) resource.PropertyMap {
	m := resource.PropertyMap{}
	for p, f := range have {
		m[resource.PropertyKey(p)] = resource.NewProperty(resource.PropertyMap{
			"content": resource.NewProperty(string(f.Data)), "mode": resource.NewProperty(float64(f.Mode.Perm())),
		})
	}
	return m
}

// delete stops the units and removes what was written. A host that is gone
// needs nothing; one that is down is left: it is removed with its host, and
// destroying a cluster must not need every host to work.
func (k nodes) delete(ctx context.Context, req plugin.DeleteRequest) error {
	n, _ := readNode(req.Inputs)
	h, err := k.p.o.Open(ctx, n.ref)
	if fault.Is(err, fault.NotFound) || fault.Is(err, fault.Unavailable) {
		return nil
	}
	if err != nil {
		return err
	}
	r, err := loadRecord(ctx, h)
	if err != nil {
		return err
	}
	done := providers.Step(ctx, "stop units")
	bounded, cancel := context.WithTimeoutCause(ctx, stopTime, fmt.Errorf("it does not stop within %s", stopTime))
	defer cancel()
	var errs []error
	for _, u := range slices.Backward(r.Order) {
		errs = append(errs, h.StopUnit(bounded, u), h.EnableUnit(ctx, u, false))
	}
	if err := done(errors.Join(errs...)); err != nil {
		return err
	}
	done = providers.Step(ctx, "remove files")
	for _, p := range slices.Sorted(maps.Keys(r.Files)) {
		errs = append(errs, restore(ctx, h, p, r.Files[p]))
	}
	errs = append(errs, h.Remove(ctx, config.CurrentLink))
	for _, name := range r.Staged {
		errs = append(errs, h.Remove(ctx, host.ReleasePath(name)))
	}
	if err := errors.Join(errs...); err != nil {
		return done(err)
	}
	return done(h.Remove(ctx, recordPath)) // last: until then Delete knows what to do
}

// preflight returns everything that keeps the host from running its role.
func (i *installation) preflight(ctx context.Context) error {
	out, err := i.h.Run(ctx, "/bin/sh", "-c", probe)
	if err != nil {
		return err
	}
	if out.Code != 0 {
		return fault.Newf("run checks", fault.Internal, "exit status %d: %s", out.Code, strings.TrimSpace(out.Stderr))
	}
	var size int64
	for _, f := range i.m.Files {
		size += f.Size
	}
	return judge(out.Stdout, i.n.role, size, filepath.Base(i.dir))
}
