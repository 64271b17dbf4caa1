package bootstrap

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"

	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/providers/input"
	"dcos.example/dcos/runtime/config"
)

// node is what a host is to run: the inputs of TypeNode.
type node struct {
	ref     host.Ref
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
	at.OptionalText("bootId") // only its change matters
	at.Close()
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

// recordPath is where the record lies on the host.
const recordPath = config.VarDir + "/bootstrap.json"

// record is what was done on a host. It is written after each step that it
// tells of.
type record struct {
	Owner   string                 `json:"owner,omitempty"` // token of the Create that began it
	Digest  string                 `json:"digest"`          // of the release switched to
	Release string                 `json:"release"`         // its name
	Staged  []string               `json:"staged"`          // releases brought here, the newest last
	Files   map[string]writtenFile `json:"files"`
	Units   map[string]string      `json:"units"` // unit → digest of what it was started with
	Order   []string               `json:"order"` // of the units

	found bool // on the host
}

type writtenFile struct {
	fingerprint
	Before *host.File `json:"before,omitempty"` // what was there before us, for Delete
}

// fingerprint identifies a file's content and mode.
type fingerprint struct {
	SHA256 string      `json:"sha256"`
	Mode   fs.FileMode `json:"mode"`
}

func fingerprintOf(f host.File) fingerprint {
	sum := sha256.Sum256(f.Data)
	return fingerprint{SHA256: hex.EncodeToString(sum[:]), Mode: f.Mode.Perm()}
}

func (r record) encode() host.File {
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil { // strings and numbers only
		panic("encode record: " + err.Error())
	}
	return host.File{Data: append(b, '\n'), Mode: 0o600}
}

// changes is the difference between what a host has and what it should.
type changes struct {
	write   []string // paths, sorted
	remove  []string // paths that are no longer wanted, sorted
	release bool     // another release
	stop    []string // units that are no longer wanted, in stop order
	start   []string // units to start or restart, in start order
}

// diff is pure. have are the wanted files as they are on the host (missing ones
// are absent), current is the digest of the release that is switched to, and
// active tells which units run.
func diff(n node, r record, have map[string]host.File, current string, active map[string]bool) changes {
	var c changes
	for _, p := range slices.Sorted(maps.Keys(n.files)) {
		if f, ok := have[p]; !ok || fingerprintOf(f) != fingerprintOf(n.files[p]) {
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
		if !active[u] || tampered || r.Units[u] != unitDigest(n, u) {
			c.start = append(c.start, u)
		}
	}
	return c
}

// unitDigest identifies everything that a unit is started with: the release
// and the files that concern it.
func unitDigest(n node, unit string) string {
	h := sha256.New()
	fmt.Fprintf(h, "release %s\n", n.digest)
	for _, p := range slices.Sorted(maps.Keys(n.files)) {
		if concerns(n, unit, p) {
			fmt.Fprintf(h, "%s %v\n", p, fingerprintOf(n.files[p]))
		}
	}
	return hex.EncodeToString(h.Sum(nil))
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
