package deposit_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dcos.example/dcos/runtime/deposit"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/state"
	"dcos.example/dcos/runtime/state/memory"
)

var key = bytes.Repeat([]byte{7}, 32)

// noise does not compress, so that it takes several chunks.
func noise(n int) []byte {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x)
	}
	return b
}

func TestPutGet(t *testing.T) {
	store := memory.New()
	d := deposit.New(store, key, "cluster-1")
	if _, _, err := d.Get(t.Context()); !fault.Is(err, fault.NotFound) {
		t.Errorf("nothing deposited: %v", err)
	}
	big := noise(3 << 20)
	first, err := d.Put(t.Context(), 0, deposit.Head{Serial: 4, Operation: "op-1", By: "ann@laptop"}, big)
	if err != nil || first.Chunks < 2 {
		t.Fatal(first, err)
	}
	h, got, err := d.Get(t.Context())
	if err != nil || !bytes.Equal(got, big) || h.Rev != first.Rev || h.Serial != 4 || h.Operation != "op-1" {
		t.Fatalf("got %d bytes, %+v, %v", len(got), h, err)
	}
	if _, err := d.Put(t.Context(), 0, deposit.Head{}, []byte("foreign")); !fault.Is(err, fault.Conflict) {
		t.Errorf("a state that names no revision: %v", err)
	}
	second, err := d.Put(t.Context(), first.Rev, deposit.Head{Serial: 5}, []byte("small"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Put(t.Context(), first.Rev, deposit.Head{}, []byte("late")); !fault.Is(err, fault.Conflict) {
		t.Errorf("a state that names an old revision: %v", err)
	}
	if _, got, err := d.Get(t.Context()); err != nil || string(got) != "small" {
		t.Errorf("got %q, %v", got, err)
	}
	recs, _, err := store.List(t.Context(), deposit.Kind)
	if err != nil || len(recs) != 1+second.Chunks {
		t.Errorf("%d records are left, %v", len(recs), err)
	}
	for _, r := range recs {
		if bytes.Contains(r.Value, []byte("small")) {
			t.Errorf("%s shows what is sealed", r.Key)
		}
	}
}

func TestSealed(t *testing.T) {
	store := memory.New()
	if _, err := deposit.New(store, key, "cluster-1").Put(t.Context(), 0, deposit.Head{}, []byte("secret")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := deposit.New(store, bytes.Repeat([]byte{8}, 32), "cluster-1").Get(t.Context()); !fault.Is(err, fault.Denied) {
		t.Errorf("with another key: %v", err)
	}
	if _, _, err := deposit.New(store, key, "cluster-2").Get(t.Context()); !fault.Is(err, fault.Denied) {
		t.Errorf("as another cluster: %v", err)
	}
	if _, _, err := deposit.New(store, key[:5], "cluster-1").Get(t.Context()); !fault.Is(err, fault.Invalid) {
		t.Errorf("with a short key: %v", err)
	}
	recs, _, err := store.List(t.Context(), deposit.Kind)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range recs {
		if r.Key.ID != "head" {
			r.Value[len(r.Value)-1] ^= 1
			if _, err := store.Commit(t.Context(), state.Op{Key: r.Key, IfRev: r.Rev, Value: r.Value}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, _, err := deposit.New(store, key, "cluster-1").Get(t.Context()); !fault.Is(err, fault.Internal) || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("with a damaged chunk: %v", err)
	}
}

// TestFollow: a master's file has what was deposited last, and opens with the
// seal key's file.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "state.sealed")
		d := deposit.New(memory.New(), key, "cluster-1")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			d.Follow(ctx, file, func(err error) { t.Error(err) })
		}()
		text := []byte(base64.StdEncoding.EncodeToString(key) + "\n")
		var h deposit.Head
		for _, want := range []string{"one", "two"} {
			var err error
			if h, err = d.Put(ctx, h.Rev, deposit.Head{Operation: want}, []byte(want)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(3 * time.Second) // a change is followed within one
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			head, got, err := deposit.OpenFile(b, text, "cluster-1")
			if err != nil || string(got) != want || head.Operation != want {
				t.Errorf("the file has %q of %+v, %v", got, head, err)
			}
			if _, _, err := deposit.OpenFile(b[:len(b)-1], text, "cluster-1"); !fault.Is(err, fault.Internal) {
				t.Errorf("cut off: %v", err)
			}
			if _, _, err := deposit.OpenFile([]byte("x"), text, "cluster-1"); !fault.Is(err, fault.Invalid) {
				t.Errorf("not such a file: %v", err)
			}
		}
		cancel()
		<-done
	})
}

func TestHandler(t *testing.T) {
	h := deposit.New(memory.New(), key, "cluster-1").Handler()
	ask := func(method, query, body string) (int, deposit.Document) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, "/system/v1/installer-state"+query, strings.NewReader(body)))
		var d deposit.Document
		if w.Code == 200 {
			if err := json.Unmarshal(w.Body.Bytes(), &d); err != nil {
				t.Fatal(err)
			}
		}
		return w.Code, d
	}
	const first = `{"revision":0,"serial":3,"operation":"op","by":"ann@laptop","content":"Zmlyc3Q="}`
	for _, c := range []struct {
		what, method, body string
		status             int
	}{
		{"nothing there", "GET", "", 404},
		{"no JSON", "PUT", "x", 400},
		{"no operation", "PUT", `{"content":"eA=="}`, 400},
		{"the first", "PUT", first, 200},
		{"the first again", "PUT", first, 409},
		{"wrong method", "DELETE", "", 405},
	} {
		if status, _ := ask(c.method, "", c.body); status != c.status {
			t.Errorf("%s: %d, want %d", c.what, status, c.status)
		}
	}
	_, head := ask("GET", "?content=false", "")
	if head.Serial != 3 || head.By != "ann@laptop" || head.Operation != "op" || head.Revision == 0 || head.Size != 5 || head.Content != nil {
		t.Errorf("head: %+v", head)
	}
	head.Content = []byte("second")
	b, err := json.Marshal(head)
	if err != nil {
		t.Fatal(err)
	}
	if status, got := ask("PUT", "", string(b)); status != 200 || got.Revision <= head.Revision {
		t.Errorf("replace: %d %+v", status, got)
	}
	if status, got := ask("GET", "", ""); status != 200 || string(got.Content) != "second" {
		t.Errorf("%d %+v", status, got)
	}
}
