//go:build e2e

package cosmos_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"dcos.example/dcos/ci/conformance/target"
	"dcos.example/dcos/runtime/api/cosmos"
)

var c target.Cluster

func TestMain(m *testing.M) { os.Exit(target.Main(m, &c, "confcosmos", "198.19.30.0/24")) }

// send sends a request with the types that the call has.
func send(t *testing.T, call cosmos.Call, body string) target.Answer {
	t.Helper()
	path := call.Path
	if strings.HasPrefix(path, "/service/") { // names of services begin so
		path = "/cosmos" + path
	}
	return c.Ask(t, "POST", path, body, "Content-Type", call.Request, "Accept", call.Accept[0])
}

// ok is a request that succeeds.
func ok(t *testing.T, call cosmos.Call, body string, v any) {
	t.Helper()
	a := send(t, call, body).Is(t, 200).Has(t, "Content-Type", call.Accept[0])
	if v != nil {
		a.JSON(t, v)
	}
}

// no is a request that fails, with a type and words.
func no(t *testing.T, call cosmos.Call, body string, status int, kind string, words ...string) cosmos.Error {
	t.Helper()
	var e cosmos.Error
	send(t, call, body).Is(t, status, words...).Has(t, "Content-Type", cosmos.TypeError).JSON(t, &e)
	if e.Type != kind {
		t.Errorf("%s %s fails with %s: %s, want %s", call.Path, body, e.Type, e.Message, kind)
	}
	return e
}

// source is a repository that the cluster can reach.
type source struct {
	uri  string
	mu   sync.Mutex
	kind string
	body string
}

// set says what the repository has from now on.
func (s *source) set(kind, body string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kind, s.body = kind, body
}

// serve starts a repository at the address of this machine that the cluster
// sees.
func serve(t *testing.T) *source {
	t.Helper()
	at, err := url.Parse(c.URL)
	if err != nil {
		t.Fatal(err)
	}
	port := at.Port()
	if port == "" {
		port = "443"
	}
	conn, err := net.Dial("tcp", net.JoinHostPort(at.Hostname(), port))
	if err != nil {
		t.Fatal(err)
	}
	here := conn.LocalAddr().(*net.TCPAddr).IP
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", net.JoinHostPort(here.String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	s := &source{}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		w.Header().Set("Content-Type", s.kind)
		io.WriteString(w, s.body)
	}))
	if err := server.Listener.Close(); err != nil {
		t.Fatal(err)
	}
	server.Listener = l
	server.Start()
	t.Cleanup(server.Close)
	s.uri = server.URL
	return s
}

const config = `{"type":"object","properties":{"web":{"type":"object","additionalProperties":false,"properties":{
	"instances":{"type":"integer","default":1,"minimum":0},"note":{"type":"string","default":"a \"b\" <c>"}}}}}`

const app = `{"id":"/conformance/cosmos","instances":{{web.instances}},"cmd":"sleep 1000","cpus":0.01,"mem":32,"env":{"NOTE":"{{web.note}}"}}`

// packages are two versions of an app, and a tool with nothing to run.
func packages() string {
	one := func(name, version string, release int, more string) string {
		return fmt.Sprintf(`{"packagingVersion":"4.0","name":%q,"version":%q,"releaseVersion":%d,"maintainer":"a@b.c","description":"Conformance of packages","tags":["conformance-tag"]%s}`,
			name, version, release, more)
	}
	run := fmt.Sprintf(`,"config":%s,"marathon":{"v2AppMustacheTemplate":%q},"postInstallNotes":"It runs.","postUninstallNotes":"It ran."`,
		config, base64.StdEncoding.EncodeToString([]byte(app)))
	old := strings.Replace(one("conformance-old", "1.0", 0, `,"resource":{"images":{"icon-small":"http://192.0.2.1/icon.png"}}`), "4.0", "3.0", 1)
	return `{"packages":[` + strings.Join([]string{
		one("conformance-app", "1.0", 0, run), one("conformance-app", "1.1", 1, run+`,"upgradesFrom":["1.0"]`), old,
	}, ",") + `]}`
}

const name = "Conformance"

// stock adds the repository of the suite and takes it out when the test ends.
func stock(t *testing.T) *source {
	t.Helper()
	s := serve(t)
	s.set(cosmos.RepositoryType(4), packages())
	drop := func() {
		if a := send(t, cosmos.RepositoryDelete, `{"name":"`+name+`"}`); a.Code != 200 && !strings.Contains(a.Body, "RepositoryNotPresent") {
			t.Errorf("remove the repository: %d %s", a.Code, a.Body)
		}
	}
	drop()
	ok(t, cosmos.RepositoryAdd, fmt.Sprintf(`{"name":%q,"uri":%q}`, name, s.uri), nil)
	t.Cleanup(drop)
	return s
}

