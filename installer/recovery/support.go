package recovery

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"

	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
)

// tail is how much of a log a support bundle has, in bytes.
const tail = 2 << 20

// look is what a support bundle has of every host: a name and the script that
// prints it. What a host does not have is noted in its place.
var look = []struct{ name, script string }{
	{"system.txt", `uname -a; cat /etc/os-release; uptime; date -u; hostname; cat /proc/cmdline; systemctl --version 2>/dev/null | head -1`},
	{"cpu-memory.txt", `grep -c ^processor /proc/cpuinfo; grep -m1 'model name' /proc/cpuinfo; cat /proc/meminfo /proc/loadavg; cat /proc/pressure/* 2>/dev/null`},
	{"mounts.txt", `cat /proc/mounts; df -k; df -i`},
	{"cgroups.txt", `cat /proc/cgroups; cat /sys/fs/cgroup/cgroup.controllers 2>/dev/null; cat /proc/self/cgroup`},
	{"sysctl.txt", `sysctl -a 2>/dev/null || for f in /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/*/rp_filter /proc/sys/net/netfilter/* /proc/sys/vm/* /proc/sys/kernel/pid_max /proc/sys/fs/file-max; do [ -f "$f" ] && [ -r "$f" ] && echo "$f = $(cat "$f" 2>/dev/null)"; done`},
	{"ip.txt", `ip -d addr; ip -d link; ip route; ip rule; ip neigh`},
	{"nft.txt", `nft list ruleset`},
	{"sockets.txt", `ss -ltnup || cat /proc/net/tcp /proc/net/udp`},
	{"modules.txt", `cat /proc/modules`},
	{"processes.txt", `ps axo pid,ppid,stat,etimes,rss,comm 2>/dev/null || for p in /proc/[0-9]*; do cat $p/stat; done`},
	{"kernel.txt", `dmesg | tail -n 400`},
	{"units.txt", `systemctl list-units --all --no-pager 'dcos*' 2>/dev/null; ls -l ` + config.UnitDir + `/dcos* ` + config.CurrentLink + ` ` + config.ReleaseDir},
	{"disk.txt", `du -xk --max-depth=2 ` + config.VarDir + ` ` + config.LogDir + ` 2>/dev/null; ls -lR ` + config.EtcDir},
	{"config.txt", `for f in ` + config.EtcDir + `/*.json ` + config.EtcDir + `/*.toml ` + config.ReleaseFile + `; do [ -f "$f" ] && echo "== $f" && cat "$f" && echo; done; true`},
	{"resolv.txt", `cat /etc/resolv.conf /etc/hosts`},
	{"logs.txt", fmt.Sprintf(`for f in %s/*.log %s/*; do [ -f "$f" ] && echo "== $f" && tail -c %d "$f"; done 2>/dev/null; for u in %s %s %s; do journalctl --no-pager -n 4000 -u "$u" 2>/dev/null; done; true`,
		config.LogDir, config.LogDir, tail/4, config.UnitMaster, config.UnitContainerd, config.UnitAgent)},
}

// hostTime bounds the look at one host.
const hostTime = 90 * time.Second

// LookAt returns the files of a support bundle about one host. A file that could
// not be had tells why.
func LookAt(ctx context.Context, h host.Host) map[string][]byte {
	ctx, cancel := context.WithTimeout(ctx, hostTime)
	defer cancel()
	out := map[string][]byte{}
	for _, l := range look {
		res, err := h.Run(ctx, "/bin/sh", "-c", l.script+" 2>&1")
		if err != nil {
			out[l.name] = []byte("could not be had: " + err.Error() + "\n")
			continue
		}
		out[l.name] = []byte(res.Stdout + res.Stderr)
	}
	for _, u := range []string{config.UnitMaster, config.UnitContainerd, config.UnitAgent} {
		st, err := h.UnitStatus(ctx, u, tail)
		if fault.Is(err, fault.NotFound) {
			continue
		}
		if err != nil {
			out["unit-"+u+".txt"] = []byte("could not be had: " + err.Error() + "\n")
			continue
		}
		out["unit-"+u+".txt"] = fmt.Appendf(nil, "active=%t state=%s since=%s restarts=%d last exit=%s\n\n%s\n", st.Active, st.State, st.Since.UTC().Format(time.RFC3339), st.Restarts, st.LastExit, st.Log)
	}
	return out
}

