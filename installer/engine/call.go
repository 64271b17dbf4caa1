package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"

	"dcos.example/dcos/installer/stack"
	"dcos.example/dcos/providers"
	"dcos.example/dcos/runtime/fault"
)

// withTimeout bounds ctx by seconds, unless that is zero.
func withTimeout(ctx context.Context, seconds float64) (context.Context, context.CancelFunc) {
	if seconds <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Duration(seconds*float64(time.Second)))
}

// reporter turns a provider's progress into events of the resource.
// Steps are journalled: after a crash the stack can tell where each call was.
func (x *executor) reporter(res *stack.Resource, op Op, jop stack.Op) providers.Reporter {
	u := res.URN
	started := map[string]time.Time{}
	k := KeyOf(u)
	return func(p providers.Progress) {
		if p.Message == "" {
			x.journal.Step(jop, res, x.mask.text(p.Step), p.Done && p.Err == nil)
		}
		e := Event{Kind: EventStepStart, URN: u, Type: string(k.Type), Name: k.Name, Op: op,
			Step: x.mask.text(p.Step), Message: x.mask.text(p.Message)}
		x.mu.Lock()
		switch {
		case p.Done:
			e.Kind, e.Elapsed = EventStepEnd, time.Since(started[p.Step])
			if p.Err != nil {
				e.Error = x.mask.text(message(p.Err))
			}
		case p.Message != "":
			e.Kind = EventStepNote
		default:
			started[p.Step] = time.Now()
		}
		x.mu.Unlock()
		x.emit(e)
	}
}

// callContext is the context of one provider call.
func (x *executor) callContext(res *stack.Resource, op Op, jop stack.Op, seconds float64) (context.Context, context.CancelFunc) {
	ctx, cancel := withTimeout(x.callCtx, seconds)
	return providers.WithReporter(providers.WithStopping(ctx, x.stop.Done()), x.reporter(&stack.Resource{URN: res.URN, ID: res.ID, Type: res.Type}, op, jop)), cancel
}

func newToken() (string, error) {
	id, err := uuid.NewRandom()
	return strings.ReplaceAll(id.String(), "-", ""), err
}

// partial returns the reasons when a failed call left something worth keeping.
func (x *executor) partial(id resource.ID, status resource.Status, err error) []string {
	var ie *plugin.InitError
	if id == "" || !errors.As(err, &ie) && status != resource.StatusPartialFailure {
		return nil
	}
	reasons := []string{x.mask.text(message(err))}
	if ie != nil && len(ie.Reasons) > 0 {
		reasons = nil
		for _, r := range ie.Reasons {
			reasons = append(reasons, x.mask.text(r))
		}
	}
	return reasons
}

// create makes the object of n and records it. Old is the object it replaces,
// if that still exists.
func (x *executor) create(n *node, d decision, old *stack.Resource) (kept bool, err error) {
	op := stack.OpCreate
	if old != nil {
		op = stack.OpReplace
	}
	token := ""
	if p, ok := x.state.PendingFor(n.urn, ""); ok {
		token = p.Token // the same attempt, so that the provider can adopt
	}
	if token == "" {
		if token, err = newToken(); err != nil {
			return false, err
		}
	}
	res := &stack.Resource{Inputs: d.inputs}
	n.describe(res)
	if err := x.journal.Begin(op, res, token); err != nil {
		return false, err
	}
	ctx, cancel := x.callContext(res, n.step.Op, op, n.goal.Timeouts.Create)
	defer cancel()
	resp, err := guard(func() (plugin.CreateResponse, error) {
		return n.provider.Create(providers.WithToken(ctx, token), plugin.CreateRequest{URN: n.urn, Name: n.goal.Name,
			Type: n.goal.Type, Properties: d.inputs, Timeout: n.goal.Timeouts.Create})
	})
	if err == nil && resp.ID == "" {
		err = fault.Newf("create", fault.Internal, "the provider returned no ID")
	}
	res.ID = resp.ID
	res.Outputs = keepSecret(resp.Properties, d.inputs, n.goal.SecretOutputs)
	res.Created = time.Now().UTC()
	res.Modified = res.Created
	return x.settle(op, n, res, x.partial(resp.ID, resp.Status, err), err)
}

// update changes the object of n in place and records it.
func (x *executor) update(n *node, d decision, old *stack.Resource) (kept bool, err error) {
	res := &stack.Resource{ID: old.ID, Inputs: d.inputs, Created: old.Created}
	n.describe(res)
	if err := x.journal.Begin(stack.OpUpdate, res, ""); err != nil {
		return true, err
	}
	ctx, cancel := x.callContext(res, n.step.Op, stack.OpUpdate, n.goal.Timeouts.Update)
	defer cancel()
	resp, err := guard(func() (plugin.UpdateResponse, error) {
		return n.provider.Update(ctx, plugin.UpdateRequest{URN: n.urn, Name: n.goal.Name, Type: n.goal.Type, ID: old.ID,
			OldInputs: old.Inputs, OldOutputs: old.Outputs, NewInputs: d.inputs, IgnoreChanges: n.goal.IgnoreChanges,
			Timeout: n.goal.Timeouts.Update})
	})
	if providers.IsUntouched(err) {
		return true, errors.Join(err, x.journal.Undone(res, x.mask.text(message(err))))
	}
	res.Outputs = keepSecret(resp.Properties, d.inputs, n.goal.SecretOutputs)
	res.Modified = time.Now().UTC()
	_, err = x.settle(stack.OpUpdate, n, res, x.partial(old.ID, resp.Status, err), err)
	return true, err
}

// settle records how a create or update ended and publishes its outputs.
func (x *executor) settle(op stack.Op, n *node, res *stack.Resource, reasons []string, err error) (kept bool, _ error) {
	x.mask.learn(res.Outputs)
	if err != nil {
		res.InitErrors = reasons
		if jerr := x.journal.Failed(op, res, x.mask.text(message(err))); jerr != nil {
			err = errors.Join(err, jerr)
		}
		return len(reasons) > 0, err
	}
	if err := x.journal.Done(op, res); err != nil {
		return true, fmt.Errorf("done, but not written down: %w", err)
	}
	n.out = outputs{id: res.ID, props: res.Outputs}
	return true, nil
}

// remove deletes one object, or only forgets it.
func (x *executor) remove(r *removal) error {
	if r.adopt {
		if err := x.journal.Done(stack.OpAdopt, r.res); err != nil {
			return err
		}
	}
	if r.op == OpForget {
		return x.journal.Done(stack.OpForget, r.res)
	}
	if err := x.journal.Begin(stack.OpDelete, r.res, ""); err != nil {
		return err
	}
	prov, err := x.opts.Providers.For(r.res.Type)
	if err != nil {
		return err
	}
	ctx, cancel := x.callContext(r.res, r.step.Op, stack.OpDelete, r.res.Timeouts.Delete)
	defer cancel()
	_, err = guard(func() (plugin.DeleteResponse, error) {
		return prov.Delete(ctx, plugin.DeleteRequest{URN: r.res.URN, Name: r.res.URN.Name(), Type: r.res.Type, ID: r.res.ID,
			Inputs: r.res.Inputs, Outputs: r.res.Outputs, Timeout: r.res.Timeouts.Delete})
	})
	if err != nil {
		return errors.Join(err, x.journal.Failed(stack.OpDelete, r.res, x.mask.text(message(err))))
	}
	return x.journal.Done(stack.OpDelete, r.res)
}
