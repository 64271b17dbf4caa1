package route_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"dcos.example/dcos/runtime/gateway/route"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "rewrite golden files")

func labels(name, scheme, index string, more ...string) map[string]string {
	m := map[string]string{"DCOS_SERVICE_NAME": name, "DCOS_SERVICE_SCHEME": scheme, "DCOS_SERVICE_PORT_INDEX": index}
	for i := 0; i < len(more); i += 2 {
		m[more[i]] = more[i+1]
	}
	return m
}

func cluster() ([]route.Instance, []route.Framework) {
	return []route.Instance{
			{ID: "web.2", TaskName: "web", Labels: labels("web", "http", "0"), Host: "198.19.50.12", Ports: []int{2002}},
			{ID: "web.1", TaskName: "web", Labels: labels("web", "http", "0"), Host: "198.19.50.11", Ports: []int{1001}},
			{ID: "deep.1", TaskName: "deep", Labels: labels("/team/deep/", "https", "1"), Host: "198.19.50.11", Ports: []int{1, 1443}},
			{ID: "keep.1", TaskName: "keep", Labels: labels("keep", "http", "0", "DCOS_SERVICE_REWRITE_REQUEST_URLS", "false", "DCOS_SERVICE_REQUEST_BUFFERING", "false"), Host: "198.19.50.11", Ports: []int{8000}},
			{ID: "bad.1", TaskName: "bad", Labels: labels("bad", "http", "x"), Host: "198.19.50.11", Ports: []int{9000}},
			{ID: "bad.2", TaskName: "worse", Labels: labels("worse", "http", "7"), Host: "198.19.50.11", Ports: []int{9001}},
			{ID: "bad.3", TaskName: "gopher", Labels: labels("gopher", "gopher", "0"), Host: "198.19.50.11", Ports: []int{9002}},
			{ID: "bad.4", TaskName: "evil", Labels: labels("marathon", "http", "0"), Host: "198.19.50.11", Ports: []int{9003}},
			{ID: "plain.1", TaskName: "plain", Host: "198.19.50.13", Ports: []int{7000}},
			{ID: "portless.1", TaskName: "portless", Host: "198.19.50.13"},
			{ID: "spark.9", TaskName: "spark", Host: "198.19.50.13", Ports: []int{7001}},
		}, []route.Framework{
			{ID: "fw-1", Name: "spark", WebUI: "http://198.19.50.14:4040/ui/"},
			{ID: "fw-2", Name: "silent"},
			{ID: "fw-3", Name: "loop", WebUI: "http://127.0.0.1:5050"},
			{ID: "fw-4", Name: "file", WebUI: "file:///etc/passwd"},
			{ID: "fw-5", Name: "meta", WebUI: "http://169.254.169.254/"},
			{ID: "fw-6", Name: "lh", WebUI: "http://localhost:2379"},
		}
}

func TestResolveGolden(t *testing.T) {
	table, errs := route.New(cluster())
	var b strings.Builder
	for _, p := range []string{
		"/service/web", "/service/web/", "/service/web/a/b", "/service/web/a%2Fb", "/service/web//x",
		"/service/team", "/service/team/deep", "/service/team/deep/x?y", "/service/team%2Fdeep/x",
		"/service/keep/a", "/service/plain/", "/service/portless/", "/service/bad/", "/service/worse/", "/service/gopher/", "/service/evil/",
		"/service/marathon/", "/service/spark/jobs", "/service/fw-1/jobs", "/service/fw-2/", "/service/loop/", "/service/file/", "/service/meta/", "/service/lh/",
		"/service/", "/service", "/other", "/service/%zz",
	} {
		target, ok := table.Resolve(p)
		if !ok {
			fmt.Fprintf(&b, "%s -> none\n", p)
			continue
		}
		fmt.Fprintf(&b, "%s -> %s://%s%s prefix=%q unbuffered=%v\n", p, target.Scheme, target.Host, target.Path, target.Prefix, target.Unbuffered)
	}
	for _, err := range errs {
		fmt.Fprintf(&b, "refused: %v\n", err)
	}
	const file = "testdata/resolve.golden"
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), b.String()); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

// Whatever runs and whatever is asked for, a target is http or https, its path
// starts with "/", the reserved names never resolve, and the order of the
// input does not matter.
func TestResolveProperties(t *testing.T) {
	segment := rapid.SampledFrom([]string{"a", "b", "a/b", "marathon", "metronome", "", "x%2Fy", "..", "c"})
	rapid.Check(t, func(t *rapid.T) {
		var ins []route.Instance
		for i := range rapid.IntRange(0, 6).Draw(t, "n") {
			ins = append(ins, route.Instance{
				ID: fmt.Sprint(i), TaskName: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "task"), Host: "198.19.50.1", Ports: []int{i + 1},
				Labels: labels(segment.Draw(t, "name"), rapid.SampledFrom([]string{"http", "https", "ftp", ""}).Draw(t, "scheme"), rapid.SampledFrom([]string{"0", "1", "-1", "x"}).Draw(t, "index")),
			})
		}
		one, _ := route.New(ins, nil)
		other, _ := route.New(rapid.Permutation(ins).Draw(t, "order"), nil)
		path := "/service/" + strings.Join(rapid.SliceOfN(segment, 0, 12).Draw(t, "path"), "/")
		got, ok := one.Resolve(path)
		again, okAgain := other.Resolve(path)
		if ok != okAgain || got != again {
			t.Fatalf("%s: %+v, in another order %+v", path, got, again)
		}
		if !ok {
			return
		}
		if got.Scheme != "http" && got.Scheme != "https" || !strings.HasPrefix(got.Path, "/") {
			t.Fatalf("%s: %+v", path, got)
		}
		if strings.HasPrefix(path, "/service/marathon/") || path == "/service/marathon" {
			t.Fatalf("%s resolves to %+v", path, got)
		}
	})
}

func TestOperated(t *testing.T) {
	known := func(name string) bool { return name == "kafka" || name == "prod/kafka" || name == "v1" }
	for path, want := range map[string]string{
		"/service/kafka/v1/plans":            "kafka /v1/plans",
		"/service/kafka/v2/debug/offers":     "kafka /v2/debug/offers",
		"/service/kafka/v1":                  "kafka /v1",
		"/service/prod/kafka/v1/pod/a%2Fb/x": "prod/kafka /v1/pod/a%2Fb/x",
		"/service/prod%2Fkafka/v1/pod":       "prod/kafka /v1/pod",
		"/service/v1/v1/pod":                 "v1 /v1/pod",
		"/service/kafka":                     "",
		"/service/kafka/":                    "",
		"/service/kafka/ui/v1":               "",
		"/service/other/v1/plans":            "",
		"/service/%zz/v1":                    "",
		"/other/kafka/v1":                    "",
	} {
		name, rest, ok := route.Operated(path, known)
		got := ""
		if ok {
			got = name + " " + rest
		}
		if got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}
