package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"dcos.example/dcos/installer/bundle"
	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/providers"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
)

// outcome is how a host is left by an installation that failed.
type outcome uint8

const (
	halfDone outcome = iota
	asBefore         // nothing was changed, or all was taken back
)

// trees are the directories that are ours as a whole, the record's last.
var trees = []string{config.EtcDir, config.LogDir, config.RunDir, path.Dir(config.CurrentLink), config.VarDir}

// machineID is where a machine says which one it is.
const machineID = "/etc/machine-id"

// installation is one run over one host.
type installation struct {
	p     *Provider
	h     host.Host
	n     node
	r     record
	dir   string // of the unpacked release on this machine
	m     bundle.Manifest
	have  map[string]host.Entry // the files wanted and recorded, as they are on the host
	units map[string]host.Unit  // those wanted and recorded, as they are there
	c     changes
}

// install drives the host to n, from wherever it is. When that fails on a host
// that worked, it takes it back to what it was.
func (p *Provider) install(ctx context.Context, h host.Host, n node, owner string) (outcome, error) {
	i := &installation{p: p, h: h, n: n}
	if err := i.look(ctx, owner); err != nil {
		if i.r.Changing != "" {
			return halfDone, err
		}
		return asBefore, err
	}
	if i.c.none() && i.r.Changing == "" {
		s := step{name: "verify", do: i.comesUp}
		return halfDone, i.run(ctx, s)
	}
	steps := i.steps()
	for _, s := range steps {
		if s.skip {
			continue
		}
		err := i.run(ctx, s)
		if err == nil {
			continue
		}
		return i.fail(ctx, steps, err)
	}
	return halfDone, nil
}

// look opens the release, compares the host with what is wanted, and prepares
// for the way back.
func (i *installation) look(ctx context.Context, owner string) (err error) {
	i.p.unpack.Lock()
	i.dir, i.m, err = bundle.Unpack(i.n.bundle, i.p.o.Cache, i.p.o.Trust)
	i.p.unpack.Unlock()
	if err != nil {
		return err
	}
	if i.m.Digest() != i.n.digest {
		return fault.Newf("open bundle "+i.n.bundle, fault.Conflict, "it holds release %s, planned was %s; plan again", i.m.Digest(), i.n.digest)
	}
	v, r, err := observe(ctx, i.h, i.n)
	if err != nil {
		return err
	}
	i.r, i.have, i.units = r, v.Files, v.Units
	if owner != "" && r.Owner != "" && r.Owner != owner && !i.n.mayTake(r.Owner) {
		return fault.Newf("install host "+i.n.ref.Name, fault.Exists, "another installation is on it; destroy that first")
	}
	if r.Owner == "" {
		i.r.Owner = owner
	}
	i.c = diff(i.n, i.r, v.Files, releaseOn(v, r), programsOf(i.m), active(v.Units))
	if i.c.none() && i.r.Changing == "" {
		return nil
	}
	return i.prepare(ctx, v)
}

// observe reads what is on the host.
func observe(ctx context.Context, h host.Host, n node) (host.View, record, error) {
	q := host.Query{Content: []string{recordPath, machineID}, Files: []string{config.CurrentLink}, Dirs: trees, Units: n.units}
	q.Files = append(q.Files, sortedPaths(n.files)...)
	q.Files = append(q.Files, parents(sortedPaths(n.files))...)
	v, err := h.Look(ctx, q)
	if err != nil {
		return v, record{}, err
	}
	if id := strings.TrimSpace(string(v.Files[machineID].Data)); n.machine != "" && id != n.machine {
		return v, record{}, fault.Newf("look at host "+n.ref.Name, fault.Conflict, "another machine answers: its id is %q, that of the host is %q; plan again", id, n.machine)
	}
	e, there := v.Files[recordPath]
	r, err := decodeRecord(e, there)
	return v, r, err
}

// parents are the directories that files need, those above first. The trees
// are the first.
func parents(files []string) []string {
	out := slices.Clone(trees)
	for _, p := range files {
		for dir := path.Dir(p); dir != "/"; dir = path.Dir(dir) {
			if !slices.Contains(out, dir) {
				out = append(out, dir)
			}
		}
	}
	slices.Sort(out[len(trees):]) // a directory sorts before what is in it
	return out
}

// releaseOn returns the digest of the release that the host runs, "" when that
// is not known.
func releaseOn(v host.View, r record) string {
	if link := v.Files[config.CurrentLink].Link; link != "" && path.Base(link) == r.Release {
		return r.Digest
	}
	return ""
}

func active(units map[string]host.Unit) map[string]bool {
	out := map[string]bool{}
	for name, u := range units {
		out[name] = u.Active
	}
	return out
}

// prepare reads what is about to be changed, so that it can be put back: on
// the first install what the host had before us, later what it has of us.
func (i *installation) prepare(ctx context.Context, v host.View) error {
	var read []string
	for p := range i.r.Files {
		read = append(read, p)
	}
	for p := range i.n.files {
		if _, there := v.Files[p]; there && i.r.Files[p].fingerprint == (fingerprint{}) {
			read = append(read, p)
		}
	}
	slices.Sort(read)
	more, err := i.h.Look(ctx, host.Query{Content: slices.Compact(read), Units: i.r.Order})
	if err != nil {
		return err
	}
	for p, e := range more.Files {
		i.have[p] = e
	}
	maps.Copy(i.units, more.Units)
	i.note(v)
	worked := i.r.Digest != "" && i.r.Changing == "" && releaseOn(v, i.r) != "" && len(i.r.Order) > 0
	for _, u := range i.r.Order {
		worked = worked && i.units[u].Active
	}
	if worked {
		well, err := i.well(ctx)
		if err != nil {
			return err
		}
		i.r.Past = i.r.snapshot(i.have, well == nil)
	}
	return nil
}

