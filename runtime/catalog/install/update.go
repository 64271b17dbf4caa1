package install

import (
	"context"
	"encoding/json"
	"slices"

	"dcos.example/dcos/runtime/api/cosmos"
	"dcos.example/dcos/runtime/catalog/envelope"
	"dcos.example/dcos/runtime/catalog/failure"
	"dcos.example/dcos/runtime/catalog/render"
	"dcos.example/dcos/universe/schema"
)

// Update changes the options of an installation, or its version.
func (i *Installer) Update(ctx context.Context, req cosmos.ServiceUpdateRequest) (*cosmos.ServiceUpdateResponse, error) {
	if req.ManagerID != "" {
		return nil, failure.NotImplemented("Managers of packages are not supported")
	}
	now, err := i.one(ctx, req.AppID)
	if err != nil {
		return nil, err
	}
	packed, err := i.packed(now)
	if err != nil {
		return nil, err
	}
	p, err := packed.Package()
	if err != nil {
		return nil, failure.Unhandled(err)
	}
	source, current := now.labels[render.LabelSource], p
	if v := req.PackageVersion; v != "" && v != p.Version {
		if packed, p, source, err = i.step(p, v); err != nil {
			return nil, err
		}
	}
	in := render.Input{Package: p, Packed: packed, Source: source, Configs: i.configs}
	if in.Options, err = wanted(p, now, req); err != nil {
		return nil, err
	}
	out, err := i.inPlace(in, now, current)
	if err != nil {
		return nil, err
	}
	if err := i.images(ctx, p.Name, out); err != nil {
		return nil, err
	}
	answer := &cosmos.ServiceUpdateResponse{}
	if answer.Package, err = packed.JSON(); err != nil {
		return nil, failure.Unhandled(err)
	}
	if answer.ResolvedOptions, err = json.Marshal(out.Options.Resolved); err != nil {
		return nil, failure.Unhandled(err)
	}
	if !now.isService {
		answer.MarathonDeploymentID, err = i.marathon.put(ctx, now.id, false, out.App)
		return answer, err
	}
	body, err := request(in, out)
	if err != nil {
		return nil, err
	}
	return answer, i.operator.put(ctx, now.id, false, body)
}

// step is the way to another version, if there is one.
func (i *Installer) step(from *cosmos.Package, version string) (envelope.Packed, *cosmos.Package, string, error) {
	ix := i.index()
	e, p, err := i.chosen(from.Name, version)
	if err != nil {
		return nil, nil, "", err
	}
	ways := append(ix.UpgradesTo(from.Name, from.Version), ix.DowngradesTo(from.Name, from.DowngradesTo)...)
	if !slices.Contains(ways, version) {
		return nil, nil, "", failure.BadVersionUpdate(from.Name, from.Version, version, slices.DeleteFunc(ways, func(v string) bool { return v == from.Version }))
	}
	return e.Packed, p, e.Source, nil
}

// wanted are the options that an installation is to have: what it was given,
// unless that is replaced, under the profile, if one is asked for, under what
// the user gives now.
func wanted(p *cosmos.Package, now installation, req cosmos.ServiceUpdateRequest) (map[string]any, error) {
	var all map[string]any
	if !req.Replace {
		var known bool
		if all, known = stored(now); !known {
			return nil, failure.OptionsNotStored()
		}
	}
	if req.Profile != "" {
		profile, err := render.Profile(p, req.Profile)
		if err != nil {
			return nil, err
		}
		all = schema.Merge(all, profile)
	}
	options, err := given(req.Options)
	return schema.Merge(all, options), err
}

// inPlace renders an installation anew, under the id that it has. Options that
// would have given it another are refused, unless it has its id in spite of
// them.
func (i *Installer) inPlace(in render.Input, now installation, current *cosmos.Package) (*render.Result, error) {
	out, err := render.Render(in)
	if err != nil {
		return nil, err
	}
	id := idOf(out)
	if id == now.id {
		return out, nil
	}
	if before, known := stored(now); known {
		was, err := render.Render(render.Input{Package: current, Packed: in.Packed, Options: before, Configs: i.configs})
		if err == nil && idOf(was) == now.id {
			return nil, failure.AppIDChanged(now.id, id)
		}
	}
	in.AppID = now.id
	return render.Render(in)
}

func idOf(out *render.Result) string {
	if out.Service != nil {
		return rooted(out.Service.Name)
	}
	var a app
	if err := json.Unmarshal(out.App, &a); err != nil {
		return ""
	}
	return rooted(a.ID)
}
