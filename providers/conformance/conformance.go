// Package conformance holds a provider to the contract in package providers:
// the same suite for every provider and every type it serves.
package conformance

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/urn"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"

	"dcos.example/dcos/providers"
)

// Subject is a provider with a world of its own, and goals to try it on.
type Subject struct {
	Provider providers.Provider
	Type     tokens.Type
	Name     string
	// Inputs make a valid object. Put a secret into them if the type takes one.
	Inputs resource.PropertyMap
	// Update differs from Inputs in what is changed in place; nil if the type
	// has nothing like that.
	Update resource.PropertyMap
	// Replace differs from Inputs in what takes a new object; nil likewise.
	Replace resource.PropertyMap
	// Count returns how many objects of that URN exist, finished or not, by
	// looking at the world and not through the provider. nil: the type makes
	// nothing that could be counted.
	Count func(t *testing.T, u resource.URN) int
	// Vanish removes an object behind the provider's back. When nil, Delete does
	// it.
	Vanish func(t *testing.T, id resource.ID)
}

// Run runs the suite. New is called for every case and returns a subject whose
// world is empty.
func Run(t *testing.T, new func(t *testing.T) Subject) {
	for _, c := range []struct {
		name string
		run  func(*run)
	}{
		{"create, read, nothing to do", (*run).createReadNoop},
		{"create again adopts", (*run).createAgain},
		{"update", (*run).update},
		{"replace", (*run).replace},
		{"delete again", (*run).deleteAgain},
		{"create was cancelled, try again", (*run).cancelledThenCreated},
		{"create was cancelled, clean up", (*run).cancelledThenRemoved},
		{"vanished", (*run).vanished},
		{"nothing there", (*run).nothingThere},
		{"unknown inputs", (*run).unknownInputs},
		{"preview changes nothing", (*run).previewChangesNothing},
		{"secrets stay marked", (*run).secretsStayMarked},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := new(t)
			c.run(&run{T: t, Subject: s, urn: urn.New("conformance", "dcos", "", s.Type, s.Name), ctx: t.Context()})
		})
	}
}

const (
	token1 = "11111111111111111111111111111111"
	token2 = "22222222222222222222222222222222"
)

type run struct {
	*testing.T
	Subject
	urn resource.URN
	ctx context.Context
}

func (r *run) check(old, in resource.PropertyMap, unknowns bool) resource.PropertyMap {
	r.Helper()
	resp, err := r.Provider.Check(r.ctx, plugin.CheckRequest{URN: r.urn, Name: r.Name, Type: r.Type, Olds: old, News: in, AllowUnknowns: unknowns})
	if err != nil || len(resp.Failures) > 0 {
		r.Fatalf("check: %v %v", err, resp.Failures)
	}
	return resp.Properties
}

func (r *run) tryCreate(ctx context.Context, token string, in resource.PropertyMap) (plugin.CreateResponse, error) {
	return r.Provider.Create(providers.WithToken(ctx, token), plugin.CreateRequest{URN: r.urn, Name: r.Name, Type: r.Type, Properties: in})
}

func (r *run) create(token string, in resource.PropertyMap) plugin.CreateResponse {
	r.Helper()
	resp, err := r.tryCreate(r.ctx, token, in)
	if err != nil || resp.ID == "" {
		r.Fatalf("create: ID %q, %v", resp.ID, err)
	}
	if resp.Properties.ContainsUnknowns() {
		r.Fatalf("create returns unknown outputs: %v", resp.Properties)
	}
	return resp
}

func (r *run) read(id resource.ID, in, out resource.PropertyMap) plugin.ReadResponse {
	r.Helper()
	resp, err := r.Provider.Read(r.ctx, plugin.ReadRequest{URN: r.urn, Name: r.Name, Type: r.Type, ID: id, Inputs: in, State: out})
	if err != nil {
		r.Fatalf("read %q: %v", id, err)
	}
	return resp
}

func (r *run) diff(id resource.ID, old, out, in resource.PropertyMap, unknowns bool) plugin.DiffResponse {
	r.Helper()
	d, err := r.Provider.Diff(r.ctx, plugin.DiffRequest{URN: r.urn, Name: r.Name, Type: r.Type, ID: id,
		OldInputs: old, OldOutputs: out, NewInputs: in, AllowUnknowns: unknowns})
	if err != nil {
		r.Fatalf("diff: %v", err)
	}
	return d
}

