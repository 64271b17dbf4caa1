package catalog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"dcos.example/dcos/runtime/api/cosmos"
	"dcos.example/dcos/runtime/catalog/failure"
	"dcos.example/dcos/runtime/catalog/index"
	"dcos.example/dcos/runtime/catalog/repo"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/state"
)

// The list of repositories is one record, because their order is part of it.
const (
	kindRepositories state.Kind = "package-repositories"
	idRepositories   string     = "list"
)

// standard is the list of a cluster that was never given another.
var standard = []cosmos.Repository{{Name: "Universe", URI: "file:/opt/dcos/current/packages/repo.json"}}

// errNoPackages is no fault: packages are put into a release by whoever wants
// them.
var errNoPackages = fault.Newf("fetch repository", fault.NotFound, "this release came without packages; `dcos-install bundle add` puts them into one")

// How often it is looked whether a repository has something new, and how soon
// again after it could not be read.
const (
	everyFile = 5 * time.Second // looks at the time of a file
	everyHTTP = 5 * time.Minute
	firstTry  = 5 * time.Second
)

// shelf has the content of all repositories. The list is followed in the store;
// each repository has a session that fetches it, so that one that is slow holds
// up no other.
type shelf struct {
	list    state.Table[[]cosmos.Repository]
	store   state.Backend
	content *repo.Store
	log     *slog.Logger

	index atomic.Pointer[index.Index] // nil until the first list is read

	mu    sync.Mutex
	order []cosmos.Repository
	known map[string]*place // by URI
}

// place is what is known of one repository.
type place struct {
	content *repo.Content // the last good one; nil: none yet
	err     error         // why the last attempt failed
	stop    context.CancelFunc
}

func newShelf(store state.Backend, content *repo.Store, log *slog.Logger) *shelf {
	return &shelf{
		list: state.NewTable[[]cosmos.Repository](store, kindRepositories), store: store, content: content, log: log,
		known: map[string]*place{},
	}
}

// read returns the list as it is stored, or the standard one.
func (s *shelf) read(ctx context.Context) (state.Object[[]cosmos.Repository], error) {
	obj, err := s.list.Get(ctx, idRepositories)
	if fault.Is(err, fault.NotFound) {
		return state.Object[[]cosmos.Repository]{ID: idRepositories, Spec: standard}, nil
	}
	return obj, err
}

// run follows the list until ctx ends.
func (s *shelf) run(ctx context.Context) error {
	var sessions sync.WaitGroup
	defer sessions.Wait()
	first := true
	for ctx.Err() == nil {
		obj, rev, err := s.current(ctx)
		if err != nil {
			s.log.Warn("read the list of repositories", "err", err)
			pause(ctx, time.Second)
			continue
		}
		s.follow(ctx, &sessions, obj, first)
		first = false
		for _, err := range s.store.Watch(ctx, rev, kindRepositories) {
			if err != nil {
				break // list again
			}
			if obj, err = s.read(ctx); err != nil {
				break
			}
			s.follow(ctx, &sessions, obj, false)
		}
	}
	return nil
}

// current is the list with the revision to watch from.
func (s *shelf) current(ctx context.Context) (state.Object[[]cosmos.Repository], state.Rev, error) {
	all, rev, err := s.list.List(ctx)
	if err != nil {
		return state.Object[[]cosmos.Repository]{}, 0, err
	}
	for _, obj := range all {
		if obj.ID == idRepositories {
			return obj, rev, nil
		}
	}
	return state.Object[[]cosmos.Repository]{ID: idRepositories, Spec: standard}, rev, nil
}

