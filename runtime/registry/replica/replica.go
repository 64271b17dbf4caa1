// Package replica sees that a master holds every blob that the index names. It
// brings what is lacking from a release on this host or from another master,
// says in the index what is whole here, and removes what nothing names.
package replica

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"time"

	digest "github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/registry/blob"
	"dcos.example/dcos/runtime/registry/index"
)

const (
	// workers is how many manifests are brought at once.
	workers = 3
	// retryAfter is how long one that could not be had is left alone.
	retryAfter = 10 * time.Second
	// sweepEvery is the time between two rounds of removing.
	sweepEvery = time.Hour
	// keepUnnamed is how long a blob may wait for the manifest that names it,
	// and a manifest without a tag for another.
	keepUnnamed = 24 * time.Hour
	// keepUpload is how long an upload may pause.
	keepUpload = time.Hour
	// spreadFor bounds how long a push waits for other masters.
	spreadFor = 30 * time.Second
)

// Config is what a Replica is made from.
type Config struct {
	Blobs    *blob.Store
	Index    *index.Index
	Self     string // name of this master
	Masters  func() []config.Member
	Client   *http.Client // reaches their registries, and nobody else
	Releases string       // the folder of releases on this host
	Log      *slog.Logger
}

// Replica is the keeper of one master's blobs.
type Replica struct {
	cfg Config
	own chan struct{} // holds a token when whole has changed

	mu sync.Mutex
	// bringing has a channel for each blob that somebody brings just now,
	// closed when he ends.
	bringing map[digest.Digest]chan struct{}
	whole    map[digest.Digest]bool // manifests that are here with all blobs
	claimed  map[digest.Digest]bool
	// after has when to try again what is known to be lacking.
	after map[digest.Digest]time.Time
}

// New returns a Replica that does nothing by itself until Run.
func New(cfg Config) *Replica {
	return &Replica{
		cfg: cfg, own: make(chan struct{}, 1), bringing: map[digest.Digest]chan struct{}{},
		whole: map[digest.Digest]bool{}, claimed: map[digest.Digest]bool{}, after: map[digest.Digest]time.Time{},
	}
}

// Run keeps the blobs until ctx ends.
func (r *Replica) Run(ctx context.Context) {
	var g errgroup.Group
	for range workers {
		g.Go(func() error {
			r.work(ctx)
			return nil
		})
	}
	g.Go(func() error {
		r.tell(ctx)
		return nil
	})
	g.Go(func() error {
		r.sweep(ctx)
		return nil
	})
	_ = g.Wait() // none returns an error
}

func (r *Replica) work(ctx context.Context) {
	for ctx.Err() == nil {
		changed := r.cfg.Index.Changed()
		ref, m, ok := r.claim()
		if !ok {
			pause(ctx, changed, retryAfter/2)
			continue
		}
		r.lacks(ref, m)
		err := r.Bring(ctx, ref, m)
		r.release(ref.Digest, err)
		if err != nil && ctx.Err() == nil {
			r.cfg.Log.Warn("an image is not whole on this master", "repository", ref.Repository, "digest", ref.Digest, "err", err, "again_in", retryAfter)
		}
	}
}

func pause(ctx context.Context, c <-chan struct{}, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-c:
	case <-t.C:
	}
}

// claim returns the newest manifest that is not known to be whole here. It
// grows with the number of manifests.
func (r *Replica) claim() (ref index.Ref, m index.Manifest, ok bool) {
	all := r.cfg.Index.All()
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	there := make(map[digest.Digest]bool, len(all))
	for k, v := range all {
		d := k.Digest
		there[d] = true
		if !r.whole[d] && !r.claimed[d] && !r.after[d].After(now) && (!ok || v.Pushed.After(m.Pushed)) {
			ref, m, ok = k, v, true
		}
	}
	gone := func(d digest.Digest, _ bool) bool { return !there[d] }
	deleteFunc(r.whole, gone)
	deleteFunc(r.after, func(d digest.Digest, _ time.Time) bool { return !there[d] })
	if ok {
		r.claimed[ref.Digest] = true
	}
	return ref, m, ok
}

