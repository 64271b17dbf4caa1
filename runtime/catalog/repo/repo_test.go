package repo_test

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dcos.example/dcos/runtime/api/cosmos"
	"dcos.example/dcos/runtime/catalog/repo"
	"dcos.example/dcos/runtime/fault"
)

// one is a package, and several are a repository.
func one(name string, more string) string {
	return fmt.Sprintf(`{"packagingVersion":"3.0","name":%q,"version":"1","releaseVersion":0,"maintainer":"m","description":"d","tags":[]%s}`, name, more)
}

func several(packages ...string) string { return `{"packages":[` + strings.Join(packages, ",") + `]}` }

func squeeze(t *testing.T, text []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// archive is a zip of files by name; order is that of the list.
func archive(t *testing.T, files ...[2]string) string {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, f := range files {
		h := &zip.FileHeader{Name: f[0], Method: zip.Deflate}
		in, err := w.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(in, f[1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

const packageJSON = `{"packagingVersion":"2.0","name":"web","version":"1","maintainer":"m","description":"d","tags":["t"]}`

func store(t *testing.T, dir string, via http.RoundTripper) *repo.Store {
	t.Helper()
	if via == nil {
		via = http.DefaultTransport
	}
	s, err := repo.New(dir, via, "0.1.0")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// answers is a way to a server that answers like this.
type answers func(r *http.Request) *http.Response

func (a answers) RoundTrip(r *http.Request) (*http.Response, error) { return a(r), nil }

func answer(status int, kind string, body io.Reader, headers ...string) *http.Response {
	h := http.Header{"Content-Type": {kind}}
	for i := 0; i < len(headers); i += 2 {
		h.Set(headers[i], headers[i+1])
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(body), ContentLength: -1}
}

// endless is what never ends.
type endless struct{ of string }

func (e endless) Read(b []byte) (int, error) {
	n := 0
	for n < len(b) {
		n += copy(b[n:], e.of)
	}
	return n, nil
}

// TestRefused: a repository that is not as it should be is refused whole, with
// the reason, whatever the harm was to be; and the last good content stays.
func TestRefused(t *testing.T) {
	v3, v5 := cosmos.RepositoryType(3), cosmos.RepositoryType(5)
	const bomb = 200 << 20
	good := several(one("web", ""))
	for name, c := range map[string]struct {
		answer func() *http.Response
		reason error
		want   string
	}{
		"down":             {func() *http.Response { return answer(500, v5, strings.NewReader(good)) }, repo.ErrUnreachable, "it answers with status 500"},
		"a page":           {func() *http.Response { return answer(200, "text/html", strings.NewReader("<html>")) }, repo.ErrType, `its type is "text/html"`},
		"no type":          {func() *http.Response { return answer(200, "", strings.NewReader(good)) }, repo.ErrType, `its type "" is none`},
		"version 6":        {func() *http.Response { return answer(200, cosmos.RepositoryType(6), strings.NewReader(good)) }, repo.ErrType, "with version v3, v4 or v5"},
		"odd encoding":     {func() *http.Response { return answer(200, v5, strings.NewReader(good), "Content-Encoding", "br") }, repo.ErrType, `its encoding is "br"`},
		"lies: a page":     {func() *http.Response { return answer(200, v5, strings.NewReader("<html>")) }, repo.ErrContent, "it is no JSON at byte 1"},
		"lies: an archive": {func() *http.Response { return answer(200, "application/zip", strings.NewReader(good)) }, repo.ErrContent, "it is no zip archive"},
		"lies: not gzip":   {func() *http.Response { return answer(200, v5, strings.NewReader(good), "Content-Encoding", "gzip") }, repo.ErrContent, "it is not compressed as it says"},
		"lies: newer": {func() *http.Response {
			return answer(200, v3, strings.NewReader(several(strings.Replace(one("web", ""), `"3.0"`, `"4.0"`, 1))))
		}, repo.ErrContent, "packaging version 4.0 is none that a repository of version 3 may have"},
		"another object": {func() *http.Response { return answer(200, v5, strings.NewReader(`{"a":[1,2],"b":{}}`)) }, repo.ErrContent, `it has no "packages"`},
		"cut off":        {func() *http.Response { return answer(200, v5, strings.NewReader(good[:len(good)-3])) }, repo.ErrContent, "it ends too early"},
		"twice":          {func() *http.Response { return answer(200, v5, strings.NewReader(good+good)) }, repo.ErrContent, "there is something after the JSON object"},
		"a bad package": {func() *http.Response {
			return answer(200, v5, strings.NewReader(several(one("web", ""), one("We B", ""))))
		}, repo.ErrContent, `package 2, We B 1 (release 0): package.json: name: "We B" does not match`},
		"a wrong type": {func() *http.Response { return answer(200, v5, strings.NewReader(several(`{"name":1}`))) }, repo.ErrContent, "package 1: name is a number"},
		"partials": {func() *http.Response {
			return answer(200, v5, strings.NewReader(several(one("web", `,"marathon":{"v2AppMustacheTemplate":"e3s+d2VifX0="}`))))
		}, repo.ErrContent, "a template is one text, without partials"},
		"deep": {func() *http.Response {
			return answer(200, v5, strings.NewReader(several(one("web", `,"config":`+strings.Repeat(`{"properties":`, 100)+"{}"+strings.Repeat("}", 101)))))
		}, repo.ErrContent, ""},
		"said to be long": {func() *http.Response { r := answer(200, v5, strings.NewReader("")); r.ContentLength = bomb; return r }, repo.ErrContent, "it is 209715200 bytes long, and at most 67108864 are taken"},
		"endless":         {func() *http.Response { return answer(200, v5, endless{" "}) }, repo.ErrContent, "it is longer than 67108864 bytes"},
		"gzip bomb": {func() *http.Response {
			return answer(200, v5, bytes.NewReader(squeeze(t, []byte(`{"packages":[`+strings.Repeat(" ", 20<<20)))), "Content-Encoding", "gzip")
		}, repo.ErrContent, "larger than"},
		"one huge package": {func() *http.Response {
			return answer(200, v5, bytes.NewReader(squeeze(t, []byte(`{"packages":[{"name":"`+strings.Repeat("a", 10<<20)))), "Content-Encoding", "gzip")
		}, repo.ErrContent, "a package is larger than 6291456 bytes"},
		"zip bomb": {func() *http.Response {
			return answer(200, "application/zip", strings.NewReader(archive(t, [2]string{"repo/packages/W/web/0/package.json", strings.Repeat(" ", 5<<20)})))
		}, repo.ErrContent, "it unpacks to more than 2097152 bytes"},
		"many zip bombs": {func() *http.Response {
			return answer(200, "application/zip", strings.NewReader(bombs(t)))
		}, repo.ErrContent, "the archive unpacks to more than 100663296 bytes"},
		"path traversal": {func() *http.Response {
			return answer(200, "application/zip", strings.NewReader(archive(t, [2]string{"../../../etc/packages/W/web/0/package.json", packageJSON})))
		}, repo.ErrContent, "leads out of the archive"},
		"absolute path": {func() *http.Response {
			return answer(200, "application/zip", strings.NewReader(archive(t, [2]string{"/packages/W/web/0/package.json", packageJSON})))
		}, repo.ErrContent, "leads out of the archive"},
		"an archive of none": {func() *http.Response {
			return answer(200, "application/zip", strings.NewReader(archive(t, [2]string{"README", "x"})))
		}, repo.ErrContent, "it has no packages/<letter>/<name>/<release>/package.json"},
		"another name": {func() *http.Response {
			return answer(200, "application/zip", strings.NewReader(archive(t, [2]string{"packages/K/kafka/0/package.json", packageJSON})))
		}, repo.ErrContent, `package.json calls it "web"`},
		"an archive too new": {func() *http.Response {
			return answer(200, "application/zip", strings.NewReader(archive(t, [2]string{"repo/meta/version.json", `{"version":"3.0"}`}, [2]string{"repo/packages/W/web/0/package.json", packageJSON})))
		}, repo.ErrContent, `it is of version "3.0"`},
		"redirects for ever":  {func() *http.Response { return answer(302, v5, strings.NewReader(""), "Location", "/again") }, repo.ErrUnreachable, "it redirects more than 5 times"},
		"redirects elsewhere": {func() *http.Response { return answer(302, v5, strings.NewReader(""), "Location", "file:///etc/passwd") }, repo.ErrUnreachable, "it redirects, and nobody fetches file from there"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			next := answer(200, v3, strings.NewReader(good))
			s := store(t, dir, answers(func(r *http.Request) *http.Response {
				if next != nil {
					n := next
					next = nil
					return n
				}
				return c.answer()
			}))
			const uri = "http://repo.test/repo"
			have, err := s.Fetch(t.Context(), uri, nil)
			if err != nil {
				t.Fatal(err)
			}
			_, err = s.Fetch(t.Context(), uri, have)
			if err == nil || !errors.Is(err, c.reason) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v\nwant %v: %s", err, c.reason, c.want)
			}
			kept, err := s.Load(uri)
			if err != nil || len(kept.Revisions) != 1 || kept.Revisions[0].Name != "web" {
				t.Errorf("kept is %+v, %v", kept, err)
			}
			if files, err := os.ReadDir(dir); err != nil || len(files) != 2 {
				t.Errorf("%d files are left, %v", len(files), err)
			}
		})
	}
}

// bombs is an archive of many packages, each within its limit.
func bombs(t *testing.T) string {
	t.Helper()
	var packed bytes.Buffer
	z, err := flate.NewWriter(&packed, flate.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	text := []byte(packageJSON + strings.Repeat(" ", 2<<20-len(packageJSON)))
	if _, err := z.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for i := range 60 {
		in, err := w.CreateRaw(&zip.FileHeader{
			Name: fmt.Sprintf("packages/W/web/%d/package.json", i), Method: zip.Deflate, CRC32: crc32.ChecksumIEEE(text),
			CompressedSize64: uint64(packed.Len()), UncompressedSize64: uint64(len(text)),
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := in.Write(packed.Bytes()); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestSlow: who does not answer, or not whole, is not waited for.
func TestSlow(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(r *http.Request) *http.Response
		want string
	}{
		"never": {func(r *http.Request) *http.Response {
			<-r.Context().Done()
			return nil
		}, "it did not answer within 1m0s"},
		"drip by drip": {func(r *http.Request) *http.Response {
			return answer(200, cosmos.RepositoryType(5), drip{r})
		}, "it did not come whole within 1m0s"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				s := store(t, dir, late(c.do))
				begin := time.Now()
				_, err := s.Fetch(t.Context(), "http://repo.test/repo", nil)
				if !errors.Is(err, repo.ErrUnreachable) || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want %s", err, c.want)
				}
				if took := time.Since(begin); took != repo.Patience {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

// late is a way on which requests may end by themselves.
type late func(r *http.Request) *http.Response

func (l late) RoundTrip(r *http.Request) (*http.Response, error) {
	if resp := l(r); resp != nil {
		return resp, nil
	}
	return nil, r.Context().Err()
}

// drip is a byte a second, until the request ends.
type drip struct{ r *http.Request }

func (d drip) Read(b []byte) (int, error) {
	select {
	case <-d.r.Context().Done():
		return 0, d.r.Context().Err()
	case <-time.After(time.Second):
		b[0] = ' '
		return 1, nil
	}
}

// TestForms: all forms that a repository may have lead to the same.
func TestForms(t *testing.T) {
	good := several(one("web", `,"config":{"properties":{}}`))
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	z := archive(t, [2]string{"universe-2/repo/meta/version.json", `{"version":"2.0.0-rc2"}`},
		[2]string{"universe-2/repo/packages/W/web/0/package.json", packageJSON}, [2]string{"universe-2/repo/packages/W/web/0/config.json", `{"properties": {}}`},
		[2]string{"universe-2/repo/packages/W/web/0/marathon.json.mustache", `{}`}, [2]string{"universe-2/repo/packages/W/web/0/NOTES", "x"})
	sent := map[string]func() *http.Response{
		"/v3":   func() *http.Response { return answer(200, cosmos.RepositoryType(3), strings.NewReader(good)) },
		"/v4":   func() *http.Response { return answer(200, cosmos.RepositoryType(4), strings.NewReader(good)) },
		"/json": func() *http.Response { return answer(200, "application/json", strings.NewReader(good)) },
		"/gzip": func() *http.Response {
			return answer(200, cosmos.RepositoryType(5), bytes.NewReader(squeeze(t, []byte(good))), "Content-Encoding", "gzip")
		},
		"/zip":  func() *http.Response { return answer(200, "application/zip", strings.NewReader(z)) },
		"/away": func() *http.Response { return answer(302, "", strings.NewReader(""), "Location", "/v3") },
	}
	var agent, accept string
	s := store(t, t.TempDir(), answers(func(r *http.Request) *http.Response {
		agent, accept = r.UserAgent(), r.Header.Get("Accept")
		return sent[r.URL.Path]()
	}))
	for _, uri := range []string{
		"http://repo.test/v3", "http://repo.test/v4", "https://repo.test/json", "http://repo.test/gzip", "http://repo.test/zip", "http://repo.test/away",
		"file:" + file("a.json", good), "file://" + file("b.json.gz", string(squeeze(t, []byte(good)))), "file://localhost" + file("c.zip", z),
	} {
		c, err := s.Fetch(t.Context(), uri, nil)
		if err != nil {
			t.Errorf("%s: %v", uri, err)
			continue
		}
		p, err := c.Revisions[0].Packed.Package()
		if err != nil || len(c.Revisions) != 1 || p.Name != "web" || string(p.Config) != `{"properties":{}}` {
			t.Errorf("%s has %+v, %v", uri, p, err)
		}
	}
	if agent != "cosmos/0.6.3 dcos/0.1.0" || !strings.HasPrefix(accept, cosmos.RepositoryType(5)+", "+cosmos.RepositoryType(4)) {
		t.Errorf("it was asked by %q for %q", agent, accept)
	}
}

func TestCheck(t *testing.T) {
	for uri, want := range map[string]fault.Kind{
		"http://": fault.Invalid, "repo": fault.Invalid, "http://a b": fault.Invalid, "file:repo.json": fault.Invalid, "file://host/a": fault.Invalid,
		"ftp://host/a": fault.Denied, "unix:///a": fault.Denied,
	} {
		if err := repo.Check(uri); !fault.Is(err, want) {
			t.Errorf("%s: %v, want %v", uri, err, want)
		}
	}
	for _, uri := range []string{"http://host/repo", "https://host:8443", "file:/a", "file:///a/b"} {
		if err := repo.Check(uri); err != nil {
			t.Errorf("%s: %v", uri, err)
		}
	}
}

// TestKeep: what was fetched is there after a start, if it is whole; and what
// has not changed is not fetched again.
func TestKeep(t *testing.T) {
	sent := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("If-None-Match") == `"1"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		sent++
		w.Header().Set("Content-Type", cosmos.RepositoryType(3))
		w.Header().Set("ETag", `"1"`)
		io.WriteString(w, several(one("web", "")))
	}))
	defer server.Close()
	dir := t.TempDir()
	s := store(t, dir, nil)
	if _, err := s.Load(server.URL); !errors.Is(err, repo.ErrNothing) {
		t.Errorf("before there is %v", err)
	}
	if _, err := s.Fetch(t.Context(), server.URL, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "fetch-123"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	s = store(t, dir, nil)
	have, err := s.Load(server.URL)
	if err != nil || len(have.Revisions) != 1 {
		t.Fatalf("kept is %+v, %v", have, err)
	}
	again, err := s.Fetch(t.Context(), server.URL, have)
	if err != nil || again != have || sent != 1 {
		t.Errorf("it was sent %d times, %v", sent, err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*-*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("there are %v, %v", files, err)
	}
	if err := os.WriteFile(files[0], []byte(several()), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(server.URL); err == nil || errors.Is(err, repo.ErrNothing) || !strings.Contains(err.Error(), "is damaged") {
		t.Errorf("what is damaged is %v", err)
	}
	if err := s.Retain([]string{"http://other"}); err != nil {
		t.Fatal(err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 0 {
		t.Errorf("there are %v, %v", files, err)
	}
}

// TestFileChanges: a file is read again when it is another.
func TestFileChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "repo.json")
	write := func(text string, at time.Time) {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	s := store(t, t.TempDir(), nil)
	write(several(one("web", "")), time.Unix(1000, 0))
	first, err := s.Fetch(t.Context(), "file:"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if same, err := s.Fetch(t.Context(), "file:"+path, first); same != first || err != nil {
		t.Errorf("it was read again: %v", err)
	}
	write(several(one("web", ""), one("web2", "")), time.Unix(1001, 0))
	if next, err := s.Fetch(t.Context(), "file:"+path, first); err != nil || len(next.Revisions) != 2 {
		t.Errorf("it is %+v, %v", next, err)
	}
	// As when another release comes into its place: same length, same time.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write(several(one("aaa", ""), one("bbbb", "")), time.Unix(1001, 0))
	if next, err := s.Fetch(t.Context(), "file:"+path, first); err != nil || next.Revisions[0].Name != "aaa" {
		t.Errorf("it is %+v, %v", next, err)
	}
	if _, err := s.Fetch(t.Context(), "file:"+filepath.Dir(path), nil); err == nil || !strings.Contains(err.Error(), "is no file") {
		t.Errorf("a folder is %v", err)
	}
}
