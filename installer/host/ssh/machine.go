package ssh

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"net"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
)

// machine is one host.
type machine struct {
	*line
	ref host.Ref
}

var _ host.Host = (*machine)(nil)

func quoted(words []string) string {
	q := make([]string, len(words))
	for i, w := range words {
		q[i] = host.Quote(w)
	}
	return strings.Join(q, " ")
}

// do runs a command that has to succeed and returns what it printed.
func (m *machine) do(ctx context.Context, c command) (string, error) {
	r, err := m.run(ctx, c)
	if err != nil {
		return "", m.lost(c.what, err)
	}
	if r.code != 0 {
		return "", m.failed(ctx, c.what, r)
	}
	return r.out, nil
}

// lost is the error of a call that did not get through.
func (m *machine) lost(what string, err error) error {
	kind := fault.KindOf(err)
	if f, ok := err.(*fault.Error); ok && f.Err != nil { // what it did is said in our words
		err = f.Err
	}
	return fault.New("host "+m.ref.Name+": "+what, kind, err)
}

// failed is the error of a command that did. It ends with what the command
// said.
func (m *machine) failed(ctx context.Context, what string, r result) error {
	op := "host " + m.ref.Name + ": " + what
	said := strings.TrimSpace(r.errors)
	if said == "" {
		said = strings.TrimSpace(r.out)
	}
	switch {
	case strings.Contains(said, "No space left on device") || strings.Contains(said, "Disk quota exceeded"):
		return fault.Newf(op, fault.Exhausted, "the disk is full: %s%s; make room there and apply again", said, m.space(ctx))
	case strings.Contains(said, "Read-only file system"):
		return fault.Newf(op, fault.Denied, "%s; %s, %s and %s must be on file systems that can be written (an error of the disk makes one read-only, see dmesg)",
			said, config.EtcDir, path.Dir(config.CurrentLink), config.VarDir)
	}
	return fault.Newf(op, fault.Internal, "exit status %d: %s", r.code, said)
}

// space tells how full the file systems are that we write to.
func (m *machine) space(ctx context.Context) string {
	r, err := m.run(ctx, command{what: "look at the disks", script: "df -Pm /etc /opt /var/lib | while read -r _ size _ free _ at; do echo \"$free $size $at\"; done"})
	if err != nil || r.code != 0 {
		return ""
	}
	var parts []string
	for l := range strings.Lines(r.out) {
		if f := strings.Fields(l); len(f) == 3 && f[0] != "Available" {
			if text := fmt.Sprintf("%s of %s MiB free on %s", f[0], f[1], f[2]); !slices.Contains(parts, text) {
				parts = append(parts, text)
			}
		}
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

// HostKey is the key that the machine proved to have when it was last
// connected to, as authorized_keys has it.
func (m *machine) HostKey() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.conn == nil || m.conn.here {
		return ""
	}
	return strings.TrimSpace(string(gossh.MarshalAuthorizedKey(m.conn.key)))
}

// DialContext reaches an address from the machine, whose sshd has to allow it.
func (m *machine) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := m.connected(ctx)
	if err != nil {
		return nil, err
	}
	return c.client.DialContext(ctx, network, addr)
}

// Run implements host.Host. It is not repeated: what the program does twice
// only the caller knows.
func (m *machine) Run(ctx context.Context, argv ...string) (host.Output, error) {
	what := "run " + argv[0]
	r, err := m.run(ctx, command{what: what, script: "exec " + quoted(argv) + " </dev/null", once: true})
	if err != nil {
		return host.Output{}, m.lost(what, err)
	}
	return host.Output{Code: r.code, Stdout: r.out, Stderr: r.errors, Noise: r.noise}, nil
}

// ReadFile implements host.Files.
func (m *machine) ReadFile(ctx context.Context, path string) (host.File, error) {
	what := "read " + path
	p := host.Quote(path)
	out, err := m.do(ctx, command{what: what, script: "[ -e " + p + " ] || { echo none; exit 0; }\nstat -L -c '%f %u %g' -- " + p + " && exec cat -- " + p})
	if err != nil {
		return host.File{}, err
	}
	head, data, _ := strings.Cut(out, "\n")
	if head == "none" {
		return host.File{}, fault.New("host "+m.ref.Name+": "+what, fault.NotFound, fs.ErrNotExist)
	}
	f, _, err := parseStat(head)
	if err != nil {
		return f, fault.New("host "+m.ref.Name+": "+what, fault.Internal, err)
	}
	f.Data = []byte(data)
	return f, nil
}

// parseStat reads "%f %u %g" of stat: the raw mode in hex, and the owner.
func parseStat(text string) (f host.File, raw uint64, err error) {
	var mode string
	if _, err := fmt.Sscanf(text, "%s %d %d", &mode, &f.UID, &f.GID); err != nil {
		return f, 0, fmt.Errorf("stat says %q: %w", text, err)
	}
	raw, err = strconv.ParseUint(mode, 16, 32)
	f.Mode = fs.FileMode(raw & 0o777)
	return f, raw, err
}

