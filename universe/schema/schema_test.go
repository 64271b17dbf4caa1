package schema_test

import (
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"dcos.example/dcos/runtime/api/cosmos"
	"dcos.example/dcos/universe/schema"
)

// whole is a package of ours with nothing missing.
var whole = map[string]string{
	"package.json": `{"packagingVersion":"5.0","name":"kafka","version":"4.1.0-1","maintainer":"m","description":"d","tags":["queue"],
		"upgradesFrom":["4.0.0-1"],"profiles":{"small":{"brokers":{"count":1}}}}`,
	"config.json": `{"type":"object","properties":{
		"service":{"type":"object","properties":{"name":{"type":"string","default":"kafka"}}},
		"brokers":{"type":"object","additionalProperties":false,"properties":{
			"count":{"type":"integer","minimum":1,"default":3},"cpus":{"type":"number","default":0.5},
			"mode":{"type":"string","enum":["a","b"],"default":"a"}}}}}`,
	"resource.json":                        `{"assets":{"container":{"docker":{"kafka":"registry.dcos/kafka:4.1.0-1"}}}}`,
	"service.yaml.mustache":                "name: {{service.name}}\npods: {kafka: {count: {{brokers.count}}, image: \"{{resource.assets.container.docker.kafka}}\"}}\n",
	"templates/server.properties.mustache": "a={{A}}\n",
	"icon.svg":                             "<svg/>",
	"image.yaml":                           "",
}

func dir(changes map[string]string) fstest.MapFS {
	files := maps.Clone(whole)
	maps.Copy(files, changes)
	fs := fstest.MapFS{}
	for name, text := range files {
		if text != "-" {
			fs[name] = &fstest.MapFile{Data: []byte(text)}
		}
	}
	return fs
}

func TestReadDir(t *testing.T) {
	p, err := schema.ReadDir(dir(nil), 3)
	if err != nil {
		t.Fatal(err)
	}
	if err := schema.CheckOwn(&p); err != nil {
		t.Error(err)
	}
	if got, want := schema.Key(&p), "kafka 4.1.0-1 (release 3)"; got != want {
		t.Errorf("it is %s, want %s", got, want)
	}
	if got := string(p.Service.Templates["server.properties.mustache"]); got != "a={{A}}\n" {
		t.Errorf("the template is %q", got)
	}
	var r cosmos.Resource
	if err := json.Unmarshal(p.Resource, &r); err != nil {
		t.Fatal(err)
	}
	if r.Images.IconSmall != "data:image/svg+xml;base64,PHN2Zy8+" || r.Assets.Container.Docker["kafka"] == "" {
		t.Errorf("the resource is %s", p.Resource)
	}
}

// TestProblems: each mistake is named with its place.
func TestProblems(t *testing.T) {
	pkg := func(old, new string) map[string]string {
		return map[string]string{"package.json": strings.Replace(whole["package.json"], old, new, 1)}
	}
	for name, c := range map[string]struct {
		change map[string]string
		want   string
	}{
		"no package.json":   {map[string]string{"package.json": "-"}, "package.json: it is missing"},
		"unknown key":       {pkg(`"tags"`, `"tag":[],"tags"`), `package.json: unknown field "tag"`},
		"wrong type":        {pkg(`["queue"]`, `"queue"`), "package.json: tags: it is a string"},
		"unknown file":      {map[string]string{"marathon.json": "{}"}, "marathon.json: no package has a file of that name"},
		"name":              {pkg(`"kafka"`, `"Kafka"`), `package.json: name: "Kafka" does not match ^[a-z][a-z0-9-]*[a-z0-9]$`},
		"version":           {pkg(`4.1.0-1"`, `4.1 0"`), `package.json: version: "4.1 0" does not match ^[-a-zA-Z0-9.]+$`},
		"packaging version": {pkg(`"5.0"`, `"6.0"`), `package.json: packagingVersion: "6.0" is none of 2.0, 3.0, 4.0 and 5.0`},
		"too new a field":   {pkg(`"5.0"`, `"3.0"`), "package.json: upgradesFrom: packaging version 3.0 does not have it"},
		"no maintainer":     {pkg(`"maintainer":"m",`, ``), "package.json: maintainer: it is missing"},
		"bad tag":           {pkg(`"queue"`, `"a b"`), `package.json: tags: "a b" is no tag: it is empty or has a space`},
		"no small":          {pkg(`small`, `large`), `package.json: profiles: there is none called "small"`},
		"profile":           {pkg(`"count":1`, `"count":0`), "package.json: profiles.small: brokers.count: numeric instance is lower than the required minimum (minimum: 1, found: 0)"},
		"config":            {map[string]string{"config.json": `{"type":"objekt"}`}, "config.json: "},
		"config refers":     {map[string]string{"config.json": `{"properties":{"a":{"$ref":"#"}}}`}, "config.json: read config.json: /properties/a/$ref: a config.json must do without references"},
		"defaults":          {map[string]string{"config.json": strings.Replace(whole["config.json"], `"default":0.5`, `"default":"x"`, 1)}, `config.json: the defaults: brokers.cpus: instance type (string) does not match any allowed primitive type (allowed: ["number"])`},
		"template":          {map[string]string{"service.yaml.mustache": "a\n{{#x}}"}, "service.yaml.mustache: parse template: line 2: the section x is never closed"},
		"partial":           {map[string]string{"service.yaml.mustache": "{{>service}}"}, "a template is one text, without partials and parents"},
		"option":            {map[string]string{"service.yaml.mustache": "{{service.nam}}"}, "service.yaml.mustache: {{service.nam}} is neither an option nor a resource; service.name"},
		"two kinds":         {map[string]string{"marathon.json.mustache": "{}"}, "it has a template of an app and one of a service, and is one of them"},
		"no service":        {map[string]string{"service.yaml.mustache": "-"}, "service.yaml.mustache: it is missing, and there are templates for it"},
		"resource":          {map[string]string{"resource.json": `{"assets":{"container":{"docker":{"a":1}}}}`}, "resource.json: assets.container.docker: it is a number"},
		"command":           {map[string]string{"command.json": `{"pip":["a"]}`}, "package.json: command: packaging version 5.0 does not have it"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := schema.ReadDir(dir(c.change), 0)
			if err == nil {
				err = schema.CheckOwn(&p)
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v\nwant %s", err, c.want)
			}
		})
	}
}