// note records what is new of the host: the directories that will be made, and
// what was in ours.
func (i *installation) note(v host.View) {
	if i.r.Kept == nil {
		i.r.Kept = map[string][]string{}
	}
	for _, dir := range parents(sortedPaths(i.n.files)) {
		_, there := v.Files[dir]
		if !there && !slices.Contains(i.r.Made, dir) {
			i.r.Made = append(i.r.Made, dir)
		}
		if names := v.Dirs[dir]; !i.r.found && len(names) > 0 && slices.Contains(trees, dir) {
			i.r.Kept[dir] = names
		}
	}
}

// run runs one step and sees that it holds.
func (i *installation) run(ctx context.Context, s step) error {
	if ctx.Err() != nil {
		return fault.New("install host "+i.n.ref.Name, fault.Unavailable, errors.Join(errInterrupted, context.Cause(ctx)))
	}
	select {
	case <-providers.Stopping(ctx):
		return fault.Newf(s.name, fault.Unavailable, "%w; apply again, it goes on here", errAsked)
	default:
	}
	done := providers.Step(ctx, s.name)
	err := s.do(ctx)
	if err == nil && s.verify != nil {
		err = s.verify(ctx)
	}
	if err != nil {
		err = fault.Newf(s.name, fault.KindOf(err), "%w", err)
	}
	return done(err)
}

var (
	errInterrupted = errors.New("interrupted")
	errAsked       = errors.New("not begun, because you asked to stop")
)

// fail decides what becomes of a host on which a step failed.
func (i *installation) fail(ctx context.Context, steps []step, err error) (outcome, error) {
	name := i.n.ref.Name
	switch {
	case i.r.Changing == "":
		return asBefore, fault.Newf("install host "+name, fault.KindOf(err), "%w\nNothing was changed on host %s. Repair the cause and apply again.", err, name)
	case ctx.Err() != nil || errors.Is(err, errAsked) || errors.Is(err, errInterrupted):
		return halfDone, err // nobody decided that it is bad: the next apply goes on
	case i.r.Past == nil:
		return halfDone, fault.Newf("install host "+name, fault.KindOf(err), "%w\nHost %[2]s is half installed. You can\n"+
			"  go on: repair the cause and apply again; it goes on at this step\n"+
			"  undo:  take %[2]s out of the file and apply, or dcos-install destroy; what was done there is undone\n"+
			"  see:   dcos-install host exec %[2]s -- journalctl -u 'dcos-*'", err, name)
	}
	if back := i.takeBack(ctx, steps); back != nil {
		return halfDone, fault.Newf("install host "+name, fault.KindOf(err), "%w\nTaking it back failed too: %w\nHost %s is half changed. Repair the cause and apply again, or apply the configuration as it was (dcos-install rollback).", err, back, name)
	}
	return asBefore, fault.Newf("install host "+name, fault.KindOf(err), "%w\nHost %s was taken back to what it was, and works as before. Repair the cause and apply again.", err, name)
}

// takeBack undoes the steps, the last first, and sees that the host is what it
// was. The steps look at the host, so it does not matter how far they came.
func (i *installation) takeBack(ctx context.Context, steps []step) error {
	whole := providers.Step(ctx, "take back")
	for _, s := range slices.Backward(steps) {
		if s.undo == nil {
			continue
		}
		done := providers.Step(ctx, "undo: "+s.name)
		if err := done(s.undo(ctx)); err != nil {
			return whole(fmt.Errorf("undo: %s: %w", s.name, err))
		}
	}
	p := i.r.Past
	if err := i.stayUp(ctx, p.Order); err != nil {
		return whole(err)
	}
	if p.Well {
		if err := i.waitWell(ctx); err != nil {
			return whole(err)
		}
	}
	return whole(i.settle(ctx, sortedPaths(p.Files), p.Staged))
}

// settle removes what nothing needs any more, the releases but keep and the
// directories that no file is in, and forgets the way back.
func (i *installation) settle(ctx context.Context, files, keep []string) error {
	done := i.r
	done.Changing, done.Past, done.Staged, done.Made = "", nil, nil, nil
	var changes []host.Change
	for _, name := range i.r.Staged {
		if slices.Contains(keep, name) {
			done.Staged = append(done.Staged, name)
			continue
		}
		at := host.ReleasePath(name)
		changes = append(changes, host.Gone(at), host.Gone(at+".part"))
	}
	needed, stale := parents(files), []string(nil)
	for _, dir := range i.r.Made {
		if slices.Contains(needed, dir) {
			done.Made = append(done.Made, dir)
		} else {
			stale = append(stale, dir)
		}
	}
	if err := rmdirs(ctx, i.h, stale); err != nil {
		return err
	}
	if err := i.h.Change(ctx, append(changes, done.put())...); err != nil {
		return err
	}
	i.r = done
	return nil
}

// rmdirs removes directories that are empty, those below first.
func rmdirs(ctx context.Context, h host.Host, dirs []string) error {
	if len(dirs) == 0 {
		return nil
	}
	argv := []string{"rmdir", "--ignore-fail-on-non-empty", "--"}
	for _, dir := range slices.Backward(dirs) {
		argv = append(argv, dir)
	}
	out, err := h.Run(ctx, argv...)
	if err == nil && out.Code != 0 && !strings.Contains(out.Stderr, "No such file") {
		err = fault.Newf("remove empty directories", fault.Internal, "%s", strings.TrimSpace(out.Stderr))
	}
	return err
}

func (i *installation) save(ctx context.Context) error { return i.h.Change(ctx, i.r.put()) }
