// Package render makes of a package and options what is to run: an app for the
// orchestrator, or the specification of a service for the operator. It is pure,
// and follows the catalog of DC/OS (Cosmos) step by step, so that what rendered
// there renders the same here.
package render

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"

	"dcos.example/dcos/runtime/api/cosmos"
	"dcos.example/dcos/runtime/api/service"
	"dcos.example/dcos/runtime/catalog/envelope"
	"dcos.example/dcos/runtime/catalog/failure"
	"dcos.example/dcos/runtime/mustache"
	"dcos.example/dcos/universe/schema"
)

// Labels by which an app keeps what it was installed from.
const (
	LabelName       = "DCOS_PACKAGE_NAME"
	LabelVersion    = "DCOS_PACKAGE_VERSION"
	LabelSource     = "DCOS_PACKAGE_SOURCE"
	LabelOptions    = "DCOS_PACKAGE_OPTIONS"
	LabelDefinition = "DCOS_PACKAGE_DEFINITION"
	// Those of DC/OS 1.7, which later clients still read.
	LabelMetadata    = "DCOS_PACKAGE_METADATA"
	LabelRegistry    = "DCOS_PACKAGE_REGISTRY_VERSION"
	LabelRelease     = "DCOS_PACKAGE_RELEASE"
	LabelIsFramework = "DCOS_PACKAGE_IS_FRAMEWORK"
	LabelCommand     = "DCOS_PACKAGE_COMMAND"
	// What a template may say.
	LabelFrameworkName = "DCOS_PACKAGE_FRAMEWORK_NAME"
)

// Input is one installation to be.
type Input struct {
	Package *cosmos.Package
	Packed  envelope.Packed // the same package
	Source  string          // URI of its repository
	Profile string          // "" for none
	Options map[string]any  // as the user gave them
	AppID   string          // "" for the one that the template has
	Configs *schema.Cache   // nil: none
}

// Result is what is to run: App or Service.
type Result struct {
	App     []byte // JSON object
	Service *service.Spec
	Options Options
	Labels  map[string]string
}

// Render renders in. Errors are *failure.Error.
func Render(in Input) (*Result, error) {
	p := in.Package
	if p.Marathon == nil && p.Service == nil {
		return nil, failure.TemplateNotFound(p.Name, p.Version)
	}
	if p.Service != nil && in.AppID != "" {
		in.Options = named(in)
	}
	options, err := Resolve(in.Configs, p, in.Profile, in.Options)
	if err != nil {
		return nil, err
	}
	values := options.Resolved
	if p.Resource != nil {
		resource, err := schema.Decode(p.Resource)
		if err != nil {
			return nil, failure.JSONParsing(p.Name, p.Version, "resource.json: "+err.Error())
		}
		values = schema.Merge(values, map[string]any{"resource": resource})
	}
	r := &Result{Options: options}
	if r.Labels, err = labels(in, options.User); err != nil {
		return nil, failure.Unhandled(err)
	}
	if p.Service != nil {
		r.Service, err = specification(p, values, in.AppID)
		return r, err
	}
	r.App, err = app(p, values, in.AppID, r.Labels)
	return r, err
}

// named makes the wanted id of a service the option service.name, where a
// package has one: the name may stand elsewhere in its template too.
func named(in Input) map[string]any {
	if in.Package.Config == nil {
		return in.Options
	}
	config, err := in.Configs.Config(in.Package.Config)
	if err != nil || !config.Has("service", "name") {
		return in.Options
	}
	return schema.Merge(in.Options, map[string]any{"service": map[string]any{"name": strings.Trim(in.AppID, "/")}})
}

func text(template []byte, seen map[string]any) (string, error) {
	t, err := mustache.Parse(string(template))
	if err != nil {
		return "", err
	}
	return t.Render(seen, mustache.Options{Format: format})
}

// object renders a template to a JSON object.
func object(p *cosmos.Package, values map[string]any) (map[string]any, error) {
	rendered, err := text(p.Marathon.V2AppMustacheTemplate, context(values))
	if err != nil {
		return nil, failure.JSONParsing(p.Name, p.Version, err.Error())
	}
	v, err := schema.Decode([]byte(rendered))
	if err != nil {
		return nil, failure.JSONParsing(p.Name, p.Version, where(rendered, err))
	}
	if object, ok := v.(map[string]any); ok {
		return object, nil
	}
	return nil, failure.TemplateMustBeObject()
}