func deleteFunc[K comparable, V any](m map[K]V, del func(K, V) bool) {
	for k, v := range m {
		if del(k, v) {
			delete(m, k)
		}
	}
}

func (r *Replica) release(d digest.Digest, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.claimed, d)
	if err != nil {
		r.after[d] = time.Now().Add(retryAfter)
		return
	}
	delete(r.after, d)
	r.whole[d] = true
	select {
	case r.own <- struct{}{}:
	default:
	}
}

// lacks notes that a manifest is not whole here, so that it is not said to be
// while it is brought: a master that lost its disk said so before.
func (r *Replica) lacks(ref index.Ref, m index.Manifest) {
	if r.cfg.Blobs.Has(ref.Digest) && !slices.ContainsFunc(m.Blobs, func(b index.Blob) bool { return !r.cfg.Blobs.Has(b.Digest) }) {
		return
	}
	r.mu.Lock()
	r.after[ref.Digest] = time.Time{}
	r.mu.Unlock()
	select {
	case r.own <- struct{}{}:
	default:
	}
}

// Recheck looks at all blobs again: some may have gone.
func (r *Replica) Recheck() {
	r.mu.Lock()
	clear(r.whole)
	r.mu.Unlock()
	select {
	case r.own <- struct{}{}:
	default:
	}
}

// tell keeps the index's record of what is whole here.
func (r *Replica) tell(ctx context.Context) {
	for ctx.Err() == nil {
		if r.cfg.Index.Synced() {
			if err := r.note(ctx); err != nil && ctx.Err() == nil {
				r.cfg.Log.Warn("say which images this master holds", "err", err)
			}
		}
		pause(ctx, r.own, retryAfter)
	}
}

func (r *Replica) note(ctx context.Context) error {
	all := r.cfg.Index.All()
	holds := map[digest.Digest]bool{}
	r.mu.Lock()
	for ref := range all {
		// One that is looked at again counts as before meanwhile.
		if r.whole[ref.Digest] {
			holds[ref.Digest] = true
		}
	}
	busy := len(r.whole) < len(all)
	r.mu.Unlock()
	if busy {
		for d := range r.cfg.Index.Copies(r.cfg.Self) {
			if !r.lacking(d) {
				holds[d] = true
			}
		}
	}
	return r.cfg.Index.Note(ctx, r.cfg.Self, holds)
}

func (r *Replica) lacking(d digest.Digest) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.after[d]
	return ok
}

// Bring makes a manifest and all that it names whole here.
func (r *Replica) Bring(ctx context.Context, ref index.Ref, m index.Manifest) error {
	if err := r.Ensure(ctx, ref.Digest); err != nil {
		return err
	}
	for _, b := range m.Blobs {
		if err := r.Ensure(ctx, b.Digest); err != nil {
			return err
		}
	}
	return nil
}

// Ensure returns once blob d is here; fault.NotFound says that no master that
// answers has it, fault.Unavailable that one which may have it did not answer.
// Callers that want the same blob share the work.
func (r *Replica) Ensure(ctx context.Context, d digest.Digest) error {
	op := "bring blob " + string(d)
	for {
		if r.cfg.Blobs.Has(d) {
			return nil
		}
		r.mu.Lock()
		other := r.bringing[d]
		if other == nil {
			done := make(chan struct{})
			r.bringing[d] = done
			r.mu.Unlock()
			err := r.bring(ctx, d)
			r.mu.Lock()
			delete(r.bringing, d)
			r.mu.Unlock()
			close(done)
			return err
		}
		r.mu.Unlock()
		select {
		case <-other: // it may have failed, for reasons of its own
		case <-ctx.Done():
			return fault.New(op, fault.Unavailable, context.Cause(ctx))
		}
	}
}

