package view

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"dcos.example/dcos/runtime/backup/archive"
)

// Backup is a backup that was made or fetched.
type Backup struct {
	archive.Entry
	Made bool   `json:"made"`           // by this command
	File string `json:"file,omitempty"` // where it was written to
	// Checked says that the written file was opened and everything in it found
	// to be what the manifest says.
	Checked    bool `json:"checked"`
	Passphrase bool `json:"passphrase,omitempty"` // what the file is encrypted with
}

func (Backup) Kind() string { return "backup" }

// WriteText tells what there is and what it is worth.
func (d Backup) WriteText(p *Printer) {
	if d.Made {
		p.Printf("Backup %s: %d keys at revision %d, %s, of release %s.\n", d.ID, d.Store.Keys, d.Store.Revision, size(d.Size), d.Release)
		p.Printf("Verified in the cluster: a member started from it holds the same (%d ms).\n", d.Verified.TookMS)
	}
	if len(d.Copies) > 0 {
		p.Printf("Kept on %s.\n", strings.Join(d.Copies, ", "))
	}
	if d.File == "" {
		return
	}
	how := "for the key of the cluster; dcos-install backup key shows it. Keep the key apart from the file"
	if d.Passphrase {
		how = "with the passphrase"
	}
	p.Printf("Written to %s, encrypted %s.\n", d.File, how)
	if d.Checked {
		p.Printf("Checked: it opens, and all in it is as written.\n")
	}
}

// Backups are those that there are.
type Backups struct {
	Cluster string          `json:"cluster"`
	Where   string          `json:"where"`
	Every   string          `json:"every,omitempty"`
	Keep    int             `json:"keep"`
	Last    *LastBackup     `json:"last,omitempty"`
	Next    *time.Time      `json:"next,omitempty"`
	Backups []archive.Entry `json:"backups"`
	Silent  []string        `json:"silent,omitempty"`
}

// LastBackup is how the last try went.
type LastBackup struct {
	At    time.Time `json:"at"`
	ID    string    `json:"id,omitempty"`
	Error string    `json:"error,omitempty"`
	TookS float64   `json:"took_s"`
	Asked bool      `json:"asked,omitempty"`
}

func (Backups) Kind() string { return "backups" }

// WriteText lists them, the newest first.
func (d Backups) WriteText(p *Printer) {
	if d.Every == "" {
		p.Printf("No schedule: a backup is made when asked for. The last %d are kept in %s.\n", d.Keep, d.Where)
	} else {
		p.Printf("One every %s; the last %d are kept in %s.\n", d.Every, d.Keep, d.Where)
	}
	if d.Last != nil && d.Last.Error != "" {
		p.Printf("%s at %s: %s\n", p.paint(red, "The last one failed"), d.Last.At.Local().Format(time.DateTime), d.Last.Error)
	}
	if d.Next != nil {
		p.Printf("The next is due at %s.\n", d.Next.Local().Format(time.DateTime))
	}
	if len(d.Silent) > 0 {
		p.Printf("%s did not say what they have.\n", strings.Join(d.Silent, ", "))
	}
	if len(d.Backups) == 0 {
		p.Printf("There is none yet.\n")
		return
	}
	rows := [][]string{{"ID", "MADE", "SIZE", "KEYS", "RELEASE", "VERIFIED", "ON"}}
	for _, b := range d.Backups {
		verified := "no"
		if !b.Verified.At.IsZero() {
			verified = "yes"
		}
		on := strings.Join(b.Copies, ",")
		if on == "" {
			on = "-"
		}
		rows = append(rows, []string{b.ID, b.Created.Local().Format(time.DateTime), size(b.Size), fmt.Sprint(b.Store.Keys), b.Release, verified, on})
	}
	p.Printf("\n")
	p.table("", rows)
}

