// Package install brings packages into the cluster, keeps account of those that
// are there, changes them and takes them out again. An app goes to the
// orchestrator, a service of ours to the operator. What an installation came
// from is kept with it, in its labels or by the operator, and nowhere else.
package install

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"dcos.example/dcos/runtime/api/cosmos"
	"dcos.example/dcos/runtime/api/service"
	"dcos.example/dcos/runtime/catalog/failure"
	"dcos.example/dcos/runtime/catalog/index"
	"dcos.example/dcos/runtime/catalog/render"
	"dcos.example/dcos/universe/schema"
)

// ownRegistry begins the name of an image that the cluster itself must have.
const ownRegistry = "registry.dcos/"

// configBytes bounds the config.json files that are kept ready to check options;
// those of the public Universe were 5 MB, without repetition.
const configBytes = 5 << 20

// Options are what an installer needs; all are required.
type Options struct {
	Index        func() *index.Index
	Orchestrator Endpoint
	Master       Endpoint
	Services     Endpoint
	HasImage     func(ctx context.Context, image string) (bool, error)
	Log          *slog.Logger
}

// Installer installs. Its methods may be called at once.
type Installer struct {
	index    func() *index.Index
	marathon marathon
	mesos    mesos
	operator operator
	hasImage func(ctx context.Context, image string) (bool, error)
	plans    *http.Client // of SDK services, to their hosts
	configs  *schema.Cache
	log      *slog.Logger
	wake     chan struct{}
}

// New returns an installer. Run does what takes longer than a request.
func New(o Options) *Installer {
	return &Installer{
		index: o.Index, marathon: marathon{o.Orchestrator}, mesos: mesos{o.Master}, operator: operator{o.Services},
		hasImage: o.HasImage, plans: &http.Client{Timeout: 10 * time.Second}, log: o.Log, wake: make(chan struct{}, 1),
		configs: schema.NewCache(configBytes),
	}
}

// chosen is a package with the entry it is of.
func (i *Installer) chosen(name, version string) (index.Entry, *cosmos.Package, error) {
	e, err := i.index().Find(name, version)
	if err != nil {
		return e, nil, err
	}
	p, err := e.Packed.Package()
	if err != nil {
		return e, nil, failure.Unhandled(err)
	}
	return e, p, nil
}

// given reads the options of a request.
func given(text json.RawMessage) (map[string]any, error) {
	if len(text) == 0 || string(text) == "null" {
		return nil, nil
	}
	v, err := schema.Decode(text)
	if err != nil {
		return nil, failure.JSON("decode", err.Error(), ".options")
	}
	options, ok := v.(map[string]any)
	if !ok {
		return nil, failure.JSON("decode", "options are no JSON object", ".options")
	}
	return options, nil
}

// Render returns what an installation would start.
func (i *Installer) Render(req cosmos.RenderRequest) (*render.Result, error) {
	e, p, err := i.chosen(req.PackageName, req.PackageVersion)
	if err != nil {
		return nil, err
	}
	options, err := given(req.Options)
	if err != nil {
		return nil, err
	}
	return render.Render(render.Input{Package: p, Packed: e.Packed, Source: e.Source, Profile: req.Profile, Options: options, AppID: rooted(req.AppID), Configs: i.configs})
}

// Install installs a package. What can be known beforehand is, before anything
// is started.
func (i *Installer) Install(ctx context.Context, req cosmos.InstallRequest) (*cosmos.InstallResponse, error) {
	if req.ManagerID != "" {
		return nil, failure.NotImplemented("Managers of packages are not supported")
	}
	e, p, err := i.chosen(req.PackageName, req.PackageVersion)
	if err != nil {
		return nil, err
	}
	done := &cosmos.InstallResponse{PackageName: p.Name, PackageVersion: p.Version, PostInstallNotes: p.PostInstallNotes, CLI: cli(p)}
	options, err := given(req.Options)
	if err != nil {
		return nil, err
	}
	if p.Marathon == nil && p.Service == nil {
		_, err := render.Resolve(i.configs, p, req.Profile, options)
		return done, err
	}
	in := render.Input{Package: p, Packed: e.Packed, Source: e.Source, Profile: req.Profile, Options: options, AppID: rooted(req.AppID), Configs: i.configs}
	out, err := render.Render(in)
	if err != nil {
		return nil, err
	}
	if err := i.images(ctx, p.Name, out); err != nil {
		return nil, err
	}
	if out.Service != nil {
		done.AppID, err = i.startService(ctx, in, out)
	} else {
		done.AppID, err = i.startApp(ctx, out)
	}
	if err != nil {
		return nil, err
	}
	i.log.Info("installed", "package", p.Name, "version", p.Version, "app", done.AppID)
	return done, nil
}

