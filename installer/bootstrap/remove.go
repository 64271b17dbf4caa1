package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/providers"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
)

// stopTime is how long units may take to stop when a node is removed. It is
// more than their own limit (TimeoutStopSec), at which they are killed.
const stopTime = 40 * time.Second

// leaveTime is how long the other masters may take to let one go. It is more
// than they take by themselves.
const leaveTime = 70 * time.Second

// uninstall leaves the host as it was found. A local host is simply taken out
// of use, as its disk goes with it: one that is gone needs nothing, and one
// that is down is left, since destroying a cluster must not need every host to
// work. Any other machine goes on without us, so it has to be reached.
func (p *Provider) uninstall(ctx context.Context, n node) error {
	h, err := p.o.Open(ctx, n.ref)
	if n.ref.Kind == host.KindLocal && (fault.Is(err, fault.NotFound) || fault.Is(err, fault.Unavailable)) {
		return nil
	}
	if errors.Is(err, host.ErrOther) {
		providers.Note(ctx, "remove", "another machine answers at "+n.ref.SSH.Endpoint()+"; the one that was installed is not touched")
		return nil
	}
	if err != nil {
		return p.behind(ctx, n, err)
	}
	v, r, err := observe(ctx, h, n)
	if fault.Is(err, fault.Conflict) { // another machine, installed anew in its place
		providers.Note(ctx, "remove", "another machine answers at "+n.ref.SSH.Endpoint()+"; the one that was installed is not touched")
		return nil
	}
	if err != nil {
		return p.behind(ctx, n, err)
	}
	if !r.found && !slices.ContainsFunc(trees, func(d string) bool { return v.Dirs[d] != nil }) {
		return nil
	}
	u := removal{p: p, h: h, n: n, r: r, whole: n.ref.Kind != host.KindLocal && r.found}
	for _, s := range u.steps() {
		if s.skip {
			continue
		}
		done := providers.Step(ctx, s.name)
		if err := done(s.do(ctx)); err != nil {
			if fault.Is(err, fault.Unavailable) && ctx.Err() == nil {
				return p.behind(ctx, n, fmt.Errorf("%s: %w", s.name, err))
			}
			return fault.Newf(s.name, fault.KindOf(err), "%w\nWhat is done is done. Repair the cause and run the same command again; it goes on here.", err)
		}
	}
	return nil
}

// behind is the error of an uninstall that does not reach the host. The host
// stays in the record, unless the operator gives it up.
func (p *Provider) behind(ctx context.Context, n node, err error) error {
	name := n.ref.Name
	hand := "systemctl disable --now " + strings.Join(slices.Collect(reversed(n.units)), " ") + "; rm -rf " + strings.Join(trees, " ")
	if p.o.Abandon != nil && p.o.Abandon(name) && (fault.Is(err, fault.Unavailable) || fault.Is(err, fault.NotFound) || fault.Is(err, fault.Denied)) {
		providers.Note(ctx, "remove", "given up: what is installed there stays. By hand, as root on that machine: "+hand)
		return nil
	}
	return fault.Newf("remove from host "+name, fault.KindOf(err), "%w\nHost %[2]s is left behind: what is installed there stays, and so does its record here. You can\n"+
		"  try again: make it reachable and run the same command again\n"+
		"  give it up: run the same command with -abandon %[2]s; if the machine still lives, as root on it:\n    %[3]s", err, name, hand)
}

func reversed(s []string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for _, x := range slices.Backward(s) {
			if !yield(x) {
				return
			}
		}
	}
}

// removal takes one node off its host.
type removal struct {
	p     *Provider
	h     host.Host
	n     node
	r     record
	whole bool // also what the daemons left
}

func (u *removal) steps() []step {
	return []step{
		{name: "leave the masters", skip: u.n.role != roleMaster || u.r.Digest == "" || u.p.o.Destroy, do: u.leave},
		{name: "reset the resolver", do: u.restore(resolves)}, // while ours still answers
		{name: "stop units", do: u.stop},
		{name: "end what the daemons left", skip: !u.whole || u.r.Digest == "", do: u.clean},
		{name: "restore files", do: u.restore(not(resolves))},
		{name: "remove the release", do: u.release},
		{name: "remove data", skip: !u.whole, do: u.data},
		{name: "forget", do: u.forget},
	}
}

