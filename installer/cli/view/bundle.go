package view

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
)

// Bundle is what a release bundle says of itself, and whether to believe it.
type Bundle struct {
	Path       string            `json:"path"`
	Version    string            `json:"version"`
	Release    string            `json:"release"` // the directory's name on hosts
	Digest     string            `json:"digest"`
	Platform   string            `json:"platform,omitempty"`
	Base       string            `json:"base,omitempty"` // release that files were added to
	Files      int               `json:"files"`
	Size       int64             `json:"size"` // bytes, unpacked
	Components map[string]string `json:"components"`
	Formats    map[string]int    `json:"formats"`
	Images     []Image           `json:"images"`
	Packages   []Package         `json:"packages"`
	Signature  *Signature        `json:"signature,omitempty"` // missing: not signed
	Trusted    bool              `json:"trusted"`
	Reason     string            `json:"reason,omitempty"` // why it is not trusted
	// Verified says that every file was read and is as the manifest says.
	Verified bool `json:"verified"`
}

// Image is a container image in a bundle.
type Image struct {
	Name string `json:"name"`
	Path string `json:"path"`
}

// Package is a package in a bundle.
type Package struct {
	Name    string   `json:"name"`
	Version string   `json:"version"`
	Images  []string `json:"images"`
	Size    int64    `json:"size"` // of its images, in bytes
}

// Signature is who signed a bundle.
type Signature struct {
	KeyID     string `json:"keyId"`
	Comment   string `json:"comment"`
	TrustedBy string `json:"trustedBy,omitempty"` // where the key was found
}

func (Bundle) Kind() string { return "bundle" }

func (d Bundle) WriteText(p *Printer) {
	rows := [][]string{
		{"Release", d.Release},
		{"Digest", d.Digest},
		{"Content", fmt.Sprintf("%d files, %s unpacked", d.Files, humanize.IBytes(uint64(d.Size)))},
	}
	row := func(name, text string) {
		if text != "" {
			rows = append(rows, []string{name, text})
		}
	}
	row("Platform", d.Platform)
	row("Made of", d.Base)
	var parts []string
	for _, n := range slices.Sorted(maps.Keys(d.Components)) {
		parts = append(parts, n+" "+d.Components[n])
	}
	row("Components", strings.Join(parts, ", "))
	var formats []string
	for _, n := range slices.Sorted(maps.Keys(d.Formats)) {
		formats = append(formats, fmt.Sprintf("%s %d", n, d.Formats[n]))
	}
	row("Formats", strings.Join(formats, ", "))
	for i, img := range d.Images {
		name := "Images"
		if i > 0 {
			name = ""
		}
		rows = append(rows, []string{name, img.Name})
	}
	for i, pkg := range d.Packages {
		name := "Packages"
		if i > 0 {
			name = ""
		}
		text := pkg.Name + " " + pkg.Version
		if pkg.Size > 0 {
			text += ", " + humanize.IBytes(uint64(pkg.Size))
		}
		rows = append(rows, []string{name, text})
	}
	if s := d.Signature; s != nil {
		row("Signed by", s.KeyID+" ("+s.Comment+")")
	}
	p.Printf("%s\n", p.paint(bold, d.Path))
	p.table("  ", rows)
	switch {
	case !d.Trusted:
		p.Printf("\n%s %s\n", p.paint(yellow, "Not trusted:"), d.Reason)
	case d.Verified:
		p.Printf("\n%s every file is what the key %s has signed.\n", p.paint(green, "Verified:"), d.Signature.TrustedBy)
	default:
		p.Printf("\n%s by key %s. dcos-install bundle verify reads all of it.\n", p.paint(green, "Trusted:"), d.Signature.TrustedBy)
	}
}
