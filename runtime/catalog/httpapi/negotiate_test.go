package httpapi_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"dcos.example/dcos/runtime/api/cosmos"
	"dcos.example/dcos/runtime/catalog/httpapi"
	"dcos.example/dcos/runtime/catalog/index"
	"dcos.example/dcos/runtime/catalog/install"
)

type list struct{}

func (list) Statuses() []cosmos.RepositoryStatus {
	return []cosmos.RepositoryStatus{{Repository: cosmos.Repository{Name: "Test", URI: "http://repo.test"}, Error: "it cannot be read"}}
}
func (list) Add(context.Context, cosmos.RepositoryAddRequest) error       { return nil }
func (list) Delete(context.Context, cosmos.RepositoryDeleteRequest) error { return nil }

type way func(r *http.Request) *http.Response

func (f way) RoundTrip(r *http.Request) (*http.Response, error) { return f(r), nil }

// handler has one package of each packaging version, and what it names.
func handler(t *testing.T, resources way) http.Handler {
	t.Helper()
	var all []index.Revision
	for _, text := range []string{
		`{"packagingVersion":"3.0","name":"web","version":"1","releaseVersion":0,"maintainer":"m","description":"d","tags":["t"],
			"config":{"properties":{}},"resource":{"images":{"icon-small":"http://x.test/icons/a.png"}},"command":{"pip":["a"]},"marathon":{"v2AppMustacheTemplate":"e30="}}`,
		`{"packagingVersion":"4.0","name":"next","version":"1","releaseVersion":0,"maintainer":"m","description":"d","tags":[],"marathon":{"v2AppMustacheTemplate":"e30="}}`,
	} {
		var p cosmos.Package
		if err := json.Unmarshal([]byte(text), &p); err != nil {
			t.Fatal(err)
		}
		r, err := index.NewRevision(&p)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	ix, err := index.New([]index.Source{{Revisions: all}})
	if err != nil {
		t.Fatal(err)
	}
	known := func() *index.Index { return ix }
	return httpapi.New(httpapi.Config{
		Index: known, Repositories: list{}, Installer: install.New(install.Options{Index: known}), Resources: resources,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
}

func ask(h http.Handler, method, path, kind, accept, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	if accept != "" {
		r.Header.Set("Accept", accept)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// TestHeaders: media types are exact, in both directions.
func TestHeaders(t *testing.T) {
	h := handler(t, nil)
	s := cosmos.Search
	for _, c := range []struct {
		kind, accept, body string
		status             int
		want               string // type of the answer, or of the error
		words              string
	}{
		{s.Request, s.Accept[0], `{}`, 200, s.Accept[0], `"packages"`},
		{strings.Replace(s.Request, ";charset=utf-8", "; charset=UTF-8", 1), s.Accept[0], `{}`, 200, s.Accept[0], ""},
		{s.Request, "text/html, " + s.Accept[0] + ";q=0.5", `{}`, 200, s.Accept[0], ""},
		{s.Request, "", `{}`, 400, "not_present", "Item header 'Accept' not present but required"},
		{"", s.Accept[0], `{}`, 400, "not_present", "Item header 'Content-Type' not present but required"},
		{s.Request, "*/*", `{}`, 400, "not_valid", "Item header 'Accept' deemed invalid by rule: Media type was [*/*] but should be one of [" + s.Accept[0] + "]"},
		{s.Request, "application/json", `{}`, 400, "not_valid", "Item header 'Accept'"},
		{s.Request, strings.Replace(s.Accept[0], "v1", "v2", 1), `{}`, 400, "not_valid", ""},
		{s.Request, strings.Replace(s.Accept[0], ";charset=utf-8", "", 1), `{}`, 400, "not_valid", ""},
		{s.Request, s.Accept[0] + ";q=0", `{}`, 400, "not_valid", ""},
		{"application/json", s.Accept[0], `{}`, 400, "not_valid", "Item header 'Content-Type' deemed invalid by rule: Media type was [application/json] but should be one of [" + s.Request + "]"},
		{"application/json", "", `{}`, 400, "multiple_errors", "Item header 'Accept' not present but required; Item header 'Content-Type' deemed invalid"},
		{s.Request, s.Accept[0], `{`, 400, "json_error", ""},
		{s.Request, s.Accept[0], `{"query":1}`, 400, "json_error", "query is a number"},
		{s.Request, s.Accept[0], `{"query":"` + strings.Repeat("a", 5<<20) + `"}`, 413, "json_error", "longer than"},
	} {
		w := ask(h, "POST", s.Path, c.kind, c.accept, c.body)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.words) {
			t.Errorf("%q %q: %d %s", c.kind, c.accept, w.Code, w.Body)
		}
		if c.status == 200 {
			if got := w.Header().Get("Content-Type"); got != c.want {
				t.Errorf("it is answered as %s", got)
			}
			continue
		}
		var e cosmos.Error
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || e.Type != c.want || w.Header().Get("Content-Type") != cosmos.TypeError {
			t.Errorf("the error is %s, want %s", w.Body, c.want)
		}
	}
	if w := ask(h, "GET", s.Path, "", "", ""); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("GET is answered with %d", w.Code)
	}
}

// TestDescribe: a package in the three forms.
func TestDescribe(t *testing.T) {
	h := handler(t, nil)
	d := cosmos.Describe
	const fields = `"packagingVersion":"3.0","name":"web","version":"1","maintainer":"m","description":"d","tags":["t"],"selected":false,"framework":false`
	for accept, want := range map[string]string{
		d.Accept[0]: `{"package":{"packagingVersion":"3.0","name":"web","version":"1","releaseVersion":0,"maintainer":"m","description":"d","tags":["t"],"resource":{"images":{"icon-small":"http://x.test/icons/a.png"}},"config":{"properties":{}},"command":{"pip":["a"]},"marathon":{"v2AppMustacheTemplate":"e30="}}}`,
		d.Accept[1]: `{` + fields + `,"resource":{"images":{"icon-small":"http://x.test/icons/a.png"}},"config":{"properties":{}},"command":{"pip":["a"]},"marathon":{"v2AppMustacheTemplate":"e30="}}`,
		d.Accept[2]: `{"package":{` + fields + `},"marathonMustache":"{}","command":{"pip":["a"]},"config":{"properties":{}},"resource":{"images":{"icon-small":"http://x.test/icons/a.png"}}}`,
		d.Accept[1] + ";q=0.2, " + d.Accept[2] + ";q=0.9": `{"package":{` + fields,
	} {
		w := ask(h, "POST", d.Path, d.Request, accept, `{"packageName":"web"}`)
		if w.Code != 200 || !strings.HasPrefix(w.Body.String(), want) {
			t.Errorf("%s\n got %s\nwant %s", accept, w.Body, want)
		}
	}
	w := ask(h, "POST", d.Path, d.Request, d.Accept[1], `{"packageName":"next"}`)
	if want := `{"type":"ConversionFromPackageToV2DescribeResponse","message":"A v4 package cannot be converted into a v2 DescribeResponse"}`; w.Code != 400 || strings.TrimSpace(w.Body.String()) != want {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	w = ask(h, "POST", d.Path, d.Request, d.Accept[0], `{}`)
	if w.Code != 400 || !strings.Contains(w.Body.String(), `"path":".packageName","reason":"packageName is missing"`) {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

// TestResource: what packages name is passed on, and nothing else.
func TestResource(t *testing.T) {
	status, asked := 200, ""
	h := handler(t, func(r *http.Request) *http.Response {
		asked = r.URL.String()
		return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"image/png"}, "Set-Cookie": {"a=b"}}, Body: io.NopCloser(strings.NewReader("png")), ContentLength: 3}
	})
	w := ask(h, "GET", "/package/resource?url=http%3A%2F%2Fx.test%2Ficons%2Fa.png", "", "", "")
	if w.Code != 200 || w.Body.String() != "png" || asked != "http://x.test/icons/a.png" {
		t.Errorf("got %d %s for %s", w.Code, w.Body, asked)
	}
	for k, want := range map[string]string{
		"Content-Type": "image/png", "Content-Disposition": `attachment; filename="a.png"`, "X-Content-Type-Options": "nosniff", "Set-Cookie": "",
	} {
		if got := w.Header().Get(k); got != want {
			t.Errorf("%s is %q, want %q", k, got, want)
		}
	}
	for _, url := range []string{"http://x.test/icons/b.png", "http://169.254.169.254/", "file:///etc/passwd", ""} {
		asked = ""
		if w := ask(h, "GET", "/package/resource?url="+url, "", "", ""); w.Code != 404 || asked != "" {
			t.Errorf("%s: got %d, asked for %q", url, w.Code, asked)
		}
	}
	status = 500
	if w := ask(h, "GET", "/package/resource?url=http://x.test/icons/a.png", "", "", ""); w.Code != 503 || !strings.Contains(w.Body.String(), "it answers with status 500") {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

func TestRest(t *testing.T) {
	h := handler(t, nil)
	w := ask(h, "GET", "/capabilities", "", "", "")
	if w.Header().Get("Content-Type") != cosmos.TypeCapabilities || strings.TrimSpace(w.Body.String()) != `{"capabilities":[{"name":"PACKAGE_MANAGEMENT"}]}` {
		t.Errorf("got %s %s", w.Header(), w.Body)
	}
	l := cosmos.RepositoryList
	w = ask(h, "POST", l.Path, l.Request, l.Accept[0], `{}`)
	if want := `{"repositories":[{"name":"Test","uri":"http://repo.test","error":"it cannot be read"}]}`; strings.TrimSpace(w.Body.String()) != want {
		t.Errorf("got %s", w.Body)
	}
	// What the gateway leads to is the same.
	d := cosmos.ServiceDescribe
	for _, path := range []string{d.Path, "/cosmos" + d.Path} {
		if w := ask(h, "POST", path, d.Request, d.Accept[0], `{}`); w.Code != 400 || !strings.Contains(w.Body.String(), "appId is missing") {
			t.Errorf("%s: got %d %s", path, w.Code, w.Body)
		}
	}
	r := cosmos.Render
	w = ask(h, "POST", r.Path, r.Request, r.Accept[0], `{"packageName":"web","appId":"x"}`)
	if !strings.Contains(w.Body.String(), `{"marathonJson":{"id":"/x","labels":{`) {
		t.Errorf("got %s", w.Body)
	}
	off := httpapi.New(httpapi.Config{Index: func() *index.Index { return nil }, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Installer: install.New(install.Options{})})
	if w := ask(off, "POST", l.Path, l.Request, l.Accept[0], `{}`); w.Code != 503 || w.Header().Get("Retry-After") != "1" {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}
