package catalog_test

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dcos.example/dcos/runtime/api/cosmos"
)

// kafka is a service of ours.
func kafka() []map[string]any {
	template := "name: {{service.name}}\npods:\n  kafka:\n    count: {{count}}\n    image: registry.dcos/kafka:1\n" +
		"    tasks: {broker: {goal: RUNNING, cpus: 0.1, memory: 32, cmd: run}}\n"
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	more := map[string]any{
		"packagingVersion": "5.0",
		"config": map[string]any{"type": "object", "properties": map[string]any{
			"service": map[string]any{"type": "object", "properties": map[string]any{"name": map[string]any{"type": "string", "default": "kafka"}}},
			"count":   map[string]any{"type": "integer", "default": 3, "minimum": 1},
		}},
		"profiles":           map[string]any{"small": map[string]any{"count": 1}},
		"service":            map[string]any{"template": b64(template), "templates": map[string]any{"a.mustache": b64("{{A}}")}},
		"postUninstallNotes": "Gone.",
	}
	next := maps.Clone(more)
	next["upgradesFrom"] = []string{"*"}
	return []map[string]any{pkg("kafka", "1.0", 0, more), pkg("kafka", "1.1", 1, next)}
}

// TestApp: the life of an app, from its package to its end.
func TestApp(t *testing.T) {
	uri := file(t, content(web()...))
	b := start(t, cosmos.Repository{Name: "Test", URI: uri})

	b.no(cosmos.Install, `{"packageName":"web","options":{"web":{"instances":"2"}}}`, 400, "JsonSchemaMismatch", "Options JSON failed validation")
	e := b.no(cosmos.Install, `{"packageName":"web","options":{"web":{"instance":2}}}`, 400, "JsonSchemaMismatch", "")
	text, err := json.Marshal(e.Data)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"pointer":"/web"`, `"fields":["web.instance"]`, `"hint":"did you mean instances?"`, `"keyword":"additionalProperties"`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s is not in %s", want, text)
		}
	}
	b.no(cosmos.Install, `{"packageName":"tool","options":{"a":1}}`, 400, "OptionsNotAllowed", "No schema available")
	if len(b.Apps) != 0 {
		t.Fatalf("apps were started: %v", b.Apps)
	}

	var done cosmos.InstallResponse
	b.ok(cosmos.Install, `{"packageName":"web","packageVersion":"1.0","options":{"web":{"instances":2}},"appId":"prod/web"}`, &done)
	if want := (cosmos.InstallResponse{PackageName: "web", PackageVersion: "1.0", AppID: "/prod/web", PostInstallNotes: "It runs."}); cmp.Diff(want, done) != "" {
		t.Error(cmp.Diff(want, done))
	}
	b.no(cosmos.Install, `{"packageName":"web","appId":"/prod/web"}`, 409, "PackageAlreadyInstalled", "Package is already installed")
	b.ok(cosmos.Install, `{"packageName":"web"}`, &done)
	done = cosmos.InstallResponse{}
	b.ok(cosmos.Install, `{"packageName":"tool"}`, &done)
	if done.AppID != "" || !strings.Contains(string(done.CLI), "http://x.test/tool") {
		t.Errorf("a tool is installed as %+v", done)
	}

	var list cosmos.ListResponse
	b.ok(cosmos.List, `{}`, &list)
	if len(list.Packages) != 2 || list.Packages[0].AppID != "/prod/web" || list.Packages[1].AppID != "/web" {
		t.Fatalf("installed are %+v", list)
	}
	var definition cosmos.Package
	if err := json.Unmarshal(list.Packages[0].PackageInformation.PackageDefinition, &definition); err != nil || definition.Version != "1.0" || definition.Marathon != nil {
		t.Errorf("the definition is %+v, %v", definition, err)
	}
	b.ok(cosmos.List, `{"appId":"web"}`, &list)
	if len(list.Packages) != 1 {
		t.Errorf("by id there are %+v", list)
	}

	var described cosmos.ServiceDescribeResponse
	b.ok(cosmos.ServiceDescribe, `{"appId":"/prod/web"}`, &described)
	if got := strings.Join(described.UpgradesTo, " "); got != "1.1" {
		t.Errorf("it may go to %s", got)
	}
	if got, want := string(described.UserProvidedOptions)+string(described.ResolvedOptions), `{"web":{"instances":2}}{"web":{"instances":2,"name":"web"}}`; got != want {
		t.Errorf("the options are %s, want %s", got, want)
	}
	b.no(cosmos.ServiceDescribe, `{"appId":"/nothing"}`, 400, "MarathonAppNotFound", "Unable to locate service with marathon appId: '/nothing'")

	// It was installed under another id than its options give it, and keeps it.
	var updated cosmos.ServiceUpdateResponse
	b.ok(cosmos.ServiceUpdate, `{"appId":"/prod/web","packageVersion":"1.1","options":{"web":{"instances":5}},"replace":false}`, &updated)
	if updated.MarathonDeploymentID != "deployment-1" || b.Apps["/prod/web"]["instances"] != 5.0 {
		t.Errorf("updated to %+v, %v", updated, b.Apps["/prod/web"])
	}
	b.no(cosmos.ServiceUpdate, `{"appId":"/web","options":{"web":{"name":"other"}},"replace":true}`, 400, "AppIdChanged", "The new appId /other must be equal to the old appId /web")
	b.no(cosmos.ServiceUpdate, `{"appId":"/prod/web","packageVersion":"9"}`, 400, "VersionNotFound", "")
	b.ok(cosmos.ServiceUpdate, `{"appId":"/prod/web","packageVersion":"1.0"}`, nil) // back
	b.no(cosmos.ServiceUpdate, `{"appId":"/prod/web","packageVersion":"2.0"}`, 400, "BadVersionUpdate", "from version [1.0] to version [2.0]. Valid versions: [1.1]")

	b.no(cosmos.Uninstall, `{"packageName":"web"}`, 400, "AmbiguousAppId", "Multiple apps named [web] are installed: [/prod/web, /web]")
	b.no(cosmos.Uninstall, `{"packageName":"web","appId":"/other"}`, 400, "UninstallNonExistentAppForPackage", "Package [web] with id [/other] is not installed")
	b.Frameworks["f1"], b.Frameworks["f2"] = "webframework", "another"
	var gone cosmos.UninstallResponse
	b.ok(cosmos.Uninstall, `{"packageName":"web","appId":"/prod/web"}`, &gone)
	if want := (cosmos.Uninstalled{PackageName: "web", AppID: "/prod/web", PackageVersion: "1.0", PostUninstallNotes: "It ran."}); gone.Results[0] != want {
		t.Errorf("removed is %+v", gone)
	}
	if len(b.TornDown) != 1 || b.TornDown[0] != "f1" {
		t.Errorf("torn down are %v", b.TornDown)
	}
	b.Frameworks["f3"], b.Frameworks["f4"] = "webframework", "webframework"
	b.no(cosmos.Uninstall, `{"packageName":"web"}`, 400, "MultipleFrameworkIds", "there are multiple framework ids")
	b.no(cosmos.Uninstall, `{"packageName":"web"}`, 400, "PackageNotInstalled", "Package [web] is not installed")
	b.ok(cosmos.Install, `{"packageName":"web"}`, nil)
	b.Down = "mesos"
	b.no(cosmos.Uninstall, `{"packageName":"web","all":true}`, 503, "IncompleteUninstall", "Incomplete uninstall of package [web] due to Mesos unavailability")
	b.Down = "marathon"
	b.no(cosmos.Install, `{"packageName":"web"}`, 502, "MarathonBadGateway", "Received response status code 503 from Marathon")
	b.Down = "services"
	b.no(cosmos.List, `{}`, 503, "ServiceUnavailable", "Service is not available [services]")
}

// TestOldApps: what DC/OS 1.7 installed has fewer labels.
func TestOldApps(t *testing.T) {
	b := start(t, cosmos.Repository{Name: "Test", URI: file(t, content(web()...))})
	metadata := base64.StdEncoding.EncodeToString([]byte(`{"packagingVersion":"2.0","name":"web","version":"1.0","maintainer":"m","description":"d","tags":["t"],"images":{"icon-small":"i"}}`))
	b.Apps["/web"] = map[string]any{"id": "/web", "labels": map[string]any{"DCOS_PACKAGE_NAME": "web", "DCOS_PACKAGE_VERSION": "1.0", "DCOS_PACKAGE_METADATA": metadata}}
	b.Apps["/mine"] = map[string]any{"id": "/mine", "labels": map[string]any{}}
	var list cosmos.ListResponse
	b.ok(cosmos.List, `{"packageName":"web"}`, &list)
	if len(list.Packages) != 1 || string(list.Packages[0].PackageInformation.ResourceDefinition) != `{"images":{"icon-small":"i"}}` {
		t.Errorf("installed are %+v", list)
	}
	var d cosmos.ServiceDescribeResponse
	b.ok(cosmos.ServiceDescribe, `{"appId":"web"}`, &d)
	if d.UserProvidedOptions != nil || d.ResolvedOptions != nil || !strings.Contains(string(d.Package), `"packagingVersion":"4.0"`) {
		t.Errorf("it is described as %+v", d)
	}
	b.no(cosmos.ServiceUpdate, `{"appId":"web","options":{}}`, 400, "OptionsNotStored", "The options of the current service were not stored")
	b.ok(cosmos.ServiceUpdate, `{"appId":"web","options":{"web":{"instances":2}},"replace":true}`, nil)
	b.no(cosmos.ServiceDescribe, `{"appId":"mine"}`, 400, "AppNotInstalledByPackage", "App [/mine] was not installed from a package")
}

// TestService: the life of a service of ours.
func TestService(t *testing.T) {
	b := start(t, cosmos.Repository{Name: "Test", URI: file(t, content(append(kafka(), web()...)...))})
	b.no(cosmos.Install, `{"packageName":"kafka"}`, 400, "ImagesMissing", "registry.dcos/kafka:1")
	b.images["registry.dcos/kafka:1"] = true
	b.no(cosmos.Install, `{"packageName":"kafka","profile":"tiny"}`, 400, "ProfileNotFound", "Package [kafka] has no profile [tiny]: it has small")
	b.Refuse = map[string]any{"message": "The service cannot be placed", "errors": []any{map[string]any{"path": "pods.kafka.placement", "message": "3 agents are needed, there is 1"}}}
	e := b.no(cosmos.Install, `{"packageName":"kafka"}`, 400, "ServiceRefused", "The service cannot be placed")
	if text, _ := json.Marshal(e.Data); !strings.Contains(string(text), "3 agents are needed, there is 1") {
		t.Errorf("the answer is %s", text)
	}
	b.Refuse = nil
	if len(b.Services) != 0 {
		t.Fatalf("services were made: %v", b.Services)
	}
	var done cosmos.InstallResponse
	b.ok(cosmos.Install, `{"packageName":"kafka","packageVersion":"1.0","profile":"small"}`, &done)
	if done.AppID != "/kafka" {
		t.Errorf("it is installed as %+v", done)
	}
	put := b.Services["kafka"]
	count := func() any {
		return b.Services["kafka"]["spec"].(map[string]any)["pods"].(map[string]any)["kafka"].(map[string]any)["count"]
	}
	if count() != 1.0 || put["spec"].(map[string]any)["templates"].(map[string]any)["a.mustache"] != "{{A}}" {
		t.Errorf("the operator was given %v", put)
	}
	b.no(cosmos.Install, `{"packageName":"kafka"}`, 409, "PackageAlreadyInstalled", "Package is already installed")
	b.no(cosmos.Install, `{"packageName":"web","appId":"/kafka"}`, 409, "PackageAlreadyInstalled", "")
	b.ok(cosmos.Install, `{"packageName":"kafka","appId":"/prod/kafka"}`, nil)
	b.ok(cosmos.Install, `{"packageName":"web"}`, nil)
	b.no(cosmos.Install, `{"packageName":"kafka","appId":"web"}`, 409, "PackageAlreadyInstalled", "")

	var list cosmos.ListResponse
	b.ok(cosmos.List, `{}`, &list)
	var ids []string
	for _, p := range list.Packages {
		ids = append(ids, p.AppID)
	}
	if got := strings.Join(ids, " "); got != "/kafka /prod/kafka /web" {
		t.Errorf("installed are %s", got)
	}
	var d cosmos.ServiceDescribeResponse
	b.ok(cosmos.ServiceDescribe, `{"appId":"/kafka"}`, &d)
	if got, want := string(d.UserProvidedOptions)+string(d.ResolvedOptions), `{"count":1}{"count":1,"service":{"name":"kafka"}}`; got != want || d.UpgradesTo[0] != "1.1" {
		t.Errorf("it is described as %s, %v, want %s", got, d.UpgradesTo, want)
	}
	var updated cosmos.ServiceUpdateResponse
	b.ok(cosmos.ServiceUpdate, `{"appId":"/kafka","packageVersion":"1.1","options":{"count":5}}`, &updated)
	if count() != 5.0 || b.Services["kafka"]["package"].(map[string]any)["version"] != "1.1" || string(updated.ResolvedOptions) != `{"count":5,"service":{"name":"kafka"}}` {
		t.Errorf("updated to %+v, %v", updated, b.Services["kafka"])
	}
	b.ok(cosmos.ServiceUpdate, `{"appId":"/kafka","profile":"small"}`, nil)
	if count() != 1.0 {
		t.Errorf("the profile gives %v", count())
	}
	b.no(cosmos.ServiceUpdate, `{"appId":"/kafka","options":{"service":{"name":"x"}}}`, 400, "AppIdChanged", "The new appId /x must be equal to the old appId /kafka")
	b.no(cosmos.ServiceUpdate, `{"appId":"/kafka","options":{"count":0}}`, 400, "JsonSchemaMismatch", "")
	b.ok(cosmos.ServiceUpdate, `{"appId":"/prod/kafka","options":{"count":2}}`, nil)

	b.Required["kafka"] = true
	b.no(cosmos.Uninstall, `{"packageName":"kafka","appId":"/kafka"}`, 409, "ServiceRefused", "Service kafka is required by spark")
	b.Required["kafka"] = false
	b.ok(cosmos.Uninstall, `{"packageName":"kafka","all":true}`, nil)
	if len(b.Services) != 0 {
		t.Errorf("services are left: %v", b.Services)
	}
}

// TestSDK: a service made with the SDK uninstalls itself before its app goes.
func TestSDK(t *testing.T) {
	b := start(t, cosmos.Repository{Name: "Test", URI: file(t, content(pkg("sdk", "1", 0, map[string]any{
		"marathon": app(`{"id":"/sdk","env":{"A":"1"},"labels":{"DCOS_COMMONS_UNINSTALL":"true","DCOS_COMMONS_API_VERSION":"v1"}}`),
	})))})
	complete := http.StatusAccepted
	scheduler := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.Mu.Lock()
		defer b.Mu.Unlock()
		if r.URL.Path != "/v1/plans/deploy" {
			complete = http.StatusNotFound
		}
		w.WriteHeader(complete)
	}))
	defer scheduler.Close()
	at, err := url.Parse(scheduler.URL)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(at.Port())
	if err != nil {
		t.Fatal(err)
	}
	b.ok(cosmos.Install, `{"packageName":"sdk"}`, nil)
	b.Apps["/sdk"]["tasks"] = []any{map[string]any{"host": at.Hostname(), "ports": []any{port}}}
	b.ok(cosmos.Uninstall, `{"packageName":"sdk"}`, nil)
	if env := b.Apps["/sdk"]["env"].(map[string]any); env["SDK_UNINSTALL"] != "true" || env["A"] != "1" {
		t.Errorf("its environment is %v", env)
	}
	if n, err := b.finish(t.Context()); n != 1 || err != nil {
		t.Errorf("%d wait, %v", n, err)
	}
	b.Mu.Lock()
	complete = http.StatusOK
	b.Mu.Unlock()
	if n, err := b.finish(t.Context()); n != 0 || err != nil {
		t.Errorf("%d wait, %v", n, err)
	}
	if len(b.Apps) != 0 {
		t.Errorf("apps are left: %v", b.Apps)
	}
}

// TestSelection: of two repositories the first has the say, and of one the
// latest release.
func TestSelection(t *testing.T) {
	first := file(t, content(pkg("aa", "2.0", 1, map[string]any{"description": "first"}), pkg("aa", "1.9", 7, nil), pkg("bb", "1", 0, map[string]any{"selected": true})))
	second := file(t, content(pkg("aa", "3.0", 9, nil), pkg("aa", "2.0", 5, map[string]any{"description": "second"}), pkg("cc", "1", 0, nil)))
	b := start(t, cosmos.Repository{Name: "First", URI: first})
	b.ok(cosmos.RepositoryAdd, `{"name":"Second","uri":"`+second+`"}`, nil)
	var found cosmos.SearchResponse
	b.ok(cosmos.Search, `{"query":"aa"}`, &found)
	if p := found.Packages[0]; p.CurrentVersion != "1.9" || cmp.Diff(p.Versions, map[string]string{"1.9": "7", "2.0": "1", "3.0": "9"}) != "" {
		t.Errorf("found are %+v", found.Packages)
	}
	var versions cosmos.ListVersionsResponse
	b.ok(cosmos.ListVersions, `{"packageName":"aa","includePackageVersions":true}`, &versions)
	if versions.Results["3.0"] != "9" {
		t.Errorf("versions are %v", versions)
	}
	b.no(cosmos.ListVersions, `{"packageName":"aa"}`, 400, "NotImplemented", "includePackageVersions")
	var d struct{ Package cosmos.Package }
	b.ok(cosmos.Describe, `{"packageName":"aa","packageVersion":"2.0"}`, &d)
	if d.Package.Description != "first" {
		t.Errorf("it is described as %+v", d.Package)
	}
	for query, want := range map[string]string{"tag-cc": "cc", "THE CC OF": "cc", "c*": "cc", "*-cc": "cc", "tag*": "bb aa cc", "C*": "", "": "bb aa cc", "zzz": ""} {
		b.ok(cosmos.Search, `{"query":"`+query+`"}`, &found)
		var names []string
		for _, p := range found.Packages {
			names = append(names, p.Name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%q finds %q, want %q", query, got, want)
		}
	}
}

// TestRepositories: the list, its order, and every mistake in it.
func TestRepositories(t *testing.T) {
	first, second := file(t, content(pkg("aa", "1", 0, nil))), file(t, content(pkg("bb", "1", 0, nil)))
	b := start(t, cosmos.Repository{Name: "First", URI: first})
	b.no(cosmos.RepositoryAdd, `{"name":"First","uri":"http://x.test/repo"}`, 400, "RepositoryAlreadyPresent", "Repository name [First] is already present in the list")
	b.no(cosmos.RepositoryAdd, `{"name":"Other","uri":"`+first+`"}`, 400, "RepositoryAlreadyPresent", "Repository uri ["+first+"] is already present in the list")
	b.no(cosmos.RepositoryAdd, `{"name":"Other","uri":"`+second+`","index":5}`, 400, "RepositoryAddIndexOutOfBounds", "Index (5) is out of range. Index value must be between 0 and 1 inclusive.")
	b.no(cosmos.RepositoryAdd, `{"name":"Other","uri":"ftp://x.test/repo"}`, 400, "UnsupportedRepositoryUri", "Repository URI [ftp://x.test/repo] uses an unsupported scheme")
	b.no(cosmos.RepositoryAdd, `{"name":"Other","uri":"http://a b/"}`, 400, "RepositoryUriSyntax", "URI for repository [Other] has invalid syntax: [http://a b/]")
	b.no(cosmos.RepositoryAdd, `{"name":"Other","uri":"file:/nothing/here"}`, 400, "RepositoryUriConnection", "Could not access data at URI for repository [Other]: [file:/nothing/here]")
	b.no(cosmos.RepositoryAdd, `{"name":"Other"}`, 400, "json_error", "uri is missing")
	b.no(cosmos.RepositoryDelete, `{}`, 400, "RepoNameOrUriMissing", "Must specify either the name or URI of the repository")
	b.no(cosmos.RepositoryDelete, `{"name":"None"}`, 400, "RepositoryNotPresent", "Repository name [None] is not present in the list")
	var list cosmos.RepositoryResponse
	b.ok(cosmos.RepositoryAdd, `{"name":"Second","uri":"`+second+`","index":0}`, &list)
	if len(list.Repositories) != 2 || list.Repositories[0].Name != "Second" || list.Repositories[0].Packages != 1 {
		t.Errorf("the list is %+v", list)
	}
	b.ok(cosmos.Describe, `{"packageName":"bb"}`, nil)
	b.ok(cosmos.RepositoryDelete, `{"uri":"`+first+`"}`, &list)
	if len(list.Repositories) != 1 {
		t.Errorf("the list is %+v", list)
	}
	b.no(cosmos.Describe, `{"packageName":"aa"}`, 400, "PackageNotFound", "Package [aa] not found")
	b.stop()
	b.run() // the list is in the store, the content on disk
	b.ok(cosmos.Describe, `{"packageName":"bb"}`, nil)
}

// TestBadRepository: a repository that is no longer as it should be says so in
// the list, and what it had stays, over a start too.
func TestBadRepository(t *testing.T) {
	good := true
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", cosmos.RepositoryType(5))
		if good {
			w.Write(content(pkg("aa", "1", 0, nil)))
		} else {
			w.Write(content(pkg("aa", "1", 0, map[string]any{"marathon": app("{{>marathon}}")})))
		}
	}))
	defer server.Close()
	b := start(t)
	b.ok(cosmos.RepositoryAdd, `{"name":"Test","uri":"`+server.URL+`"}`, nil)
	b.ok(cosmos.Describe, `{"packageName":"aa"}`, nil)
	b.stop()
	good = false
	b.run()
	var list cosmos.RepositoryResponse
	b.until("the error is in the list", func() bool {
		b.ok(cosmos.RepositoryList, `{}`, &list)
		return list.Repositories[0].Error != ""
	})
	if r := list.Repositories[0]; r.Packages != 1 || r.Fetched == "" || !strings.HasPrefix(r.Error, "its content is refused: package 1, aa 1 (release 0): marathon.json.mustache: ") {
		t.Errorf("the list is %+v", list)
	}
	b.ok(cosmos.Describe, `{"packageName":"aa"}`, nil)
	b.no(cosmos.RepositoryAdd, `{"name":"Again","uri":"`+server.URL+`/other"}`, 400, "RepositoryInvalid", "The content of repository [Again] at ["+server.URL+"/other] is refused: package 1, aa 1")
}