func (r *run) change(id resource.ID, old, out, in resource.PropertyMap) resource.PropertyMap {
	r.Helper()
	resp, err := r.Provider.Update(r.ctx, plugin.UpdateRequest{URN: r.urn, Name: r.Name, Type: r.Type, ID: id,
		OldInputs: old, OldOutputs: out, NewInputs: in})
	if err != nil {
		r.Fatalf("update: %v", err)
	}
	return resp.Properties
}

func (r *run) delete(id resource.ID, in, out resource.PropertyMap) {
	r.Helper()
	_, err := r.Provider.Delete(r.ctx, plugin.DeleteRequest{URN: r.urn, Name: r.Name, Type: r.Type, ID: id, Inputs: in, Outputs: out})
	if err != nil {
		r.Fatalf("delete %q: %v", id, err)
	}
}

func (r *run) count(want int, when string) {
	r.Helper()
	if r.Count == nil {
		return
	}
	if got := r.Count(r.T, r.urn); got != want {
		r.Fatalf("%s there are %d objects, want %d", when, got, want)
	}
}

// unchanged checks that by the provider's own word nothing is to be done.
func (r *run) unchanged(id resource.ID, in, out resource.PropertyMap, when string) {
	r.Helper()
	if d := r.diff(id, in, out, r.check(in, in, false), false); d.Changes == plugin.DiffSome {
		r.Fatalf("%s something is to be done: %+v", when, d)
	}
	now := r.read(id, in, out)
	if now.ID != id {
		r.Fatalf("%s read finds %q, want %q", when, now.ID, id)
	}
	if now.Inputs == nil {
		return
	}
	if d := r.diff(id, now.Inputs, now.Outputs, revealLike(now.Inputs, in), false); d.Changes == plugin.DiffSome {
		r.Fatalf("%s what is read differs from what was wanted: %+v\nread %v\nwant %v", when, d.DetailedDiff, now.Inputs, in)
	}
}

// revealLike takes the mark of secrecy off what was read without it, as the
// engine puts it on.
func revealLike(read, want resource.PropertyMap) resource.PropertyMap {
	out := maps.Clone(want)
	for k, v := range want {
		if v.IsSecret() && !read[k].IsSecret() {
			out[k] = v.SecretValue().Element
		}
	}
	return out
}

func (r *run) createReadNoop() {
	in := r.check(nil, r.Inputs, false)
	r.count(0, "after check")
	c := r.create(token1, in)
	r.count(1, "after create")
	r.unchanged(c.ID, in, c.Properties, "after create")
	if now := r.read(c.ID, in, c.Properties); now.Outputs != nil && len(now.Outputs) < len(c.Properties) {
		r.Errorf("read returns fewer outputs than create: %v, was %v", now.Outputs, c.Properties)
	}
	again := r.check(in, r.Inputs, false)
	if !again.DeepEquals(in) {
		r.Errorf("check is not stable: %v, then %v", in, again)
	}
	r.delete(c.ID, in, c.Properties)
	r.count(0, "after delete")
}

func (r *run) createAgain() {
	in := r.check(nil, r.Inputs, false)
	a := r.create(token1, in)
	b := r.create(token1, in)
	if a.ID != b.ID {
		r.Errorf("the second create returns %q, the first %q", b.ID, a.ID)
	}
	if !a.Properties.DeepEquals(b.Properties) {
		r.Errorf("the second create returns %v, the first %v", b.Properties, a.Properties)
	}
	r.count(1, "after two creates")
	if r.Update != nil { // tried again with other inputs
		other := r.check(nil, r.Update, false)
		c := r.create(token1, other)
		r.count(1, "after a create with other inputs")
		r.unchanged(c.ID, other, c.Properties, "after a create with other inputs")
		a = c
	}
	r.delete(a.ID, in, a.Properties)
	r.count(0, "after delete")
}

func (r *run) update() {
	if r.Update == nil {
		r.Log("the type has nothing to update in place")
		return
	}
	in := r.check(nil, r.Inputs, false)
	c := r.create(token1, in)
	next := r.check(in, r.Update, false)
	d := r.diff(c.ID, in, c.Properties, next, false)
	if d.Changes != plugin.DiffSome || len(d.ReplaceKeys) > 0 {
		r.Fatalf("diff says %+v, want an update in place", d)
	}
	out := r.change(c.ID, in, c.Properties, next)
	r.count(1, "after update")
	r.unchanged(c.ID, next, out, "after update")
	// Again, as after a crash: with the old inputs out of date, and with both equal.
	out = r.change(c.ID, in, c.Properties, next)
	out = r.change(c.ID, next, out, next)
	r.unchanged(c.ID, next, out, "after update twice more")
	r.delete(c.ID, next, out)
	r.count(0, "after delete")
}

