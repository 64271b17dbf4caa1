package view

import (
	"strconv"

	"dcos.example/dcos/installer/diag"
)

// Import is what became of a config.yaml of DC/OS.
type Import struct {
	File        string      `json:"file"`
	Written     string      `json:"written,omitempty"` // missing: nothing was written
	Cluster     string      `json:"cluster"`
	Keys        []ImportKey `json:"keys"`
	Diagnostics []diag.JSON `json:"diagnostics"`
}

// ImportKey is what became of one key, or of a file beside config.yaml.
type ImportKey struct {
	Key    string `json:"key"`
	Line   int    `json:"line,omitempty"`
	Value  string `json:"value,omitempty"`
	Status string `json:"status"` // mapped, built in, obsolete, unsupported
	Became string `json:"became,omitempty"`
	Note   string `json:"note,omitempty"`
}

func (Import) Kind() string { return "import" }

// WriteText lists the keys; the findings have been shown with their source.
func (d Import) WriteText(p *Printer) {
	rows := [][]string{{"LINE", "KEY", "STATUS", "BECAME"}}
	count := map[string]int{}
	for _, k := range d.Keys {
		count[k.Status]++
		text := k.Became
		if k.Note != "" {
			if text != "" {
				text += ": "
			}
			text += k.Note
		}
		line := "file"
		if k.Line > 0 {
			line = strconv.Itoa(k.Line)
		}
		rows = append(rows, []string{line, k.Key, k.Status, text})
	}
	p.table("", rows)
	p.Printf("\n%s: %d mapped, %d built in, %d obsolete, %d unsupported\n", plural(len(d.Keys), "key"), count["mapped"], count["built in"], count["obsolete"], count["unsupported"])
	if d.Written != "" {
		p.Printf("Wrote %s. Look at it, then run: dcos-install preflight && dcos-install plan\n", d.Written)
	} else {
		p.Printf("Nothing was written.\n")
	}
}
