package fetch_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	mesos "dcos.example/dcos/runtime/api/mesos"

	"dcos.example/dcos/runtime/agent/fetch"
	"dcos.example/dcos/runtime/fault"
)

func me() fetch.Owner { return fetch.Owner{UID: os.Getuid(), GID: os.Getgid()} }

func uri(value string, more ...func(*mesos.CommandInfo_URI)) *mesos.CommandInfo_URI {
	u := &mesos.CommandInfo_URI{Value: proto.String(value)}
	for _, m := range more {
		m(u)
	}
	return u
}

func executable(u *mesos.CommandInfo_URI) { u.Executable = proto.Bool(true) }
func asIs(u *mesos.CommandInfo_URI)       { u.Extract = proto.Bool(false) }
func as(name string) func(*mesos.CommandInfo_URI) {
	return func(u *mesos.CommandInfo_URI) { u.OutputFile = proto.String(name) }
}

// content serves files by path.
func content(t *testing.T, files map[string][]byte) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, ok := files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(b)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

type member struct {
	name, body, link string
	kind             byte
	mode             int64
}

func tarball(t *testing.T, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		h := &tar.Header{Name: m.name, Linkname: m.link, Typeflag: m.kind, Mode: m.mode, Size: int64(len(m.body))}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, m.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipped(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zipped(t *testing.T, name, body string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	f, err := w.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(f, body); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestFetch(t *testing.T) {
	archive := tarball(t, member{name: "dir/", kind: tar.TypeDir, mode: 0o755}, member{name: "dir/run", body: "x", kind: tar.TypeReg, mode: 0o755},
		member{name: "link", link: "dir/run", kind: tar.TypeSymlink}, member{name: "hard", link: "dir/run", kind: tar.TypeLink})
	base := content(t, map[string][]byte{
		"/plain": []byte("plain"), "/a.tar": archive, "/a.tgz": gzipped(t, archive), "/a.tar.gz": gzipped(t, archive),
		"/z.zip": zipped(t, "in/zip", "z"), "/one.gz": gzipped(t, []byte("one")),
	})
	local := filepath.Join(t.TempDir(), "local")
	if err := os.WriteFile(local, []byte("local"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		uri  *mesos.CommandInfo_URI
		want map[string]string // file → "mode content"
	}{
		{"http", uri(base + "/plain?x=1"), map[string]string{"plain": "0644 plain"}},
		{"output file", uri(base+"/plain", as("sub/dir/p")), map[string]string{"sub/dir/p": "0644 plain"}},
		{"executable", uri(base+"/plain", executable), map[string]string{"plain": "0755 plain"}},
		{"path", uri(local), map[string]string{"local": "0644 local"}},
		{"file scheme", uri("file://" + local), map[string]string{"local": "0644 local"}},
		{"tar", uri(base + "/a.tar"), map[string]string{"dir/run": "0755 x", "link": "0755 x", "hard": "0755 x"}},
		{"tgz", uri(base + "/a.tgz"), map[string]string{"dir/run": "0755 x"}},
		{"tar.gz", uri(base + "/a.tar.gz"), map[string]string{"dir/run": "0755 x"}},
		{"tar below", uri(base+"/a.tar", as("b/a.tar")), map[string]string{"b/dir/run": "0755 x", "b/hard": "0755 x"}},
		{"zip", uri(base + "/z.zip"), map[string]string{"in/zip": "0644 z"}},
		{"gz", uri(base + "/one.gz"), map[string]string{"one": "0644 one"}},
		{"not extracted", uri(base+"/one.gz", asIs), map[string]string{"one.gz": "0644 " + string(gzipped(t, []byte("one")))}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			var out strings.Builder
			var f fetch.Fetcher
			if err := f.Fetch(t.Context(), []*mesos.CommandInfo_URI{c.uri}, dir, me(), &out); err != nil {
				t.Fatal(err)
			}
			for name, want := range c.want {
				fi, err := os.Stat(filepath.Join(dir, name))
				if err != nil {
					t.Fatal(err)
				}
				b, err := os.ReadFile(filepath.Join(dir, name))
				if err != nil {
					t.Fatal(err)
				}
				if got := fmt.Sprintf("%04o %s", fi.Mode().Perm(), b); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			if !strings.Contains(out.String(), "Fetching '"+c.uri.GetValue()+"'") {
				t.Errorf("said %q", out.String())
			}
		})
	}
}

// Nothing outside the sandbox is read by way of it or written.
func TestRefuse(t *testing.T) {
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("safe"), 0o644); err != nil {
		t.Fatal(err)
	}
	base := content(t, map[string][]byte{
		"/up.tar":   tarball(t, member{name: "../evil", body: "x", kind: tar.TypeReg}),
		"/link.tar": tarball(t, member{name: "out", link: filepath.Dir(victim), kind: tar.TypeSymlink}, member{name: "out/victim", body: "x", kind: tar.TypeReg}),
		"/hard.tar": tarball(t, member{name: "h", link: "../../../etc/passwd", kind: tar.TypeLink}),
		"/dev.tar":  tarball(t, member{name: "d", kind: tar.TypeChar}),
		"/cut.tgz":  gzipped(t, []byte("x"))[:10],
		"/up.zip":   zipped(t, "../evil", "x"),
		"/plain":    []byte("x"),
	})
	for name, u := range map[string]*mesos.CommandInfo_URI{
		"a climbing tar": uri(base + "/up.tar"), "a link out": uri(base + "/link.tar"), "a hard link out": uri(base + "/hard.tar"),
		"a device": uri(base + "/dev.tar"), "a cut archive": uri(base + "/cut.tgz"), "a climbing zip": uri(base + "/up.zip"),
		"a climbing output file": uri(base+"/plain", as("../p")), "an absolute output file": uri(base+"/plain", as("/tmp/p")),
		"status 404": uri(base + "/none"), "a directory": uri(t.TempDir()), "a relative path": uri("rel/ative"),
		"another scheme": uri("hdfs://h/x"), "no file": uri("/no/such/file"), "no name": uri(base),
	} {
		dir := filepath.Join(t.TempDir(), "sandbox")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		var f fetch.Fetcher
		err := f.Fetch(t.Context(), []*mesos.CommandInfo_URI{u}, dir, me(), io.Discard)
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), u.GetValue()) {
			t.Errorf("%s: %v, want a refusal that names the URI", name, err)
		}
		if _, err := os.Stat(filepath.Join(dir, "..", "evil")); err == nil {
			t.Errorf("%s: wrote outside the sandbox", name)
		}
	}
	if b, err := os.ReadFile(victim); err != nil || string(b) != "safe" {
		t.Errorf("the victim holds %q, %v", b, err)
	}
}

func TestStall(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "some")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	defer srv.Close()
	f := fetch.Fetcher{Stall: 50 * time.Millisecond}
	err := f.Fetch(t.Context(), []*mesos.CommandInfo_URI{uri(srv.URL + "/x")}, t.TempDir(), me(), io.Discard)
	if err == nil || !strings.Contains(err.Error(), "nothing arrived for 50ms") {
		t.Errorf("a stalled download: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Fetch(ctx, []*mesos.CommandInfo_URI{uri(srv.URL + "/x")}, t.TempDir(), me(), io.Discard); err == nil {
		t.Error("a cancelled fetch succeeded")
	}
}