func (r *run) replace() {
	if r.Replace == nil {
		r.Log("nothing replaces this type")
		return
	}
	in := r.check(nil, r.Inputs, false)
	a := r.create(token1, in)
	next := r.check(in, r.Replace, false)
	d := r.diff(a.ID, in, a.Properties, next, false)
	if d.Changes != plugin.DiffSome || len(d.ReplaceKeys) == 0 {
		r.Fatalf("diff says %+v, want a replacement", d)
	}
	if d.DeleteBeforeReplace {
		r.delete(a.ID, in, a.Properties)
		r.count(0, "after delete before replace")
	}
	b := r.create(token2, next)
	if !d.DeleteBeforeReplace {
		if a.ID == b.ID {
			r.Fatalf("the replacement has the ID of the old object: %q", a.ID)
		}
		r.count(2, "while both exist")
		r.unchanged(a.ID, in, a.Properties, "while both exist, the old one:")
		r.delete(a.ID, in, a.Properties)
	}
	r.count(1, "after replace")
	r.unchanged(b.ID, next, b.Properties, "after replace")
	r.delete(b.ID, next, b.Properties)
	r.count(0, "after delete")
}

func (r *run) deleteAgain() {
	in := r.check(nil, r.Inputs, false)
	c := r.create(token1, in)
	r.delete(c.ID, in, c.Properties)
	r.delete(c.ID, in, c.Properties)
	r.count(0, "after two deletes")
	c = r.create(token2, in)
	r.count(1, "after making it anew")
	r.delete(c.ID, in, c.Properties)
	r.count(0, "after the last delete")
}

// cancelAt runs a create whose context ends when its n-th step starts, and
// reports whether there was such a step.
func (r *run) cancelAt(n int, in resource.PropertyMap) bool {
	ctx, cancel := context.WithCancelCause(r.ctx)
	defer cancel(nil)
	started := 0
	if n == 0 {
		cancel(errors.New("cancelled before the first step"))
	}
	ctx = providers.WithReporter(ctx, func(p providers.Progress) {
		if p.Done || p.Message != "" {
			return
		}
		if started++; started == n {
			cancel(fmt.Errorf("cancelled at step %d, %s", n, p.Step))
		}
	})
	if _, err := r.tryCreate(ctx, token1, in); err == nil && n == 0 {
		r.Log("create does not look at its context")
	}
	return n == 0 || started >= n
}

func (r *run) cancelledThenCreated() {
	in := r.check(nil, r.Inputs, false)
	for n := 0; r.cancelAt(n, in); n++ {
		c := r.create(token1, in)
		r.count(1, fmt.Sprintf("after a create cancelled at step %d and one more", n))
		r.unchanged(c.ID, in, c.Properties, "after the second create")
		r.delete(c.ID, in, c.Properties)
		r.count(0, "after delete")
	}
	if c := r.find(token1, in); c != "" { // the one that was not cancelled
		r.delete(c, in, nil)
	}
	r.count(0, "at the end")
}

// find asks what a create with that token left.
func (r *run) find(token string, in resource.PropertyMap) resource.ID {
	r.Helper()
	resp, err := r.Provider.Read(providers.WithToken(r.ctx, token), plugin.ReadRequest{URN: r.urn, Name: r.Name, Type: r.Type, Inputs: in})
	if err != nil {
		r.Fatalf("read without ID: %v", err)
	}
	return resp.ID
}

func (r *run) cancelledThenRemoved() {
	in := r.check(nil, r.Inputs, false)
	for n := 0; ; n++ {
		more := r.cancelAt(n, in)
		if id := r.find(token1, in); id != "" {
			r.delete(id, in, nil)
		}
		r.count(0, fmt.Sprintf("after a create cancelled at step %d, a read without ID and a delete", n))
		if !more {
			return
		}
	}
}

