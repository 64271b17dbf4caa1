package target_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"dcos.example/dcos/runtime/backup/archive"
	"dcos.example/dcos/runtime/backup/target"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
)

type place interface {
	Put(ctx context.Context, e archive.Entry, path string) error
	List(ctx context.Context) ([]archive.Entry, error)
	Open(ctx context.Context, id string) (io.ReadCloser, error)
	Remove(ctx context.Context, id string) error
}

func made(t *testing.T, hour int, text string) (archive.Entry, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "backup")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 1, 2, hour, 0, 0, 0, time.UTC)
	sum := sha256.Sum256([]byte(text))
	return archive.Entry{ID: archive.ID("prod", "c0ffee00-1111", at), ClusterID: "c0ffee00-1111", Created: at, Size: int64(len(text)), SHA256: hex.EncodeToString(sum[:])}, file
}

func conformance(t *testing.T, p place) {
	ctx := t.Context()
	if es, err := p.List(ctx); err != nil || len(es) != 0 {
		t.Fatalf("empty: %v, %v", es, err)
	}
	var ids []string
	for hour := range 3 {
		e, file := made(t, hour, strings.Repeat("x", 10+hour))
		if err := p.Put(ctx, e, file); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, e.ID)
	}
	es, err := p.List(ctx)
	if err != nil || len(es) != 3 || es[0].ID != ids[2] || es[2].ID != ids[0] || es[1].Size != 11 {
		t.Fatalf("listed %+v, %v", es, err)
	}
	r, err := p.Open(ctx, ids[1])
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil || string(b) != strings.Repeat("x", 11) || r.Close() != nil {
		t.Errorf("read %q, %v", b, err)
	}
	if err := p.Remove(ctx, ids[1]); err != nil {
		t.Error(err)
	}
	if err := p.Remove(ctx, ids[1]); err != nil {
		t.Errorf("remove what is gone: %v", err)
	}
	if _, err := p.Open(ctx, ids[1]); !fault.Is(err, fault.NotFound) {
		t.Errorf("open what is gone: %v", err)
	}
	for _, id := range []string{"../../etc/passwd", "", "prod-c0ffee00-20260102T000000Z/../x"} {
		if _, err := p.Open(ctx, id); !fault.Is(err, fault.Invalid) {
			t.Errorf("open %q: %v", id, err)
		}
	}
}

func TestDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "later")
	d := target.Dir{Path: dir}
	conformance(t, d)
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 4 {
		t.Errorf("files: %v, %v", left, err)
	}
	e, _ := made(t, 9, "what was announced")
	if err := d.Receive(e, strings.NewReader("what came")); err == nil {
		t.Error("took another file than was announced")
	}
	if _, err := d.Open(t.Context(), e.ID); !fault.Is(err, fault.NotFound) {
		t.Errorf("a part of it was left: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "notes.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if es, err := d.List(t.Context()); err != nil || len(es) != 2 {
		t.Errorf("listed %v, %v", es, err)
	}
}

func TestS3(t *testing.T) {
	mem := s3mem.New()
	if err := mem.CreateBucket("backups"); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(gofakes3.New(mem).Server())
	t.Cleanup(srv.Close)
	keys := config.S3Keys{AccessKey: "a", SecretKey: "b"}
	for _, prefix := range []string{"", "/dcos/prod/"} {
		s, err := target.NewS3(config.S3{Endpoint: srv.URL, Bucket: "backups", Prefix: prefix}, keys)
		if err != nil {
			t.Fatal(err)
		}
		t.Run("prefix "+prefix, func(t *testing.T) {
			conformance(t, s)
			es, err := s.List(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range es { // those below a prefix are not seen from above
				if err := s.Remove(t.Context(), e.ID); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	missing, err := target.NewS3(config.S3{Endpoint: srv.URL, Bucket: "nosuch"}, keys)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := missing.List(t.Context()); !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "make it first") {
		t.Errorf("no such bucket: %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	away, err := target.NewS3(config.S3{Endpoint: "http://" + l.Addr().String(), Bucket: "backups"}, keys)
	if err != nil || l.Close() != nil {
		t.Fatal(err)
	}
	e, file := made(t, 1, "x")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := away.Put(ctx, e, file); !fault.Is(err, fault.Unavailable) {
		t.Errorf("store away: %v", err)
	}
}