// line is what status says of backups.
func (d Backups) line(p *Printer) {
	switch {
	case d.Last != nil && d.Last.Error != "":
		p.Printf("%s at %s: %s\n", p.paint(red, "Last backup failed"), d.Last.At.Local().Format(time.DateTime), d.Last.Error)
	case len(d.Backups) > 0:
		p.Printf("Last backup: %s, verified, %s\n", d.Backups[0].Created.Local().Format(time.DateTime), size(d.Backups[0].Size))
	default:
		p.Printf("Last backup: none; dcos-install backup makes one\n")
	}
}

func size(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	default:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
}

// Adopted is the state of a cluster that was fetched from it.
type Adopted struct {
	Cluster   string    `json:"cluster"`
	ID        string    `json:"id"`
	Serial    uint64    `json:"serial"`
	By        string    `json:"by"`
	At        time.Time `json:"at"`
	StateDir  string    `json:"stateDir"`
	File      string    `json:"file,omitempty"`      // the cluster's file, written
	Variables string    `json:"variables,omitempty"` // the file of variables, written
	Next      string    `json:"next"`                // the command to go on with
}

func (Adopted) Kind() string { return "adopted" }

// WriteText says where everything is.
func (d Adopted) WriteText(p *Printer) {
	p.Printf("Cluster %s (%s) is in your hands: state number %d, left by %s at %s.\n", d.Cluster, d.ID, d.Serial, d.By, d.At.Local().Format(time.DateTime))
	p.Printf("  state      %s\n", d.StateDir)
	if d.File != "" {
		p.Printf("  file       %s\n", d.File)
	}
	if d.Variables != "" {
		p.Printf("  variables  %s   (holds the sensitive ones: keep it like a password)\n", d.Variables)
	}
	p.Printf("See that it is as it should be: %s\n", d.Next)
}

// SupportBundle is one that was written.
type SupportBundle struct {
	File        string            `json:"file"`
	Hosts       []string          `json:"hosts"`       // that were looked at
	Unreachable map[string]string `json:"unreachable"` // host → why
	Missing     []string          `json:"missing"`     // what could not be had besides
}

func (SupportBundle) Kind() string { return "support-bundle" }

// WriteText tells what is in it.
func (d SupportBundle) WriteText(p *Printer) {
	p.Printf("Wrote %s: %s looked at.\n", d.File, plural(len(d.Hosts), "host"))
	for _, h := range slices.Sorted(maps.Keys(d.Unreachable)) {
		p.Printf("  %s could not be reached: %s\n", h, d.Unreachable[h])
	}
	for _, m := range d.Missing {
		p.Printf("  missing: %s\n", m)
	}
	p.Printf("Keys, tokens and passwords were taken out; look it through before you send it anyway.\n")
}

// Recovery is what recover found, before it does anything.
type Recovery struct {
	Cluster string           `json:"cluster"`
	Masters []RecoveryMaster `json:"masters"` // that can be reached
	Gone    []string         `json:"gone"`
	Chosen  string           `json:"chosen"`
}

// RecoveryMaster is a master that can be reached.
type RecoveryMaster struct {
	Name     string `json:"name"`
	Stage    string `json:"stage"`
	Index    uint64 `json:"index"` // entries of the log that it holds
	Majority bool   `json:"majority"`
	Reason   string `json:"reason,omitempty"`
}

func (Recovery) Kind() string { return "recovery" }

// WriteText tells what there is and what would be done.
func (d Recovery) WriteText(p *Printer) {
	p.Printf("Masters of cluster %s:\n", d.Cluster)
	rows := [][]string{{"NAME", "STATE", "ENTRIES", ""}}
	for _, m := range d.Masters {
		mark := ""
		if m.Name == d.Chosen {
			mark = "to go on with"
		}
		rows = append(rows, []string{m.Name, m.Stage, fmt.Sprint(m.Index), mark})
	}
	for _, g := range d.Gone {
		rows = append(rows, []string{g, "not reached", "-", ""})
	}
	p.table("  ", rows)
}