// Redactor takes out what must not leave the site.
type Redactor struct{ known *strings.Replacer }

// shortest is the length of a known secret below which replacing it would
// destroy more than it hides.
const shortest = 6

const redacted = "[secret]"

// NewRedactor returns one that knows secrets. Texts of several lines are also
// known line by line, as logs break them.
func NewRedactor(secrets []string) *Redactor {
	all := map[string]bool{}
	for _, s := range secrets {
		for _, line := range append(strings.Split(s, "\n"), s) {
			if line = strings.TrimSpace(line); len(line) >= shortest && !strings.HasPrefix(line, "-----") {
				all[line] = true
			}
		}
	}
	var pairs []string
	for _, s := range slices.SortedFunc(maps.Keys(all), func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) }) {
		pairs = append(pairs, s, redacted)
	}
	return &Redactor{known: strings.NewReplacer(pairs...)}
}

// patterns are secrets that nobody has told us of.
var patterns = []struct {
	re   *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)`), redacted},
	{regexp.MustCompile(`AGE-SECRET-KEY-1[0-9A-Z]+`), redacted},
	{regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+`), redacted}, // JSON web tokens
	{regexp.MustCompile(`\$argon2(id|i|d)\$[^\s"']+`), redacted},
	{regexp.MustCompile(`(?i)(authorization["']?\s*[:=]\s*["']?(?:token=|basic |bearer )?)[^\s"',]+`), "${1}" + redacted},
	{regexp.MustCompile(`(?i)(["']?[a-z0-9_-]*(?:password|passwd|passphrase|secret|token|api_?key|access_?key|private_?key)(?:_[a-z0-9]+)?["']?\s*[:=]\s*)("(?:[^"\\]|\\.)*"|[^\s",}&]+)`), `${1}"` + redacted + `"`},
}

// Redact returns b without secrets.
func (r *Redactor) Redact(b []byte) []byte {
	s := r.known.Replace(string(b))
	for _, p := range patterns {
		s = p.re.ReplaceAllString(s, p.with)
	}
	return []byte(s)
}

// SecretsIn collects every secret text in m.
func SecretsIn(m resource.PropertyMap) []string {
	var out []string
	var walk func(v resource.PropertyValue, hidden bool)
	walk = func(v resource.PropertyValue, hidden bool) {
		switch {
		case v.IsSecret():
			walk(v.SecretValue().Element, true)
		case v.IsOutput():
			walk(v.OutputValue().Element, hidden || v.OutputValue().Secret)
		case v.IsArray():
			for _, e := range v.ArrayValue() {
				walk(e, hidden)
			}
		case v.IsObject():
			for _, e := range v.ObjectValue() {
				walk(e, hidden)
			}
		case v.IsString() && hidden:
			out = append(out, v.StringValue())
		}
	}
	for _, v := range m {
		walk(v, false)
	}
	return out
}

// WriteBundle writes files, by their path, as a compressed tar below a folder
// of that name.
func WriteBundle(w io.Writer, name string, at time.Time, files map[string][]byte) error {
	z := gzip.NewWriter(w)
	t := tar.NewWriter(z)
	for _, p := range slices.Sorted(maps.Keys(files)) {
		b := files[p]
		if err := t.WriteHeader(&tar.Header{Name: path.Join(name, p), Mode: 0o600, Size: int64(len(b)), ModTime: at}); err != nil {
			return fault.New("write the support bundle", fault.Internal, err)
		}
		if _, err := io.Copy(t, bytes.NewReader(b)); err != nil {
			return fault.New("write the support bundle", fault.Internal, err)
		}
	}
	if err := t.Close(); err != nil {
		return fault.New("write the support bundle", fault.Internal, err)
	}
	if err := z.Close(); err != nil {
		return fault.New("write the support bundle", fault.Internal, err)
	}
	return nil
}
