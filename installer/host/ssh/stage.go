package ssh

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"dcos.example/dcos/installer/bundle"
	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/providers"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
)

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// Stage implements host.Host. It asks which files are there already: in the
// releases before this one, or from an attempt that broke off. Those are
// linked, the others are sent, all are compared with their digests, and the
// directory gets its name.
func (m *machine) Stage(ctx context.Context, dir string, rel bundle.Share) error {
	what := "stage release " + rel.Release
	text, err := os.ReadFile(filepath.Join(dir, bundle.ManifestName))
	if err == nil && digest(text) != rel.Digest {
		err = fmt.Errorf("%s is not that of the release", bundle.ManifestName)
	}
	if err != nil {
		return fault.New("read the unpacked release in "+dir, fault.Internal, err)
	}
	for n := 1; ; n++ {
		err := m.stage(ctx, what, &release{dir: dir, rel: rel, manifest: text})
		if !fault.Is(err, fault.Unavailable) || ctx.Err() != nil || n >= m.pool.o.Attempts {
			return err
		}
		// Not the same again: what has arrived need not be sent twice.
		m.pool.o.Log.Info("try again", "host", m.ref.Name, "what", what, "attempt", n, "err", err)
	}
}

func (m *machine) stage(ctx context.Context, what string, files *release) error {
	at := host.ReleasePath(files.rel.Release)
	out, err := m.do(ctx, command{what: what, script: stagedScript(at, files.rel)})
	if err != nil || out == "staged\n" {
		return err
	}
	plan := planStage(files.rel, at, out)
	if plan.bytes > 0 {
		providers.Note(ctx, what, fmt.Sprintf("sends %d of %d files, %d MiB", len(plan.send), len(files.rel.Files), (plan.bytes+1<<20-1)>>20))
	}
	c, err := m.connected(ctx)
	if err != nil {
		return m.lost(what, err)
	}
	if i := slices.IndexFunc(files.rel.Files, func(f bundle.File) bool { return f.Path == unpacker }); i >= 0 {
		return m.stream(ctx, what, files, plan, i, c.facts.RelabelPrograms())
	}
	files.send = plan.send
	_, err = m.do(ctx, command{what: what, once: true, data: func() io.Reader { return files },
		script: plan.script(at, files.rel, len(files.manifest), c.facts.RelabelPrograms())})
	if bad := files.close(); bad != nil {
		return fault.New("read the unpacked release in "+files.dir, fault.Internal, bad)
	}
	return err
}

// unpacker is the file of a release that puts streams of files together. A
// release from before it is sent file by file.
const unpacker = "bin/dcos-unpack"

// stream sends what is missing in compressed form, after the program that
// unpacks it. The program is the helper-th file of the release.
func (m *machine) stream(ctx context.Context, what string, files *release, plan staging, helper int, relabel string) error {
	packed, err := m.pool.pack(files.dir, files.rel, plan.send)
	if err != nil {
		return fault.New("pack the release in "+files.dir, fault.Internal, err)
	}
	program, err := os.Open(filepath.Join(files.dir, filepath.FromSlash(unpacker)))
	if err != nil {
		return fault.New("read the unpacked release in "+files.dir, fault.Internal, err)
	}
	defer program.Close()
	at, size := host.ReleasePath(files.rel.Release), files.rel.Files[helper].Size
	_, err = m.do(ctx, command{what: what, once: true, script: plan.streamScript(at, files.rel, helper, relabel),
		data: func() io.Reader { return io.MultiReader(io.NewSectionReader(program, 0, size), packed.reader()) }})
	if fault.Is(err, fault.Internal) {
		m.pool.spoilt(packed)
	}
	return err
}

