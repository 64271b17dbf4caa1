package bootstrap

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"maps"
	"slices"

	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
)

// recordPath is where the record lies on the host.
const recordPath = config.VarDir + "/bootstrap.json"

// record is what was done on a host: enough to go on after any interruption,
// to take back a change, and to leave the host as it was found. It is written
// before what it tells of is done.
type record struct {
	Owner   string                 `json:"owner,omitempty"` // token of the Create that began it
	Digest  string                 `json:"digest"`          // of the release switched to
	Release string                 `json:"release"`         // its name
	Staged  []string               `json:"staged"`          // releases brought here, the newest last
	Files   map[string]writtenFile `json:"files"`
	Units   map[string]string      `json:"units"` // unit → digest of what it was started with
	Order   []string               `json:"order"` // of the units
	// Programs are the digests of the files of the release switched to.
	Programs map[string]string `json:"programs,omitempty"`
	// Made are the directories that were not there before us, those above
	// first; Kept is what was in ours that were.
	Made []string            `json:"made,omitempty"`
	Kept map[string][]string `json:"kept,omitempty"`
	// Changing is the step under way, or the one that failed; "" when all that
	// was begun was verified.
	Changing string `json:"changing,omitempty"`
	// Past is what the host goes back to when a change fails: what was verified
	// last. Only there while a change is under way.
	Past *past `json:"past,omitempty"`

	found bool // on the host
}

type writtenFile struct {
	fingerprint
	Before *host.File `json:"before,omitempty"` // what was there before us, for Delete
}

// past is a host that worked.
type past struct {
	Digest   string                 `json:"digest"`
	Release  string                 `json:"release"`
	Staged   []string               `json:"staged"`
	Files    map[string]host.File   `json:"files"`
	Written  map[string]writtenFile `json:"written"`
	Units    map[string]string      `json:"units"`
	Order    []string               `json:"order"`
	Programs map[string]string      `json:"programs,omitempty"`
	// Well says that it was not only up but part of the cluster.
	Well bool `json:"well"`
}

// fingerprint identifies a file's content and mode, or where a link leads.
type fingerprint struct {
	SHA256 string      `json:"sha256"`
	Mode   fs.FileMode `json:"mode"`
	Link   string      `json:"link,omitempty"`
}

func fingerprintOf(f host.File) fingerprint {
	if f.Link != "" {
		return fingerprint{Link: f.Link}
	}
	sum := sha256.Sum256(f.Data)
	return fingerprint{SHA256: hex.EncodeToString(sum[:]), Mode: f.Mode.Perm()}
}

// seen is the fingerprint of what is on a host.
func seen(e host.Entry) fingerprint {
	if e.Link != "" {
		return fingerprint{Link: e.Link}
	}
	return fingerprint{SHA256: e.SHA256, Mode: e.Mode.Perm()}
}

func (r record) encode() host.File {
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil { // strings and numbers only
		panic("encode record: " + err.Error())
	}
	return host.File{Data: append(b, '\n'), Mode: 0o600}
}

// put is the change that writes the record.
func (r record) put() host.Change { return host.Put(recordPath, r.encode()) }

func decodeRecord(e host.Entry, there bool) (r record, err error) {
	if there {
		if err := json.Unmarshal(e.Data, &r); err != nil {
			return r, fault.New("read "+recordPath, fault.Internal, err)
		}
		r.found = true
	}
	if r.Files == nil {
		r.Files = map[string]writtenFile{}
	}
	if r.Units == nil {
		r.Units = map[string]string{}
	}
	return r, nil
}

func loadRecord(ctx context.Context, h host.Host) (record, error) {
	v, err := h.Look(ctx, host.Query{Content: []string{recordPath}})
	if err != nil {
		return record{}, err
	}
	e, ok := v.Files[recordPath]
	return decodeRecord(e, ok)
}

// snapshot is the host as the record has it, with the files that it has.
func (r record) snapshot(have map[string]host.Entry, well bool) *past {
	p := &past{Digest: r.Digest, Release: r.Release, Staged: slices.Clone(r.Staged), Units: maps.Clone(r.Units),
		Order: slices.Clone(r.Order), Programs: r.Programs, Files: map[string]host.File{}, Written: maps.Clone(r.Files), Well: well}
	for path := range r.Files {
		if e, ok := have[path]; ok {
			p.Files[path] = e.File
		}
	}
	return p
}