func (r *Replica) bring(ctx context.Context, d digest.Digest) error {
	if err := blob.Check(d); err != nil {
		return err
	}
	if r.cfg.Blobs.Has(d) { // whoever was before us brought it
		return nil
	}
	err := r.fromRelease(ctx, d)
	if err == nil || !fault.Is(err, fault.NotFound) {
		return err
	}
	return r.fromMasters(ctx, d)
}

// fromRelease takes a blob from any release on this host: one that no longer
// runs stays for a while.
func (r *Replica) fromRelease(ctx context.Context, d digest.Digest) error {
	files, err := filepath.Glob(filepath.Join(r.cfg.Releases, "*", "packages", "images", "blobs", "sha256", d.Encoded()))
	if err != nil || len(files) == 0 {
		return fault.New("look for blob "+string(d)+" in the releases", fault.NotFound, err)
	}
	var errs []error
	for _, path := range files {
		err := r.cfg.Blobs.Link(d, path)
		if fault.Is(err, fault.Unavailable) {
			err = r.copy(ctx, d, path)
		}
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return fault.New("look for blob "+string(d)+" in the releases", fault.NotFound, errors.Join(errs...))
}

// others returns the other masters in any order.
func (r *Replica) others() []config.Member {
	var out []config.Member
	for _, m := range r.cfg.Masters() {
		if m.Name != r.cfg.Self {
			out = append(out, m)
		}
	}
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// Spread waits until most masters hold manifest d with all its blobs, so that
// the loss of any one is the loss of no image. It returns how many hold it and
// how many should.
func (r *Replica) Spread(ctx context.Context, d digest.Digest) (have, want int) {
	end := time.Now().Add(spreadFor)
	for {
		changed := r.cfg.Index.Changed()
		masters := r.cfg.Masters()
		holders := r.cfg.Index.Holders(d)
		have = 0
		for _, m := range masters {
			if m.Name == r.cfg.Self || slices.Contains(holders, m.Name) { // here it is: the push ends with it
				have++
			}
		}
		want = len(masters)/2 + 1
		left := time.Until(end)
		if have >= want || left <= 0 || ctx.Err() != nil {
			return have, want
		}
		pause(ctx, changed, left)
	}
}

// sweep removes what nothing needs, now and then.
func (r *Replica) sweep(ctx context.Context) {
	for {
		pause(ctx, nil, sweepEvery)
		if ctx.Err() != nil {
			return
		}
		if err := r.Sweep(ctx, time.Now()); err != nil && ctx.Err() == nil {
			r.cfg.Log.Warn("remove images that nothing names", "err", err)
		}
	}
}

// Sweep removes manifests without a tag, blobs that no manifest names, uploads
// that nobody goes on with, and what masters said that are gone: all that was
// last used long enough before now.
func (r *Replica) Sweep(ctx context.Context, now time.Time) error {
	if !r.cfg.Index.Synced() {
		return nil // a copy that does not follow says nothing of what is needed
	}
	old := now.Add(-keepUnnamed)
	manifests, err := r.cfg.Index.Collect(ctx, old)
	if err != nil {
		return err
	}
	swept, err := r.cfg.Blobs.Sweep(ctx, r.cfg.Index.Needs, old, now.Add(-keepUpload))
	if manifests+swept.Blobs+swept.Uploads > 0 {
		r.cfg.Log.Info("removed what no image needs", "manifests", manifests, "blobs", swept.Blobs, "bytes", swept.Bytes, "uploads", swept.Uploads)
	}
	if err != nil {
		return err
	}
	masters := r.cfg.Masters()
	for _, name := range r.cfg.Index.Holding() {
		if !slices.ContainsFunc(masters, func(m config.Member) bool { return m.Name == name }) {
			if err := r.cfg.Index.Note(ctx, name, nil); err != nil {
				return err
			}
		}
	}
	r.Recheck()
	return nil
}

// at is the base of a master's registry.
func (r *Replica) at(addr netip.Addr) string {
	return "https://" + netip.AddrPortFrom(addr, config.PortRegistry).String()
}