// The types of files in a raw mode.
const (
	typeMask = 0o170000
	typeFile = 0o100000
	typeLink = 0o120000
)

// WriteFile implements host.Files.
func (m *machine) WriteFile(ctx context.Context, path string, f host.File) error {
	return m.change(ctx, "write "+path, host.Put(path, f))
}

// Remove implements host.Files.
func (m *machine) Remove(ctx context.Context, path string) error {
	return m.change(ctx, "remove "+path, host.Gone(path))
}

// Link implements host.Files.
func (m *machine) Link(ctx context.Context, path, target string) error {
	return m.change(ctx, "link "+path+" to "+target, host.Put(path, host.File{Link: target}))
}

// ReadLink implements host.Files.
func (m *machine) ReadLink(ctx context.Context, path string) (string, error) {
	v, err := m.look(ctx, "read link "+path, host.Query{Files: []string{path}})
	if err != nil {
		return "", err
	}
	e, ok := v.Files[path]
	switch {
	case !ok:
		return "", fault.New("host "+m.ref.Name+": read link "+path, fault.NotFound, fs.ErrNotExist)
	case e.Link == "":
		return "", fault.Newf("host "+m.ref.Name+": read link "+path, fault.Invalid, "it is no link")
	}
	return e.Link, nil
}

// Look implements host.Batch: one stat and one sha256sum for all files, one
// systemctl for all units.
func (m *machine) Look(ctx context.Context, q host.Query) (host.View, error) {
	return m.look(ctx, fmt.Sprintf("look at %d files and %d units", len(q.Files)+len(q.Content), len(q.Units)), q)
}

func (m *machine) look(ctx context.Context, what string, q host.Query) (host.View, error) {
	out, err := m.do(ctx, command{what: what, script: lookScript(q)})
	if err != nil {
		return host.View{}, err
	}
	v, err := parseLook(out, q, time.Now())
	if err != nil {
		return v, fault.New("host "+m.ref.Name+": "+what, fault.Internal, err)
	}
	return v, nil
}

// lookScript prints, for each path, its number and what is there; then the
// units.
func lookScript(q host.Query) string {
	var b strings.Builder
	paths := slices.Concat(q.Files, q.Content)
	if len(paths) > 0 {
		// Missing files are no error, whatever else stat finds is seen below.
		fmt.Fprintf(&b, "stat -c 'S %%f %%u %%g %%n' -- %s 2>/dev/null\n", quoted(paths))
		b.WriteString("set --\n")
		for _, p := range paths {
			fmt.Fprintf(&b, "if [ -L %[1]s ]; then echo L \"$(readlink -- %[1]s)\" %[1]s; elif [ -f %[1]s ]; then set -- \"$@\" %[1]s; fi\n", host.Quote(p))
		}
		b.WriteString("[ $# -eq 0 ] || sha256sum -- \"$@\" || exit 1\n")
		for _, p := range q.Content {
			fmt.Fprintf(&b, "if [ -f %[1]s ] && [ ! -L %[1]s ]; then printf 'B %%s ' %[1]s; base64 -w0 -- %[1]s || exit 1; echo; fi\n", host.Quote(p))
		}
	}
	for i, d := range q.Dirs {
		fmt.Fprintf(&b, "if [ -d %[1]s ]; then echo 'D %[2]d'; ls -1A -- %[1]s | while IFS= read -r n; do printf 'N %[2]d %%s\\n' \"$n\"; done; fi\n", host.Quote(d), i)
	}
	if len(q.Units) > 0 {
		b.WriteString(showUnits(q.Units))
	}
	b.WriteString("true")
	return b.String()
}

func parseLook(out string, q host.Query, now time.Time) (host.View, error) {
	v := host.View{Files: map[string]host.Entry{}, Dirs: map[string][]string{}, Units: map[string]host.Unit{}}
	text, units, _ := strings.Cut(out, unitsBelow)
	for l := range strings.Lines(text) {
		l = strings.TrimSuffix(l, "\n")
		switch kind, rest, _ := strings.Cut(l, " "); kind {
		case "S":
			f := strings.SplitN(rest, " ", 4)
			if len(f) != 4 {
				return v, fmt.Errorf("stat says %q", l)
			}
			e := v.Files[f[3]]
			file, raw, err := parseStat(strings.Join(f[:3], " "))
			if err != nil {
				return v, err
			}
			if raw&typeMask != typeLink {
				e.File = file
			}
			v.Files[f[3]] = e
		case "L":
			for _, p := range slices.Concat(q.Files, q.Content) {
				if to, ok := strings.CutSuffix(rest, " "+p); ok {
					v.Files[p] = host.Entry{File: host.File{Link: to}}
				}
			}
		case "D", "N":
			number, name, _ := strings.Cut(rest, " ")
			i, err := strconv.Atoi(number)
			if err != nil || i >= len(q.Dirs) {
				return v, fmt.Errorf("no directory %q", l)
			}
			if v.Dirs[q.Dirs[i]] == nil {
				v.Dirs[q.Dirs[i]] = []string{}
			}
			if kind == "N" {
				v.Dirs[q.Dirs[i]] = append(v.Dirs[q.Dirs[i]], name)
			}
		case "B":
			i := strings.LastIndexByte(rest, ' ') // the content of an empty file is none
			if i < 0 {
				return v, fmt.Errorf("no content in %q", l)
			}
			p, code := rest[:i], rest[i+1:]
			data, err := base64.StdEncoding.DecodeString(code)
			if err != nil {
				return v, fmt.Errorf("content of %s: %w", p, err)
			}
			e := v.Files[p]
			e.Data = data
			v.Files[p] = e
		default:
			if sum, p, ok := strings.Cut(l, "  "); ok && len(sum) == 64 {
				e := v.Files[p]
				e.SHA256 = sum
				v.Files[p] = e
			}
		}
	}
	var err error
	v.Units, err = parseUnits(units, now)
	return v, err
}

