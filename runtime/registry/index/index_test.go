package index_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	digest "github.com/opencontainers/go-digest"
	"pgregory.net/rapid"

	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/registry/index"
	"dcos.example/dcos/runtime/state"
	"dcos.example/dcos/runtime/state/memory"
)

// follow runs an index until stop is called.
func follow(store state.Backend) (x *index.Index, stop func()) {
	x = index.New(store, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		x.Run(ctx)
	}()
	return x, func() {
		cancel()
		<-done
	}
}

func until(f func() bool) bool {
	for end := time.Now().Add(10 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// Whatever is pushed and removed on whichever master, all masters come to know
// the same, a tag means a manifest that is there, and collecting takes only
// manifests that lost their tags and that nothing names.
func TestMastersAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store := memory.New()
		var masters []*index.Index
		for range 2 {
			x, stop := follow(store)
			defer stop()
			masters = append(masters, x)
		}
		ctx := context.Background()
		tags := map[string]digest.Digest{}    // of the one repository
		manifests := map[digest.Digest]bool{} // false: it was never without a tag that it had
		content := func(n int) (digest.Digest, index.Manifest) {
			text := fmt.Sprintf("manifest %d", n)
			return digest.FromString(text), index.Manifest{
				MediaType: "m", Size: int64(len(text)), Blobs: []index.Blob{{Digest: digest.FromString(fmt.Sprint("layer ", n/2)), Size: 1}},
			}
		}
		steps := rapid.IntRange(1, 12).Draw(t, "steps")
		for range steps {
			x := rapid.SampledFrom(masters).Draw(t, "master")
			d, m := content(rapid.IntRange(0, 3).Draw(t, "image"))
			tag := rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "tag")
			ref := index.Ref{Repository: "app", Digest: d}
			var err error
			switch rapid.SampledFrom([]string{"put", "put", "untag", "delete", "collect"}).Draw(t, "step") {
			case "put":
				if err = x.Put(ctx, ref, m, tag, ""); err == nil {
					if _, there := manifests[d]; !there || tag != "" {
						manifests[d] = false
					}
					if was, ok := tags[tag]; tag != "" && ok && was != d {
						delete(tags, tag)
						lost(tags, manifests, was)
					}
					if tag != "" {
						tags[tag] = d
					}
				}
			case "untag":
				if tag == "" {
					continue
				}
				if err = x.DeleteTag(ctx, "app", tag); err == nil {
					was := tags[tag]
					delete(tags, tag)
					lost(tags, manifests, was)
				} else if _, ok := tags[tag]; !ok && fault.Is(err, fault.NotFound) {
					err = nil
				}
			case "delete":
				if err = x.DeleteManifest(ctx, ref); err == nil {
					delete(manifests, d)
					for k, v := range tags {
						if v == d {
							delete(tags, k)
						}
					}
				} else if _, ok := manifests[d]; !ok && fault.Is(err, fault.NotFound) {
					err = nil
				}
			case "collect":
				if _, err = x.Collect(ctx, time.Now().Add(time.Hour)); err == nil {
					for d, gone := range manifests {
						if gone {
							delete(manifests, d)
						}
					}
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			// The other master may be behind; what it decides must not be.
			for i, x := range masters {
				if !until(func() bool { return cmp.Equal(seen(x), seen(masters[0])) && len(x.All()) == len(manifests) }) {
					t.Fatalf("master %d knows %v, the first %v; want %v", i, seen(x), seen(masters[0]), manifests)
				}
			}
		}
		want, needed := map[string]digest.Digest{}, map[digest.Digest]bool{}
		for k, v := range tags {
			want[k] = v
			if _, ok := manifests[v]; !ok {
				t.Fatalf("tag %s means a manifest that is gone", k)
			}
		}
		if d := cmp.Diff(want, seen(masters[1])); d != "" {
			t.Fatal(d)
		}
		for n := range 4 {
			d, m := content(n)
			if _, ok := manifests[d]; ok {
				needed[d], needed[m.Blobs[0].Digest] = true, true
			}
		}
		for n := range 4 {
			d, m := content(n)
			for _, b := range []digest.Digest{d, m.Blobs[0].Digest} {
				if masters[0].Needs(b) != needed[b] {
					t.Fatalf("blob %s is needed: %v", b, !needed[b])
				}
			}
		}
	})
}

// lost marks a manifest that no tag means any more.
func lost(tags map[string]digest.Digest, manifests map[digest.Digest]bool, d digest.Digest) {
	for _, v := range tags {
		if v == d {
			return
		}
	}
	manifests[d] = true
}

func seen(x *index.Index) map[string]digest.Digest {
	out := map[string]digest.Digest{}
	names, _ := x.Tags("app")
	for _, n := range names {
		t, err := x.Tag(context.Background(), "app", n)
		if err == nil {
			out[n] = t.Digest
		}
	}
	return out
}

func TestCopies(t *testing.T) {
	store := memory.New()
	x, stop := follow(store)
	defer stop()
	holds := map[digest.Digest]bool{}
	for i := range 250 { // more than one commit takes
		holds[digest.FromString(fmt.Sprint(i))] = true
	}
	if err := x.Note(t.Context(), "m1", holds); err != nil {
		t.Fatal(err)
	}
	one := digest.FromString("1")
	if err := x.Note(t.Context(), "m2", map[digest.Digest]bool{one: true}); err != nil {
		t.Fatal(err)
	}
	if got := x.Holders(one); !slices.Equal(got, []string{"m1", "m2"}) {
		t.Errorf("held by %v", got)
	}
	if err := x.Note(t.Context(), "m1", nil); err != nil {
		t.Fatal(err)
	}
	if got := x.Holding(); !slices.Equal(got, []string{"m2"}) || len(x.Copies("m1")) > 0 {
		t.Errorf("held by %v", got)
	}
}
