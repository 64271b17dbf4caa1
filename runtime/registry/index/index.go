// Package index is what the registry knows of its images: which manifests a
// repository has, which of them a tag means, and which masters hold all of
// them. It is in the store, so every master knows the same; each keeps a copy
// in memory that follows the store, and reads are answered from there.
package index

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	digest "github.com/opencontainers/go-digest"

	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/state"
)

// The kinds of records. Manifests and tags are what somebody pushed, or a
// release brought; copies are what each master says of itself.
const (
	KindManifest state.Kind = "image-manifest" // by "REPOSITORY@DIGEST"
	KindTag      state.Kind = "image-tag"      // by "REPOSITORY:TAG"
	KindCopy     state.Kind = "image-copy"     // by "DIGEST/MASTER"
)

// Manifest is one manifest of a repository. What it names is kept here, so that
// a master knows which blobs it lacks before it has the manifest.
type Manifest struct {
	MediaType string `json:"media_type"`
	Size      int64  `json:"size"` // bytes
	// Blobs are the configuration and the layers of an image.
	Blobs []Blob `json:"blobs,omitempty"`
	// Manifests are those that an index names.
	Manifests []digest.Digest `json:"manifests,omitempty"`
	// Subject is the manifest that this one says something of; the two after
	// it are for whoever asks for the referrers of that.
	Subject      digest.Digest     `json:"subject,omitempty"`
	ArtifactType string            `json:"artifact_type,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	Pushed       time.Time         `json:"pushed"`
	// Untagged is when its last tag went to another manifest; zero for those
	// that have a tag, and for those that never had one.
	Untagged time.Time `json:"untagged,omitzero"`
}

// Blob is a part of an image.
type Blob struct {
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"`
}

// Tag is what a tag means.
type Tag struct {
	Digest digest.Digest `json:"digest"`
	Pushed time.Time     `json:"pushed"`
	// Release is the release that brought it; empty: somebody pushed it.
	Release string `json:"release,omitempty"`
}

// Copy says that a master holds a manifest with all its blobs.
type Copy struct{}

// Ref names a manifest of a repository.
type Ref struct {
	Repository string
	Digest     digest.Digest
}

func (r Ref) id() string { return r.Repository + "@" + string(r.Digest) }

func refOf(id string) Ref {
	repo, d, _ := strings.Cut(id, "@")
	return Ref{repo, digest.Digest(d)}
}

type (
	manifestObject = state.Object[Manifest]
	tagObject      = state.Object[Tag]
)

// Index is one master's view of the registry's records, and its way to change
// them.
type Index struct {
	store     state.Backend
	manifests state.Table[Manifest]
	tags      state.Table[Tag]
	copies    state.Table[Copy]
	log       *slog.Logger

	mu      sync.RWMutex
	synced  bool // the copy below follows the store right now
	rev     state.Rev
	known   map[Ref]manifestObject
	tagged  map[string]map[string]tagObject // by repository and tag
	copied  map[digest.Digest]map[string]state.Rev
	needed  map[digest.Digest]int // by how many manifests a blob is named
	changed chan struct{}         // closed at the next change
}

// New returns an Index that is empty until Run.
func New(store state.Backend, log *slog.Logger) *Index {
	store = state.Restrict(store, KindManifest, KindTag, KindCopy)
	x := &Index{
		store: store, manifests: state.NewTable[Manifest](store, KindManifest), tags: state.NewTable[Tag](store, KindTag),
		copies: state.NewTable[Copy](store, KindCopy), log: log, changed: make(chan struct{}),
	}
	x.clear()
	return x
}

func (x *Index) clear() {
	x.known, x.tagged = map[Ref]manifestObject{}, map[string]map[string]tagObject{}
	x.copied, x.needed = map[digest.Digest]map[string]state.Rev{}, map[digest.Digest]int{}
}

// Run follows the store until ctx ends.
func (x *Index) Run(ctx context.Context) {
	wait := 100 * time.Millisecond
	for {
		err := x.follow(ctx, func() { wait = 100 * time.Millisecond })
		x.mu.Lock()
		x.synced = false
		x.mu.Unlock()
		if ctx.Err() != nil {
			return
		}
		x.log.Warn("follow the registry's index", "err", err, "again_in", wait)
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		wait = min(2*wait, 10*time.Second)
	}
}

