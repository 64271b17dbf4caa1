package bootstrap

import (
	"context"
	"errors"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"dcos.example/dcos/installer/bundle"
	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/providers"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
)

// step is one thing that is done on a host. All three can be repeated: they
// look at the host, or at the record, and do what is missing.
type step struct {
	name   string
	skip   bool
	do     func(context.Context) error
	verify func(context.Context) error // that what was done holds; may be nil
	undo   func(context.Context) error // takes it back to record.Past; may be nil
}

func (i *installation) steps() []step {
	c, rel := i.c, i.m.Release()
	return []step{
		{name: "check host", skip: i.r.Digest != "", do: i.preflight},
		{name: "stage release " + rel, skip: !c.release, do: i.stage, verify: i.staged, undo: i.unstage},
		{name: "stop units that are no longer wanted", skip: len(c.stop) == 0, do: i.stop, undo: i.startPast},
		{name: writeFiles, skip: i.asWanted(not(resolves)), do: i.write(writeFiles, not(resolves)), verify: i.written(not(resolves)), undo: i.unwrite(not(resolves))},
		{name: "switch to release " + rel, skip: !c.release, do: i.change, verify: i.switched, undo: i.unswitch},
		{name: "start units", skip: len(c.start) == 0, do: i.start, undo: i.stopChanged},
		// Only now is there a server that answers: until then the host finds names
		// as it did, which logins and sudo may wait for.
		{name: setResolver, skip: i.asWanted(resolves), do: i.write(setResolver, resolves), verify: i.written(resolves), undo: i.unwrite(resolves)},
		{name: "verify", do: i.verify},
	}
}

// The two steps that write files.
const (
	writeFiles  = "write files"
	setResolver = "set the resolver"
)

const resolvConf = "/etc/resolv.conf"

// resolves reports whether the file at path decides whom the host asks for
// names.
func resolves(path string) bool {
	return path == resolvConf || slices.ContainsFunc([]string{"/etc/systemd/resolved.conf.d/", "/etc/NetworkManager/", "/etc/dhcp/"}, func(dir string) bool {
		return strings.HasPrefix(path, dir)
	})
}

func not(f func(string) bool) func(string) bool { return func(p string) bool { return !f(p) } }

// asWanted reports whether nothing is to be done about those of the files.
func (i *installation) asWanted(of func(string) bool) bool {
	for p := range i.n.files {
		if _, recorded := i.r.Files[p]; !recorded && of(p) {
			return false
		}
	}
	return !slices.ContainsFunc(i.c.write, of) && !slices.ContainsFunc(i.c.remove, of)
}

// begin notes that a step is under way. What it returns is written before, or
// together with, the first thing that the step changes.
func (i *installation) begin(name string) host.Change {
	i.r.Changing = name
	return i.r.put()
}

// preflight finds everything that keeps the host from running its role.
func (i *installation) preflight(ctx context.Context) error {
	out, err := i.h.Run(ctx, "/bin/sh", "-c", probe)
	if err != nil {
		return err
	}
	if out.Code != 0 {
		return fault.Newf("run checks", fault.Internal, "exit status %d: %s", out.Code, strings.TrimSpace(out.Stderr))
	}
	return judge(out.Stdout, i.n.role, i.share().Size(), filepath.Base(i.dir))
}

func (i *installation) stage(ctx context.Context) error {
	name := i.m.Release()
	i.r.Staged = append(slices.DeleteFunc(i.r.Staged, func(s string) bool { return s == name }), name)
	if err := i.h.Change(ctx, i.begin("stage release "+name)); err != nil {
		return err
	}
	return i.h.Stage(ctx, i.dir, i.share())
}

// share is what the host has of the release.
func (i *installation) share() bundle.Share { return i.m.Share(i.n.role == roleMaster) }

func (i *installation) staged(ctx context.Context) error {
	at := path.Join(host.ReleasePath(i.m.Release()), bundle.ManifestName)
	v, err := i.h.Look(ctx, host.Query{Files: []string{at}})
	if err == nil && v.Files[at].SHA256 != i.n.digest {
		err = fault.Newf("look at "+at, fault.Internal, "it is not that of the release")
	}
	return err
}

// unstage removes the releases that were brought since.
func (i *installation) unstage(ctx context.Context) error {
	var gone []host.Change
	for _, name := range i.r.Staged {
		if !slices.Contains(i.r.Past.Staged, name) {
			gone = append(gone, host.Gone(host.ReleasePath(name)), host.Gone(host.ReleasePath(name)+".part"))
		}
	}
	i.r.Staged = slices.Clone(i.r.Past.Staged)
	return i.h.Change(ctx, append(gone, i.r.put())...)
}

