package render_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dcos.example/dcos/runtime/api/cosmos"
	"dcos.example/dcos/runtime/catalog/envelope"
	"dcos.example/dcos/runtime/catalog/failure"
	"dcos.example/dcos/runtime/catalog/index"
	"dcos.example/dcos/runtime/catalog/render"
	"dcos.example/dcos/universe/schema"
)

// input is an installation of a package with these parts.
func input(t *testing.T, p cosmos.Package, options string) render.Input {
	t.Helper()
	release := int64(3)
	p.Name, p.Version, p.ReleaseVersion, p.Maintainer, p.Description, p.Tags = "web", "1.0", &release, "m", "d", []string{}
	if p.PackagingVersion == "" {
		p.PackagingVersion = "3.0"
	}
	r, err := index.NewRevision(&p)
	if err != nil {
		t.Fatal(err)
	}
	in := render.Input{Package: &p, Packed: r.Packed, Source: "https://repo.test/repo"}
	if options != "" {
		v, err := schema.Decode([]byte(options))
		if err != nil {
			t.Fatal(err)
		}
		in.Options = v.(map[string]any)
	}
	return in
}

func marathon(template string) *cosmos.Marathon {
	return &cosmos.Marathon{V2AppMustacheTemplate: []byte(template)}
}

// without returns the app without the labels that every one has.
func without(t *testing.T, app []byte) string {
	t.Helper()
	v, err := schema.Decode(app)
	if err != nil {
		t.Fatal(err)
	}
	labels := v.(map[string]any)["labels"].(map[string]any)
	for l := range labels {
		if strings.HasPrefix(l, "DCOS_PACKAGE_") {
			delete(labels, l)
		}
	}
	if len(labels) == 0 {
		delete(v.(map[string]any), "labels")
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestDialect: how values come into a template.
func TestDialect(t *testing.T) {
	config := json.RawMessage(`{"properties":{
		"s":{"type":"string","default":"a \"b\" <&> \n é"},"two":{"type":"array","default":["x","y\""]},"list":{"type":"array","default":["x","y\"",1,null,true,[2]]},
		"i":{"type":"integer","default":3},"f":{"type":"number","default":0.1},"whole":{"type":"number","default":256.0},
		"big":{"type":"integer","default":12345678901234567890},"tiny":{"type":"number","default":0.00001},"huge":{"type":"number","default":1.5e10},
		"fraction":{"type":"number","default":12345678.5},
		"t":{"type":"boolean","default":true},"f0":{"type":"boolean","default":false},"nothing":{"type":"string"},
		"o":{"type":"object","default":{"k":"v\""}},"json":{"type":"string","default":"[[\"hostname\",\"UNIQUE\"]]"},
		"in":{"type":"object","properties":{"a":{"default":"deep"},"none":{"type":"object","properties":{}}}},
		"resource":{"type":"object","properties":{"cpus":{"default":2}}}}}`)
	resource := json.RawMessage(`{"assets":{"uris":{"jar":"http://x/a.jar"},"container":{"docker":{"web":"image:1"}}}}`)
	for template, want := range map[string]string{
		`{"a":"{{s}}","b":"{{{s}}}","c":"{{&s}}"}`: `{"a":"a \"b\" \u003c\u0026\u003e \n é","b":"a \"b\" \u003c\u0026\u003e \n é","c":"a \"b\" \u003c\u0026\u003e \n é"}`,
		`{"a":{{list}}}`:                   `{"a":["x","y\"",1,null,true,[2]]}`,
		`{"a":[{{#two}}{{.}},{{/two}} 0]}`: `{"a":["x","y\"",0]}`,
		`{"a":{{i}},"b":{{f}},"c":{{whole}},"d":{{big}},"e":{{tiny}}}`: `{"a":3,"b":0.1,"c":256,"d":12345678901234567890,"e":1.0E-5}`,
		`{"a":"{{whole}}","b":"{{huge}}","c":"{{tiny}}"}`:              `{"a":"256","b":"15000000000","c":"1.0E-5"}`,
		`{"a":{{fraction}}}`: `{"a":1.23456785E7}`,
		`{"a":{{t}},"b":{{#t}}1{{/t}}{{#f0}}2{{/f0}}{{^f0}}3{{/f0}}}`: `{"a":true,"b":13}`,
		`{"a":"{{nothing}}{{no.such.thing}}"}`:                        `{"a":""}`,
		`{"a":{{o}}}`:                                                 `{"a":{"k":"v\""}}`,
		`{"a":{{#asJson}}json{{/asJson}}}`:                            `{"a":[["hostname","UNIQUE"]]}`,
		`{"a":"{{in.a}}","b":"{{#in}}{{a}}{{/in}}"}`:                  `{"a":"deep","b":"deep"}`,
		`{"a":"{{resource.assets.container.docker.web}}","b":{{resource.cpus}},"c":["{{resource.assets.uris.jar}}"]}`: `{"a":"image:1","b":2,"c":["http://x/a.jar"]}`,
		`{{! a comment }}{"a":1}`: `{"a":1}`,
	} {
		in := input(t, cosmos.Package{Config: config, Resource: resource, Marathon: marathon(template)}, "")
		out, err := render.Render(in)
		if err != nil {
			t.Errorf("%s: %v", template, err)
			continue
		}
		if got := without(t, out.App); got != want {
			t.Errorf("%s\n got %s\nwant %s", template, got, want)
		}
	}
}

// TestLabels: an app has both sets of labels, and what its template says of
// others.
func TestLabels(t *testing.T) {
	in := input(t, cosmos.Package{
		PackagingVersion: "2.0", Command: &cosmos.Command{Pip: []string{"web==1"}}, Resource: json.RawMessage(`{"images":{"icon-small":"http://x/i.png"}}`),
		Config:   json.RawMessage(`{"properties":{"n":{"type":"integer","default":1}}}`),
		Marathon: marathon(`{"id":"/web","labels":{"A":"1","DCOS_PACKAGE_NAME":"other","DCOS_PACKAGE_IS_FRAMEWORK":"false"}}`),
	}, `{"n":2}`)
	in.AppID = "/prod/web"
	out, err := render.Render(in)
	if err != nil {
		t.Fatal(err)
	}
	var app struct {
		ID     string            `json:"id"`
		Labels map[string]string `json:"labels"`
	}
	if err := json.Unmarshal(out.App, &app); err != nil {
		t.Fatal(err)
	}
	if app.ID != "/prod/web" {
		t.Errorf("the id is %s", app.ID)
	}
	packed, err := envelope.Open(app.Labels[render.LabelDefinition])
	if err != nil {
		t.Fatal(err)
	}
	kept, err := packed.Package()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(in.Package, kept); diff != "" {
		t.Errorf("the package is kept otherwise: %s", diff)
	}
	delete(app.Labels, render.LabelDefinition)
	for _, l := range []string{render.LabelOptions, render.LabelMetadata, render.LabelCommand} {
		text, err := base64.StdEncoding.DecodeString(app.Labels[l])
		if err != nil {
			t.Fatal(err)
		}
		app.Labels[l] = string(text)
	}
	want := map[string]string{
		"A": "1", "DCOS_PACKAGE_NAME": "web", "DCOS_PACKAGE_VERSION": "1.0", "DCOS_PACKAGE_SOURCE": "https://repo.test/repo",
		"DCOS_PACKAGE_OPTIONS": `{"n":2}`, "DCOS_PACKAGE_REGISTRY_VERSION": "2.0", "DCOS_PACKAGE_RELEASE": "3",
		"DCOS_PACKAGE_IS_FRAMEWORK": "false", "DCOS_PACKAGE_COMMAND": `{"pip":["web==1"]}`,
		"DCOS_PACKAGE_METADATA": `{"packagingVersion":"2.0","name":"web","version":"1.0","maintainer":"m","description":"d","tags":[],"images":{"icon-small":"http://x/i.png"}}`,
	}
	if diff := cmp.Diff(want, app.Labels); diff != "" {
		t.Error(diff)
	}
}

// TestFailures: each way not to render has its type.
func TestFailures(t *testing.T) {
	config := json.RawMessage(`{"properties":{"n":{"type":"integer","default":1}},"required":["m"]}`)
	profiles := map[string]json.RawMessage{"small": json.RawMessage(`{"m":1}`)}
	for name, c := range map[string]struct {
		p       cosmos.Package
		options string
		profile string
		want    string
	}{
		"nothing to run":   {want: "ServiceMarathonTemplateNotFound: Package: [web] version: [1.0] does not have a Marathon template defined and can not be rendered"},
		"no options":       {p: cosmos.Package{Marathon: marathon(`{}`)}, options: `{"a":1}`, want: "OptionsNotAllowed: No schema available to validate the provided options"},
		"required":         {p: cosmos.Package{Marathon: marathon(`{}`), Config: config}, want: "JsonSchemaMismatch: Options JSON failed validation"},
		"given":            {p: cosmos.Package{Marathon: marathon(`{}`), Config: config}, options: `{"m":1}`},
		"from the profile": {p: cosmos.Package{Marathon: marathon(`{}`), Config: config, Profiles: profiles}, profile: "small"},
		"no profile":       {p: cosmos.Package{Marathon: marathon(`{}`), Config: config, Profiles: profiles}, profile: "big", want: "ProfileNotFound: Package [web] has no profile [big]: it has small"},
		"no schema":        {p: cosmos.Package{Marathon: marathon(`{}`), Config: json.RawMessage(`{"type":3}`)}, options: `{"a":1}`, want: "JsonSchemaMismatch: Options JSON failed validation"},
		"no object":        {p: cosmos.Package{Marathon: marathon(`[]`)}, want: "MarathonTemplateMustBeJsonObject: Rendered Marathon JSON must be a JSON object"},
		"no JSON":          {p: cosmos.Package{Marathon: marathon("{\n\"a\":,}")}, want: `JsonParsingError: The template of package [web] version [1.0] does not render to JSON: line 2: invalid character ',' looking for beginning of value: "a":,`},
		"more than JSON":   {p: cosmos.Package{Marathon: marathon("{}{}")}, want: `JsonParsingError: The template of package [web] version [1.0] does not render to JSON: there is something after the JSON value`},
		"no template":      {p: cosmos.Package{Marathon: marathon("{{>marathon}}")}, want: "JsonParsingError: The template of package [web] version [1.0] does not render to JSON: parse template: line 1: {{>marathon}}: a template is one text, without partials and parents"},
		"no service":       {p: cosmos.Package{Service: &cosmos.Service{Template: []byte("name: web\nport: 1\n")}}, want: "ServiceSpecInvalid: The service of package [web] version [1.0] is not well described: line 2: port: "},
	} {
		t.Run(name, func(t *testing.T) {
			in := input(t, c.p, c.options)
			in.Profile = c.profile
			_, err := render.Render(in)
			var f *failure.Error
			got := ""
			if errors.As(err, &f) {
				got = f.Type + ": " + f.Message
			} else if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(got, c.want) || c.want == "" && got != "" {
				t.Errorf("got %s\nwant %s", got, c.want)
			}
		})
	}
}

// TestService: a service of ours is rendered by the same rules, and its
// configuration files go along as they are.
func TestService(t *testing.T) {
	in := input(t, cosmos.Package{
		PackagingVersion: "5.0",
		Config:           json.RawMessage(`{"properties":{"service":{"properties":{"name":{"type":"string","default":"web"}}},"count":{"type":"integer","default":3},"note":{"type":"string","default":"a: \"b\"\nc"}}}`),
		Resource:         json.RawMessage(`{"assets":{"container":{"docker":{"web":"registry.dcos/web:1.0"}}}}`),
		Profiles:         map[string]json.RawMessage{"small": json.RawMessage(`{"count":1}`)},
		Service: &cosmos.Service{
			Template: []byte("name: {{service.name}}\npods:\n  web:\n    count: {{count}}\n    image: \"{{resource.assets.container.docker.web}}\"\n" +
				"    tasks: {server: {goal: RUNNING, cpus: 0.1, memory: 32, env: {NAME: \"{{service.name}}\", NOTE: \"{{note}}\"}}}\n"),
			Templates: map[string][]byte{"a.conf.mustache": []byte("{{A}} {{#B}}")},
		},
	}, `{"note":"x"}`)
	in.Profile, in.AppID = "small", "/prod/web"
	out, err := render.Render(in)
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(out.Service)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"name":"prod/web"`, `"count":1`, `"image":"registry.dcos/web:1.0"`, `"NAME":"prod/web"`, `"NOTE":"x"`, `"a.conf.mustache":"{{A}} {{#B}}"`} {
		if !bytes.Contains(got, []byte(want)) {
			t.Errorf("%s is not in %s", want, got)
		}
	}
	options, err := json.Marshal(out.Options.User)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(options), `{"count":1,"note":"x","service":{"name":"prod/web"}}`; got != want {
		t.Errorf("the options are %s, want %s", got, want)
	}
}

// TestGolden: some packages as they were in the public Universe.
func TestGolden(t *testing.T) {
	revisions, err := universe()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range revisions {
		switch r.Name + " " + r.Version {
		case "kafka 1.1.19.1-0.10.1.0", "marathon 1.3.13", "cassandra 1.0.25-3.0.10", "nginx 1.10.3", "spark 1.1.0-2.1.1", "hdfs 1.3.0-2.6.0-cdh5.9.1", "jenkins 3.2.3-2.60.2":
		default:
			continue
		}
		p, err := r.Packed.Package()
		if err != nil {
			t.Fatal(err)
		}
		out, err := render.Render(render.Input{Package: p, Packed: r.Packed, Source: "https://universe.test/repo"})
		if err != nil {
			t.Errorf("%s: %v", schema.Key(p), err)
			continue
		}
		v, err := schema.Decode(out.App)
		if err != nil {
			t.Fatal(err)
		}
		// How that is compressed is a matter of the library.
		delete(v.(map[string]any)["labels"].(map[string]any), render.LabelDefinition)
		text, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, r.Name+".golden.json", append(text, '\n'))
	}
}
