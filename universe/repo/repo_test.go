package repo_test

import (
	"maps"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"dcos.example/dcos/universe/repo"
)

// shelf returns a folder of one package with two releases.
func shelf(changes map[string]string) fstest.MapFS {
	files := map[string]string{
		"echo/image.yaml":               "name: echo\n",
		"echo/0/package.json":           pkg("1.0.0-1", ""),
		"echo/0/config.json":            config,
		"echo/0/resource.json":          `{"assets": {"container": {"docker": {"echo": "registry.dcos/echo:1.0.0-1"}}}}`,
		"echo/0/marathon.json.mustache": app,
		"echo/1/package.json":           pkg("1.1.0-1", `"upgradesFrom": ["1.0.0-1"],`),
		"echo/1/config.json":            config,
		"echo/1/resource.json":          `{"assets": {"container": {"docker": {"echo": "registry.dcos/echo:1.0.0-1"}}}}`,
		"echo/1/marathon.json.mustache": app,
	}
	maps.Copy(files, changes)
	m := fstest.MapFS{}
	for name, text := range files {
		if text != "" {
			m[name] = &fstest.MapFile{Data: []byte(text)}
		}
	}
	return m
}

const (
	config = "{\"type\": \"object\", \"properties\": {\n\"name\": {\"type\": \"string\", \"default\": \"echo\"}}}"
	app    = `{"id": "{{name}}", "cmd": "true", "container": {"docker": {"image": "{{resource.assets.container.docker.echo}}"}}}`
)

func pkg(version, more string) string {
	return `{
 "packagingVersion": "5.0",
 "name": "echo",
 "version": "` + version + `",
 ` + more + `
 "maintainer": "support@example.com",
 "description": "Says what it hears",
 "tags": ["demo"],
 "profiles": {"small": {}}
}`
}

var options = repo.Options{Registry: "registry.dcos", Images: []string{"registry.dcos/echo:1.0.0-1"}}

func TestIndex(t *testing.T) {
	index, err := repo.Build(shelf(nil), "packages", options)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range index.Packages {
		got = append(got, p.Version)
	}
	if diff := cmp.Diff([]string{"1.1.0-1", "1.0.0-1"}, got); diff != "" {
		t.Error(diff)
	}
	one, err := index.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := repo.Build(shelf(nil), "packages", options)
	if err != nil {
		t.Fatal(err)
	}
	two, err := again.Marshal()
	if err != nil || string(one) != string(two) {
		t.Errorf("two indexes differ (%v)", err)
	}
}

func TestProblemsHaveFileAndLine(t *testing.T) {
	for name, c := range map[string]struct {
		change map[string]string
		want   string
	}{
		"json":    {map[string]string{"echo/1/package.json": "{\n \"name\": \"echo\",\n oh\n}"}, "packages/echo/1/package.json:3:"},
		"version": {map[string]string{"echo/1/package.json": pkg("1.0.0-1", "")}, "packages/echo/1/package.json:4: version: release 0 has version 1.0.0-1 too"},
		"upgrade": {map[string]string{"echo/1/package.json": pkg("2", `"upgradesFrom": ["0.9"],`)}, "packages/echo/1/package.json:5: upgradesFrom: there is no version 0.9"},
		"image":   {map[string]string{"echo/1/resource.json": "{\"assets\": {\"container\": {\n\"docker\": {\"echo\": \"registry.dcos/echo:2\"}}}}"}, "packages/echo/1/resource.json:2: assets.container.docker: no image.yaml makes registry.dcos/echo:2"},
		"name":    {map[string]string{"echo/1/package.json": strings.Replace(pkg("2", ""), `"echo"`, `"else"`, 1)}, `packages/echo/1/package.json:3: name: it is "else" in folder "echo"`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := repo.Build(shelf(c.change), "packages", options)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestOnly(t *testing.T) {
	o := options
	o.Only = []string{"ecko"}
	if _, err := repo.Build(shelf(nil), "packages", o); err == nil || !strings.Contains(err.Error(), "did you mean echo?") {
		t.Errorf("got %v", err)
	}
}