func (i *installation) stop(ctx context.Context) error {
	for _, u := range i.c.stop { // the digest of one that does not run is none
		i.r.Units[u] = ""
	}
	if err := i.h.Change(ctx, i.begin("stop units that are no longer wanted")); err != nil {
		return err
	}
	for _, u := range i.c.stop {
		if err := errors.Join(i.h.StopUnit(ctx, u), i.h.EnableUnit(ctx, u, false)); err != nil {
			return err
		}
		delete(i.r.Units, u)
	}
	i.r.Order = i.n.units
	return i.save(ctx)
}

// startPast starts every unit that ran before and does not run as it did.
func (i *installation) startPast(ctx context.Context) error {
	p := i.r.Past
	v, err := i.h.Look(ctx, host.Query{Units: p.Order})
	if err != nil {
		return err
	}
	for _, u := range p.Order {
		if v.Units[u].Active && i.r.Units[u] == p.Units[u] {
			continue
		}
		providers.Note(ctx, "take back", "starts "+u)
		if v.Units[u].Alive() {
			if err := i.h.StopUnit(ctx, u); err != nil {
				return err
			}
		}
		if err := errors.Join(i.h.EnableUnit(ctx, u, true), i.h.StartUnit(ctx, u)); err != nil {
			return err
		}
	}
	i.r.Units, i.r.Order = maps.Clone(p.Units), slices.Clone(p.Order)
	return i.save(ctx)
}

// write writes those of the files.
func (i *installation) write(step string, of func(string) bool) func(context.Context) error {
	return func(ctx context.Context) error {
		i.claim(of)
		changes := []host.Change{i.begin(step)}
		var touched []string
		for _, p := range i.c.write {
			if of(p) {
				changes = append(changes, host.Put(p, i.n.files[p]))
				touched = append(touched, p)
			}
		}
		for _, p := range i.c.remove {
			if of(p) {
				changes = append(changes, former(p, i.r.Files[p]))
				delete(i.r.Files, p)
				touched = append(touched, p)
			}
		}
		if err := i.h.Change(ctx, append(changes, i.r.put())...); err != nil {
			return err
		}
		return tell(ctx, i.h, touched)
	}
}

// claim records files before they are written: a Delete then finds them all.
// Units that will start anew are none of those that were started.
func (i *installation) claim(of func(string) bool) {
	for p, f := range i.n.files {
		if !of(p) {
			continue
		}
		w := i.r.Files[p]
		if e, there := i.have[p]; there && w.fingerprint == (fingerprint{}) {
			before := e.File
			w.Before = &before
		}
		w.fingerprint = fingerprintOf(f)
		i.r.Files[p] = w
	}
	if of(resolvConf) {
		return
	}
	i.r.Order = i.n.units
	for _, u := range i.n.units {
		if slices.Contains(i.c.start, u) {
			i.r.Units[u] = ""
		}
	}
}

// former is the change that puts back what was at path before us.
func former(path string, w writtenFile) host.Change {
	if w.Before != nil {
		return host.Put(path, *w.Before)
	}
	return host.Gone(path)
}

func (i *installation) written(of func(string) bool) func(context.Context) error {
	return func(ctx context.Context) error {
		paths := slices.DeleteFunc(sortedPaths(i.n.files), not(of))
		v, err := i.h.Look(ctx, host.Query{Files: paths})
		if err != nil {
			return err
		}
		for _, p := range paths {
			if e, ok := v.Files[p]; !ok || seen(e) != fingerprintOf(i.n.files[p]) {
				return fault.Newf("look at "+p, fault.Conflict, "it is not what was written; something else on the host writes it too")
			}
		}
		return nil
	}
}

// unwrite makes each of those of the files what it was.
func (i *installation) unwrite(of func(string) bool) func(context.Context) error {
	return func(ctx context.Context) error {
		p := i.r.Past
		var changes []host.Change
		var touched []string
		paths := slices.Concat(sortedPaths(i.r.Files), sortedPaths(p.Files))
		slices.Sort(paths)
		paths = slices.DeleteFunc(slices.Compact(paths), not(of))
		v, err := i.h.Look(ctx, host.Query{Files: paths})
		if err != nil {
			return err
		}
		for _, f := range paths {
			e, there := v.Files[f]
			was, had := p.Files[f]
			switch {
			case had && there && seen(e) == fingerprintOf(was):
			case had:
				changes, touched = append(changes, host.Put(f, was)), append(touched, f)
			case p.Written[f].fingerprint != (fingerprint{}): // somebody had removed it
				changes, touched = append(changes, host.Gone(f)), append(touched, f)
			default:
				changes, touched = append(changes, former(f, i.r.Files[f])), append(touched, f)
			}
			if w, recorded := p.Written[f]; recorded {
				i.r.Files[f] = w
			} else {
				delete(i.r.Files, f)
			}
		}
		if err := i.h.Change(ctx, append(changes, i.r.put())...); err != nil {
			return err
		}
		return tell(ctx, i.h, touched)
	}
}