func app(p *cosmos.Package, values map[string]any, appID string, forced map[string]string) ([]byte, error) {
	object, err := object(p, values)
	if err != nil {
		return nil, err
	}
	if appID != "" {
		object["id"] = appID
	}
	all := map[string]any{}
	for _, l := range []string{LabelRegistry, LabelRelease, LabelIsFramework} {
		if v, ok := forced[l]; ok {
			all[l] = v
		}
	}
	written, _ := object["labels"].(map[string]any)
	maps.Copy(all, written)
	for _, l := range []string{LabelName, LabelVersion, LabelSource, LabelOptions, LabelDefinition, LabelMetadata, LabelCommand} {
		if v, ok := forced[l]; ok {
			all[l] = v
		}
	}
	object["labels"] = all
	return encode(object)
}

// where adds to a JSON error the text it is about.
func where(text string, err error) string {
	var syntax *json.SyntaxError
	if !errors.As(err, &syntax) {
		return err.Error()
	}
	at := min(max(int(syntax.Offset), 0), len(text))
	line := 1 + strings.Count(text[:at], "\n")
	begin := strings.LastIndexByte(text[:at], '\n') + 1
	return "line " + strconv.Itoa(line) + ": " + err.Error() + ": " + strings.TrimSpace(text[max(begin, at-60):at])
}

func specification(p *cosmos.Package, values map[string]any, appID string) (*service.Spec, error) {
	rendered, err := text(p.Service.Template, context(values))
	if err != nil {
		return nil, failure.ServiceSpecInvalid(p.Name, p.Version, nil, err.Error())
	}
	spec, _, err := service.Parse([]byte(rendered))
	if err != nil {
		return nil, failure.ServiceSpecInvalid(p.Name, p.Version, problems(err), err.Error())
	}
	if appID != "" {
		spec.Name = strings.Trim(appID, "/")
	}
	if len(p.Service.Templates) > 0 && spec.Templates == nil {
		spec.Templates = map[string]string{}
	}
	for name, text := range p.Service.Templates {
		if _, ok := spec.Templates[name]; !ok {
			spec.Templates[name] = string(text)
		}
	}
	return spec, nil
}

func problems(err error) any {
	var all service.Problems
	if errors.As(err, &all) {
		return all
	}
	return nil
}

// labels are both sets: those of DC/OS 1.8 and later, and of 1.7.
func labels(in Input, user map[string]any) (map[string]string, error) {
	p := in.Package
	options, err := encode(user)
	if err != nil {
		return nil, err
	}
	definition, err := in.Packed.Label(p.PackagingVersion)
	if err != nil {
		return nil, err
	}
	metadata, err := metadata(p)
	if err != nil {
		return nil, err
	}
	// Packages of the old form are frameworks unless they say otherwise.
	isFramework := p.PackagingVersion == "2.0"
	if p.Framework != nil {
		isFramework = *p.Framework
	}
	b64 := base64.StdEncoding.EncodeToString
	all := map[string]string{
		LabelName: p.Name, LabelVersion: p.Version, LabelSource: in.Source, LabelOptions: b64(options), LabelDefinition: definition,
		LabelMetadata: b64(metadata), LabelRegistry: p.PackagingVersion, LabelIsFramework: strconv.FormatBool(isFramework),
	}
	if p.ReleaseVersion != nil {
		all[LabelRelease] = strconv.FormatInt(*p.ReleaseVersion, 10)
	}
	if p.Command != nil {
		command, err := encode(p.Command)
		if err != nil {
			return nil, err
		}
		all[LabelCommand] = b64(command)
	}
	return all, nil
}

// metadata is package.json with the images of resource.json.
func metadata(p *cosmos.Package) ([]byte, error) {
	var r struct {
		Images json.RawMessage `json:"images,omitempty"`
	}
	if p.Resource != nil {
		if err := json.Unmarshal(p.Resource, &r); err != nil {
			return nil, err
		}
	}
	return encode(struct {
		cosmos.Package
		Images json.RawMessage `json:"images,omitempty"`
	}{Bare(p), r.Images})
}

// Bare is the package without what lies beside its package.json.
func Bare(p *cosmos.Package) cosmos.Package {
	bare := *p
	bare.ReleaseVersion, bare.Resource, bare.Config, bare.Command, bare.Marathon, bare.Service, bare.Profiles = nil, nil, nil, nil, nil, nil, nil
	return bare
}

// encode writes JSON without escapes for HTML.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

func sortedKeys(m map[string]any) []string { return slices.Sorted(maps.Keys(m)) }