// follow makes the list what obj says: sessions of repositories that are new are
// begun, those of others ended. What is on this host is read before it returns.
func (s *shelf) follow(ctx context.Context, sessions *sync.WaitGroup, obj state.Object[[]cosmos.Repository], first bool) {
	var uris []string
	for _, r := range obj.Spec {
		uris = append(uris, r.URI)
	}
	added, gone := map[string]*place{}, []string{}
	s.mu.Lock()
	s.order = obj.Spec
	for _, u := range uris {
		if s.known[u] == nil {
			s.known[u] = &place{}
		}
		if p := s.known[u]; p.stop == nil {
			added[u] = p
		}
	}
	for u, p := range s.known {
		if p.stop != nil && !slices.Contains(uris, u) {
			p.stop()
			delete(s.known, u)
			gone = append(gone, u)
		}
	}
	s.mu.Unlock()
	for u, p := range added {
		s.load(u, p)
		if strings.HasPrefix(u, "file:") {
			s.fetch(ctx, u, p) // the session tries again
		}
		session, stop := context.WithCancel(ctx)
		s.mu.Lock()
		p.stop = stop
		s.mu.Unlock()
		sessions.Go(func() { s.session(session, u, p) })
	}
	if first {
		if err := s.content.Retain(uris); err != nil {
			s.log.Warn("remove what is kept of other repositories", "err", err)
		}
	}
	for _, u := range gone {
		if err := s.content.Drop(u); err != nil {
			s.log.Warn("remove what is kept of a repository", "uri", u, "err", err)
		}
	}
	s.rebuild()
}

