package backup_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"dcos.example/dcos/runtime/backup"
	"dcos.example/dcos/runtime/backup/archive"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/deposit"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/state"
	"dcos.example/dcos/runtime/state/etcd"
)

var sealKey = bytes.Repeat([]byte{7}, 32)

// master is one master's part of a test: its files, and a service over store.
type master struct {
	*backup.Service
	root string
	dir  string
}

// peers lets masters reach each other in memory, by address.
type peers map[string]http.Handler

func (p peers) RoundTrip(r *http.Request) (*http.Response, error) {
	h := p[r.URL.Hostname()]
	if h == nil {
		return nil, errors.New("no route to host")
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result(), nil
}

func startStore(t *testing.T) *etcd.Member {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	self := etcd.Peer{Name: "m1", Addr: netip.MustParseAddrPort(l.Addr().String())}
	l.Close()
	m, err := etcd.Start(t.Context(), etcd.Options{Self: self, Peers: []etcd.Peer{self}, Token: "t", DataDir: t.TempDir(),
		Heartbeat: 50 * time.Millisecond, Election: 500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

type source interface {
	Snapshot(ctx context.Context, w io.Writer) (int64, error)
	Contents(ctx context.Context, rev int64) (etcd.Contents, error)
}

func newMaster(t *testing.T, n int, m *etcd.Member, src source, to string, others peers, edit func(*config.Backup)) *master {
	t.Helper()
	root, err := os.MkdirTemp("", "bk") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	for path, text := range map[string]string{
		config.CAKeyFile: "the key of the CA", config.MasterFile: "{}", config.ReleaseFile: `{"version":"0.1.0"}`,
		config.BackupKeysFile: `{"access_key":"a","secret_key":"b"}`,
	} {
		file := root + path
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	b := config.Backup{Keep: 2, Dir: "/backups", Recipients: []string{to}}
	if edit != nil {
		edit(&b)
	}
	var all []config.Member
	for i := 1; i <= 3; i++ {
		all = append(all, config.Member{Name: fmt.Sprint("m", i), Addr: netip.AddrFrom4([4]byte{198, 19, 70, byte(10 + i)})})
	}
	var ticks atomic.Int64 // so that each backup has a name of its own
	s, err := backup.New(backup.Config{
		Now:     func() time.Time { return time.Now().Add(time.Duration(ticks.Add(1)) * time.Second) },
		Cluster: config.Cluster{ID: "c0ffee00-aaaa", Name: "prod", Release: "0.1.0"}, Host: config.Host{Name: all[n-1].Name, Addr: all[n-1].Addr},
		Backup: b, Work: filepath.Join(root, "w"), Root: root, Store: src, Deposit: deposit.New(etcd.New(m.Client()), sealKey, "c0ffee00-aaaa"),
		Masters: func() []config.Member { return all }, Peers: others, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	others[all[n-1].Addr.String()] = s.Handler()
	return &master{Service: s, root: root, dir: root + "/backups"}
}

// lead lets a master lead until the test ends.
func lead(t *testing.T, s *master, m *etcd.Member) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Run(ctx, etcd.New(m.Client())); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	for {
		if _, err := s.Last(ctx); !fault.Is(err, fault.Unavailable) {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func put(t *testing.T, m *etcd.Member, kind state.Kind, id, value string) {
	t.Helper()
	if _, err := etcd.New(m.Client()).Commit(t.Context(), state.Op{Key: state.Key{Kind: kind, ID: id}, Value: []byte(value)}); err != nil {
		t.Fatal(err)
	}
}

func ask(t *testing.T, h http.Handler, method, path string) (int, []byte) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, path, nil))
	return w.Code, w.Body.Bytes()
}

func TestBackup(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	m, net := startStore(t), peers{}
	m1 := newMaster(t, 1, m, m, id.Recipient().String(), net, nil)
	m2 := newMaster(t, 2, m, m, id.Recipient().String(), net, nil) // m3 is away
	put(t, m, "app", "/web", `{"id":"/web"}`)
	put(t, m, "agent", "agent-1", `{"standing":"admitted","info":{"hostname":"198.19.70.21"}}`)
	put(t, m, "agent", "agent-2", `{"standing":"gone","info":{"hostname":"198.19.70.22"}}`)
	if _, err := deposit.New(etcd.New(m.Client()), sealKey, "c0ffee00-aaaa").Put(t.Context(), 0, deposit.Head{Serial: 9}, []byte("the installer's state")); err != nil {
		t.Fatal(err)
	}
	if _, err := m1.Make(t.Context()); !fault.Is(err, fault.Unavailable) {
		t.Errorf("who does not lead: %v", err)
	}
	lead(t, m1, m)
	code, body := ask(t, m1.Handler(), "POST", "/backups")
	var e archive.Entry
	if err := json.Unmarshal(body, &e); code != http.StatusCreated || err != nil {
		t.Fatalf("%d %s %v", code, body, err)
	}
	if e.Verified.At.IsZero() || e.Verified.Contents != e.Store || e.Store.Keys < 5 || e.Agents != 1 || e.InstallerSerial != 9 || !slices.Equal(e.Copies, []string{"m1", "m2"}) {
		t.Errorf("entry %+v", e)
	}
	code, file := ask(t, m1.Handler(), "GET", "/backups/"+e.ID)
	if code != 200 || int64(len(file)) != e.Size {
		t.Fatalf("download: %d, %d bytes of %d", code, len(file), e.Size)
	}
	b, err := archive.Open(bytes.NewReader(file), []age.Identity{id}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if string(b.Config(config.CAKeyFile)) != "the key of the CA" || string(b.Files[archive.DepositName]) != "the installer's state" || len(b.Files[archive.ReleaseName]) == 0 ||
		len(b.Manifest.Agents) != 1 || b.Manifest.Agents[0].Addr.String() != "198.19.70.21" {
		t.Errorf("it holds %v, %+v", b.Files, b.Manifest)
	}
	if left, err := os.ReadDir(m1.root); err != nil || slices.ContainsFunc(left, func(d os.DirEntry) bool { return d.Name() == "w" }) {
		t.Errorf("what was in clear is left: %v, %v", left, err)
	}

	t.Run("overview", func(t *testing.T) {
		code, body := ask(t, m1.Handler(), "GET", "/backups")
		var o backup.Overview
		if err := json.Unmarshal(body, &o); code != 200 || err != nil {
			t.Fatalf("%d %s", code, body)
		}
		if o.Last == nil || o.Last.ID != e.ID || o.Last.Error != "" || !o.Last.Asked || len(o.Backups) != 1 || !slices.Equal(o.Silent, []string{"m3"}) || o.Next != nil {
			t.Errorf("%+v", o)
		}
		if code, _ := ask(t, m2.Handler(), "GET", "/backups"); code != http.StatusServiceUnavailable {
			t.Errorf("on one that does not lead: %d", code)
		}
		if code, _ := ask(t, m1.Handler(), "GET", "/backups/prod-c0ffee00-20000101T000000Z"); code != 404 {
			t.Errorf("one that is not there: %d", code)
		}
		if code, _ := ask(t, m1.Handler(), "GET", "/backups/..%2F..%2Fetc%2Fpasswd"); code != 400 {
			t.Errorf("no name: %d", code)
		}
	})
	t.Run("another master has it", func(t *testing.T) {
		if err := os.RemoveAll(m1.dir); err != nil {
			t.Fatal(err)
		}
		if code, b := ask(t, m1.Handler(), "GET", "/backups/"+e.ID); code != 200 || !bytes.Equal(b, file) {
			t.Errorf("%d, %d bytes", code, len(b))
		}
		es, _, err := m1.List(t.Context())
		if err != nil || len(es) != 1 || !slices.Equal(es[0].Copies, []string{"m2"}) {
			t.Errorf("%+v, %v", es, err)
		}
	})
	t.Run("keeps two", func(t *testing.T) {
		for range 2 {
			if _, err := m1.Make(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		for _, dir := range []string{m1.dir, m2.dir} {
			if files, err := os.ReadDir(dir); err != nil || len(files) != 4 {
				t.Errorf("%s holds %v, %v", dir, files, err)
			}
		}
	})
	t.Run("a foreign entry is refused", func(t *testing.T) {
		r := httptest.NewRequestWithContext(t.Context(), "PUT", "/backup-copies/"+e.ID, strings.NewReader("x"))
		r.Header.Set("Dcos-Backup-Entry", `{"id":"`+e.ID+`","cluster_id":"another"}`)
		w := httptest.NewRecorder()
		m2.Handler().ServeHTTP(w, r)
		if w.Code != http.StatusBadRequest {
			t.Errorf("%d", w.Code)
		}
	})
}

// forged writes a snapshot that is not that of the store it speaks for.
type forged struct{ source }

func (f forged) Contents(ctx context.Context, rev int64) (etcd.Contents, error) {
	c, err := f.source.Contents(ctx, rev)
	c.Digest = "another"
	return c, err
}

// TestUnproven: what cannot be proven is not kept, and that is told.
func TestUnproven(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	m := startStore(t)
	put(t, m, "app", "/web", "{}")
	s := newMaster(t, 1, m, forged{m}, id.Recipient().String(), peers{}, nil)
	lead(t, s, m)
	if _, err := s.Make(t.Context()); !fault.Is(err, fault.Internal) {
		t.Errorf("made of something else: %v", err)
	}
	if _, err := os.ReadDir(s.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was kept: %v", err)
	}
	if last, err := s.Last(t.Context()); err != nil || last.Error == "" || last.ID != "" {
		t.Errorf("%+v, %v", last, err)
	}
	none := newMaster(t, 1, m, m, id.Recipient().String(), peers{}, func(b *config.Backup) { b.Recipients = nil })
	lead(t, none, m)
	if _, err := none.Make(t.Context()); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "dcos-install apply") {
		t.Errorf("without a key: %v", err)
	}
}

// TestScheduleToBucket: what is overdue is made at once, and the next when it is
// due.
func TestScheduleToBucket(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	mem := s3mem.New()
	if err := mem.CreateBucket("backups"); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(gofakes3.New(mem).Server())
	t.Cleanup(srv.Close)
	m := startStore(t)
	put(t, m, "app", "/web", "{}")
	s := newMaster(t, 1, m, m, id.Recipient().String(), peers{}, func(b *config.Backup) {
		b.Dir, b.S3, b.Every = "", &config.S3{Endpoint: srv.URL, Bucket: "backups", Prefix: "prod"}, config.Duration(time.Hour)
	})
	// The last one was due a while ago.
	put(t, m, backup.KindStatus, "last", `{"at":"2020-01-01T00:00:00Z","id":"x"}`)
	lead(t, s, m)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if last, err := s.Last(t.Context()); err != nil || last.Error != "" || time.Now().After(end) {
			t.Fatal("no backup was made", last.Error, err)
		} else if last.ID != "x" {
			break
		}
	}
	code, body := ask(t, s.Handler(), "GET", "/backups")
	var o backup.Overview
	if err := json.Unmarshal(body, &o); code != 200 || err != nil || o.Next == nil || time.Until(*o.Next) < 50*time.Minute || o.Where != srv.URL+"/backups/prod" || len(o.Backups) != 1 {
		t.Fatalf("%d %s %v", code, body, err)
	}
	code, file := ask(t, s.Handler(), "GET", "/backups/"+o.Backups[0].ID)
	if code != 200 {
		t.Fatal(code)
	}
	if _, err := archive.Open(bytes.NewReader(file), []age.Identity{id}, t.TempDir()); err != nil {
		t.Error(err)
	}
}