func (x *Index) follow(ctx context.Context, connected func()) error {
	// What changes between the lists is in the watch again.
	var records []state.Record
	from := state.Rev(0)
	for _, kind := range []state.Kind{KindManifest, KindTag, KindCopy} {
		recs, rev, err := x.store.List(ctx, kind)
		if err != nil {
			return err
		}
		records = append(records, recs...)
		if from == 0 || rev < from {
			from = rev
		}
	}
	x.mu.Lock()
	x.clear()
	for _, r := range records {
		x.apply(state.Change(r))
	}
	x.rev, x.synced = from, true
	x.tell()
	x.mu.Unlock()
	connected()
	for ch, err := range x.store.Watch(ctx, from, KindManifest, KindTag, KindCopy) {
		if err != nil {
			return err
		}
		x.mu.Lock()
		x.apply(ch)
		x.rev = max(x.rev, ch.Rev)
		x.tell()
		x.mu.Unlock()
	}
	return fault.New("watch the registry's index", fault.Unavailable, context.Cause(ctx))
}

func (x *Index) tell() {
	close(x.changed)
	x.changed = make(chan struct{})
}

// apply takes up one change, unless something newer is known.
func (x *Index) apply(ch state.Change) {
	switch ch.Key.Kind {
	case KindManifest:
		x.applyManifest(ch)
	case KindTag:
		repo, tag, _ := strings.Cut(ch.Key.ID, ":")
		if x.tagged[repo][tag].Rev > ch.Rev {
			return
		}
		delete(x.tagged[repo], tag)
		if obj, err := state.Decode[Tag](state.Record(ch)); ch.Value != nil && x.fine(err) {
			if x.tagged[repo] == nil {
				x.tagged[repo] = map[string]tagObject{}
			}
			x.tagged[repo][tag] = obj
		}
		if len(x.tagged[repo]) == 0 {
			delete(x.tagged, repo)
		}
	case KindCopy:
		d, master, _ := strings.Cut(ch.Key.ID, "/")
		on := x.copied[digest.Digest(d)]
		if on[master] > ch.Rev {
			return
		}
		if ch.Value == nil {
			delete(on, master)
			if len(on) == 0 {
				delete(x.copied, digest.Digest(d))
			}
			return
		}
		if on == nil {
			on = map[string]state.Rev{}
			x.copied[digest.Digest(d)] = on
		}
		on[master] = ch.Rev
	}
}

func (x *Index) applyManifest(ch state.Change) {
	ref := refOf(ch.Key.ID)
	old, had := x.known[ref]
	if had && old.Rev > ch.Rev {
		return
	}
	if had {
		delete(x.known, ref)
		for _, d := range parts(ref, old.Spec) {
			if x.needed[d]--; x.needed[d] == 0 {
				delete(x.needed, d)
			}
		}
	}
	if ch.Value == nil {
		return
	}
	if obj, err := state.Decode[Manifest](state.Record(ch)); x.fine(err) {
		x.known[ref] = obj
		for _, d := range parts(ref, obj.Spec) {
			x.needed[d]++
		}
	}
}

func (x *Index) fine(err error) bool {
	if err != nil {
		x.log.Error("a record of the registry cannot be read", "err", err)
	}
	return err == nil
}

// parts are all blobs that a master needs for a manifest, itself first.
func parts(ref Ref, m Manifest) []digest.Digest {
	out := []digest.Digest{ref.Digest}
	for _, b := range m.Blobs {
		out = append(out, b.Digest)
	}
	return out
}

// Changed returns a channel that is closed when what is known changes.
func (x *Index) Changed() <-chan struct{} {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.changed
}

// Synced reports whether all that is known is as the store has it.
func (x *Index) Synced() bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.synced
}

// reach waits until the view has seen rev.
func (x *Index) reach(ctx context.Context, rev state.Rev) error {
	for {
		x.mu.RLock()
		seen, changed := x.rev >= rev, x.changed
		x.mu.RUnlock()
		if seen {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fault.New("wait for the registry's index", fault.Unavailable, context.Cause(ctx))
		}
	}
}

// Manifest returns a manifest, or fault.NotFound. One that is not known yet is
// looked for in the store.
func (x *Index) Manifest(ctx context.Context, ref Ref) (Manifest, error) {
	x.mu.RLock()
	obj, ok := x.known[ref]
	x.mu.RUnlock()
	if ok {
		return obj.Spec, nil
	}
	obj, err := x.manifests.Get(ctx, ref.id())
	return obj.Spec, err
}

// Tag returns what a tag means, or fault.NotFound. One that is not known yet
// is looked for in the store.
func (x *Index) Tag(ctx context.Context, repo, tag string) (Tag, error) {
	x.mu.RLock()
	obj, ok := x.tagged[repo][tag]
	x.mu.RUnlock()
	if ok {
		return obj.Spec, nil
	}
	obj, err := x.tags.Get(ctx, repo+":"+tag)
	return obj.Spec, err
}

// Tags returns the tags of a repository in order, and false when there is no
// such repository.
func (x *Index) Tags(repo string) ([]string, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	tags := x.tagged[repo]
	if tags == nil {
		for ref := range x.known {
			if ref.Repository == repo {
				return nil, true
			}
		}
		return nil, false
	}
	return slices.Sorted(maps.Keys(tags)), true
}

