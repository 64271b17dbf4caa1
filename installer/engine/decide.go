package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"

	"dcos.example/dcos/installer/stack"
	"dcos.example/dcos/runtime/fault"
)

// decision is what it takes to bring one resource to its goal.
type decision struct {
	op          Op
	inputs      resource.PropertyMap // checked
	reason      string
	deleteFirst bool
	replaceKeys []string
	diffKeys    []string // from the provider, when no input differs
}

// decide asks the provider what it takes. Old may be nil, dry allows unknown
// inputs. It changes nothing.
func decide(ctx context.Context, st *stack.State, n *node, old *stack.Resource, in Outputs, dry bool) (decision, error) {
	var d decision
	inputs, err := n.goal.compute(in)
	if err != nil {
		return d, err
	}
	var oldInputs resource.PropertyMap
	if old != nil {
		oldInputs = old.Inputs
		inputs = ignoreChanges(inputs, oldInputs, n.goal.IgnoreChanges)
	}
	chk, err := guard(func() (plugin.CheckResponse, error) {
		return n.provider.Check(ctx, plugin.CheckRequest{URN: n.urn, Name: n.goal.Name, Type: n.goal.Type,
			Olds: oldInputs, News: inputs, AllowUnknowns: dry})
	})
	if err != nil {
		return d, fmt.Errorf("check: %w", err)
	}
	if len(chk.Failures) > 0 {
		var all []error
		for _, f := range chk.Failures {
			all = append(all, fmt.Errorf("%s: %s", f.Property, f.Reason))
		}
		return d, fault.New("check", fault.Invalid, errors.Join(all...))
	}
	d.inputs = chk.Properties
	if d.inputs == nil {
		d.inputs = resource.PropertyMap{}
	}
	if !dry && d.inputs.ContainsUnknowns() {
		return d, fault.Newf("check", fault.Internal, "inputs are still unknown although every dependency is in place")
	}
	if old == nil {
		d.op = OpCreate
		if p, ok := st.PendingFor(n.urn, ""); ok {
			d.reason = whyPending(p)
		}
		return d, nil
	}
	return n.diff(ctx, st, old, d, dry)
}

func (n *node) diff(ctx context.Context, st *stack.State, old *stack.Resource, d decision, dry bool) (decision, error) {
	diff, err := guard(func() (plugin.DiffResponse, error) {
		return n.provider.Diff(ctx, plugin.DiffRequest{URN: n.urn, Name: n.goal.Name, Type: n.goal.Type, ID: old.ID,
			OldInputs: old.Inputs, OldOutputs: old.Outputs, NewInputs: d.inputs, AllowUnknowns: dry,
			IgnoreChanges: n.goal.IgnoreChanges})
	})
	if err != nil {
		return d, fmt.Errorf("diff: %w", err)
	}
	changed := diff.Changes == plugin.DiffSome
	if diff.Changes == plugin.DiffUnknown { // the provider has no opinion
		od := old.Inputs.Diff(d.inputs)
		changed = od != nil && od.AnyChanges()
	}
	pending, unfinished := st.PendingFor(n.urn, old.ID)
	switch {
	case changed && len(diff.ReplaceKeys) > 0:
		d.op = OpReplace
		d.deleteFirst = diff.DeleteBeforeReplace || n.goal.DeleteBeforeReplace
		for _, k := range diff.ReplaceKeys {
			d.replaceKeys = append(d.replaceKeys, string(k))
		}
		slices.Sort(d.replaceKeys)
	case changed:
		d.op = OpUpdate
	case len(old.InitErrors) > 0:
		d.op, d.reason = OpUpdate, "finish what an earlier apply could not: "+firstLine(old.InitErrors[0])
	case unfinished:
		d.op, d.reason = OpUpdate, whyPending(pending)
	default:
		d.op = OpSame
	}
	if d.op != OpSame {
		d.diffKeys = slices.Sorted(maps.Keys(diff.DetailedDiff))
	}
	return d, nil
}

func whyPending(p stack.Pending) string {
	if p.Error != "" {
		return fmt.Sprintf("an earlier %s failed: %s", p.Op, p.Error)
	}
	return fmt.Sprintf("an earlier %s was interrupted", p.Op)
}

// compute calls the goal's input function; reading an undeclared dependency is
// a bug of the caller that must not take the engine down in mid-flight.
func (g Goal) compute(in Outputs) (resource.PropertyMap, error) {
	if g.Inputs == nil {
		return resource.PropertyMap{}, nil
	}
	m, err := guard(func() (resource.PropertyMap, error) { return g.Inputs(in) })
	if err != nil {
		return nil, fmt.Errorf("compute inputs: %w", err)
	}
	if m == nil {
		m = resource.PropertyMap{}
	}
	return m, nil
}

func ignoreChanges(inputs, old resource.PropertyMap, keys []string) resource.PropertyMap {
	if len(keys) == 0 {
		return inputs
	}
	inputs = maps.Clone(inputs)
	for _, name := range keys {
		k := resource.PropertyKey(name)
		if v, ok := old[k]; ok {
			inputs[k] = v
		} else {
			delete(inputs, k)
		}
	}
	return inputs
}

// guard turns a panic in f, which is somebody else's code, into an error.
func guard[T any](f func() (T, error)) (out T, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fault.Newf("call", fault.Internal, "panic: %v", p)
		}
	}()
	return f()
}

// recorded reports whether the state must be written although the object is as
// wanted: the goal's options, its dependencies or inputs that do not matter to
// the provider are new.
func (n *node) recorded(old *stack.Resource, inputs resource.PropertyMap) (*stack.Resource, bool) {
	r := *old
	n.describe(&r)
	r.Inputs = inputs
	same := r.Protect == old.Protect && r.Retain == old.Retain && r.Timeouts == old.Timeouts &&
		slices.Equal(r.Dependencies, old.Dependencies) && slices.Equal(r.SecretOutputs, old.SecretOutputs) &&
		inputs.DeepEquals(old.Inputs)
	if !same {
		r.Outputs = keepSecret(r.Outputs, r.Inputs, r.SecretOutputs)
	}
	return &r, !same
}

// describe copies the goal's options into the record.
func (n *node) describe(r *stack.Resource) {
	r.URN, r.Type = n.urn, n.goal.Type
	r.Protect, r.Retain, r.Timeouts = n.goal.Protect, n.goal.Retain, n.goal.Timeouts
	r.SecretOutputs = n.goal.SecretOutputs
	r.Dependencies = nil
	for _, d := range n.deps {
		r.Dependencies = append(r.Dependencies, d.urn)
	}
	slices.Sort(r.Dependencies)
}

// firstLine is the part of a reason that fits into a list.
func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}
