package bootstrap

import "dcos.example/dcos/installer/host"

// For tests of the pure decisions.
var (
	Judge      = judge
	RecordPath = recordPath
)

// Wanted is what a host is to have.
type Wanted struct {
	Digest string
	Files  map[string]host.File
	Units  []string
}

func (w Wanted) node() node { return node{digest: w.Digest, files: w.Files, units: w.Units} }

// Restarts returns the units that go from before, installed whole and running,
// to after restarts.
func Restarts(before, after Wanted) []string {
	r := record{Digest: before.Digest, Files: map[string]writtenFile{}, Units: map[string]string{}, Order: before.Units}
	active := map[string]bool{}
	for p, f := range before.Files {
		r.Files[p] = writtenFile{fingerprint: fingerprintOf(f)}
	}
	for _, u := range before.Units {
		r.Units[u] = unitDigest(before.node(), u)
		active[u] = true
	}
	have := map[string]host.File{}
	for p := range after.Files {
		if f, ok := before.Files[p]; ok {
			have[p] = f
		}
	}
	return diff(after.node(), r, have, before.Digest, active).start
}