func cli(p *cosmos.Package) json.RawMessage {
	var r struct {
		CLI json.RawMessage `json:"cli"`
	}
	if p.Resource != nil && json.Unmarshal(p.Resource, &r) != nil {
		return nil
	}
	return r.CLI
}

// images refuses what needs images of the cluster's registry that are not in
// it.
func (i *Installer) images(ctx context.Context, name string, out *render.Result) error {
	var missing []string
	for _, image := range imagesOf(out) {
		if !strings.HasPrefix(image, ownRegistry) {
			continue
		}
		has, err := i.hasImage(ctx, image)
		if err != nil {
			return failure.ServiceUnavailable("registry", err)
		}
		if !has {
			missing = append(missing, image)
		}
	}
	if len(missing) > 0 {
		return failure.ImagesMissing(name, missing)
	}
	return nil
}

func imagesOf(out *render.Result) []string {
	var all []string
	if out.Service != nil {
		for _, pod := range out.Service.Pods.All() {
			all = append(all, pod.Image)
		}
	} else {
		var a struct {
			Container struct {
				Docker struct {
					Image string `json:"image"`
				} `json:"docker"`
			} `json:"container"`
		}
		// Whatever else it is, the orchestrator says.
		if json.Unmarshal(out.App, &a) == nil {
			all = append(all, a.Container.Docker.Image)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (i *Installer) startApp(ctx context.Context, out *render.Result) (string, error) {
	var a app
	if err := json.Unmarshal(out.App, &a); err == nil && a.ID != "" {
		// Both would answer to the same names.
		if _, there, err := i.operator.find(ctx, a.ID); err != nil {
			return "", err
		} else if there {
			return "", failure.AlreadyInstalled(rooted(a.ID))
		}
	}
	return i.marathon.create(ctx, out.App)
}

func (i *Installer) startService(ctx context.Context, in render.Input, out *render.Result) (string, error) {
	name := out.Service.Name
	if _, there, err := i.marathon.find(ctx, name); err != nil {
		return "", err
	} else if there {
		return "", failure.AlreadyInstalled(rooted(name))
	}
	if _, there, err := i.operator.find(ctx, name); err != nil {
		return "", err
	} else if there {
		return "", failure.AlreadyInstalled(rooted(name))
	}
	body, err := request(in, out)
	if err != nil {
		return "", err
	}
	if err := i.operator.check(ctx, body); err != nil {
		return "", err
	}
	return rooted(name), i.operator.put(ctx, name, true, body)
}

// request is what the operator is given. The labels that repeat what it keeps
// anyhow are left out.
func request(in render.Input, out *render.Result) ([]byte, error) {
	spec, err := json.Marshal(out.Service)
	if err != nil {
		return nil, failure.Unhandled(err)
	}
	definition, err := in.Packed.JSON()
	if err != nil {
		return nil, failure.Unhandled(err)
	}
	options, err := json.Marshal(out.Options.User)
	if err != nil {
		return nil, failure.Unhandled(err)
	}
	labels := map[string]string{}
	for k, v := range out.Labels {
		switch k {
		case render.LabelDefinition, render.LabelMetadata, render.LabelOptions:
		default:
			labels[k] = v
		}
	}
	body, err := json.Marshal(service.Request{
		Spec: spec,
		Package: service.Package{
			Name: in.Package.Name, Version: in.Package.Version, Definition: definition, Options: options, Labels: labels,
		},
	})
	if err != nil {
		return nil, failure.Unhandled(err)
	}
	return body, nil
}
