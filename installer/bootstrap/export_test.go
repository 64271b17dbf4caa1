package bootstrap

import (
	"fmt"

	"dcos.example/dcos/installer/host"
)

// For tests of the pure decisions.
var (
	Judge      = judge
	RecordPath = recordPath
)

// Wanted is what a host is to have.
type Wanted struct {
	Programs map[string]string // of the release: path → digest
	Files    map[string]host.File
	Units    []string
}

func (w Wanted) node() node {
	return node{digest: fmt.Sprint(w.Programs), files: w.Files, units: w.Units}
}

// Restarts returns the units that go from before, installed whole and running,
// to after restarts.
func Restarts(before, after Wanted) []string {
	r := record{Digest: before.node().digest, Files: map[string]writtenFile{}, Units: map[string]string{}, Order: before.Units}
	active := map[string]bool{}
	for p, f := range before.Files {
		r.Files[p] = writtenFile{fingerprint: fingerprintOf(f)}
	}
	for _, u := range before.Units {
		r.Units[u] = unitDigest(before.node(), u, before.Programs)
		active[u] = true
	}
	have := map[string]host.Entry{}
	for p := range after.Files {
		if f, ok := before.Files[p]; ok {
			have[p] = host.Entry{File: f, SHA256: fingerprintOf(f).SHA256}
		}
	}
	return diff(after.node(), r, have, before.node().digest, after.Programs, active).start
}