// tell makes the services of the machine read files of ours that are theirs
// too. A service that does not run will read them when it starts.
func tell(ctx context.Context, h host.Host, touched []string) error {
	for _, s := range []struct{ dir, unit string }{
		{"/etc/systemd/resolved.conf.d/", "systemd-resolved.service"},
		{"/etc/NetworkManager/", "NetworkManager.service"},
	} {
		if !slices.ContainsFunc(touched, func(p string) bool { return strings.HasPrefix(p, s.dir) }) {
			continue
		}
		out, err := h.Run(ctx, "systemctl", "try-reload-or-restart", s.unit)
		if err != nil {
			return err
		}
		if out.Code != 0 {
			return fault.Newf("reload "+s.unit, fault.Internal, "exit status %d: %s", out.Code, strings.TrimSpace(out.Stderr))
		}
	}
	return nil
}

func (i *installation) change(ctx context.Context) error {
	i.r.Digest, i.r.Release, i.r.Programs = i.n.digest, i.m.Release(), programsOf(i.m)
	// The record first: if only that is written, the link says that it is not
	// done.
	return i.h.Change(ctx, i.begin("switch to release "+i.m.Release()), host.Switch(i.m.Release()))
}

func (i *installation) switched(ctx context.Context) error {
	name, err := host.Current(ctx, i.h)
	if err == nil && name != i.m.Release() {
		err = fault.Newf("look at "+config.CurrentLink, fault.Conflict, "it leads to %s", name)
	}
	return err
}

func (i *installation) unswitch(ctx context.Context) error {
	p := i.r.Past
	i.r.Digest, i.r.Release, i.r.Programs = p.Digest, p.Release, p.Programs
	return i.h.Change(ctx, host.Switch(p.Release), i.r.put())
}

func (i *installation) start(ctx context.Context) error {
	for _, u := range i.c.start {
		i.r.Units[u] = ""
	}
	if err := i.h.Change(ctx, i.begin("start units")); err != nil {
		return err
	}
	for _, u := range i.c.start {
		providers.Note(ctx, "start units", u)
		if i.units[u].Alive() {
			if err := i.h.StopUnit(ctx, u); err != nil {
				return err
			}
		}
		if err := errors.Join(i.h.EnableUnit(ctx, u, true), i.h.StartUnit(ctx, u)); err != nil {
			return err
		}
		i.r.Units[u] = unitDigest(i.n, u, i.r.Programs)
	}
	return i.save(ctx)
}

// stopChanged stops what does not run as it did.
func (i *installation) stopChanged(ctx context.Context) error {
	p := i.r.Past
	for _, u := range slices.Backward(i.n.units) {
		mine := slices.Contains(p.Order, u)
		if mine && i.r.Units[u] == p.Units[u] {
			continue
		}
		if err := i.h.StopUnit(ctx, u); err != nil {
			return err
		}
		i.r.Units[u] = ""
		if !mine {
			if err := i.h.EnableUnit(ctx, u, false); err != nil {
				return err
			}
			delete(i.r.Units, u)
		}
	}
	return i.save(ctx)
}

// verify sees that the host does what it is for, and forgets the way back.
func (i *installation) verify(ctx context.Context) error {
	if err := i.comesUp(ctx); err != nil {
		return err
	}
	if i.r.Past != nil && i.r.Past.Well {
		if err := i.waitWell(ctx); err != nil {
			return err
		}
	}
	return i.settle(ctx, sortedPaths(i.n.files), i.keep())
}

// keep are the releases that stay: the one that runs and the one before. Back
// where it was, the host keeps what it had.
func (i *installation) keep() []string {
	p, now := i.r.Past, i.m.Release()
	switch {
	case p != nil && p.Release == now:
		return p.Staged
	case p != nil:
		return []string{p.Release, now}
	}
	others := slices.DeleteFunc(slices.Clone(i.r.Staged), func(s string) bool { return s == now })
	return append(others[max(len(others)-1, 0):], now)
}

func sortedPaths[T any](m map[string]T) []string { return slices.Sorted(maps.Keys(m)) }