// Repositories returns the names of all repositories in order.
func (x *Index) Repositories() []string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	all := map[string]bool{}
	for ref := range x.known {
		all[ref.Repository] = true
	}
	return slices.Sorted(maps.Keys(all))
}

// Referrers returns the manifests of ref's repository whose subject it is, in
// the order of their digests.
func (x *Index) Referrers(ref Ref) (refs []Ref, manifests []Manifest) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for r, o := range x.known {
		if r.Repository == ref.Repository && o.Spec.Subject == ref.Digest {
			refs = append(refs, r)
		}
	}
	slices.SortFunc(refs, func(a, b Ref) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	for _, r := range refs {
		manifests = append(manifests, x.known[r].Spec)
	}
	return refs, manifests
}

// All returns every manifest.
func (x *Index) All() map[Ref]Manifest {
	x.mu.RLock()
	defer x.mu.RUnlock()
	out := make(map[Ref]Manifest, len(x.known))
	for r, o := range x.known {
		out[r] = o.Spec
	}
	return out
}

// Needs reports whether a manifest is, or names, blob d.
func (x *Index) Needs(d digest.Digest) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.needed[d] > 0
}

// Holders returns the masters that hold a manifest with all its blobs.
func (x *Index) Holders(d digest.Digest) []string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return slices.Sorted(maps.Keys(x.copied[d]))
}

// Copies returns the manifests that a master said it holds.
func (x *Index) Copies(master string) map[digest.Digest]bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	out := map[digest.Digest]bool{}
	for d, on := range x.copied {
		if _, ok := on[master]; ok {
			out[d] = true
		}
	}
	return out
}

