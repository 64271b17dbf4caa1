package bootstrap

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"

	"dcos.example/dcos/installer/bundle"
	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/providers/input"
	"dcos.example/dcos/runtime/config"
)

// node is what a host is to run: the inputs of TypeNode.
type node struct {
	ref     host.Ref
	boot    string // only its change matters
	machine string // what tells the machine from others, "" when only its address does
	role    string
	address string
	digest  string // of the release
	bundle  string // archive of the release on this machine
	files   map[string]host.File
	units   []string // in start order
}

const roleMaster = "master"

func readNode(m resource.PropertyMap) (node, *input.Reader) {
	r := input.Read(m)
	at, name := r.Object("host"), r.Text("name")
	n := node{
		ref:  host.ReadConnection(name, at),
		role: r.Text("role"), address: r.Text("address"), digest: r.Text("release"), bundle: r.Text("bundle"),
		files: map[string]host.File{},
	}
	n.machine = at.OptionalText("machineId")
	n.boot = at.OptionalText("bootId")
	at.Close()
	r.OptionalText("programs") // for who looks at the plan
	files := r.Object("files")
	for _, name := range files.Keys() {
		f := files.Object(name)
		n.files[name] = host.File{Data: []byte(f.OptionalText("content")), Mode: fs.FileMode(f.Number("mode"))}
		f.Close()
		if !path.IsAbs(name) || path.Clean(name) != name {
			files.Fail(name, "is not a clean absolute path")
		}
	}
	for _, u := range r.List("units") {
		v, known := input.Plain(u)
		switch {
		case !known:
		case !v.IsString() || path.Base(v.StringValue()) != v.StringValue():
			r.Fail("units", "%v is not the name of a unit", v)
		default:
			n.units = append(n.units, v.StringValue())
		}
	}
	for _, u := range n.units {
		if _, ok := n.files[unitPath(u)]; !ok && !r.Unknown("files") {
			r.Fail("units", "%s has no file %s", u, unitPath(u))
		}
	}
	return n, r
}

func unitPath(name string) string { return path.Join(config.UnitDir, name) }

// changes is the difference between what a host has and what it should.
type changes struct {
	write   []string // paths, sorted
	remove  []string // paths that are no longer wanted, sorted
	release bool     // another release
	stop    []string // units that are no longer wanted, in stop order
	start   []string // units to start or restart, in start order
}

// diff is pure. have are the wanted files as they are on the host (missing ones
// are absent), current is the digest of the release that is switched to,
// programs are the digests of the files of the wanted one, and active tells
// which units run.
func diff(n node, r record, have map[string]host.Entry, current string, programs map[string]string, active map[string]bool) changes {
	var c changes
	for _, p := range slices.Sorted(maps.Keys(n.files)) {
		if e, ok := have[p]; !ok || seen(e) != fingerprintOf(n.files[p]) {
			c.write = append(c.write, p)
		}
	}
	for _, p := range slices.Sorted(maps.Keys(r.Files)) {
		if _, ok := n.files[p]; !ok {
			c.remove = append(c.remove, p)
		}
	}
	c.release = current != n.digest
	for _, u := range slices.Backward(r.Order) {
		if !slices.Contains(n.units, u) {
			c.stop = append(c.stop, u)
		}
	}
	for _, u := range n.units {
		// What somebody changed on the host and is written back may be in use.
		tampered := slices.ContainsFunc(c.write, func(p string) bool { return concerns(n, u, p) })
		if !active[u] || tampered || r.Units[u] != unitDigest(n, u, programs) {
			c.start = append(c.start, u)
		}
	}
	return c
}

// none reports whether nothing is to be done.
func (c changes) none() bool {
	return !c.release && len(c.write)+len(c.remove)+len(c.stop)+len(c.start) == 0
}

// unitDigest identifies everything that a unit is started with: its own file,
// the files that concern it, and those of the release that these name. A
// release that leaves a unit's program as it was does not restart it.
func unitDigest(n node, unit string, programs map[string]string) string {
	h := sha256.New()
	used := map[string]bool{}
	for _, p := range slices.Sorted(maps.Keys(n.files)) {
		if concerns(n, unit, p) {
			fmt.Fprintf(h, "%s %v\n", p, fingerprintOf(n.files[p]))
			for _, m := range inRelease.FindAllSubmatch(n.files[p].Data, -1) {
				used[string(m[1])] = true
			}
		}
	}
	for _, p := range slices.Sorted(maps.Keys(used)) {
		if sum, ok := programs[p]; ok { // a directory, as in PATH, is nothing of its own
			fmt.Fprintf(h, "release %s %s\n", p, sum)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// inRelease finds what a text names of the release.
var inRelease = regexp.MustCompile(regexp.QuoteMeta(config.CurrentLink) + `/([A-Za-z0-9._/+-]*[A-Za-z0-9_+-])`)

// programsOf are the digests of a release's files.
func programsOf(m bundle.Manifest) map[string]string {
	out := make(map[string]string, len(m.Files))
	for _, f := range m.Files {
		out[f.Path] = f.SHA256
	}
	return out
}

// concerns reports whether a unit has to be restarted when the file at path
// changes. That is its own file, and in the cluster's directory those that it
// names, and those that no unit names (certificates, tokens). Files elsewhere
// are read anew by whoever uses them, and so is the list of masters.
func concerns(n node, unit, path string) bool {
	if path == unitPath(unit) {
		return true
	}
	if !strings.HasPrefix(path, config.EtcDir+"/") || path == config.MastersFile {
		return false
	}
	names := func(u string) bool { return strings.Contains(string(n.files[unitPath(u)].Data), path) }
	return names(unit) || !slices.ContainsFunc(n.units, names)
}
