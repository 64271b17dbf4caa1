package catalog_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dcos.example/dcos/runtime/api/cosmos"
	"dcos.example/dcos/runtime/catalog"
	"dcos.example/dcos/runtime/catalog/catalogtest"
	"dcos.example/dcos/runtime/state"
	"dcos.example/dcos/runtime/state/memory"
)

// bed is a catalog with everything around it.
type bed struct {
	*catalogtest.Cluster
	t       *testing.T
	store   state.Backend
	dir     string
	images  map[string]bool
	handler http.Handler
	finish  func(context.Context) (int, error)
	stop    func()
}

// start runs a catalog with these repositories until the test ends.
func start(t *testing.T, repositories ...cosmos.Repository) *bed {
	t.Helper()
	b := &bed{Cluster: catalogtest.New(t), t: t, store: memory.New(), dir: t.TempDir(), images: map[string]bool{}}
	list := state.NewTable[[]cosmos.Repository](b.store, "package-repositories")
	if _, err := list.Write(t.Context(), state.Object[[]cosmos.Repository]{ID: "list", Spec: repositories}); err != nil {
		t.Fatal(err)
	}
	b.run()
	return b
}

func (b *bed) run() {
	b.t.Helper()
	at := catalog.Endpoint{URL: b.URL, Client: http.DefaultClient}
	c, err := catalog.New(catalog.Options{
		Store: b.store, Dir: b.dir, Release: "0.1.0", Orchestrator: at, Master: at, Services: at,
		HasImage: func(_ context.Context, image string) (bool, error) { return b.images[image], nil },
		Log:      slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- c.Run(ctx) }()
	stopped := false
	b.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			b.t.Errorf("run ends with %v", err)
		}
	}
	b.t.Cleanup(b.stop)
	b.handler, b.finish = c.Handler(), c.FinishSDK
	b.until("the catalog is ready", func() bool { return b.call(cosmos.Search, `{}`).Code != http.StatusServiceUnavailable })
}

// until waits for what happens by itself.
func (b *bed) until(what string, ok func() bool) {
	b.t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("%s: not in time", what)
		}
	}
}

// call sends a request as clients do.
func (b *bed) call(c cosmos.Call, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, c.Path, strings.NewReader(body))
	r.Header.Set("Content-Type", c.Request)
	r.Header.Set("Accept", c.Accept[0])
	w := httptest.NewRecorder()
	b.handler.ServeHTTP(w, r)
	return w
}

// ok sends a request that is to succeed and decodes the answer.
func (b *bed) ok(c cosmos.Call, body string, v any) {
	b.t.Helper()
	w := b.call(c, body)
	if w.Code != http.StatusOK {
		b.t.Fatalf("%s %s: %d %s", c.Path, body, w.Code, w.Body)
	}
	if got := w.Header().Get("Content-Type"); got != c.Accept[0] {
		b.t.Errorf("%s is answered as %s", c.Path, got)
	}
	if v != nil {
		if err := json.Unmarshal(w.Body.Bytes(), v); err != nil {
			b.t.Fatalf("%s: %v", c.Path, err)
		}
	}
}

// no sends a request that is to fail with a status, a type and words.
func (b *bed) no(c cosmos.Call, body string, status int, kind, words string) cosmos.Error {
	b.t.Helper()
	w := b.call(c, body)
	var e cosmos.Error
	if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil {
		b.t.Fatalf("%s %s: %s", c.Path, body, w.Body)
	}
	if w.Code != status || e.Type != kind || !strings.Contains(e.Message, words) {
		b.t.Errorf("%s %s\n got %d %s: %s\nwant %d %s: %s", c.Path, body, w.Code, e.Type, e.Message, status, kind, words)
	}
	if got := w.Header().Get("Content-Type"); got != cosmos.TypeError {
		b.t.Errorf("the error is of type %s", got)
	}
	return e
}

// pkg is a package of a repository.
func pkg(name, version string, release int, more map[string]any) map[string]any {
	p := map[string]any{
		"packagingVersion": "3.0", "name": name, "version": version, "releaseVersion": release,
		"maintainer": "m@x", "description": "The " + name + " of the test", "tags": []string{"tag-" + name},
	}
	maps.Copy(p, more)
	return p
}

