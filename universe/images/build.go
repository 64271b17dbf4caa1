package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"dcos.example/dcos/universe/images/debian"
	"dcos.example/dcos/universe/images/golang"
	"dcos.example/dcos/universe/images/layer"
	"dcos.example/dcos/universe/images/lock"
	"dcos.example/dcos/universe/images/maven"
	"dcos.example/dcos/universe/images/npm"
	"dcos.example/dcos/universe/images/pypi"
	"dcos.example/dcos/universe/images/recipe"
	"dcos.example/dcos/universe/images/store"
)

// Registry is the host in the names of the universe's images: the cluster's own
// registry.
const Registry = "registry.dcos"

// Options say where a builder works.
type Options struct {
	Root   string // of this repository
	Bases  string // folder of the bases' recipes; empty: that of this repository
	Work   string // downloads and layers are kept here, by content
	Update bool   // resolve anew, and write the locks
	Notice func(string)
	Apt    []string // further options of apt's
}

// Builder makes images from recipes. It may build several at once.
type Builder struct {
	o      Options
	files  *store.Store
	layers *layer.Cache
	debian *debian.Source
	maven  *maven.Source
	pypi   *pypi.Source
	npm    *npm.Source
	golang *golang.Source

	mu    sync.Mutex
	bases map[string]*base
}

// base is a base in the making: whoever comes first makes it.
type base struct {
	once  sync.Once
	stage *stage
	err   error
}

// NewBuilder returns a builder.
func NewBuilder(o Options) (*Builder, error) {
	if o.Bases == "" {
		o.Bases = filepath.Join(o.Root, "universe", "images", "bases")
	}
	if o.Notice == nil {
		o.Notice = func(string) {}
	}
	work, err := filepath.Abs(o.Work)
	if err != nil {
		return nil, err
	}
	o.Work = work
	b := &Builder{o: o, bases: map[string]*base{}}
	var errs [7]error
	b.files, errs[0] = store.New(filepath.Join(work, "files"))
	b.layers, errs[1] = layer.NewCache(filepath.Join(work, "layers"))
	b.debian, errs[2] = debian.New(filepath.Join(work, "debian"), b.files, o.Apt...)
	b.maven, errs[3] = maven.New(filepath.Join(work, "maven"), b.files)
	b.pypi, errs[4] = pypi.New(filepath.Join(work, "pypi"), b.files)
	b.npm, errs[5] = npm.New(filepath.Join(work, "npm"))
	b.golang, errs[6] = golang.New(filepath.Join(work, "go"), o.Root)
	return b, errors.Join(errs[:]...)
}

// stage is a recipe on top of its base, settled: what it is made of is certain,
// and its layers are there.
type stage struct {
	recipe   *recipe.Recipe
	below    *stage
	made     lock.File         // what it was really made of
	old      map[string]string // Debian packages in another version than locked: name → locked
	programs []string          // files of Go programs
	layers   []*layer.Layer
}

// debs returns the Debian packages of the stage and all below it.
func (s *stage) debs() []lock.Deb {
	if s == nil {
		return nil
	}
	below := s.below.debs()
	if s.made.Debian == nil {
		return below
	}
	return slices.Concat(below, s.made.Debian.Packages)
}

// requested returns the names that the stage and all below it ask Debian for.
func (s *stage) requested() []string {
	if s == nil {
		return nil
	}
	return slices.Concat(s.below.requested(), s.recipe.Debian.Packages)
}

// Built tells of an image that was built.
type Built struct {
	Name, Version string
	Reference     string // in the cluster's registry
	File          string
	Digest        v1.Hash // of the manifest
	Size          int64   // of its layers, compressed
	Unpacked      int64
	Layers        []*layer.Layer // lowest first
	Recipe        *recipe.Recipe
	config        v1.Config
}

// Build builds the image of a recipe into the file NAME-VERSION.tar of folder
// out, an archive of an OCI layout.
func (b *Builder) Build(ctx context.Context, file, out string) (*Built, error) {
	r, err := recipe.Read(file)
	if err != nil {
		return nil, err
	}
	if r.Version == "" {
		return nil, fmt.Errorf("%s: version is missing", file)
	}
	s, err := b.settle(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.Name, err)
	}
	built, err := b.finish(ctx, s, out)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.Name, err)
	}
	return built, nil
}

func (b *Builder) base(ctx context.Context, from string) (*stage, error) {
	b.mu.Lock()
	e := b.bases[from]
	if e == nil {
		e = &base{}
		b.bases[from] = e
	}
	b.mu.Unlock()
	e.once.Do(func() {
		r, err := recipe.Read(filepath.Join(b.o.Bases, from+".yaml"))
		if err != nil {
			e.err = err
			return
		}
		e.stage, e.err = b.settle(ctx, r)
	})
	if e.err != nil {
		return nil, fmt.Errorf("base %s: %w", from, e.err)
	}
	return e.stage, nil
}

