package engine

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"dcos.example/dcos/runtime/api/marathon"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/orchestrator/deployment"
	"dcos.example/dcos/runtime/orchestrator/spec"
)

// CreateGroup adds a group that does not exist yet.
func (e *Engine) CreateGroup(ctx context.Context, base spec.AppID, body []byte, force bool) (spec.AppID, marathon.DeploymentResult, error) {
	g, err := spec.ParseGroup(body)
	if err != nil {
		return "", marathon.DeploymentResult{}, err
	}
	id := spec.ParseID(g.ID, base)
	r, err := e.alter(ctx, force, func(c *change) error {
		if _, ok := e.tree.Group(id); ok {
			return fault.New("create group", fault.Exists, fmt.Errorf("Group %s is already created. Use PUT to change this group.", id))
		}
		if e.tree.App(id) != nil {
			return fault.New("create group", fault.Exists, fmt.Errorf("An app with the path %s already exists.", id))
		}
		c.Change, err = e.tree.GroupChange(id, g, e.cfg.Policy, c.version)
		return err
	})
	return id, r, err
}

// UpdateGroup makes a group what body says: a definition, {"scaleBy": f} or
// {"version": v}. With dryRun nothing changes and the steps are returned.
func (e *Engine) UpdateGroup(ctx context.Context, id spec.AppID, body []byte, force, dryRun bool) (marathon.DeploymentResult, []marathon.Step, error) {
	g, err := spec.ParseGroup(body)
	if err != nil {
		return marathon.DeploymentResult{}, nil, err
	}
	if g.ID != "" {
		if given := spec.ParseID(g.ID, id.Parent()); given != id {
			return marathon.DeploymentResult{}, nil, fault.New("update group", fault.Invalid, &spec.Problems{
				Details: []marathon.Detail{{Path: "/id", Errors: []string{fmt.Sprintf("%s is not the group of the request, %s", given, id)}}},
			})
		}
	}
	var past map[spec.AppID]*marathon.App
	if g.Version != "" {
		if past, err = e.groupAt(ctx, id, g.Version); err != nil {
			return marathon.DeploymentResult{}, nil, err
		}
	}
	build := func(c *change) error {
		_, exists := e.tree.Group(id)
		switch {
		case g.Version != "":
			for _, app := range e.tree.AppsBelow(id) {
				c.Apps[app] = nil
			}
			for app, a := range past {
				c.Apps[app] = spec.Clone(a)
			}
			return nil
		case g.ScaleBy != nil && !exists:
			return groupMissing(id)
		case g.ScaleBy != nil:
			if *g.ScaleBy < 0 {
				return fault.Newf("scale group", fault.Invalid, "scaleBy must be 0 or more")
			}
			c.Change = e.tree.Scale(id, *g.ScaleBy)
			return nil
		}
		c.Change, err = e.tree.GroupChange(id, g, e.cfg.Policy, c.version)
		return err
	}
	if !dryRun {
		r, err := e.alter(ctx, force, build)
		return r, nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	c := newChange(e.stamp(), force)
	if err := build(c); err != nil {
		return marathon.DeploymentResult{}, nil, err
	}
	changes, err := e.settle(c)
	if err != nil {
		return marathon.DeploymentResult{}, nil, err
	}
	return marathon.DeploymentResult{}, wireSteps(deployment.Plan(changes, e.tree.Dependencies(c.Change))), nil
}

// DeleteGroup removes a group and everything in it; the root is emptied.
func (e *Engine) DeleteGroup(ctx context.Context, id spec.AppID, force bool) (marathon.DeploymentResult, error) {
	return e.alter(ctx, force, func(c *change) error {
		if _, ok := e.tree.Group(id); !ok {
			return groupMissing(id)
		}
		e.tree.Remove(id, c.Change)
		return nil
	})
}

// EnforceRole sets the only field that may be patched, on a top-level group.
func (e *Engine) EnforceRole(ctx context.Context, id spec.AppID, enforce bool) error {
	_, err := e.alter(ctx, false, func(c *change) error {
		g, ok := e.tree.Group(id)
		if !ok {
			return groupMissing(id)
		}
		g.EnforceRole, g.Version = enforce, c.version
		c.Groups[id] = &g
		return nil
	})
	return err
}

// groupAt returns the apps that group id had at version of the root, with the
// definitions of then.
func (e *Engine) groupAt(ctx context.Context, id spec.AppID, version string) (map[spec.AppID]*marathon.App, error) {
	e.mu.Lock()
	known := slices.ContainsFunc(e.history[spec.Root], func(en entry) bool { return en.version == version })
	ats := map[spec.AppID]string{}
	for app, h := range e.history {
		if app == spec.Root || !app.Within(id) {
			continue
		}
		n, found := slices.BinarySearchFunc(h, version, func(en entry, v string) int { return cmp.Compare(en.at, v) })
		if !found {
			n--
		}
		if n >= 0 && h[n].version != "" {
			ats[app] = h[n].at
		}
	}
	e.mu.Unlock()
	if !known {
		return nil, fault.New("find group version", fault.NotFound, fmt.Errorf("Group '%s' does not exist in version %s", id, version))
	}
	out := map[spec.AppID]*marathon.App{}
	for app, at := range ats {
		a, err := e.definition(ctx, app, at)
		if err != nil {
			return nil, err
		}
		out[app] = a
	}
	return out, nil
}
