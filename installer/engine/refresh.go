package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"

	"dcos.example/dcos/installer/stack"
	"dcos.example/dcos/runtime/fault"
)

// sighting is what a read found: the resource as it is, or that it is gone.
type sighting struct {
	res   *stack.Resource
	op    stack.Op // OpRecord or OpForget
	drift Drift
}

// observe reads the chosen resources in parallel and returns what differs from
// the record, sorted by URN.
func observe(ctx context.Context, o *Options, k *mask, rs []*stack.Resource) ([]sighting, error) {
	var (
		mu       sync.Mutex
		wg       sync.WaitGroup
		found    []sighting
		problems []error
	)
	slots := make(chan struct{}, o.Parallel)
	for _, r := range rs {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			s, err := read(ctx, o, r)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				problems = append(problems, k.fault("read "+KeyOf(r.URN).String(), err))
			} else if s != nil {
				k.learn(s.res.Outputs)
				found = append(found, *s)
			}
		})
	}
	wg.Wait()
	if len(problems) > 0 {
		return nil, fault.New("refresh", fault.KindOf(problems[0]), errors.Join(problems...))
	}
	slices.SortFunc(found, func(a, b sighting) int { return cmp.Compare(a.res.URN, b.res.URN) })
	return found, nil
}

// read returns nil when the object is as recorded.
func read(ctx context.Context, o *Options, r *stack.Resource) (*sighting, error) {
	if err := ctx.Err(); err != nil {
		return nil, fault.New("refresh", fault.Unavailable, err)
	}
	prov, err := o.Providers.For(r.Type)
	if err != nil {
		return nil, err
	}
	ctx, cancel := withTimeout(ctx, r.Timeouts.Read)
	defer cancel()
	resp, err := guard(func() (plugin.ReadResponse, error) {
		return prov.Read(ctx, plugin.ReadRequest{URN: r.URN, Name: r.URN.Name(), Type: r.Type, ID: r.ID,
			Inputs: r.Inputs, State: r.Outputs, Timeout: r.Timeouts.Read})
	})
	if err != nil {
		return nil, err
	}
	if resp.ID == "" {
		return &sighting{res: r, op: stack.OpForget, drift: Drift{URN: r.URN, Gone: true}}, nil
	}
	if resp.ID != r.ID {
		return nil, fault.Newf("read", fault.Internal, "the provider answered for %q when asked for %q", resp.ID, r.ID)
	}
	now := *r
	if resp.Inputs != nil {
		now.Inputs = likeSecrets(resp.Inputs, r.Inputs)
	}
	if resp.Outputs != nil {
		now.Outputs = keepSecret(likeSecrets(resp.Outputs, r.Outputs), now.Inputs, r.SecretOutputs)
	}
	if now.Inputs.DeepEquals(r.Inputs) && now.Outputs.DeepEquals(r.Outputs) {
		return nil, nil
	}
	changes := changesBetween(r.Inputs, now.Inputs)
	for _, c := range changesBetween(r.Outputs, now.Outputs) {
		c.Path = "output " + c.Path
		changes = append(changes, c)
	}
	return &sighting{res: &now, op: stack.OpRecord, drift: Drift{URN: r.URN, Changes: changes}}, nil
}

// likeSecrets marks as secret what is secret in the record: what a provider
// reads back it does not know to be one.
func likeSecrets(read, record resource.PropertyMap) resource.PropertyMap {
	if !record.ContainsSecrets() {
		return read
	}
	out := make(resource.PropertyMap, len(read))
	for k, v := range read {
		out[k] = likeSecret(v, record[k])
	}
	return out
}

func likeSecret(v, record resource.PropertyValue) resource.PropertyValue {
	switch {
	case v.IsSecret():
		return v
	case record.IsSecret():
		return resource.MakeSecret(v)
	case v.IsObject() && record.IsObject():
		return resource.NewProperty(likeSecrets(v.ObjectValue(), record.ObjectValue()))
	case v.IsArray() && record.IsArray():
		out := slices.Clone(v.ArrayValue())
		for i := range out {
			if i < len(record.ArrayValue()) {
				out[i] = likeSecret(out[i], record.ArrayValue()[i])
			}
		}
		return resource.NewProperty(out)
	}
	return v
}

// toRead returns the resources to look at before planning: all of them when
// asked, else those whose deletion began and which are wanted again, because
// nobody knows whether they are still there.
func toRead(o *Options, st *stack.State, stackName string, goals []Goal) []*stack.Resource {
	if o.Refresh {
		return st.Resources()
	}
	wanted := map[resource.URN]bool{}
	for _, g := range goals {
		wanted[g.URN(stackName)] = true
	}
	var rs []*stack.Resource
	for _, p := range st.Pending() {
		if r := st.Live(p.URN); p.Op == stack.OpDelete && r != nil && r.ID == p.ID && wanted[p.URN] {
			rs = append(rs, r)
		}
	}
	return rs
}

// driftMap indexes what was seen, for the reasons in the plan.
func driftMap(found []sighting) map[resource.URN]Drift {
	m := make(map[resource.URN]Drift, len(found))
	for _, s := range found {
		m[s.drift.URN] = s.drift
	}
	return m
}

func (d Drift) String() string {
	if d.Gone {
		return fmt.Sprintf("%s is gone", KeyOf(d.URN))
	}
	return fmt.Sprintf("%s differs in %d places", KeyOf(d.URN), len(d.Changes))
}