// streamScript puts the release together with the program that comes first on
// standard input.
func (s staging) streamScript(at string, rel bundle.Share, helper int, relabel string) string {
	var b strings.Builder
	to := part(at)
	b.WriteString("set -eu; umask 022\n")
	s.links(&b, to, rel)
	f := rel.Files[helper]
	fmt.Fprintf(&b, "rm -f .unpack; head -c %[1]d > .unpack; [ \"$(sha256sum < .unpack)\" = '%[2]s  -' ] || exit %[3]d\nchmod 755 .unpack\n", f.Size, f.SHA256, cut)
	without := ""
	if rel.Partial {
		without = " " + bundle.PackagesDir + "/"
	}
	fmt.Fprintf(&b, "./.unpack . %s%s; rm -f .unpack\n", rel.Digest, without)
	if relabel != "" {
		fmt.Fprintf(&b, "%s -- %s\n", relabel, host.Quote(to))
	}
	fmt.Fprintf(&b, "cd /; rm -rf -- %[2]s; mv -T -- %[1]s %[2]s\ntrue", host.Quote(to), host.Quote(at))
	return b.String()
}

// links makes the directories and links what older releases have.
func (s staging) links(b *strings.Builder, to string, rel bundle.Share) {
	dirs := map[string]bool{to: true}
	for _, f := range rel.Files {
		dirs[path.Join(to, path.Dir(f.Path))] = true
	}
	fmt.Fprintf(b, "mkdir -p -- %s\ncd %s\n", quoted(sortedKeys(dirs)), host.Quote(to))
	for _, i := range sortedKeys(s.link) {
		// A link, or a copy where the file system has none, or one with another
		// mode: the older release keeps its own.
		fmt.Fprintf(b, "rm -f -- %[2]s; [ \"$(stat -c %%a -- %[1]s)\" = %[3]o ] && ln -- %[1]s %[2]s 2>/dev/null || cp -- %[1]s %[2]s\n",
			host.Quote(s.link[i]), host.Quote(rel.Files[i].Path), rel.Files[i].Mode.Perm())
	}
}

// part is where a release is put together.
func part(at string) string { return at + ".part" }

// stagedScript prints the manifests of the releases there, or that this one is
// staged, and which of its files an earlier attempt brought whole.
func stagedScript(at string, rel bundle.Share) string {
	var b strings.Builder
	fmt.Fprintf(&b, "if [ -f %s ]; then echo staged; exit 0; fi\n", host.Quote(path.Join(at, bundle.ManifestName)))
	fmt.Fprintf(&b, "for f in %s/*/%s; do [ -f \"$f\" ] && { echo \"== $f\"; cat \"$f\"; echo; }; done\n", config.ReleaseDir, bundle.ManifestName)
	fmt.Fprintf(&b, "if cd %s 2>/dev/null; then echo '== part'; sha256sum -c 2>/dev/null <<'SUMS'\n", host.Quote(part(at)))
	for _, f := range rel.Files {
		fmt.Fprintf(&b, "%s  %s\n", f.SHA256, f.Path)
	}
	b.WriteString("SUMS\nfi\ntrue")
	return b.String()
}

// parseStaged returns where older releases have files, by digest, and which
// files of this one are whole already.
func parseStaged(out, at string) (older map[string]string, whole map[string]bool) {
	older, whole = map[string]string{}, map[string]bool{}
	for section := range strings.SplitSeq("\n"+out, "\n== ") {
		head, text, _ := strings.Cut(section, "\n")
		if head == "part" {
			for l := range strings.Lines(text) {
				if name, ok := strings.CutSuffix(strings.TrimSpace(l), ": OK"); ok {
					whole[name] = true
				}
			}
			continue
		}
		dir := path.Dir(head)
		var have bundle.Manifest
		if dir == part(at) || json.Unmarshal([]byte(text), &have) != nil {
			continue // damaged: nothing is taken from it
		}
		for _, f := range have.Files {
			if filepath.IsLocal(f.Path) {
				older[f.SHA256] = path.Join(dir, f.Path)
			}
		}
	}
	return older, whole
}

// staging says where the files of a release come from.
type staging struct {
	link  map[int]string // file → the same on the machine
	send  []int          // files, in the manifest's order
	bytes int64
}