// leave takes a master out of the masters' list while it can still say so. The
// others may refuse to lose it.
func (u *removal) leave(ctx context.Context) error {
	const step = "leave the masters"
	// Of two that leave at once, one finds itself without a majority.
	select {
	case u.p.leave <- struct{}{}:
		defer func() { <-u.p.leave }()
	case <-ctx.Done():
		return fault.New(step, fault.Unavailable, context.Cause(ctx))
	}
	bounded, cancel := context.WithTimeoutCause(ctx, leaveTime, errors.New("the other masters do not answer"))
	defer cancel()
	out, err := u.h.Run(bounded, config.CurrentLink+"/bin/dcosd", "members", "leave")
	switch {
	case err != nil && bounded.Err() != nil && ctx.Err() == nil:
		err = context.Cause(bounded)
	case err != nil:
		return err
	case out.Code == 0:
		return nil
	case out.Code != statusNot:
		providers.Note(ctx, step, "its release does not know how; the others are told by their configuration")
		return nil
	default:
		err = errors.New(strings.TrimSpace(out.Stderr))
	}
	name := u.n.ref.Name
	if u.p.o.Abandon != nil && u.p.o.Abandon(name) {
		providers.Note(ctx, step, "it could not, and is taken away all the same: "+err.Error())
		return nil
	}
	return fault.Newf("ask the other masters", fault.Conflict, "%w\nTo take %s away all the same, run the same command with -abandon %s.", err, name, name)
}

func (u *removal) stop(ctx context.Context) error {
	bounded, cancel := context.WithTimeoutCause(ctx, stopTime, fmt.Errorf("it does not stop within %s", stopTime))
	defer cancel()
	var errs []error
	units := slices.Clone(u.r.Order)
	for _, name := range sortedPaths(u.r.Units) {
		if !slices.Contains(units, name) {
			units = append(units, name)
		}
	}
	for _, name := range slices.Backward(units) {
		errs = append(errs, u.h.StopUnit(bounded, name), u.h.EnableUnit(ctx, name, false))
	}
	return errors.Join(errs...)
}

// clean ends containers, networks and rules that outlive the daemons.
func (u *removal) clean(ctx context.Context) error {
	out, err := u.h.Run(ctx, config.CurrentLink+"/bin/dcosd", "clean")
	if err != nil {
		return err
	}
	if out.Code == statusNot {
		return fault.Newf("run dcosd clean", fault.Internal, "%s", strings.TrimSpace(out.Stderr))
	}
	return nil // a release that does not know it, or none that can run
}

func (u *removal) restore(of func(string) bool) func(context.Context) error {
	return func(ctx context.Context) error {
		paths := slices.DeleteFunc(sortedPaths(u.r.Files), not(of))
		var changes []host.Change
		for _, p := range paths {
			changes = append(changes, former(p, u.r.Files[p]))
		}
		if err := u.h.Change(ctx, changes...); err != nil {
			return err
		}
		return tell(ctx, u.h, paths)
	}
}

func (u *removal) release(ctx context.Context) error {
	changes := []host.Change{host.Gone(config.CurrentLink)}
	for _, name := range u.r.Staged {
		changes = append(changes, host.Gone(host.ReleasePath(name)), host.Gone(host.ReleasePath(name)+".part"))
	}
	return u.h.Change(ctx, changes...)
}

// data removes everything in our directories that was not there before us, and
// the directories that we made; the record stays to the end.
func (u *removal) data(ctx context.Context) error {
	v, err := u.h.Look(ctx, host.Query{Dirs: trees})
	if err != nil {
		return err
	}
	var gone []host.Change
	for _, dir := range trees {
		if dir != config.VarDir && slices.Contains(u.r.Made, dir) {
			gone = append(gone, host.Gone(dir))
			continue
		}
		for _, name := range v.Dirs[dir] {
			at := path.Join(dir, name)
			if at != recordPath && !slices.Contains(u.r.Kept[dir], name) {
				gone = append(gone, host.Gone(at))
			}
		}
	}
	if err := u.h.Change(ctx, gone...); err != nil {
		return err
	}
	// What others put into directories that we made is theirs.
	var made []string
	for _, dir := range u.r.Made {
		if !slices.Contains(trees, dir) && !strings.HasPrefix(config.VarDir, dir+"/") {
			made = append(made, dir)
		}
	}
	return rmdirs(ctx, u.h, made)
}

// forget removes the record: until then an uninstall can be repeated.
func (u *removal) forget(ctx context.Context) error {
	if u.whole && slices.Contains(u.r.Made, config.VarDir) {
		return u.h.Change(ctx, host.Gone(config.VarDir))
	}
	return u.h.Change(ctx, host.Gone(recordPath))
}