func TestHeaders(t *testing.T) {
	for _, call := range []cosmos.Call{
		cosmos.Search, cosmos.List, cosmos.ListVersions, cosmos.Describe, cosmos.Render, cosmos.Install, cosmos.Uninstall,
		cosmos.RepositoryList, cosmos.RepositoryAdd, cosmos.RepositoryDelete,
	} {
		for accept, want := range map[string]string{"application/json": "not_valid", "*/*": "not_valid"} {
			c.Ask(t, "POST", call.Path, `{}`, "Content-Type", call.Request, "Accept", accept).
				Is(t, 400, `"type":"`+want+`"`, call.Accept[0]).Has(t, "Content-Type", cosmos.TypeError)
		}
		c.Ask(t, "POST", call.Path, `{}`, "Content-Type", "application/json", "Accept", call.Accept[0]).
			Is(t, 400, `"type":"not_valid"`, "Item header 'Content-Type'")
		c.Ask(t, "POST", call.Path, `{`, "Content-Type", call.Request, "Accept", call.Accept[0]).Is(t, 400, `"type":"json_error"`)
		c.Anonymous(t, "POST", call.Path, `{}`, "Content-Type", call.Request, "Accept", call.Accept[0]).Is(t, 401)
	}
	c.Ask(t, "GET", "/capabilities", "", "Accept", cosmos.TypeCapabilities).
		Is(t, 200, `"PACKAGE_MANAGEMENT"`).Has(t, "Content-Type", cosmos.TypeCapabilities)
}

func TestRepositories(t *testing.T) {
	s := stock(t)
	var list cosmos.RepositoryResponse
	ok(t, cosmos.RepositoryList, `{}`, &list)
	n := len(list.Repositories)
	if last := list.Repositories[n-1]; last.Name != name || last.URI != s.uri {
		t.Errorf("the list ends with %+v", last)
	}
	add := func(name, uri string) string { return fmt.Sprintf(`{"name":%q,"uri":%q}`, name, uri) }
	no(t, cosmos.RepositoryAdd, add(name, "http://192.0.2.1/"), 400, "RepositoryAlreadyPresent", name)
	no(t, cosmos.RepositoryAdd, add("Other", s.uri), 400, "RepositoryAlreadyPresent", s.uri)
	no(t, cosmos.RepositoryAdd, add("Other", "ftp://192.0.2.1/"), 400, "UnsupportedRepositoryUri", "uses an unsupported scheme")
	no(t, cosmos.RepositoryAdd, add("Other", "http://a b/"), 400, "RepositoryUriSyntax")
	no(t, cosmos.RepositoryAdd, add("Other", s.uri[:strings.LastIndex(s.uri, ":")]+":1/"), 400, "RepositoryUriConnection") // nobody listens
	no(t, cosmos.RepositoryAdd, fmt.Sprintf(`{"name":"Other","uri":"%s/2","index":%d}`, s.uri, n+1), 400, "RepositoryAddIndexOutOfBounds",
		fmt.Sprintf("Index (%d) is out of range. Index value must be between 0 and %d inclusive.", n+1, n))
	s.set("text/html", "<html>")
	no(t, cosmos.RepositoryAdd, add("Other", s.uri+"/2"), 400, "UnsupportedContentType", "text/html")
	no(t, cosmos.RepositoryDelete, `{"name":"None"}`, 400, "RepositoryNotPresent", "None")
	no(t, cosmos.RepositoryDelete, `{}`, 400, "RepoNameOrUriMissing", "Must specify either the name or URI of the repository")

	// The order is that of adding, unless it is said.
	s.set(cosmos.RepositoryType(3), `{"packages":[]}`)
	ok(t, cosmos.RepositoryAdd, fmt.Sprintf(`{"name":"Other","uri":"%s/2","index":0}`, s.uri), &list)
	if list.Repositories[0].Name != "Other" || len(list.Repositories) != n+1 {
		t.Errorf("the list is %+v", list)
	}
	ok(t, cosmos.RepositoryDelete, `{"uri":"`+s.uri+`/2"}`, &list)
	if len(list.Repositories) != n {
		t.Errorf("the list is %+v", list)
	}
}