func (r *run) vanished() {
	in := r.check(nil, r.Inputs, false)
	c := r.create(token1, in)
	if r.Vanish != nil {
		r.Vanish(r.T, c.ID)
	} else {
		r.delete(c.ID, in, c.Properties)
	}
	if now := r.read(c.ID, in, c.Properties); now.ID != "" {
		r.Errorf("read finds %q after it vanished", now.ID)
	}
	r.delete(c.ID, in, c.Properties)
	c = r.create(token2, in)
	r.count(1, "after making it anew")
	r.delete(c.ID, in, c.Properties)
	r.count(0, "after delete")
}

func (r *run) nothingThere() {
	in := r.check(nil, r.Inputs, false)
	if id := r.find(token1, in); id != "" {
		r.Errorf("read without ID finds %q in an empty world", id)
	}
}

func (r *run) unknownInputs() {
	in := r.check(nil, r.Inputs, false)
	c := r.create(token1, in)
	for _, key := range slices.Sorted(maps.Keys(r.Inputs)) {
		some := maps.Clone(r.Inputs)
		some[key] = providers.Unknown()
		fresh := r.check(nil, some, true)
		if _, err := r.Provider.Create(r.ctx, plugin.CreateRequest{URN: r.urn, Name: r.Name, Type: r.Type, Properties: fresh, Preview: true}); err != nil {
			r.Errorf("preview of create with unknown %s: %v", key, err)
		}
		next := r.check(in, some, true)
		if d := r.diff(c.ID, in, c.Properties, next, true); d.Changes != plugin.DiffSome {
			r.Errorf("unknown %s is not a change: %+v", key, d)
		}
		if _, err := r.Provider.Update(r.ctx, plugin.UpdateRequest{URN: r.urn, Name: r.Name, Type: r.Type, ID: c.ID,
			OldInputs: in, OldOutputs: c.Properties, NewInputs: next, Preview: true}); err != nil {
			r.Errorf("preview of update with unknown %s: %v", key, err)
		}
	}
	r.count(1, "after previews")
	r.unchanged(c.ID, in, c.Properties, "after previews")
	r.delete(c.ID, in, c.Properties)
}

func (r *run) previewChangesNothing() {
	in := r.check(nil, r.Inputs, false)
	pre, err := r.Provider.Create(r.ctx, plugin.CreateRequest{URN: r.urn, Name: r.Name, Type: r.Type, Properties: in, Preview: true})
	if err != nil {
		r.Fatalf("preview of create: %v", err)
	}
	r.count(0, "after the preview of a create")
	c := r.create(token1, in)
	for k, v := range pre.Properties {
		if !v.ContainsUnknowns() && !v.DeepEquals(c.Properties[k]) {
			r.Errorf("preview foretold %s = %v, create returned %v", k, v, c.Properties[k])
		}
	}
	if r.Update != nil {
		next := r.check(in, r.Update, false)
		pre, err := r.Provider.Update(r.ctx, plugin.UpdateRequest{URN: r.urn, Name: r.Name, Type: r.Type, ID: c.ID,
			OldInputs: in, OldOutputs: c.Properties, NewInputs: next, Preview: true})
		if err != nil {
			r.Fatalf("preview of update: %v", err)
		}
		r.unchanged(c.ID, in, c.Properties, "after the preview of an update")
		out := r.change(c.ID, in, c.Properties, next)
		for k, v := range pre.Properties {
			if !v.ContainsUnknowns() && !v.DeepEquals(out[k]) {
				r.Errorf("preview foretold %s = %v, update returned %v", k, v, out[k])
			}
		}
		in, c.Properties = next, out
	}
	r.delete(c.ID, in, c.Properties)
	r.count(0, "after delete")
}

func (r *run) secretsStayMarked() {
	in := r.check(nil, r.Inputs, false)
	var secrets []string
	for _, v := range r.Inputs {
		if v.IsSecret() && v.SecretValue().Element.IsString() {
			secrets = append(secrets, v.SecretValue().Element.StringValue())
		}
	}
	for k, v := range r.Inputs {
		if v.IsSecret() && !in[k].IsSecret() {
			r.Errorf("check takes the mark off the secret %s", k)
		}
	}
	c := r.create(token1, in)
	for k, v := range c.Properties {
		for _, s := range secrets {
			if !v.ContainsSecrets() && strings.Contains(v.String(), s) {
				r.Errorf("the output %s holds a secret without the mark", k)
			}
		}
	}
	r.delete(c.ID, in, c.Properties)
}
