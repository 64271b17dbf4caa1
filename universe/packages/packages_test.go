// Package packages_test judges the packages of this folder as the catalog, the
// operator and the image builder do, without a cluster.
package packages_test

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"dcos.example/dcos/runtime/api/cosmos"
	"dcos.example/dcos/runtime/api/service"
	"dcos.example/dcos/runtime/catalog/envelope"
	"dcos.example/dcos/runtime/catalog/render"
	"dcos.example/dcos/runtime/placement"
	"dcos.example/dcos/runtime/service/launch"
	"dcos.example/dcos/runtime/service/plan"
	"dcos.example/dcos/runtime/service/spec"
	"dcos.example/dcos/universe/images/recipe"
	"dcos.example/dcos/universe/schema"
)

// write is where to look at what the operator would send with the tasks.
var write = flag.String("write", "", "folder that rendered configs are written to")

// budget is what all instances of a package's small profile may need, in MiB.
var budget = map[string]float64{"kafka": 1536, "cassandra": 3072, "hdfs": 3072, "spark": 2048}

// TestPackages goes through every release of every package.
func TestPackages(t *testing.T) {
	releases, err := filepath.Glob("*/[0-9]*")
	if err != nil || len(releases) == 0 {
		t.Fatalf("no packages: %v", err)
	}
	for _, dir := range releases {
		t.Run(dir, func(t *testing.T) {
			number, err := strconv.ParseInt(filepath.Base(dir), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			p, err := schema.ReadDir(os.DirFS(dir), number)
			if err != nil {
				t.Fatal(err)
			}
			if err := schema.CheckOwn(&p); err != nil {
				t.Fatal(err)
			}
			if p.Name != filepath.Base(filepath.Dir(dir)) {
				t.Errorf("it is called %s", p.Name)
			}
			if _, err := os.Stat(filepath.Join(dir, "icon.svg")); err != nil {
				t.Error(err)
			}
			images(t, dir, &p)
			profiles := []string{""}
			for name := range p.Profiles {
				profiles = append(profiles, name)
			}
			for _, profile := range profiles {
				t.Run("profile "+profile, func(t *testing.T) { one(t, &p, profile) })
			}
		})
	}
}

// images looks for the recipes of the images that a release names.
func images(t *testing.T, dir string, p *cosmos.Package) {
	known := map[string]bool{}
	files, err := filepath.Glob("*/image.yaml")
	if err != nil {
		t.Fatal(err)
	}
	own, err := filepath.Glob("*/*/image.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(files, own...) {
		r, err := recipe.Read(file)
		if err != nil {
			t.Fatal(err)
		}
		known["registry.dcos/"+r.Name+":"+r.Version] = true
	}
	for _, ref := range references(t, p) {
		if !known[ref] {
			t.Errorf("%s names the image %s, which no recipe makes", dir, ref)
		}
	}
}

func references(t *testing.T, p *cosmos.Package) []string {
	t.Helper()
	v, err := schema.Decode(p.Resource)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, key := range []string{"assets", "container", "docker"} {
		m, _ := v.(map[string]any)
		v = m[key]
	}
	m, _ := v.(map[string]any)
	for _, ref := range m {
		all = append(all, ref.(string))
	}
	return all
}

// one renders a package with one of its profiles.
func one(t *testing.T, p *cosmos.Package, profile string) {
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	packed, err := envelope.Pack(text)
	if err != nil {
		t.Fatal(err)
	}
	r, err := render.Render(render.Input{Package: p, Packed: packed, Source: "file:/repo.json", Profile: profile})
	if err != nil {
		t.Fatal(err)
	}
	if r.Service == nil {
		return
	}
	s := r.Service
	spec.Normalize(s)
	if err := spec.Validate(s, nil).Err(); err != nil {
		t.Fatal(err)
	}
	var total float64
	for name, pod := range s.Pods.All() {
		total += float64(pod.Count) * spec.Need(s, name).Mem.Float()
		for task := range pod.Tasks.All() {
			rendered(t, s, name, task)
		}
	}
	if most := budget[p.Name]; profile == "small" && most > 0 && total > most {
		t.Errorf("it needs %g MiB, more than %g", total, most)
	}
}

// rendered renders the configs of a task as the operator does at its launch.
func rendered(t *testing.T, s *service.Spec, pod, task string) {
	t.Helper()
	of := launch.Task{
		Spec: s, Instance: plan.Instance{Pod: pod}, Name: task, Address: "192.0.2.1",
		Place: placement.Place{Host: "192.0.2.1"}, Ports: map[string]int{}, Secrets: map[string]string{},
	}
	def := s.Pods.Get(pod).Tasks.Get(task)
	for name, p := range def.Ports.All() {
		of.Ports[launch.PortKey(task, name)] = max(p.Port, 1)
	}
	for name, secret := range s.Secrets {
		of.Secrets[name] = secret.Value + strings.Repeat("x", secret.Generate)
	}
	values := launch.Values(of, s.Pods.Get(pod), launch.Environment(of))
	for _, c := range def.Configs.All() {
		text, err := launch.Render(s.Templates[c.Template], values)
		if err != nil {
			t.Errorf("%s: %v", c.Template, err)
		}
		if *write != "" {
			file := filepath.Join(*write, filepath.FromSlash(t.Name()), launch.FullName(of.Instance, task)+strings.ReplaceAll(c.Dest, "/", "_"))
			if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		for i, line := range strings.Split(text, "\n") {
			if strings.HasSuffix(line, "=") {
				t.Errorf("%s has nothing on line %d: %s", c.Template, i+1, line)
			}
		}
	}
}