func TestPackages(t *testing.T) {
	stock(t)
	var found cosmos.SearchResponse
	for _, query := range []string{"conformance-app", "CONFORMANCE-APP", "conformance-a*", "*rmance-app"} {
		ok(t, cosmos.Search, fmt.Sprintf(`{"query":%q}`, query), &found)
		if len(found.Packages) != 1 {
			t.Fatalf("%s finds %+v", query, found)
		}
	}
	if p := found.Packages[0]; p.CurrentVersion != "1.1" || len(p.Versions) != 2 || p.Versions["1.0"] != "0" || p.Framework {
		t.Errorf("found is %+v", p)
	}
	ok(t, cosmos.Search, `{"query":"conformance-tag"}`, &found)
	if len(found.Packages) != 2 {
		t.Errorf("by tag there are %+v", found)
	}
	var versions cosmos.ListVersionsResponse
	ok(t, cosmos.ListVersions, `{"packageName":"conformance-app","includePackageVersions":true}`, &versions)
	if len(versions.Results) != 2 || versions.Results["1.1"] != "1" {
		t.Errorf("versions are %+v", versions)
	}
	var d struct{ Package cosmos.Package }
	ok(t, cosmos.Describe, `{"packageName":"conformance-app","packageVersion":"1.0"}`, &d)
	if d.Package.Version != "1.0" || *d.Package.ReleaseVersion != 0 || string(d.Package.Marathon.V2AppMustacheTemplate) != app {
		t.Errorf("it is described as %+v", d)
	}
	ask := func(accept, body string) target.Answer {
		return c.Ask(t, "POST", cosmos.Describe.Path, body, "Content-Type", cosmos.Describe.Request, "Accept", accept)
	}
	ask(cosmos.Describe.Accept[1], `{"packageName":"conformance-app"}`).Is(t, 400, "A v4 package cannot be converted into a v2 DescribeResponse")
	ask(cosmos.Describe.Accept[1], `{"packageName":"conformance-old"}`).Is(t, 200).Keys(t, "name", "version", "packagingVersion", "maintainer", "resource")
	no(t, cosmos.Describe, `{"packageName":"conformance-ap"}`, 400, "PackageNotFound", "Package [conformance-ap] not found")
	no(t, cosmos.Describe, `{"packageName":"conformance-app","packageVersion":"9"}`, 400, "VersionNotFound", "Version [9] of package [conformance-app] not found")
	c.Ask(t, "GET", "/package/resource?url=http://192.0.2.1/other.png", "").Is(t, 404)
}

func TestRender(t *testing.T) {
	s := stock(t)
	var r struct {
		MarathonJSON struct {
			ID        string
			Instances int
			Env       map[string]string
			Labels    map[string]string
		}
	}
	ok(t, cosmos.Render, `{"packageName":"conformance-app","options":{"web":{"instances":2}},"appId":"/other"}`, &r)
	m := r.MarathonJSON
	if m.ID != "/other" || m.Instances != 2 || m.Env["NOTE"] != `a "b" <c>` {
		t.Errorf("rendered is %+v", r)
	}
	for label, want := range map[string]string{
		"DCOS_PACKAGE_NAME": "conformance-app", "DCOS_PACKAGE_VERSION": "1.1", "DCOS_PACKAGE_SOURCE": s.uri,
		"DCOS_PACKAGE_OPTIONS":          base64.StdEncoding.EncodeToString([]byte(`{"web":{"instances":2}}`)),
		"DCOS_PACKAGE_REGISTRY_VERSION": "4.0", "DCOS_PACKAGE_RELEASE": "1", "DCOS_PACKAGE_IS_FRAMEWORK": "false",
	} {
		if m.Labels[label] != want {
			t.Errorf("%s is %q, want %q", label, m.Labels[label], want)
		}
	}
	for _, label := range []string{"DCOS_PACKAGE_DEFINITION", "DCOS_PACKAGE_METADATA"} {
		if text, err := base64.StdEncoding.DecodeString(m.Labels[label]); err != nil || !json.Valid(text) {
			t.Errorf("%s is %q", label, m.Labels[label])
		}
	}
	e := no(t, cosmos.Render, `{"packageName":"conformance-app","options":{"web":{"instances":"2"}}}`, 400, "JsonSchemaMismatch", "Options JSON failed validation")
	text, err := json.Marshal(e.Data)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), `"pointer":"/web/instances"`) {
		t.Errorf("where is not in %s", text)
	}
	no(t, cosmos.Render, `{"packageName":"conformance-old"}`, 400, "ServiceMarathonTemplateNotFound",
		"Package: [conformance-old] version: [1.0] does not have a Marathon template defined and can not be rendered")
}