// planStage decides that by what stagedScript printed.
func planStage(rel bundle.Share, at, out string) staging {
	older, whole := parseStaged(out, at)
	s := staging{link: map[int]string{}}
	for i, f := range rel.Files {
		switch from := older[f.SHA256]; {
		case whole[f.Path]:
		case from != "":
			s.link[i] = from
		default:
			s.send = append(s.send, i)
			s.bytes += f.Size
		}
	}
	return s
}

// script puts the release together. It can break off anywhere: what it left is
// looked at by the next attempt.
func (s staging) script(at string, rel bundle.Share, manifest int, relabel string) string {
	var b strings.Builder
	to := part(at)
	b.WriteString("set -eu; umask 022\n")
	s.links(&b, to, rel)
	for _, i := range s.send {
		f := rel.Files[i]
		fmt.Fprintf(&b, "rm -f -- %[1]s; head -c %[2]d > %[1]s; [ \"$(stat -c %%s -- %[1]s)\" = %[2]d ] || exit %[3]d\n", host.Quote(f.Path), f.Size, cut)
	}
	fmt.Fprintf(&b, "sha256sum --quiet -c <<'SUMS' || { rm -rf -- %s; echo 'what arrived is not what was sent, or an older release is damaged' >&2; exit 1; }\n", host.Quote(to))
	modes := map[string][]string{}
	for _, f := range rel.Files {
		fmt.Fprintf(&b, "%s  %s\n", f.SHA256, f.Path)
		mode := fmt.Sprintf("%o", f.Mode.Perm())
		modes[mode] = append(modes[mode], f.Path)
	}
	b.WriteString("SUMS\n")
	for _, mode := range sortedKeys(modes) {
		fmt.Fprintf(&b, "chmod %s -- %s\n", mode, quoted(modes[mode]))
	}
	fmt.Fprintf(&b, "head -c %d > %s\n", manifest, bundle.ManifestName)
	fmt.Fprintf(&b, "[ \"$(sha256sum < %s)\" = '%s  -' ] || exit %d\n", bundle.ManifestName, rel.Digest, cut)
	if relabel != "" {
		fmt.Fprintf(&b, "%s -- %s\n", relabel, host.Quote(to))
	}
	fmt.Fprintf(&b, "cd /; rm -rf -- %[2]s; mv -T -- %[1]s %[2]s\n", host.Quote(to), host.Quote(at)) // no manifest, so it was none
	b.WriteString("true")
	return b.String()
}

// release reads the files that are sent one after another, then the manifest.
type release struct {
	dir      string // where they are
	rel      bundle.Share
	manifest []byte
	send     []int

	open *os.File
	sent int64     // of the open file
	last io.Reader // the manifest, once all files are read
	bad  error     // why reading ended before
}

// Read implements io.Reader.
func (r *release) Read(p []byte) (int, error) {
	for r.last == nil {
		n, err := r.read(p)
		if n > 0 || err != nil {
			r.bad = err
			return n, err
		}
	}
	return r.last.Read(p)
}

// read reads from the file that is due. Nothing and no error: go on.
func (r *release) read(p []byte) (int, error) {
	if len(r.send) == 0 {
		r.last = bytes.NewReader(r.manifest)
		return 0, nil
	}
	f := r.rel.Files[r.send[0]]
	if r.open == nil {
		var err error
		if r.open, err = os.Open(filepath.Join(r.dir, filepath.FromSlash(f.Path))); err != nil {
			return 0, err
		}
		r.sent = 0
	}
	n, err := r.open.Read(p)
	r.sent += int64(n)
	if !errors.Is(err, io.EOF) {
		return n, err
	}
	if r.sent != f.Size {
		return n, fmt.Errorf("%s has %d bytes, not %d", f.Path, r.sent, f.Size)
	}
	err = r.open.Close()
	r.open, r.send = nil, r.send[1:]
	return n, err
}

// close returns what was wrong with the files, if that ended the reading.
func (r *release) close() error {
	if r.open != nil {
		r.open.Close() // read to no end: the other side hung up
		r.open = nil
	}
	return r.bad
}