// Holding returns the masters that have said anything.
func (x *Index) Holding() []string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	all := map[string]bool{}
	for _, on := range x.copied {
		for m := range on {
			all[m] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// again repeats f while what it decided on has moved on, and returns once this
// master's view has what f wrote.
func (x *Index) again(ctx context.Context, f func() ([]state.Op, error)) error {
	for n := 0; ; n++ {
		ops, err := f()
		if err != nil || len(ops) == 0 {
			return err
		}
		rev, err := x.store.Commit(ctx, ops...)
		if err == nil {
			return x.reach(ctx, rev)
		}
		if !fault.Is(err, fault.Conflict) || n == 20 {
			return err
		}
	}
}

// Put adds a manifest to a repository, or finds it there, and makes the tag, if
// it is not empty, mean it. release is the release that brings it.
func (x *Index) Put(ctx context.Context, ref Ref, m Manifest, tag, release string) error {
	return x.again(ctx, func() ([]state.Op, error) {
		obj, err := x.getManifest(ctx, ref)
		if err != nil {
			return nil, err
		}
		fresh := obj.Rev == 0
		if fresh {
			m.Pushed = time.Now().UTC()
			obj.Spec = m
		}
		var ops []state.Op
		if fresh || tag != "" && !obj.Spec.Untagged.IsZero() {
			obj.Spec.Untagged = time.Time{}
			op, err := x.manifests.Put(obj)
			if err != nil {
				return nil, err
			}
			ops = append(ops, op)
		}
		if tag == "" {
			return ops, nil
		}
		more, err := x.putTag(ctx, ref, tag, release)
		ops = append(ops, more...)
		if !fresh && err == nil && !touches(ops, KindManifest, ref.id()) && len(ops) > 0 {
			// It must still be there when the tag means it.
			ops = append(ops, state.Op{Key: state.Key{Kind: KindManifest, ID: ref.id()}, IfRev: obj.Rev, Check: true})
		}
		return ops, err
	})
}

func touches(ops []state.Op, kind state.Kind, id string) bool {
	return slices.ContainsFunc(ops, func(o state.Op) bool { return o.Key == state.Key{Kind: kind, ID: id} })
}

// putTag returns what makes a tag mean ref, and marks the manifest that it
// meant before if that has no other.
func (x *Index) putTag(ctx context.Context, ref Ref, tag, release string) ([]state.Op, error) {
	t, err := x.tags.Get(ctx, ref.Repository+":"+tag)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return nil, err
	}
	if t.Rev != 0 && t.Spec.Digest == ref.Digest && (t.Spec.Release == release || release != "") {
		return nil, nil
	}
	was := Ref{ref.Repository, t.Spec.Digest}
	t.Spec = Tag{Digest: ref.Digest, Pushed: time.Now().UTC(), Release: release}
	op, err := x.tags.Put(t)
	if err != nil || t.Rev == 0 || was == ref {
		return []state.Op{op}, err
	}
	more, err := x.untagged(ctx, was, tag)
	return append(more, op), err
}

// untagged returns what notes that ref has no tag any more besides tag.
func (x *Index) untagged(ctx context.Context, ref Ref, tag string) ([]state.Op, error) {
	x.mu.RLock()
	for other, t := range x.tagged[ref.Repository] {
		if other != tag && t.Spec.Digest == ref.Digest {
			x.mu.RUnlock()
			return nil, nil
		}
	}
	x.mu.RUnlock()
	obj, err := x.getManifest(ctx, ref)
	if err != nil || obj.Rev == 0 {
		return nil, err
	}
	obj.Spec.Untagged = time.Now().UTC()
	op, err := x.manifests.Put(obj)
	return []state.Op{op}, err
}

func (x *Index) getManifest(ctx context.Context, ref Ref) (manifestObject, error) {
	obj, err := x.manifests.Get(ctx, ref.id())
	if fault.Is(err, fault.NotFound) {
		err = nil
	}
	return obj, err
}

// DeleteTag removes a tag, or returns fault.NotFound. A manifest that no tag
// means then stays until it is collected.
func (x *Index) DeleteTag(ctx context.Context, repo, tag string) error {
	return x.again(ctx, func() ([]state.Op, error) {
		t, err := x.tags.Get(ctx, repo+":"+tag)
		if err != nil {
			return nil, err
		}
		ops, err := x.untagged(ctx, Ref{repo, t.Spec.Digest}, tag)
		return append(ops, x.tags.Drop(t)), err
	})
}

// DeleteManifest removes a manifest and the tags that mean it, or returns
// fault.NotFound.
func (x *Index) DeleteManifest(ctx context.Context, ref Ref) error {
	return x.again(ctx, func() ([]state.Op, error) {
		obj, err := x.manifests.Get(ctx, ref.id())
		if err != nil {
			return nil, err
		}
		return x.drop(obj, true)
	})
}

// drop returns what removes a manifest, with its tags, or not at all when it
// has any.
func (x *Index) drop(obj manifestObject, tagged bool) ([]state.Op, error) {
	ref := refOf(obj.ID)
	ops := []state.Op{x.manifests.Drop(obj)}
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, t := range x.tagged[ref.Repository] {
		if t.Spec.Digest == ref.Digest {
			if !tagged {
				return nil, nil
			}
			ops = append(ops, x.tags.Drop(t))
		}
	}
	return ops, nil
}

// Collect removes manifests that lost their last tag before old and that
// nothing names, and returns how many.
func (x *Index) Collect(ctx context.Context, old time.Time) (int, error) {
	n := 0
	for _, obj := range x.forgotten(old) {
		ops, err := x.drop(obj, false)
		if err == nil && len(ops) > 0 {
			var rev state.Rev
			if rev, err = x.store.Commit(ctx, ops...); err == nil {
				err = x.reach(ctx, rev)
			}
		}
		switch {
		case fault.Is(err, fault.Conflict): // it has a tag again, or another master was faster
		case err != nil:
			return n, err
		default:
			n++
		}
	}
	return n, nil
}

func (x *Index) forgotten(old time.Time) (out []manifestObject) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	named := map[Ref]bool{}
	for ref, o := range x.known {
		for _, d := range o.Spec.Manifests {
			named[Ref{ref.Repository, d}] = true
		}
	}
	for ref, o := range x.known {
		u := o.Spec.Untagged
		if s := (Ref{ref.Repository, o.Spec.Subject}); !named[ref] && !u.IsZero() && u.Before(old) {
			if _, about := x.known[s]; !about {
				out = append(out, o)
			}
		}
	}
	return out
}

// batch is how many operations go into one commit.
const batch = 100

// Note writes that a master holds these manifests and no others.
func (x *Index) Note(ctx context.Context, master string, holds map[digest.Digest]bool) error {
	var ops []state.Op
	x.mu.RLock()
	for d, on := range x.copied {
		if rev, ok := on[master]; ok && !holds[d] {
			ops = append(ops, state.Op{Key: copyKey(d, master), IfRev: rev})
		}
	}
	for d := range holds {
		if _, ok := x.copied[d][master]; !ok {
			ops = append(ops, state.Op{Key: copyKey(d, master), Value: json.RawMessage("{}")})
		}
	}
	x.mu.RUnlock()
	var errs []error
	for part := range slices.Chunk(ops, batch) {
		rev, err := x.store.Commit(ctx, part...)
		if err == nil {
			err = x.reach(ctx, rev)
		}
		if !fault.Is(err, fault.Conflict) { // the view was behind: the next note is right
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func copyKey(d digest.Digest, master string) state.Key {
	return state.Key{Kind: KindCopy, ID: string(d) + "/" + master}
}
