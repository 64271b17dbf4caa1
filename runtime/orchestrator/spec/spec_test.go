package spec_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"dcos.example/dcos/runtime/api/marathon"
	"dcos.example/dcos/runtime/orchestrator/spec"
)

var policy = spec.Policy{Role: "slave_public"}

func problems(t *testing.T, body string) []string {
	t.Helper()
	_, err := spec.ParseApp([]byte(body), spec.Root, policy)
	if err == nil {
		return nil
	}
	details, ok := spec.Details(err)
	if !ok {
		return []string{err.Error()}
	}
	var out []string
	for _, d := range details {
		for _, e := range d.Errors {
			out = append(out, d.Path+" "+e)
		}
	}
	return out
}

func TestValidationTexts(t *testing.T) {
	const health = "Health check port indices must address an element of the ports array or container port mappings."
	for name, tc := range map[string]struct {
		body string
		want []string
	}{
		"fine":           {`{"id":"/a","cmd":"xx"}`, nil},
		"no id":          {`{"cmd":"xx"}`, []string{"/id error.path.missing"}},
		"bad id":         {`{"id":"/A_b","cmd":"xx"}`, []string{`/id must fully match regular expression '^(([a-z0-9]|[a-z0-9][a-z0-9\-]*[a-z0-9])\.)*([a-z0-9]|[a-z0-9][a-z0-9\-]*[a-z0-9])|(\.|\.\.)$'`}},
		"reserved id":    {`{"id":"/a/tasks","cmd":"xx"}`, []string{"/id must not be one of (restart, tasks, versions, ., ..)"}},
		"nothing to run": {`{"id":"/a"}`, []string{"/ AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'."}},
		"cmd and args":   {`{"id":"/a","cmd":"xx","args":["y"]}`, []string{"/ AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'."}},
		"image alone":    {`{"id":"/a","container":{"docker":{"image":"i"}}}`, nil},
		"all at once": {`{"id":"/a","cmd":"xx","cpus":0,"mem":-1,"instances":-1,"upgradeStrategy":{"minimumHealthCapacity":1.5,"maximumOverCapacity":-0.5}}`, []string{
			"/cpus got 0.0, expected 0.001 or more", "/mem got -1.0, expected 0.0 or more", "/instances got -1.0, expected 0.0 or more",
			"/upgradeStrategy/minimumHealthCapacity is greater than 1", "/upgradeStrategy/maximumOverCapacity got -0.5, expected 0.0 or more",
		}},
		"types": {`{"id":1,"cmd":[],"env":{"A":1},"healthChecks":[{"portIndex":"0"}],"container":{"docker":{}}}`, []string{
			"/id error.expected.jsstring", "/cmd error.expected.jsstring", "/container/docker/image error.path.missing",
			"/env/A error.expected.jsstring", "/healthChecks(0)/portIndex error.expected.jsnumber",
		}},
		"networks": {`{"id":"/a","cmd":"xx","networks":[{"mode":"host","name":"x"},{"mode":"container"}]}`, []string{
			"/networks Host networks may not have names or labels",
			"/networks Network name must be specified when container network is selected.",
			"/networks May specify a single host network, single bridge network, or else 1-to-n container networks",
		}},
		"mappings on host": {`{"id":"/a","cmd":"xx","networks":[{"mode":"host"}],"container":{"type":"MESOS","portMappings":[{"containerPort":80}]}}`,
			[]string{"/ portMappings are not allowed with host-networking"}},
		"definitions on bridge": {`{"id":"/a","cmd":"xx","networks":[{"mode":"container/bridge"}],"portDefinitions":[{"port":0}]}`,
			[]string{"/ portDefinitions are only allowed with host-networking"}},
		"ports": {`{"id":"/a","cmd":"xx","portDefinitions":[{"port":80,"name":"x"},{"port":80,"name":"x"}]}`, []string{
			"/portDefinitions Port names must be unique.", "/portDefinitions Ports must be unique.",
		}},
		"old ports":       {`{"id":"/a","cmd":"xx","ports":[80,80]}`, []string{"/ ports must be unique"}},
		"old and new":     {`{"id":"/a","cmd":"xx","ports":[80],"portDefinitions":[{"port":81}]}`, []string{"/ cannot specify both ports and port definitions"}},
		"uris and fetch":  {`{"id":"/a","cmd":"xx","uris":["http://x"],"fetch":[{"uri":"http://y"}]}`, []string{"/uris may not be set in conjunction with fetch"}},
		"docker NONE":     {`{"id":"/a","container":{"docker":{"image":"i","network":"NONE"}}}`, []string{"/container/docker/network unsupported docker network type NONE"}},
		"health index":    {`{"id":"/a","cmd":"xx","healthChecks":[{"portIndex":1}]}`, []string{"/healthChecks(0) " + health}},
		"health no ports": {`{"id":"/a","cmd":"xx","portDefinitions":[],"healthChecks":[{"protocol":"TCP"}]}`, []string{"/healthChecks(0) " + health}},
		"two mesos checks": {`{"id":"/a","cmd":"xx","healthChecks":[{"protocol":"MESOS_HTTP"},{"protocol":"MESOS_TCP"}]}`,
			[]string{"/ AppDefinition can contain at most one Mesos health check"}},
		"constraints": {`{"id":"/a","cmd":"xx","constraints":[["hostname"],["hostname","UNIQUE","x"],["r","LIKE"],["r","MAX_PER","x"],["r","NEAR"],["r","is","a b"]]}`, []string{
			"/constraints(0) Each constraint must have either 2 or 3 fields",
			"/constraints(1) UNIQUE does not accept a value",
			"/constraints(2) A regular expression value must be provided",
			"/constraints(3) Value was not specified or is not a number",
			"/constraints(4) operator must be one of the following UNIQUE, CLUSTER, GROUP_BY, LIKE, MAX_PER, UNLIKE or IS",
			"/constraints(5) IS only supports scalar and text values: must match ^[a-zA-Z0-9_/.-]*$",
		}},
		"roles":  {`{"id":"/a","cmd":"xx","acceptedResourceRoles":["db"]}`, []string{"/acceptedResourceRoles acceptedResourceRoles can only contain * and slave_public"}},
		"single": {`{"id":"/a","cmd":"xx","instances":2,"labels":{"MARATHON_SINGLE_INSTANCE_APP":"true"},"upgradeStrategy":{"minimumHealthCapacity":0,"maximumOverCapacity":0}}`, []string{"/ Single instance app may only have one instance"}},
		"readiness": {`{"id":"/a","cmd":"xx","readinessChecks":[{"portName":"x","intervalSeconds":5,"timeoutSeconds":5}]}`, []string{
			"/readinessChecks(0)/portName No port definition reference for portName x", "/readinessChecks(0)/timeoutSeconds got 5, expected less than 5",
		}},
		"gpus": {`{"id":"/a","gpus":1,"container":{"docker":{"image":"i"}}}`, []string{"/ GPU resources only work with the Mesos containerizer"}},
		"what cannot be done": {`{"id":"/a","cmd":"xx","env":{"P":{"secret":"s"}},"secrets":{"s":{"source":"x"}},"check":{"tcp":{}},"container":{"type":"MESOS","volumes":[{"containerPath":"d","persistent":{"size":1}}]}}`, []string{
			"/container/volumes(0) persistent volumes are not supported by this version",
			"/secrets Feature secrets is not enabled. Enable with --enable_features secrets)",
			"/env/P Feature secrets is not enabled. Enable with --enable_features secrets)",
			"/check check is not supported, use healthChecks",
		}},
		"nulls are absence": {`{"id":"/a","cmd":"xx","args":null,"container":null,"check":null,"user":null,"ipAddress":null,"labels":null}`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, problems(t, tc.body)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestOlderFormsAreOneForm: what 2016 clients write is what today's write.
func TestOlderFormsAreOneForm(t *testing.T) {
	for name, tc := range map[string]struct{ old, now string }{
		"ports":  {`{"id":"/a","cmd":"xx","ports":[0,81]}`, `{"id":"/a","cmd":"xx","portDefinitions":[{"port":0},{"port":81}]}`},
		"uris":   {`{"id":"/a","cmd":"xx","uris":["http://x/a.tgz","http://x/a.sh"]}`, `{"id":"/a","cmd":"xx","fetch":[{"uri":"http://x/a.tgz"},{"uri":"http://x/a.sh","extract":false}]}`},
		"bridge": {`{"id":"/a","container":{"docker":{"image":"i","network":"BRIDGE","portMappings":[{"containerPort":80}]}}}`, `{"id":"/a","networks":[{"mode":"container/bridge"}],"container":{"type":"DOCKER","docker":{"image":"i"},"portMappings":[{"containerPort":80,"hostPort":0}]}}`},
		"host":   {`{"id":"/a","container":{"docker":{"image":"i","network":"HOST","portMappings":[]}}}`, `{"id":"/a","container":{"docker":{"image":"i"}}}`},
		"ip address": {`{"id":"/a","cmd":"xx","ipAddress":{"networkName":"dcos","discovery":{"ports":[{"number":80,"name":"http","protocol":"tcp"}]}}}`,
			`{"id":"/a","cmd":"xx","networks":[{"mode":"container","name":"dcos"}],"container":{"type":"MESOS","portMappings":[{"containerPort":80,"name":"http"}]}}`},
		"relative": {`{"id":"a","cmd":"xx","dependencies":["../b"]}`, `{"id":"/a","cmd":"xx","dependencies":["/b"]}`},
	} {
		t.Run(name, func(t *testing.T) {
			parse := func(s string) *marathon.App {
				a, err := spec.ParseApp([]byte(s), spec.Root, policy)
				if err != nil {
					t.Fatal(err)
				}
				return a
			}
			if diff := cmp.Diff(parse(tc.now), parse(tc.old)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestUpdateOver(t *testing.T) {
	base := `{"id":"/a","cmd":"xx","env":{"A":"1"},"labels":{"x":"y"},"portDefinitions":[{"port":8080,"name":"web"}],"fetch":[{"uri":"http://x"}]}`
	for name, tc := range map[string]struct{ update, want string }{
		"instances":         {`{"instances":5}`, `{"id":"/a","cmd":"xx","instances":5,"env":{"A":"1"},"labels":{"x":"y"},"portDefinitions":[{"port":8080,"name":"web"}],"fetch":[{"uri":"http://x"}]}`},
		"maps are replaced": {`{"env":{"B":"2"},"labels":{}}`, `{"id":"/a","cmd":"xx","env":{"B":"2"},"portDefinitions":[{"port":8080,"name":"web"}],"fetch":[{"uri":"http://x"}]}`},
		"null removes":      {`{"cmd":null,"args":["y"],"fetch":null,"env":null,"labels":null}`, `{"id":"/a","args":["y"],"portDefinitions":[{"port":8080,"name":"web"}]}`},
		"old field":         {`{"ports":[9],"uris":["http://z"]}`, `{"id":"/a","cmd":"xx","env":{"A":"1"},"labels":{"x":"y"},"portDefinitions":[{"port":9}],"fetch":[{"uri":"http://z","extract":false}]}`},
		"to bridge":         {`{"networks":[{"mode":"container/bridge"}]}`, `{"id":"/a","cmd":"xx","env":{"A":"1"},"labels":{"x":"y"},"fetch":[{"uri":"http://x"}],"networks":[{"mode":"container/bridge"}]}`},
	} {
		t.Run(name, func(t *testing.T) {
			cur, err := spec.ParseApp([]byte(base), spec.Root, policy)
			if err != nil {
				t.Fatal(err)
			}
			want, err := spec.ParseApp([]byte(tc.want), spec.Root, policy)
			if err != nil {
				t.Fatal(err)
			}
			u, err := spec.ParseUpdate([]byte(tc.update))
			if err != nil {
				t.Fatal(err)
			}
			got, err := u.Over(cur, policy)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	if _, err := spec.ParseUpdate([]byte(`{"version":"2020-01-01T00:00:00.000Z","cmd":"x"}`)); err == nil ||
		!strings.Contains(err.Error(), "The 'version' field may only be combined with the 'id' field.") {
		t.Error(err)
	}
}

// TestCanonicalIsStable: reading what was written changes nothing.
func TestCanonicalIsStable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := map[string]any{"id": "/a"}
		pick := func(key string, values ...any) {
			if n := rapid.IntRange(0, len(values)).Draw(t, key); n < len(values) {
				in[key] = values[n]
			}
		}
		in["cmd"] = "xx"
		pick("ports", []int{0}, []int{80, 0})
		pick("instances", 0, 3)
		pick("env", map[string]any{"A": "b"}, map[string]any{})
		pick("constraints", [][]string{{"hostname", "unique"}})
		pick("unreachableStrategy", "disabled", map[string]any{"inactiveAfterSeconds": 1, "expungeAfterSeconds": 2})
		pick("healthChecks", []map[string]any{{}}, []map[string]any{{"protocol": "COMMAND", "command": map[string]any{"value": "x"}}})
		pick("resourceLimits", map[string]any{"cpus": "unlimited", "mem": 1000})
		body, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		a, err := spec.ParseApp(body, spec.Root, policy)
		if err != nil {
			t.Fatal(err)
		}
		again, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		b, err := spec.ParseApp(again, spec.Root, policy)
		if err != nil {
			t.Fatalf("%s: %v", again, err)
		}
		if diff := cmp.Diff(a, b); diff != "" || spec.Diff(a, b) != spec.Same {
			t.Fatal(diff)
		}
	})
}

func TestIDs(t *testing.T) {
	for _, tc := range []struct{ text, base, want string }{
		{"/a//b/", "/", "/a/b"}, {"c", "/a", "/a/c"}, {"../c", "/a/b", "/a/c"}, {"./c", "/a", "/a/c"}, {"", "/a", "/a"}, {"../../..", "/a", "/"},
	} {
		if got := spec.ParseID(tc.text, spec.AppID(tc.base)); string(got) != tc.want {
			t.Errorf("%q in %s is %s, want %s", tc.text, tc.base, got, tc.want)
		}
	}
	id := spec.AppID("/a/b/c")
	if id.Flat() != "a_b_c" || id.Hostname() != "c.b.a" || id.Parent() != "/a/b" || !id.Within("/a") || id.Within("/a/bb") {
		t.Error(id.Flat(), id.Hostname(), id.Parent())
	}
}

func TestServicePorts(t *testing.T) {
	tree := spec.NewTree()
	add := func(body string) *marathon.App {
		a, err := spec.ParseApp([]byte(body), spec.Root, policy)
		if err != nil {
			t.Fatal(err)
		}
		c := spec.NewChange()
		c.Apps[spec.AppID(a.ID)] = a
		if err := tree.AssignPorts(c); err != nil {
			t.Fatal(err)
		}
		tree.Apply(c, "v")
		return a
	}
	steps := []struct {
		body string
		want []int64
	}{
		{`{"id":"/a","cmd":"xx","ports":[0,10001,0]}`, []int64{10000, 10001, 10002}},
		{`{"id":"/b","cmd":"xx"}`, []int64{10003}},
		{`{"id":"/a","cmd":"xx","ports":[10002,0]}`, []int64{10002, 10000}},
		{`{"id":"/c","cmd":"xx"}`, []int64{10001}},
	}
	for _, s := range steps {
		if diff := cmp.Diff(s.want, spec.ServicePorts(add(s.body))); diff != "" {
			t.Errorf("%s: %s", s.body, diff)
		}
	}
}

func TestGroupAndAppMayNotShareAnID(t *testing.T) {
	tree := spec.NewTree()
	a, err := spec.ParseApp([]byte(`{"id":"/x/y","cmd":"xx"}`), spec.Root, policy)
	if err != nil {
		t.Fatal(err)
	}
	c := spec.NewChange()
	c.Apps["/x/y"] = a
	if err := tree.Check(c); err != nil {
		t.Fatal(err)
	}
	tree.Apply(c, "v")
	for _, id := range []spec.AppID{"/x", "/x/y/z"} {
		c := spec.NewChange()
		b := *a
		b.ID = string(id)
		c.Apps[id] = &b
		if err := tree.Check(c); err == nil || !strings.Contains(err.Error(), "Groups and Applications may not have the same identifier.") {
			t.Errorf("%s: %v", id, err)
		}
	}
}
