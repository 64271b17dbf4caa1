package schema

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"dcos.example/dcos/runtime/api/cosmos"
	"dcos.example/dcos/runtime/mustache"
)

// Bounds of the parts of a package, in bytes.
const (
	maxTemplate = 1 << 20
	maxJSON     = 2 << 20
	maxText     = 64 << 10
)

var (
	nameForm    = regexp.MustCompile(`^[a-z][a-z0-9-]*[a-z0-9]$`)
	versionForm = regexp.MustCompile(`^[-a-zA-Z0-9.]+$`)
	releaseForm = regexp.MustCompile(`^(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*))*$`)
	tagForm     = regexp.MustCompile(`^\S+$`)
	profileForm = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)
)

// Check judges a package as a repository has it: what must hold for it to be
// listed, described and rendered without surprises. It does not compile the
// config.json, nor render anything; see CheckOwn.
func Check(p *cosmos.Package) error {
	var all Problems
	checkFields(p, &all)
	checkVersions(p, &all)
	for _, part := range []struct {
		file string
		text json.RawMessage
	}{{"resource.json", p.Resource}, {"config.json", p.Config}} {
		if part.text == nil {
			continue
		}
		if len(part.text) > maxJSON {
			all.add(part.file, "", fmt.Sprintf("it is longer than %d bytes", maxJSON))
		} else if v, err := Decode(part.text); err != nil {
			all.add(part.file, "", err.Error())
		} else if _, ok := v.(map[string]any); !ok {
			all.add(part.file, "", "it is no JSON object")
		}
	}
	if p.Resource != nil && len(p.Resource) <= maxJSON {
		var r cosmos.Resource
		if err := json.Unmarshal(p.Resource, &r); err != nil {
			all.add("resource.json", "", err.Error())
		}
	}
	checkTemplates(p, &all)
	for name := range p.Profiles {
		if !profileForm.MatchString(name) {
			all.add("package.json", "profiles", fmt.Sprintf("%q is no name for a profile", name))
		}
	}
	return all.Err()
}

func checkFields(p *cosmos.Package, all *Problems) {
	const file = "package.json"
	if !nameForm.MatchString(p.Name) {
		all.add(file, "name", fmt.Sprintf("%q does not match %s", p.Name, nameForm))
	}
	if !versionForm.MatchString(p.Version) {
		all.add(file, "version", fmt.Sprintf("%q does not match %s", p.Version, versionForm))
	}
	if p.ReleaseVersion == nil {
		all.add(file, "releaseVersion", "it is missing")
	} else if *p.ReleaseVersion < 0 {
		all.add(file, "releaseVersion", "it is below 0")
	}
	if p.Maintainer == "" {
		all.add(file, "maintainer", "it is missing")
	}
	if p.Description == "" {
		all.add(file, "description", "it is missing")
	}
	if p.Tags == nil {
		all.add(file, "tags", "it is missing")
	}
	for _, t := range p.Tags {
		if !tagForm.MatchString(t) {
			all.add(file, "tags", fmt.Sprintf("%q is no tag: it is empty or has a space", t))
		}
	}
	for path, text := range map[string]string{
		"name": p.Name, "version": p.Version, "description": p.Description, "preInstallNotes": p.PreInstallNotes,
		"postInstallNotes": p.PostInstallNotes, "postUninstallNotes": p.PostUninstallNotes,
	} {
		if len(text) > maxText {
			all.add(file, path, fmt.Sprintf("it is longer than %d bytes", maxText))
		}
	}
}

// Major returns the first number of a packaging version that there is, 2 to 5,
// and 0 for any other.
func Major(packagingVersion string) int {
	if n := slices.Index([]string{"2.0", "3.0", "4.0", "5.0"}, packagingVersion); n >= 0 {
		return n + 2
	}
	return 0
}

func checkVersions(p *cosmos.Package, all *Problems) {
	const file = "package.json"
	major := Major(p.PackagingVersion)
	if major == 0 {
		all.add(file, "packagingVersion", fmt.Sprintf("%q is none of 2.0, 3.0, 4.0 and 5.0", p.PackagingVersion))
		return
	}
	for _, f := range []struct {
		name        string
		set         bool
		first, last int
	}{
		{"minDcosReleaseVersion", p.MinDcosReleaseVersion != "", 3, 5},
		{"upgradesFrom", p.UpgradesFrom != nil, 4, 5},
		{"downgradesTo", p.DowngradesTo != nil, 4, 5},
		{"manager", p.Manager != nil, 5, 5},
		{"command", p.Command != nil, 2, 3},
	} {
		if f.set && (major < f.first || major > f.last) {
			all.add(file, f.name, fmt.Sprintf("packaging version %s does not have it", p.PackagingVersion))
		}
	}
	if v := p.MinDcosReleaseVersion; v != "" && !releaseForm.MatchString(v) {
		all.add(file, "minDcosReleaseVersion", fmt.Sprintf("%q does not match %s", v, releaseForm))
	}
	for path, versions := range map[string][]string{"upgradesFrom": p.UpgradesFrom, "downgradesTo": p.DowngradesTo} {
		for _, v := range versions {
			if v != "*" && !versionForm.MatchString(v) {
				all.add(file, path, fmt.Sprintf("%q does not match %s", v, versionForm))
			}
		}
	}
}