func TestLife(t *testing.T) {
	stock(t)
	const id = "/conformance/cosmos"
	remove := func() {
		c.Ask(t, "DELETE", "/service/marathon/v2/groups/conformance?force=true", "")
		target.Eventually(t, "the app is gone", func() error {
			if a := c.Ask(t, "GET", "/service/marathon/v2/apps/"+id, ""); a.Code != 404 {
				return fmt.Errorf("%d", a.Code)
			}
			return nil
		})
	}
	remove()
	t.Cleanup(remove)
	settled := func() {
		t.Helper()
		target.Eventually(t, "deployments end", func() error {
			if a := c.Ask(t, "GET", "/service/marathon/v2/deployments", ""); strings.Contains(a.Body, id) {
				return fmt.Errorf("%s", a.Body)
			}
			return nil
		})
	}
	no(t, cosmos.Install, `{"packageName":"conformance-nothing"}`, 400, "PackageNotFound")
	no(t, cosmos.Install, `{"packageName":"conformance-app","options":{"web":{"instance":1}}}`, 400, "JsonSchemaMismatch", "instance")
	c.Ask(t, "GET", "/service/marathon/v2/apps/"+id, "").Is(t, 404) // nothing was started

	var done cosmos.InstallResponse
	ok(t, cosmos.Install, `{"packageName":"conformance-app","packageVersion":"1.0","options":{"web":{"instances":0}}}`, &done)
	if done.AppID != id || done.PackageVersion != "1.0" || done.PostInstallNotes != "It runs." {
		t.Errorf("installed is %+v", done)
	}
	no(t, cosmos.Install, `{"packageName":"conformance-app"}`, 409, "PackageAlreadyInstalled", "Package is already installed")
	settled()

	var list cosmos.ListResponse
	ok(t, cosmos.List, `{"packageName":"conformance-app"}`, &list)
	if len(list.Packages) != 1 || list.Packages[0].AppID != id {
		t.Fatalf("installed are %+v", list)
	}
	var definition cosmos.Package
	if err := json.Unmarshal(list.Packages[0].PackageInformation.PackageDefinition, &definition); err != nil || definition.Version != "1.0" {
		t.Errorf("its definition is %+v, %v", definition, err)
	}

	var d cosmos.ServiceDescribeResponse
	ok(t, cosmos.ServiceDescribe, `{"appId":"`+id+`"}`, &d)
	if string(d.UserProvidedOptions) != `{"web":{"instances":0}}` || !slices.Contains(d.UpgradesTo, "1.1") || len(d.DowngradesTo) != 0 {
		t.Errorf("it is described as %+v", d)
	}
	no(t, cosmos.ServiceDescribe, `{"appId":"/conformance/none"}`, 400, "MarathonAppNotFound", "Unable to locate service with marathon appId: '/conformance/none'")

	var u cosmos.ServiceUpdateResponse
	ok(t, cosmos.ServiceUpdate, `{"appId":"`+id+`","options":{"web":{"note":"new"}},"replace":false}`, &u)
	var resolved struct{ Web map[string]any }
	if err := json.Unmarshal(u.ResolvedOptions, &resolved); err != nil || resolved.Web["note"] != "new" || resolved.Web["instances"] != 0.0 || u.MarathonDeploymentID == "" {
		t.Errorf("updated is %+v, %v", u, err)
	}
	c.Ask(t, "GET", "/service/marathon/v2/apps/"+id, "").Is(t, 200, `"NOTE":"new"`)
	settled()
	no(t, cosmos.ServiceUpdate, `{"appId":"`+id+`","options":{"web":{"instances":-1}},"replace":false}`, 400, "JsonSchemaMismatch")

	no(t, cosmos.Uninstall, `{"packageName":"conformance-app","appId":"/conformance/none"}`, 400, "UninstallNonExistentAppForPackage",
		"Package [conformance-app] with id [/conformance/none] is not installed")
	var gone cosmos.UninstallResponse
	ok(t, cosmos.Uninstall, `{"packageName":"conformance-app"}`, &gone)
	if want := (cosmos.Uninstalled{PackageName: "conformance-app", AppID: id, PackageVersion: "1.0", PostUninstallNotes: "It ran."}); len(gone.Results) != 1 || gone.Results[0] != want {
		t.Errorf("removed is %+v", gone)
	}
	no(t, cosmos.Uninstall, `{"packageName":"conformance-app"}`, 400, "PackageNotInstalled", "Package [conformance-app] is not installed")
}
