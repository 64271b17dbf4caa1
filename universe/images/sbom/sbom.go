// Package sbom writes the bill of materials of an image, in CycloneDX. The same
// image gives the same bytes: no time is in it.
package sbom

import (
	"bytes"
	"cmp"
	"debug/buildinfo"
	"fmt"
	"net/url"
	"slices"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"

	"dcos.example/dcos/universe/images/lock"
)

// Bill is a bill in the making.
type Bill struct {
	name, version, license string
	parts                  map[string]cdx.Component
}

// New begins the bill of an image.
func New(name, version, license string) *Bill {
	return &Bill{name, version, license, map[string]cdx.Component{}}
}

func (b *Bill) put(group, name, version, purl, sha256 string, properties ...cdx.Property) {
	c := cdx.Component{BOMRef: purl, Type: cdx.ComponentTypeLibrary, Group: group, Name: name, Version: version, PackageURL: purl}
	if sha256 != "" {
		c.Hashes = &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: sha256}}
	}
	if len(properties) > 0 {
		c.Properties = &properties
	}
	b.parts[purl] = c
}

// Deb adds a Debian package. Locked is the version that the lock names, when
// Debian no longer offers it.
func (b *Bill) Deb(d lock.Deb, locked string) {
	var p []cdx.Property
	if locked != "" {
		p = append(p, cdx.Property{Name: "dcos:locked-version", Value: locked})
	}
	b.put("", d.Name, d.Version, fmt.Sprintf("pkg:deb/debian/%s@%s?arch=%s", d.Name, url.QueryEscape(d.Version), d.Arch), d.SHA256, p...)
}

// Jar adds an artifact of Maven's.
func (b *Bill) Jar(j lock.Jar) {
	purl := fmt.Sprintf("pkg:maven/%s/%s@%s?type=%s", j.Group, j.Artifact, j.Version, j.Ext())
	if j.Classifier != "" {
		purl += "&classifier=" + j.Classifier
	}
	b.put(j.Group, j.Artifact, j.Version, purl, j.SHA256)
}

// Wheel adds a Python package.
func (b *Bill) Wheel(w lock.Wheel) {
	b.put("", w.Name, w.Version, fmt.Sprintf("pkg:pypi/%s@%s", strings.ToLower(w.Name), w.Version), w.SHA256)
}

// NPM adds a package of npm's.
func (b *Bill) NPM(name, version string) {
	b.put("", name, version, fmt.Sprintf("pkg:npm/%s@%s", strings.ReplaceAll(name, "@", "%40"), version), "")
}

// Program adds the modules in a Go program.
func (b *Bill) Program(file string) error {
	info, err := buildinfo.ReadFile(file)
	if err != nil {
		return err
	}
	b.put("", "stdlib", strings.TrimPrefix(info.GoVersion, "go"), "pkg:golang/stdlib@"+strings.TrimPrefix(info.GoVersion, "go"), "")
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		b.put("", m.Path, m.Version, "pkg:golang/"+m.Path+"@"+m.Version, "")
	}
	return nil
}

// Bytes returns the bill.
func (b *Bill) Bytes() ([]byte, error) {
	doc := cdx.NewBOM()
	doc.SpecVersion = cdx.SpecVersion1_6
	root := cdx.Component{BOMRef: "image", Type: cdx.ComponentTypeContainer, Name: b.name, Version: b.version}
	if b.license != "" {
		root.Licenses = &cdx.Licenses{{Expression: b.license}}
	}
	doc.Metadata = &cdx.Metadata{Component: &root}
	var parts []cdx.Component
	for _, c := range b.parts {
		parts = append(parts, c)
	}
	slices.SortFunc(parts, func(x, y cdx.Component) int { return cmp.Compare(x.BOMRef, y.BOMRef) })
	doc.Components = &parts
	var out bytes.Buffer
	if err := cdx.NewBOMEncoder(&out, cdx.BOMFileFormatJSON).Encode(doc); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
