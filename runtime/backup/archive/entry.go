package archive

import (
	"regexp"
	"strings"
	"time"
)

// Entry tells of a backup without opening it. It lies beside the file, as
// <id>.json beside <id>.backup, and holds nothing secret.
type Entry struct {
	ID          string    `json:"id"`
	Created     time.Time `json:"created"`
	ClusterID   string    `json:"cluster_id"`
	ClusterName string    `json:"cluster_name"`
	Release     string    `json:"release"`
	Master      string    `json:"master"` // which made it
	Size        int64     `json:"size"`
	SHA256      string    `json:"sha256"` // of the file
	Store       Contents  `json:"store"`
	Agents      int       `json:"agents"`
	// InstallerSerial is the number of the installer's state in it, 0 if there
	// is none.
	InstallerSerial uint64       `json:"installer_serial"`
	Verified        Verification `json:"verified"`
	// Copies are the masters that have it, when it is in a directory of theirs.
	// It is known to who lists, and not stored.
	Copies []string `json:"copies,omitempty"`
}

// Verification says that the written file was opened, its snapshot started as a
// member, and that member found equal to the living store at that revision.
type Verification struct {
	At       time.Time `json:"at"`
	TookMS   int64     `json:"took_ms"`
	Contents Contents  `json:"contents"` // of the scratch member
}

var idRule = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9-]{0,62}-[0-9a-f]{8}-[0-9]{8}T[0-9]{6}Z$`)

// ID names a backup of a cluster made at a time. Names of one cluster sort by
// time.
func ID(clusterName, clusterID string, at time.Time) string {
	return clusterName + "-" + short(clusterID) + "-" + at.UTC().Format("20060102T150405Z")
}

// short is the part of a cluster's id in the names of its backups.
func short(clusterID string) string { return strings.ReplaceAll(clusterID+"00000000", "-", "")[:8] }

// ValidID reports whether id is one that ID makes; others must not become parts
// of paths.
func ValidID(id string) bool { return idRule.MatchString(id) }

// Of reports whether e is a backup of the cluster.
func (e Entry) Of(clusterID string) bool { return e.ClusterID == clusterID && ValidID(e.ID) }

// FileName and EntryName are the names of a backup's two files.
func FileName(id string) string  { return id + ".backup" }
func EntryName(id string) string { return id + ".json" }