func app(template string) map[string]any {
	return map[string]any{"v2AppMustacheTemplate": base64.StdEncoding.EncodeToString([]byte(template))}
}

func content(packages ...map[string]any) []byte {
	text, err := json.Marshal(map[string]any{"packages": packages})
	if err != nil {
		panic(err)
	}
	return text
}

// file puts a repository into a file and returns its URI.
func file(t *testing.T, text []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "repo.json")
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
	return "file:" + path
}

// web is an app with options, in three versions.
func web() []map[string]any {
	config := map[string]any{
		"type": "object", "properties": map[string]any{
			"web": map[string]any{"type": "object", "additionalProperties": false, "properties": map[string]any{
				"instances": map[string]any{"type": "integer", "default": 1, "minimum": 1},
				"name":      map[string]any{"type": "string", "default": "web"},
			}},
		},
	}
	template := app(`{"id":"{{web.name}}","instances":{{web.instances}},"cmd":"run","labels":{"DCOS_PACKAGE_FRAMEWORK_NAME":"webframework"}}`)
	more := func(extra map[string]any) map[string]any {
		all := map[string]any{"packagingVersion": "4.0", "config": config, "marathon": template, "postInstallNotes": "It runs.", "postUninstallNotes": "It ran."}
		maps.Copy(all, extra)
		return all
	}
	return []map[string]any{
		pkg("web", "1.0", 0, more(nil)),
		pkg("web", "1.1", 1, more(map[string]any{"upgradesFrom": []string{"1.0"}, "downgradesTo": []string{"1.0"}})),
		pkg("web", "2.0", 2, more(map[string]any{"upgradesFrom": []string{"1.1"}})),
		pkg("tool", "1.0", 0, map[string]any{"resource": map[string]any{"cli": map[string]any{"binaries": map[string]any{
			"linux": map[string]any{"x86-64": map[string]any{"kind": "executable", "url": "http://x.test/tool", "contentHash": []any{map[string]any{"algo": "sha256", "value": "00"}}}},
		}}}}),
	}
}

// TestUniverse: the whole public Universe is found, searched and described.
func TestUniverse(t *testing.T) {
	path, err := filepath.Abs("testdata/universe-up-to-1.8.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	b := start(t, cosmos.Repository{Name: "Universe", URI: "file:" + path})
	var list cosmos.RepositoryResponse
	b.ok(cosmos.RepositoryList, `{}`, &list)
	if r := list.Repositories; len(r) != 1 || r[0].Packages != 552 || r[0].Error != "" {
		t.Fatalf("the repositories are %+v", r)
	}
	var found cosmos.SearchResponse
	b.ok(cosmos.Search, `{}`, &found)
	if len(found.Packages) != 103 || found.Packages[0].Name != "cassandra" || found.Packages[0].Selected == nil {
		t.Errorf("there are %d packages, the first is %+v", len(found.Packages), found.Packages[0])
	}
	revisions := 0
	for _, p := range found.Packages {
		for version := range p.Versions {
			revisions++
			var d struct{ Package cosmos.Package }
			b.ok(cosmos.Describe, fmt.Sprintf(`{"packageName":%q,"packageVersion":%q}`, p.Name, version), &d)
			if d.Package.Name != p.Name || d.Package.Version != version {
				t.Errorf("%s %s is described as %s %s", p.Name, version, d.Package.Name, d.Package.Version)
			}
		}
	}
	if revisions != 515 { // 552 less those released again under the same version
		t.Errorf("there are %d versions", revisions)
	}
	b.ok(cosmos.Search, `{"query":"kafka"}`, &found)
	var names []string
	for _, p := range found.Packages {
		names = append(names, p.Name)
	}
	if got := strings.Join(names, " "); !strings.HasPrefix(got, "confluent-kafka beta-confluent-kafka beta-kafka confluent-connect ") {
		t.Errorf("kafka finds %s", got)
	}
	b.no(cosmos.Describe, `{"packageName":"kafak"}`, 400, "PackageNotFound", "Package [kafak] not found. Did you mean kafka")
	b.no(cosmos.Describe, `{"packageName":"kafka","packageVersion":"1.1.19"}`, 400, "VersionNotFound", "Version [1.1.19] of package [kafka] not found")
}
