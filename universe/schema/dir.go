package schema

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"dcos.example/dcos/runtime/api/cosmos"
)

const maxIcon = 64 << 10

// Assemble makes a package of the files of one revision, by their names as
// package.json, templates/server.properties.mustache. It judges no more than
// whether they can be read; see Check and CheckOwn. With strict, files and keys
// that mean nothing are problems; without, they are left out.
func Assemble(files map[string][]byte, release int64, strict bool) (cosmos.Package, error) {
	var p cosmos.Package
	var all Problems
	if text, ok := files["package.json"]; !ok {
		all.add("package.json", "", "it is missing")
	} else {
		all.read("package.json", text, &p, strict)
	}
	service := func() *cosmos.Service {
		if p.Service == nil {
			p.Service = &cosmos.Service{}
		}
		return p.Service
	}
	p.ReleaseVersion = &release
	p.Resource, p.Config, p.Command, p.Marathon, p.Service = nil, nil, nil, nil, nil
	for _, name := range slices.Sorted(maps.Keys(files)) {
		text := files[name]
		config, isTemplate := strings.CutPrefix(name, "templates/")
		switch {
		case name == "package.json" || name == "icon.svg":
		case name == "config.json":
			p.Config = all.compact(name, text)
		case name == "resource.json":
			p.Resource = all.compact(name, text)
			if strict {
				all.read(name, text, &cosmos.Resource{}, true)
			}
		case name == "command.json":
			p.Command = &cosmos.Command{}
			all.read(name, text, p.Command, strict)
		case name == "marathon.json.mustache":
			p.Marathon = &cosmos.Marathon{V2AppMustacheTemplate: text}
		case name == "service.yaml.mustache":
			service().Template = text
		case isTemplate && strings.HasSuffix(config, ".mustache") && !strings.Contains(config, "/"):
			s := service()
			if s.Templates == nil {
				s.Templates = map[string][]byte{}
			}
			s.Templates[config] = text
		case strict && name != "image.yaml" && name != "image.lock.json" && !strings.HasPrefix(name, "image/"):
			all.add(name, "", "no package has a file of that name")
		}
	}
	if p.Service != nil && p.Service.Template == nil {
		all.add("service.yaml.mustache", "", "it is missing, and there are templates for it")
	}
	if icon, ok := files["icon.svg"]; ok {
		all.icon(&p, icon)
	}
	return p, all.Err()
}

// ReadDir makes a package of a directory with the files of one revision, read
// strictly.
func ReadDir(dir fs.FS, release int64) (cosmos.Package, error) {
	files := map[string][]byte{}
	err := fs.WalkDir(dir, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files[name], err = fs.ReadFile(dir, name)
		return err
	})
	if err != nil {
		return cosmos.Package{}, err
	}
	return Assemble(files, release, true)
}

// read decodes a file into v.
func (p *Problems) read(file string, text []byte, v any, strict bool) {
	if len(text) > maxJSON {
		p.add(file, "", fmt.Sprintf("it is longer than %d bytes", maxJSON))
		return
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if strict {
		d.DisallowUnknownFields()
	}
	err := d.Decode(v)
	if err == nil && d.More() {
		err = errors.New("there is something after the JSON value")
	}
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		p.add(file, wrong.Field, "it is a "+wrong.Value)
	} else if err != nil {
		p.add(file, "", strings.TrimPrefix(err.Error(), "json: "))
	}
}

// compact returns a JSON file without space between its parts.
func (p *Problems) compact(file string, text []byte) json.RawMessage {
	var b bytes.Buffer
	if err := json.Compact(&b, text); err != nil {
		p.add(file, "", err.Error())
		return nil
	}
	return b.Bytes()
}

// icon makes a drawing the package's icon in all sizes, if it has no others. It
// goes along in the package: a cluster may have no way to where it would lie.
func (p *Problems) icon(pkg *cosmos.Package, svg []byte) {
	if len(svg) > maxIcon {
		p.add("icon.svg", "", fmt.Sprintf("it is longer than %d bytes", maxIcon))
		return
	}
	var r cosmos.Resource
	if pkg.Resource != nil {
		if err := json.Unmarshal(pkg.Resource, &r); err != nil {
			return // Check says so
		}
	}
	if r.Images == nil {
		r.Images = &cosmos.Images{}
	}
	url := "data:image/svg+xml;base64," + base64.StdEncoding.EncodeToString(svg)
	for _, size := range []*string{&r.Images.IconSmall, &r.Images.IconMedium, &r.Images.IconLarge} {
		if *size == "" {
			*size = url
		}
	}
	text, err := json.Marshal(r)
	if err != nil {
		p.add("resource.json", "", err.Error())
		return
	}
	pkg.Resource = text
}