// TestCheckOptions: what is wrong with options is told as DC/OS does, and which
// option it is.
func TestCheckOptions(t *testing.T) {
	c, err := schema.ParseConfig([]byte(whole["config.json"]))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Check(c.Defaults()); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	for options, want := range map[string]string{
		`{"brokers":{"count":"3"}}`:  `brokers.count: instance type (string) does not match any allowed primitive type (allowed: ["integer"])`,
		`{"brokers":{"count":1.5}}`:  `brokers.count: instance type (number) does not match any allowed primitive type (allowed: ["integer"])`,
		`{"brokers":{"mode":"c"}}`:   `brokers.mode: instance value ("c") not found in enum (possible values: ["a","b"])`,
		`{"brokers":{"cpu":1}}`:      `brokers.cpu: object instance has properties which are not allowed by the schema: ["cpu"] (did you mean cpus?)`,
		`{"brokers":{"zzzzzzzz":1}}`: `brokers.zzzzzzzz: object instance has properties which are not allowed by the schema: ["zzzzzzzz"] (there are count, cpus, mode)`,
		`{"brokers":3,"service":4}`:  `brokers: instance type (integer) does not match any allowed primitive type (allowed: ["object"]); service: instance type (integer) does not match any allowed primitive type (allowed: ["object"])`,
	} {
		v, err := schema.Decode([]byte(options))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Check(schema.Merge(c.Defaults(), v.(map[string]any))); err == nil || err.Error() != want {
			t.Errorf("%s: got %v\nwant %s", options, err, want)
		}
	}
	err = c.Check(map[string]any{"brokers": map[string]any{"count": json.Number("0")}})
	var reports schema.Reports
	if !errors.As(err, &reports) {
		t.Fatalf("got %v", err)
	}
	got, err := json.Marshal(reports)
	if err != nil {
		t.Fatal(err)
	}
	want := `[{"level":"error","schema":{"loadingURI":"#","pointer":"/properties/brokers/properties/count"},` +
		`"instance":{"pointer":"/brokers/count"},"domain":"validation","keyword":"minimum",` +
		`"message":"numeric instance is lower than the required minimum (minimum: 1, found: 0)","found":0,"fields":["brokers.count"]}]`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
}

func TestMerge(t *testing.T) {
	below := map[string]any{"a": map[string]any{"b": 1, "c": 2}, "l": []any{1, 2}, "s": "x"}
	over := map[string]any{"a": map[string]any{"b": 3}, "l": []any{4}, "s": map[string]any{}, "n": nil}
	want := map[string]any{"a": map[string]any{"b": 3, "c": 2}, "l": []any{4}, "s": map[string]any{}, "n": nil}
	if diff := cmp.Diff(want, schema.Merge(below, over)); diff != "" {
		t.Error(diff)
	}
	if below["a"].(map[string]any)["b"] != 1 {
		t.Error("what is below was changed")
	}
}

// TestBounds: a config.json that is made to take for ever is refused.
func TestBounds(t *testing.T) {
	for name, text := range map[string]string{
		"deep":   strings.Repeat(`{"properties":`, 100) + "{}" + strings.Repeat("}", 100),
		"large":  `{"enum":[` + strings.Repeat("1,", 200_000) + "1]}",
		"two":    "{}{}",
		"list":   "[]",
		"number": `{"minimum":1e999999999}`,
	} {
		if _, err := schema.ParseConfig([]byte(text)); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	c, err := schema.ParseConfig([]byte(`{"$schema":"http://127.0.0.1:1/schema","id":"file:///etc/passwd","properties":{"id":{"id":"x","type":"string"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Check(map[string]any{"id": "a"}); err != nil {
		t.Errorf("identifiers are read: %v", err)
	}
}

func TestNearest(t *testing.T) {
	names := []string{"kafka", "cassandra", "hdfs", "spark", "spark-history", "kafka-manager"}
	for word, want := range map[string]string{"kafak": "kafka", "Kafka": "kafka", "spark": "spark spark-history", "zzz": "", "casandra": "cassandra"} {
		if got := strings.Join(schema.Nearest(word, names), " "); got != want {
			t.Errorf("%s: got %q, want %q", word, got, want)
		}
	}
}

func TestCache(t *testing.T) {
	text := func(n int) []byte { return []byte(`{"title":"` + strings.Repeat("x", n) + `"}`) }
	c := schema.NewCache(1000)
	get := func(n int) *schema.Config {
		config, err := c.Config(text(n))
		if err != nil {
			t.Fatal(err)
		}
		return config
	}
	a, b := get(400), get(401)
	if get(400) != a || get(401) != b {
		t.Error("what is cached is made again")
	}
	get(400)
	get(402) // for which the one used longest ago goes
	if get(400) != a || get(401) == b {
		t.Error("another goes than the one used longest ago")
	}
	if get(5000) == get(400) { // one alone may be larger than all
		t.Error("two are one")
	}
	if _, err := c.Config([]byte("{")); err == nil {
		t.Error("no JSON is a config.json")
	}
	var none *schema.Cache
	if _, err := none.Config(text(1)); err != nil {
		t.Error(err)
	}
}