// Change implements host.Batch.
func (m *machine) Change(ctx context.Context, changes ...host.Change) error {
	if len(changes) == 0 {
		return nil
	}
	what := "write " + changes[0].Path
	if n := len(changes) - 1; n > 0 {
		what += fmt.Sprintf(" and change %d more files", n)
	}
	return m.change(ctx, what, changes...)
}

func (m *machine) change(ctx context.Context, what string, changes ...host.Change) error {
	c, err := m.connected(ctx)
	if err != nil {
		return m.lost(what, err)
	}
	script, data := changeScript(changes, c.facts.Relabel())
	_, err = m.do(ctx, command{what: what, script: script, data: func() io.Reader { return bytes.NewReader(data) }})
	return err
}

// changeScript makes the changes in three strokes: everything new is written
// beside its place, with its mode before anybody could open it under a name
// that matters, and compared with its digest; then each change is made by one
// rename or removal, in order; then init and SELinux learn of it.
func changeScript(changes []host.Change, relabel string) (script string, data []byte) {
	var b strings.Builder
	var dirs, sums []string
	modes, owners := map[string][]string{}, map[string][]string{}
	var places strings.Builder
	units := false
	b.WriteString("set -eu; umask 077\n")
	var copies strings.Builder
	for i, c := range changes {
		dir := path.Dir(c.Path)
		units = units || strings.HasPrefix(c.Path, config.UnitDir+"/")
		if c.File == nil {
			fmt.Fprintf(&places, "rm -rf --one-file-system -- %s\n", host.Quote(c.Path))
			continue
		}
		if !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
		// Numbered: a path may be written twice, such as a record before and after.
		f, tmp := *c.File, path.Join(dir, fmt.Sprintf(".%s.dcos-new%d", path.Base(c.Path), i))
		if f.Link != "" {
			// ln makes the link beside its place first, too, but not its name.
			fmt.Fprintf(&places, "ln -sfn -- %s %s; mv -fT -- %s %s\n", host.Quote(f.Link), host.Quote(tmp), host.Quote(tmp), host.Quote(c.Path))
			continue
		}
		fmt.Fprintf(&copies, "head -c %d > %s\n", len(f.Data), host.Quote(tmp))
		data = append(data, f.Data...)
		sums = append(sums, digest(f.Data)+"  "+tmp)
		mode := fmt.Sprintf("%o", f.Mode.Perm())
		modes[mode] = append(modes[mode], tmp)
		if f.UID != 0 || f.GID != 0 {
			owner := fmt.Sprintf("%d:%d", f.UID, f.GID)
			owners[owner] = append(owners[owner], tmp)
		}
		fmt.Fprintf(&places, "mv -fT -- %s %s\n", host.Quote(tmp), host.Quote(c.Path))
	}
	for _, d := range dirs {
		fmt.Fprintf(&b, "[ -d %[1]s ] || (umask 022; mkdir -p -- %[1]s)\n", host.Quote(d))
	}
	b.WriteString(copies.String())
	if len(sums) > 0 {
		// What is cut off is not put into place; it is sent again.
		fmt.Fprintf(&b, "sha256sum --status -c <<'SUMS' || exit %d\n%s\nSUMS\n", cut, strings.Join(sums, "\n"))
	}
	for _, o := range sortedKeys(owners) {
		fmt.Fprintf(&b, "chown %s -- %s\n", o, quoted(owners[o]))
	}
	for _, o := range sortedKeys(modes) {
		fmt.Fprintf(&b, "chmod %s -- %s\n", o, quoted(modes[o]))
	}
	b.WriteString(places.String())
	if relabel != "" {
		var put []string
		for _, c := range changes {
			if c.File != nil && c.File.Link == "" {
				put = append(put, c.Path)
			}
		}
		if len(put) > 0 {
			fmt.Fprintf(&b, "%s -- %s\n", relabel, quoted(put))
		}
	}
	if units {
		b.WriteString("systemctl daemon-reload\n")
	}
	b.WriteString("true")
	return b.String(), data
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	out := make([]K, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
