package files_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"dcos.example/dcos/runtime/agent/files"
)

func tree(t *testing.T) (*files.Tree, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "box")
	for name, body := range map[string]string{"stdout": "0123456789", "sub/file": "x", "../secret": "secret"} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"out": "../secret", "abs": "/etc/passwd", "latest": "sub"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	tr := files.New()
	tr.Attach("/box", dir)
	tr.Attach("/slave/log", filepath.Join(dir, "stdout"))
	return tr, dir
}

func ask(t *testing.T, tr *files.Tree, url string) (int, string, http.Header) {
	t.Helper()
	w := httptest.NewRecorder()
	tr.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, url, nil))
	b, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Code, strings.TrimSpace(string(b)), w.Result().Header
}

func TestEndpoints(t *testing.T) {
	tr, _ := tree(t)
	for _, c := range []struct {
		url  string
		code int
		want string
	}{
		{"/files/read?path=/box/stdout", 200, `{"data":"","offset":10}`},
		{"/files/read?path=/box/stdout&offset=-1", 200, `{"data":"","offset":10}`},
		{"/files/read?path=/box/stdout&offset=2&length=3", 200, `{"data":"234","offset":2}`},
		{"/files/read?path=/box/stdout&offset=8&length=-1", 200, `{"data":"89","offset":8}`},
		{"/files/read?path=/box/stdout&offset=99", 200, `{"data":"","offset":99}`},
		{"/files/read.json?path=/slave/log&offset=9", 200, `{"data":"9","offset":9}`},
		{"/files/read?path=/box/stdout&offset=0&length=1&jsonp=f", 200, `f({"data":"0","offset":0});`},
		{"/files/read?path=/box/latest/file&offset=0", 200, `{"data":"x","offset":0}`},
		{"/files/read?path=/box/stdout&offset=x", 400, "failed to parse offset"},
		{"/files/read?path=/box/stdout&offset=-2", 400, "negative offset"},
		{"/files/read?path=/box/sub", 400, "not a regular file"},
		{"/files/read?path=/box/pipe", 400, "not a regular file"},
		{"/files/read?path=/box/none", 404, "no such file"},
		{"/files/read?path=/elsewhere", 404, "no such file"},
		{"/files/read", 400, "expecting 'path=value'"},
		{"/files/read?path=/box/../../etc/passwd", 404, "no such file"},
		{"/files/read?path=/box/out", 403, "escapes"},
		{"/files/read?path=/box/abs", 403, "escapes"},
		{"/files/browse?path=/box/none", 404, "no such file"},
		{"/files/browse", 400, "expecting 'path=value'"},
		{"/files/download?path=/box/stdout", 200, "0123456789"},
		{"/files/download?path=/box/sub", 400, "not a regular file"},
		{"/files/download?path=/box/out", 403, "escapes"},
	} {
		if code, body, _ := ask(t, tr, c.url); code != c.code || !strings.Contains(body, c.want) {
			t.Errorf("%s: %d %s; want %d %s", c.url, code, body, c.code, c.want)
		}
	}
	if _, _, h := ask(t, tr, "/files/download?path=/box/stdout"); h.Get("Content-Disposition") != "attachment; filename=stdout" {
		t.Errorf("headers %v", h)
	}
}

func TestBrowse(t *testing.T) {
	tr, dir := tree(t)
	code, body, _ := ask(t, tr, "/files/browse?path=/box/")
	var list []struct {
		Path, Mode, UID string
		Nlink           int
		Size, Mtime     int64
	}
	if err := json.Unmarshal([]byte(body), &list); err != nil || code != 200 {
		t.Fatalf("%d %v %s", code, err, body)
	}
	got := map[string]string{}
	for _, f := range list {
		got[f.Path] = f.Mode
		if f.Mtime == 0 || f.UID == "" || f.Nlink == 0 {
			t.Errorf("incomplete: %+v", f)
		}
	}
	for p, mode := range map[string]string{"/box/stdout": "-rw-r--r--", "/box/sub": "drwxr-xr-x", "/box/out": "lrwxrwxrwx", "/box/pipe": "prw-r--r--"} {
		if got[p] != mode {
			t.Errorf("%s has mode %q, want %q", p, got[p], mode)
		}
	}
	if _, body, _ = ask(t, tr, "/files/debug"); !strings.Contains(body, `"/box":"`+dir+`"`) {
		t.Errorf("debug: %s", body)
	}
	tr.Detach("/box")
	if code, _, _ = ask(t, tr, "/files/browse?path=/box"); code != 404 {
		t.Errorf("a detached path answers %d", code)
	}
}

func TestLongReads(t *testing.T) {
	file := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(file, make([]byte, 3*files.MaxRead), 0o644); err != nil {
		t.Fatal(err)
	}
	tr := files.New()
	tr.Attach("/big", file)
	for _, length := range []int64{-1, 1 << 40} {
		if b, size, err := tr.Read("/big", 0, length); err != nil || len(b) != files.MaxRead || size != 3*files.MaxRead {
			t.Errorf("length %d: read %d of %d, %v", length, len(b), size, err)
		}
	}
}