// settle makes a stage: what is below it, then its parts, several at a time.
func (b *Builder) settle(ctx context.Context, r *recipe.Recipe) (*stage, error) {
	s := &stage{recipe: r, old: map[string]string{}}
	locked, err := lock.Read(r.Lock())
	if err != nil {
		return nil, err
	}
	if locked == nil || b.o.Update {
		locked = &lock.File{}
	}
	// Other registries need not wait for what is below.
	parts := []func(context.Context, *stage, *lock.File) (*layer.Layer, error){b.debianPart}
	for i := range r.Maven {
		parts = append(parts, func(ctx context.Context, s *stage, l *lock.File) (*layer.Layer, error) {
			return b.mavenPart(ctx, s, l, i)
		})
	}
	s.made.Maven = make([]lock.Maven, len(r.Maven))
	parts = append(parts, b.pypiPart, b.npmPart, b.goPart)
	made := make([]*layer.Layer, len(parts))
	g, gctx := errgroup.WithContext(ctx)
	for i, part := range parts {
		g.Go(func() (err error) {
			// The base is also that of images that do well.
			if i == 0 && r.From != recipe.Scratch {
				if s.below, err = b.base(ctx, r.From); err != nil {
					return err
				}
			}
			made[i], err = part(gctx, s, locked)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if len(r.Maven) == 0 {
		s.made.Maven = nil
	}
	if s.below != nil {
		s.layers = slices.Clone(s.below.layers)
	}
	for _, l := range made {
		if l != nil {
			s.layers = append(s.layers, l)
		}
	}
	if err := b.keepLock(s, locked); err != nil {
		return nil, err
	}
	l, err := b.filesPart(s)
	if err != nil {
		return nil, err
	}
	if l != nil {
		s.layers = append(s.layers, l)
	}
	return s, nil
}

// keepLock writes the lock when it was asked for. A first build without a lock
// writes one too: the next takes the same.
func (b *Builder) keepLock(s *stage, locked *lock.File) error {
	if _, err := os.Stat(s.recipe.Lock()); err == nil && !b.o.Update {
		return nil
	}
	return s.made.Write(s.recipe.Lock())
}

func (b *Builder) debianPart(ctx context.Context, s *stage, locked *lock.File) (*layer.Layer, error) {
	want := s.recipe.Debian
	if len(want.Packages) == 0 {
		return nil, nil
	}
	request := slices.Clone(want.Packages)
	for _, e := range want.Exclude {
		request = append(request, "-"+e)
	}
	d := &lock.Debian{Request: request}
	if locked.Debian == nil {
		debs, err := b.closure(ctx, s)
		if err != nil {
			return nil, err
		}
		d.Packages = debs
	} else {
		if err := lock.Same(s.recipe.Lock(), "debian", locked.Debian.Request, request); err != nil {
			return nil, err
		}
		d.Packages = locked.Debian.Packages
	}
	s.made.Debian = d
	if err := b.fetchDebs(ctx, s); err != nil {
		return nil, err
	}
	certs, err := b.certificates(ctx, d.Packages, s.below.debs())
	if err != nil {
		return nil, err
	}
	input := struct {
		Debian  []string
		Prune   []string
		Lowest  bool
		Trusted int
	}{Prune: s.recipe.Prune, Lowest: s.below == nil}
	for _, p := range d.Packages {
		input.Debian = append(input.Debian, p.SHA256)
	}
	for _, c := range certs {
		input.Trusted += len(c)
	}
	return b.layers.Get(input, func(w *layer.Writer) error {
		if input.Lowest {
			if err := w.Merge(); err != nil {
				return err
			}
		}
		for _, p := range []string{certBundle, javaStore} {
			if c := certs[p]; c != nil {
				if err := w.Bytes(p, 0o644, layer.Owner{}, c); err != nil {
					return err
				}
			}
		}
		return b.debian.Unpack(ctx, d.Packages, s.recipe.Prune, w)
	})
}

// closure asks Debian what the stage needs besides what its bases have.
func (b *Builder) closure(ctx context.Context, s *stage) ([]lock.Deb, error) {
	asked := slices.Concat(s.below.requested(), s.recipe.Debian.Packages)
	var exclude []string
	for p := s; p != nil; p = p.below {
		for _, e := range p.recipe.Debian.Exclude {
			// Not what is asked for by name above the base that does without it.
			if !slices.Contains(asked, e) {
				exclude = append(exclude, e)
			}
		}
	}
	debs, err := b.debian.Resolve(ctx, asked, exclude)
	if err != nil {
		return nil, err
	}
	below := map[string]bool{}
	for _, e := range exclude {
		below[e] = true
	}
	for _, d := range s.below.debs() {
		below[d.Name] = true
	}
	return slices.DeleteFunc(debs, func(d lock.Deb) bool { return below[d.Name] }), nil
}

// fetchDebs brings the stage's packages; those that Debian offers no more come
// in the version that it does offer.
func (b *Builder) fetchDebs(ctx context.Context, s *stage) error {
	err := b.debian.Fetch(ctx, s.made.Debian.Packages)
	var gone *debian.Gone
	if !errors.As(err, &gone) {
		return err
	}
	now, err := b.closure(ctx, s)
	if err != nil {
		return err
	}
	had := map[string]string{}
	for _, d := range s.made.Debian.Packages {
		had[d.Name] = d.Version
	}
	var news []string
	for _, d := range now {
		if v, ok := had[d.Name]; !ok || v != d.Version {
			s.old[d.Name] = v
			news = append(news, fmt.Sprintf("%s %s (locked: %s)", d.Name, d.Version, v))
		}
	}
	b.o.Notice(fmt.Sprintf("%s: Debian no longer offers all that %s names; built with %s. -update-locks makes it the rule",
		s.recipe.Name, filepath.Base(s.recipe.Lock()), strings.Join(news, ", ")))
	s.made.Debian.Packages = now
	return b.debian.Fetch(ctx, now)
}

func (b *Builder) mavenPart(ctx context.Context, s *stage, locked *lock.File, at int) (*layer.Layer, error) {
	want := s.recipe.Maven[at]
	request := slices.Clone(want.Artifacts)
	for _, e := range want.Exclude {
		request = append(request, "-"+e)
	}
	for _, o := range want.Omit {
		request = append(request, "-file "+o)
	}
	for _, m := range want.Managed {
		request = append(request, "="+m)
	}
	m := &s.made.Maven[at]
	m.Request = request
	var err error
	if at < len(locked.Maven) {
		if err := lock.Same(s.recipe.Lock(), "maven", locked.Maven[at].Request, request); err != nil {
			return nil, err
		}
		m.Artifacts = locked.Maven[at].Artifacts
		err = b.maven.Fetch(ctx, m.Artifacts)
	} else {
		m.Artifacts, err = b.maven.Resolve(ctx, maven.Set{Artifacts: want.Artifacts, Exclude: want.Exclude, Managed: want.Managed})
		m.Artifacts = slices.DeleteFunc(m.Artifacts, func(j lock.Jar) bool {
			return slices.ContainsFunc(want.Omit, func(o string) bool { ok, _ := filepath.Match(o, j.Base()); return ok })
		})
	}
	if err != nil {
		return nil, err
	}
	jars := map[string]string{} // file → sum
	input := struct {
		Into   string
		Unpack []string
		Maven  []string
	}{Into: want.Into, Unpack: want.Unpack}
	for _, j := range m.Artifacts {
		if sum, twice := jars[j.Base()]; twice && sum != j.SHA256 {
			return nil, fmt.Errorf("two artifacts have the file name %s: exclude one, or give it a set of its own", j.Base())
		}
		jars[j.Base()] = j.SHA256
		input.Maven = append(input.Maven, j.Base()+" "+j.SHA256)
	}
	return b.layers.Get(input, func(w *layer.Writer) error {
		for _, j := range m.Artifacts {
			if want.Unpack != nil {
				if err := addMembers(w, want.Into, want.Unpack, b.files.Path(j.SHA256)); err != nil {
					return fmt.Errorf("unpack %s: %w", j, err)
				}
				continue
			}
			if err := addFile(w, want.Into+"/"+j.Base(), 0o644, b.files.Path(j.SHA256)); err != nil {
				return err
			}
		}
		return nil
	})
}

func addFile(w *layer.Writer, p string, mode int64, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	i, err := f.Stat()
	if err != nil {
		return err
	}
	return w.File(p, mode, i.Size(), layer.Owner{}, f)
}

func (b *Builder) goPart(ctx context.Context, s *stage, locked *lock.File) (*layer.Layer, error) {
	if len(s.recipe.Go) == 0 {
		return nil, nil
	}
	var input struct{ Go []string }
	for i, g := range s.recipe.Go {
		var want *lock.Go
		if g.Module != "" {
			if at := slices.IndexFunc(locked.Go, func(l lock.Go) bool { return l.Module == g.Module }); at >= 0 {
				want = &locked.Go[at]
			} else if locked.Go != nil {
				return nil, lock.Same(s.recipe.Lock(), "go", nil, []string{g.Module})
			} else {
				got, err := b.golang.Resolve(ctx, g.Module)
				if err != nil {
					return nil, err
				}
				want = &got
			}
			s.made.Go = append(s.made.Go, *want)
		}
		file := filepath.Join(b.o.Work, "go", fmt.Sprintf("%s-%s-%d", s.recipe.Name, s.recipe.Version, i))
		p := golang.Program{Module: g.Module, Package: g.Package, Tags: g.Tags, LDFlags: g.LDFlags}
		if err := b.golang.Build(ctx, p, want, file); err != nil {
			return nil, err
		}
		sum, err := store.Sum(file)
		if err != nil {
			return nil, err
		}
		s.programs = append(s.programs, file)
		input.Go = append(input.Go, g.Path+" "+sum)
	}
	return b.layers.Get(input, func(w *layer.Writer) error {
		for i, g := range s.recipe.Go {
			if err := addFile(w, g.Path, 0o755, s.programs[i]); err != nil {
				return err
			}
		}
		return nil
	})
}