func checkTemplates(p *cosmos.Package, all *Problems) {
	if p.Marathon != nil && p.Service != nil {
		all.add("", "", "it has a template of an app and one of a service, and is one of them")
	}
	for _, t := range templates(p) {
		if len(t.text) > maxTemplate {
			all.add(t.file, "", fmt.Sprintf("it is longer than %d bytes", maxTemplate))
		} else if _, err := mustache.Parse(string(t.text)); err != nil {
			all.add(t.file, "", err.Error())
		}
	}
}

type template struct {
	file string
	text []byte
	own  bool // rendered by the catalog, not by the operator
}

func templates(p *cosmos.Package) []template {
	var all []template
	if p.Marathon != nil {
		all = append(all, template{"marathon.json.mustache", p.Marathon.V2AppMustacheTemplate, true})
	}
	if p.Service == nil {
		return all
	}
	all = append(all, template{"service.yaml.mustache", p.Service.Template, true})
	for _, name := range slices.Sorted(maps.Keys(p.Service.Templates)) {
		all = append(all, template{"templates/" + name, p.Service.Templates[name], false})
	}
	return all
}

// CheckOwn judges a package more strictly than Check, as befits one of ours: its
// config.json is a schema that its defaults and each of its profiles satisfy,
// it has a profile "small", and its templates use no option there is not.
func CheckOwn(p *cosmos.Package) error {
	if err := Check(p); err != nil {
		return err
	}
	var all Problems
	if Major(p.PackagingVersion) < 5 {
		all.add("package.json", "packagingVersion", "it is not 5.0")
	}
	config := &Config{doc: map[string]any{}}
	if p.Config != nil {
		c, err := ParseConfig(p.Config)
		if err == nil {
			config, err = c, c.Valid()
		}
		if err != nil {
			return Problems{{"config.json", "", err.Error()}}
		}
		if err := c.Check(c.Defaults()); err != nil {
			all.add("config.json", "", "the defaults: "+err.Error())
		}
		checkProfiles(p, c, &all)
	}
	if runs := p.Marathon != nil || p.Service != nil; runs && p.Profiles["small"] == nil {
		all.add("package.json", "profiles", `there is none called "small"`)
	}
	if p.Config == nil && len(p.Profiles["small"]) > len("{}") {
		all.add("package.json", "profiles", "there are no options without a config.json")
	}
	checkNames(p, config, &all)
	return all.Err()
}

func checkProfiles(p *cosmos.Package, c *Config, all *Problems) {
	for _, name := range slices.Sorted(maps.Keys(p.Profiles)) {
		path := "profiles." + name
		v, err := Decode(p.Profiles[name])
		if err != nil {
			all.add("package.json", path, err.Error())
			continue
		}
		options, ok := v.(map[string]any)
		if !ok {
			all.add("package.json", path, "it is no JSON object")
			continue
		}
		if err := c.Check(Merge(c.Defaults(), options)); err != nil {
			all.add("package.json", path, err.Error())
		}
	}
}

// checkNames looks for what templates name and nobody has. Within a section a
// name may be meant of its value, so that the end of a path will do.
func checkNames(p *cosmos.Package, c *Config, all *Problems) {
	known := map[string]bool{".": true, "asJson": true}
	paths(c.doc, "", known)
	if v, err := Decode(p.Resource); err == nil {
		tree(v, "resource", known)
	}
	for _, t := range templates(p) {
		if !t.own {
			continue
		}
		parsed, err := mustache.Parse(string(t.text))
		if err != nil {
			continue // Check said so
		}
		for _, name := range parsed.Names() {
			if known[name] {
				continue
			}
			if ends := slices.ContainsFunc(slices.Collect(maps.Keys(known)), func(k string) bool { return strings.HasSuffix(k, "."+name) }); !ends {
				message := "{{" + name + "}} is neither an option nor a resource"
				if near := Nearest(name, slices.Sorted(maps.Keys(known))); len(near) > 0 {
					message += "; " + strings.Join(near, " or ") + " is"
				}
				all.add(t.file, "", message)
			}
		}
	}
}

func paths(s map[string]any, prefix string, known map[string]bool) {
	properties, _ := s["properties"].(map[string]any)
	for name, p := range properties {
		known[prefix+name] = true
		if p, ok := p.(map[string]any); ok {
			paths(p, prefix+name+".", known)
		}
	}
}

func tree(v any, at string, known map[string]bool) {
	known[at] = true
	if m, ok := v.(map[string]any); ok {
		for k, e := range m {
			tree(e, at+"."+k, known)
		}
	}
}

// Key is how a package is named to people: "kafka 4.1.0-1 (release 3)".
func Key(p *cosmos.Package) string {
	s := p.Name + " " + p.Version
	if p.ReleaseVersion != nil {
		s += " (release " + strconv.FormatInt(*p.ReleaseVersion, 10) + ")"
	}
	return s
}