// load takes what is kept of a repository, unless there is newer.
func (s *shelf) load(uri string, p *place) {
	content, err := s.content.Load(uri)
	if err != nil {
		if !errors.Is(err, repo.ErrNothing) {
			s.log.Warn("read what is kept of a repository", "uri", uri, "err", err)
		}
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.content == nil {
		p.content = content
	}
}

// session fetches one repository, again and again, until ctx ends.
func (s *shelf) session(ctx context.Context, uri string, p *place) {
	retry := firstTry
	for {
		changed, err := s.fetch(ctx, uri, p)
		if ctx.Err() != nil {
			return
		}
		if changed {
			s.rebuild()
		}
		wait := everyHTTP
		if strings.HasPrefix(uri, "file:") {
			wait = everyFile
		}
		if err != nil {
			wait, retry = min(retry, wait), min(retry*2, everyHTTP)
		} else {
			retry = firstTry
		}
		pause(ctx, wait)
		if ctx.Err() != nil {
			return
		}
	}
}

// fetch brings what is new, and reports whether anything is.
func (s *shelf) fetch(ctx context.Context, uri string, p *place) (changed bool, err error) {
	s.mu.Lock()
	have, before := p.content, p.err
	s.mu.Unlock()
	got, err := s.content.Fetch(ctx, uri, have)
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	level := slog.LevelWarn
	if uri == standard[0].URI && errors.Is(err, fs.ErrNotExist) {
		err, level = errNoPackages, slog.LevelInfo
	}
	if err != nil && (before == nil || before.Error() != err.Error()) {
		s.log.Log(ctx, level, "fetch repository", "uri", uri, "err", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p.err = err
	if err != nil || got == p.content {
		return false, err
	}
	p.content = got
	s.log.Info("repository fetched", "uri", uri, "revisions", len(got.Revisions))
	return true, nil
}

// rebuild makes the index of what is known.
func (s *shelf) rebuild() {
	s.mu.Lock()
	defer s.mu.Unlock()
	var sources []index.Source
	for _, r := range s.order {
		if p := s.known[r.URI]; p != nil && p.content != nil {
			sources = append(sources, index.Source{Repository: r, Revisions: p.content.Revisions})
		}
	}
	ix, err := index.New(sources)
	if err != nil {
		s.log.Error("make the index of packages", "err", err)
		return
	}
	s.index.Store(ix)
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// Statuses returns the repositories in order and how they are.
func (s *shelf) Statuses() []cosmos.RepositoryStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]cosmos.RepositoryStatus, len(s.order))
	for i, r := range s.order {
		list[i].Repository = r
		p := s.known[r.URI]
		if p == nil {
			continue
		}
		if p.err != nil {
			list[i].Error = message(p.err)
			for _, reason := range []error{repo.ErrUnreachable, repo.ErrType, repo.ErrContent} {
				if errors.Is(p.err, reason) {
					list[i].Error = reason.Error() + ": " + list[i].Error
				}
			}
		}
		if p.content != nil {
			list[i].Packages, list[i].Fetched = len(p.content.Revisions), p.content.Fetched.Format(time.RFC3339)
		}
	}
	return list
}

// message is an error as it is told: without what was being done.
func message(err error) string {
	for {
		f, ok := err.(*fault.Error)
		if !ok || f.Err == nil {
			return err.Error()
		}
		err = f.Err
	}
}

// Add fetches a repository and puts it in the list if it is good.
func (s *shelf) Add(ctx context.Context, req cosmos.RepositoryAddRequest) error {
	r := cosmos.Repository{Name: req.Name, URI: req.URI}
	if err := repo.Check(r.URI); fault.Is(err, fault.Denied) {
		return failure.UnsupportedRepositoryURI(r.URI)
	} else if err != nil {
		return failure.RepositoryURISyntax(r.Name, r.URI, message(err))
	}
	insert := func(list []cosmos.Repository) ([]cosmos.Repository, error) {
		for _, have := range list {
			if have.Name == r.Name {
				return nil, failure.RepositoryAlreadyPresent("name", r.Name)
			}
			if have.URI == r.URI {
				return nil, failure.RepositoryAlreadyPresent("uri", r.URI)
			}
		}
		at := len(list)
		if req.Index != nil {
			at = *req.Index
		}
		if at < 0 || at > len(list) {
			return nil, failure.AddIndexOutOfBounds(at, len(list))
		}
		return slices.Insert(slices.Clone(list), at, r), nil
	}
	// Mistakes that can be seen at once need no fetching.
	now, err := s.read(ctx)
	if err != nil {
		return failure.ServiceUnavailable("store", err)
	}
	if _, err := insert(now.Spec); err != nil {
		return err
	}
	content, err := s.content.Fetch(ctx, r.URI, nil)
	if err != nil {
		return refused(r, err)
	}
	return s.change(ctx, insert, r.URI, content)
}

// refused words why a repository is not taken.
func refused(r cosmos.Repository, err error) error {
	why := message(err)
	switch {
	case errors.Is(err, repo.ErrType):
		return failure.UnsupportedContentType(r.Name, r.URI, why)
	case errors.Is(err, repo.ErrContent):
		return failure.RepositoryInvalid(r.Name, r.URI, why)
	case errors.Is(err, repo.ErrUnreachable):
		return failure.RepositoryURIConnection(r.Name, r.URI, why)
	}
	return failure.Unhandled(err)
}

// Delete takes a repository out of the list.
func (s *shelf) Delete(ctx context.Context, req cosmos.RepositoryDeleteRequest) error {
	if req.Name == "" && req.URI == "" {
		return failure.RepoNameOrURIMissing()
	}
	if _, err := url.Parse(req.URI); err != nil {
		return failure.RepositoryURISyntax(req.Name, req.URI, err.Error())
	}
	return s.change(ctx, func(list []cosmos.Repository) ([]cosmos.Repository, error) {
		at := slices.IndexFunc(list, func(r cosmos.Repository) bool {
			return (req.Name == "" || r.Name == req.Name) && (req.URI == "" || r.URI == req.URI)
		})
		if at < 0 {
			return nil, failure.RepositoryNotPresent(req.Name, req.URI)
		}
		return slices.Delete(slices.Clone(list), at, at+1), nil
	}, "", nil)
}

// change writes the list that edit makes of the present one. The view that
// follows it is changed with it, so that whoever asks this master next sees it;
// content is that of a repository which is new.
func (s *shelf) change(ctx context.Context, edit func([]cosmos.Repository) ([]cosmos.Repository, error), uri string, content *repo.Content) error {
	const tries = 5
	for range tries {
		obj, err := s.read(ctx)
		if err != nil {
			return failure.ServiceUnavailable("store", err)
		}
		if obj.Spec, err = edit(obj.Spec); err != nil {
			return err
		}
		_, err = s.list.Write(ctx, obj)
		if fault.Is(err, fault.Conflict) {
			continue
		}
		if err != nil {
			return failure.ServiceUnavailable("store", fmt.Errorf("write the list of repositories: %w", err))
		}
		s.mu.Lock()
		s.order = obj.Spec
		if content != nil {
			p := s.known[uri]
			if p == nil {
				p = &place{}
				s.known[uri] = p
			}
			p.content, p.err = content, nil
		}
		s.mu.Unlock()
		s.rebuild()
		return nil
	}
	return failure.ConcurrentAccess()
}
