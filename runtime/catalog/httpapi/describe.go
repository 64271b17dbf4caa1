package httpapi

import (
	"context"
	"encoding/json"

	"dcos.example/dcos/runtime/api/cosmos"
	"dcos.example/dcos/runtime/catalog/failure"
	"dcos.example/dcos/runtime/catalog/render"
	"dcos.example/dcos/universe/schema"
)

// describe answers in three versions: the package whole, its parts beside each
// other, and as in DC/OS 1.7.
func (a *api) describe(_ context.Context, req *cosmos.DescribeRequest, answer string) (any, error) {
	if err := required("packageName", req.PackageName); err != nil {
		return nil, err
	}
	e, err := a.Index().Find(req.PackageName, req.PackageVersion)
	if err != nil {
		return nil, err
	}
	if answer == cosmos.Describe.Accept[0] {
		text, err := e.Packed.JSON()
		if err != nil {
			return nil, err
		}
		// It is JSON already, and not small.
		whole := make([]byte, 0, len(text)+len(`{"package":}`))
		whole = append(append(append(whole, `{"package":`...), text...), '}')
		return json.RawMessage(whole), nil
	}
	p, err := e.Packed.Package()
	if err != nil {
		return nil, err
	}
	if major := schema.Major(p.PackagingVersion); major > 3 {
		return nil, failure.NoV2Description(major)
	}
	bare := render.Bare(p)
	no := false
	if bare.Selected == nil {
		bare.Selected = &no
	}
	if bare.Framework == nil {
		bare.Framework = &no
	}
	if answer == cosmos.Describe.Accept[1] {
		bare.Marathon, bare.Config, bare.Resource, bare.Command = p.Marathon, p.Config, p.Resource, p.Command
		return bare, nil
	}
	old := cosmos.DescribeResponseV1{Command: p.Command, Config: p.Config, Resource: p.Resource}
	if p.Marathon != nil {
		old.MarathonMustache = string(p.Marathon.V2AppMustacheTemplate)
	}
	old.Package, err = encode(bare)
	return old, err
}
