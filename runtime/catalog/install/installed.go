package install

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"

	"dcos.example/dcos/runtime/api/cosmos"
	"dcos.example/dcos/runtime/catalog/envelope"
	"dcos.example/dcos/runtime/catalog/failure"
	"dcos.example/dcos/runtime/catalog/render"
	"dcos.example/dcos/universe/schema"
)

// installation is an app or a service that came from a package.
type installation struct {
	id            string // from the root
	name, version string // of the package
	isService     bool
	labels        map[string]string
	definition    json.RawMessage // of a service
	options       json.RawMessage // of a service
	app           app
}

func ofApp(a app) (installation, bool) {
	name := a.Labels[render.LabelName]
	return installation{id: a.ID, name: name, version: a.Labels[render.LabelVersion], labels: a.Labels, app: a}, name != ""
}

func ofService(r record) installation {
	p := r.Package
	return installation{
		id: rooted(r.Name), name: p.Name, version: p.Version, isService: true, labels: p.Labels, definition: p.Definition, options: p.Options,
	}
}

// all returns the installations of a package, or of all with "", and with an id
// that one alone, by name and id.
func (i *Installer) all(ctx context.Context, name, id string) ([]installation, error) {
	id = rooted(id)
	apps, err := i.marathon.apps(ctx, render.LabelName)
	if err != nil {
		return nil, err
	}
	var list []installation
	for _, a := range apps {
		one, ok := ofApp(a)
		if ok && (name == "" || one.name == name) && (id == "" || one.id == id) {
			list = append(list, one)
		}
	}
	services, err := i.operator.list(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range services {
		if s.Package.Name == "" || name != "" && s.Package.Name != name || id != "" && rooted(s.Name) != id {
			continue
		}
		r, there, err := i.operator.find(ctx, s.Name)
		if err != nil {
			return nil, err
		}
		if there {
			list = append(list, ofService(r))
		}
	}
	slices.SortFunc(list, func(a, b installation) int {
		return cmp.Or(strings.Compare(a.name, b.name), strings.Compare(a.id, b.id))
	})
	return list, nil
}

// one returns the installation with an id.
func (i *Installer) one(ctx context.Context, id string) (installation, error) {
	r, there, err := i.operator.find(ctx, id)
	if err != nil {
		return installation{}, err
	}
	if there {
		return ofService(r), nil
	}
	a, there, err := i.marathon.find(ctx, id)
	if err != nil {
		return installation{}, err
	}
	if !there {
		return installation{}, failure.MarathonAppNotFound(rooted(id))
	}
	in, ok := ofApp(a)
	if !ok {
		return installation{}, failure.NotAPackage(rooted(id))
	}
	return in, nil
}

// packed is the package that an installation came from: as it keeps it, or, if
// it is too old to, as a repository has it.
func (i *Installer) packed(in installation) (envelope.Packed, error) {
	if in.isService && len(in.definition) > 0 {
		return envelope.Pack(in.definition)
	}
	if label, ok := in.labels[render.LabelDefinition]; ok {
		if packed, err := envelope.Open(label); err == nil {
			return packed, nil
		}
	}
	e, err := i.index().Find(in.name, in.version)
	if err != nil {
		return nil, err
	}
	return e.Packed, nil
}

// stored are the options that an installation was given, and whether it says.
func stored(in installation) (map[string]any, bool) {
	text := []byte(in.options)
	if !in.isService {
		label, ok := in.labels[render.LabelOptions]
		if !ok {
			return nil, false
		}
		var err error
		if text, err = base64.StdEncoding.DecodeString(label); err != nil {
			return nil, false
		}
	}
	if len(text) == 0 {
		return map[string]any{}, in.isService
	}
	v, err := schema.Decode(text)
	if err != nil {
		return nil, false
	}
	options, ok := v.(map[string]any)
	return options, ok
}

// List returns what is installed, by package and id.
func (i *Installer) List(ctx context.Context, req cosmos.ListRequest) (*cosmos.ListResponse, error) {
	list, err := i.all(ctx, req.PackageName, req.AppID)
	if err != nil {
		return nil, err
	}
	answer := &cosmos.ListResponse{Packages: []cosmos.Installation{}}
	for _, in := range list {
		information, err := i.information(in)
		if err != nil {
			return nil, failure.Unhandled(err)
		}
		answer.Packages = append(answer.Packages, cosmos.Installation{AppID: in.id, PackageInformation: information})
	}
	return answer, nil
}

// information is what an installation says of its package.
func (i *Installer) information(in installation) (cosmos.PackageInformation, error) {
	if label, ok := in.labels[render.LabelMetadata]; ok {
		if text, err := base64.StdEncoding.DecodeString(label); err == nil {
			if information, err := split(text); err == nil {
				return information, nil
			}
		}
	}
	packed, err := i.packed(in)
	if err == nil {
		text, err := packed.JSON()
		if err == nil {
			return split(text)
		}
	}
	// Whoever wrote the labels said no more than that.
	text, err := json.Marshal(map[string]string{"name": in.name, "version": in.version})
	return cosmos.PackageInformation{PackageDefinition: text}, err
}

// split takes a package apart into what its package.json has and its images.
func split(text []byte) (cosmos.PackageInformation, error) {
	var p struct {
		cosmos.Package
		Images json.RawMessage `json:"images"`
	}
	if err := json.Unmarshal(text, &p); err != nil {
		return cosmos.PackageInformation{}, err
	}
	images := p.Images
	if images == nil && p.Resource != nil {
		var r struct {
			Images json.RawMessage `json:"images"`
		}
		if err := json.Unmarshal(p.Resource, &r); err != nil {
			return cosmos.PackageInformation{}, err
		}
		images = r.Images
	}
	definition, err := json.Marshal(render.Bare(&p.Package))
	information := cosmos.PackageInformation{PackageDefinition: definition}
	if images != nil && err == nil {
		information.ResourceDefinition, err = json.Marshal(map[string]json.RawMessage{"images": images})
	}
	return information, err
}

// Describe returns what is to be known of an installation.
func (i *Installer) Describe(ctx context.Context, req cosmos.ServiceDescribeRequest) (*cosmos.ServiceDescribeResponse, error) {
	if req.ManagerID != "" {
		return nil, failure.NotImplemented("Managers of packages are not supported")
	}
	in, err := i.one(ctx, req.AppID)
	if err != nil {
		return nil, err
	}
	packed, err := i.packed(in)
	if err != nil {
		return nil, err
	}
	text, err := packed.JSON()
	if err != nil {
		return nil, failure.Unhandled(err)
	}
	p, err := packed.Package()
	if err != nil {
		return nil, failure.Unhandled(err)
	}
	ix := i.index()
	answer := &cosmos.ServiceDescribeResponse{
		Package: text, UpgradesTo: ix.UpgradesTo(p.Name, p.Version), DowngradesTo: ix.DowngradesTo(p.Name, p.DowngradesTo),
	}
	options, known := stored(in)
	if !known {
		return answer, nil
	}
	if answer.UserProvidedOptions, err = json.Marshal(options); err != nil {
		return nil, failure.Unhandled(err)
	}
	answer.ResolvedOptions, err = i.resolved(p, options)
	return answer, err
}

// resolved are options over the defaults, whether or not they satisfy the
// schema: they are those of something that runs.
func (i *Installer) resolved(p *cosmos.Package, options map[string]any) (json.RawMessage, error) {
	all := options
	if p.Config != nil {
		config, err := i.configs.Config(p.Config)
		if err != nil {
			return nil, failure.Unhandled(err)
		}
		all = schema.Merge(config.Defaults(), options)
	}
	text, err := json.Marshal(all)
	if err != nil {
		return nil, failure.Unhandled(err)
	}
	return text, nil
}
