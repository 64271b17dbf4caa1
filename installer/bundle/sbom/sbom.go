// Package sbom writes the bill of materials of a release, in CycloneDX: its
// programs with the Go modules in them, the packages that C parts come from,
// and its images. The same release gives the same bytes: there is no time in
// it, and its serial number is made of its content.
package sbom

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"fmt"
	"io"
	"net/url"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/google/uuid"

	"dcos.example/dcos/runtime/fault"
)

// File is where the bill of materials lies in a release.
const File = "sbom.cdx.json"

// specVersion is that of CycloneDX.
const specVersion = cdx.SpecVersion1_6

// Document is a bill of materials in the making.
type Document struct {
	version string
	parts   map[string]cdx.Component // by reference
	needs   map[string][]string      // reference → references
}

// root is the reference of the release itself.
const root = "dcos"

// New begins the bill of a release.
func New(version string) *Document {
	return &Document{version: version, parts: map[string]cdx.Component{}, needs: map[string][]string{}}
}

// Package is what the C parts of a program come from.
type Package struct {
	Name, Version string
	URL           string // package URL, https://github.com/package-url
}

// Program adds the Go program in file, which lies at path in the release. Name
// and version are those that people know it by; linked are packages whose code
// is in it besides Go modules.
func (d *Document) Program(path, file, name, version string, linked ...Package) error {
	op := "describe program " + path
	info, err := buildinfo.ReadFile(file)
	if err != nil {
		return fault.New(op, fault.Invalid, err)
	}
	sum, err := digest(file)
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	ref := "file:" + path
	d.put(cdx.Component{
		BOMRef: ref, Type: cdx.ComponentTypeApplication, Name: name, Version: version,
		Hashes:     &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: sum}},
		Properties: &[]cdx.Property{{Name: "dcos:path", Value: path}},
	})
	d.need(root, ref)
	d.need(ref, d.module("stdlib", strings.TrimPrefix(info.GoVersion, "go")))
	for _, m := range append(info.Deps, &info.Main) {
		for m.Replace != nil {
			m = m.Replace
		}
		if ours(m) {
			continue
		}
		d.need(ref, d.module(m.Path, m.Version))
	}
	for _, p := range linked {
		d.put(cdx.Component{BOMRef: p.URL, Type: cdx.ComponentTypeLibrary, Name: p.Name, Version: p.Version, PackageURL: p.URL})
		d.need(ref, p.URL)
	}
	return nil
}

// ours is this project's module, which has no version of its own.
func ours(m *debug.Module) bool { return m.Path == "" || strings.HasPrefix(m.Path, "dcos.example/") }

func (d *Document) module(path, version string) string {
	u := "pkg:golang/" + strings.ToLower(path)
	if version != "" && version != "(devel)" {
		u += "@" + strings.ReplaceAll(url.PathEscape(version), "+", "%2B")
	}
	d.put(cdx.Component{BOMRef: u, Type: cdx.ComponentTypeLibrary, Name: path, Version: version, PackageURL: u})
	return u
}

// Image adds a container image, by its name, with its archive's path in the
// release and SHA-256.
func (d *Document) Image(name, path, sha256 string) {
	ref := "image:" + name
	d.put(cdx.Component{
		BOMRef: ref, Type: cdx.ComponentTypeContainer, Name: name,
		Hashes:     &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: sha256}},
		Properties: &[]cdx.Property{{Name: "dcos:path", Value: path}},
	})
	d.need(root, ref)
}

// Package adds a package that can be installed on the cluster, described in
// the file at path, with the images that it runs, which were added before.
func (d *Document) Package(name, version, path string, images []string) {
	ref := "package:" + name + "@" + version
	d.put(cdx.Component{
		BOMRef: ref, Type: cdx.ComponentTypeApplication, Name: name, Version: version,
		Properties: &[]cdx.Property{{Name: "dcos:path", Value: path}},
	})
	d.need(root, ref)
	for _, i := range images {
		d.need(ref, "image:"+i)
	}
}

// Drop removes everything whose path begins so.
func (d *Document) Drop(path string) {
	for ref, c := range d.parts {
		if c.Properties == nil || !slices.ContainsFunc(*c.Properties, func(p cdx.Property) bool { return p.Name == "dcos:path" && strings.HasPrefix(p.Value, path) }) {
			continue
		}
		delete(d.parts, ref)
		delete(d.needs, ref)
		for r, needs := range d.needs {
			d.needs[r] = slices.DeleteFunc(needs, func(n string) bool { return n == ref })
		}
	}
}

func (d *Document) put(c cdx.Component) { d.parts[c.BOMRef] = c }

func (d *Document) need(ref, other string) {
	if !slices.Contains(d.needs[ref], other) {
		d.needs[ref] = append(d.needs[ref], other)
	}
}

func digest(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), err
}

// Write writes the bill to w as JSON.
func (d *Document) Write(w io.Writer) error {
	const op = "write bill of materials"
	bom := cdx.NewBOM()
	bom.Metadata = &cdx.Metadata{Component: &cdx.Component{BOMRef: root, Type: cdx.ComponentTypePlatform, Name: "dcos", Version: d.version}}
	parts := []cdx.Component{}
	for _, c := range d.parts {
		parts = append(parts, c)
	}
	slices.SortFunc(parts, func(a, b cdx.Component) int { return cmp.Compare(a.BOMRef, b.BOMRef) })
	bom.Components = &parts
	deps := []cdx.Dependency{}
	for ref, needs := range d.needs {
		slices.Sort(needs)
		deps = append(deps, cdx.Dependency{Ref: ref, Dependencies: &needs})
	}
	slices.SortFunc(deps, func(a, b cdx.Dependency) int { return cmp.Compare(a.Ref, b.Ref) })
	bom.Dependencies = &deps
	text, err := encode(bom)
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	bom.SerialNumber = "urn:uuid:" + uuid.NewSHA1(uuid.NameSpaceOID, text).String()
	if text, err = encode(bom); err != nil {
		return fault.New(op, fault.Internal, err)
	}
	if _, err := w.Write(text); err != nil {
		return fault.New(op, fault.Internal, err)
	}
	return nil
}

func encode(bom *cdx.BOM) ([]byte, error) {
	var b bytes.Buffer
	e := cdx.NewBOMEncoder(&b, cdx.BOMFileFormatJSON)
	e.SetPretty(true)
	err := e.EncodeVersion(bom, specVersion)
	return b.Bytes(), err
}

// Read reads a bill that Write wrote.
func Read(r io.Reader) (*Document, error) {
	const op = "read bill of materials"
	var bom cdx.BOM
	if err := cdx.NewBOMDecoder(r, cdx.BOMFileFormatJSON).Decode(&bom); err != nil {
		return nil, fault.New(op, fault.Invalid, err)
	}
	if bom.Metadata == nil || bom.Metadata.Component == nil || bom.Metadata.Component.BOMRef != root {
		return nil, fault.New(op, fault.Invalid, fmt.Errorf("it is not that of a release"))
	}
	d := New(bom.Metadata.Component.Version)
	if bom.Components != nil {
		for _, c := range *bom.Components {
			d.put(c)
		}
	}
	if bom.Dependencies != nil {
		for _, dep := range *bom.Dependencies {
			if dep.Dependencies != nil {
				d.needs[dep.Ref] = *dep.Dependencies
			}
		}
	}
	return d, nil
}
