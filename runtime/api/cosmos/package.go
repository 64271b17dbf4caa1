// Package cosmos has the wire types of the package API of DC/OS (Cosmos) and of
// package repositories, under the names they have there, with the exact media
// types. What is ours beyond them says so.
package cosmos

import "encoding/json"

// Package is one revision of a package as repositories of version 3 to 5 have
// it. Resource and Config stay as they were written; see Resource.
type Package struct {
	PackagingVersion string   `json:"packagingVersion"` // 2.0, 3.0, 4.0 or 5.0
	Name             string   `json:"name"`
	Version          string   `json:"version"`
	ReleaseVersion   *int64   `json:"releaseVersion,omitempty"` // grows with every revision of a name
	Maintainer       string   `json:"maintainer"`
	Description      string   `json:"description"`
	Tags             []string `json:"tags"`

	Selected              *bool     `json:"selected,omitempty"`
	Framework             *bool     `json:"framework,omitempty"`
	SCM                   string    `json:"scm,omitempty"`
	Website               string    `json:"website,omitempty"`
	PreInstallNotes       string    `json:"preInstallNotes,omitempty"`
	PostInstallNotes      string    `json:"postInstallNotes,omitempty"`
	PostUninstallNotes    string    `json:"postUninstallNotes,omitempty"`
	Licenses              []License `json:"licenses,omitempty"`
	MinDcosReleaseVersion string    `json:"minDcosReleaseVersion,omitempty"` // from 3.0
	UpgradesFrom          []string  `json:"upgradesFrom,omitempty"`          // from 4.0; "*" is all
	DowngradesTo          []string  `json:"downgradesTo,omitempty"`          // from 4.0; "*" is all
	LastUpdated           int64     `json:"lastUpdated,omitempty"`           // seconds since 1970
	HasKnownIssues        *bool     `json:"hasKnownIssues,omitempty"`
	Manager               *Manager  `json:"manager,omitempty"` // 5.0

	Resource json.RawMessage `json:"resource,omitempty"`
	Config   json.RawMessage `json:"config,omitempty"`  // a JSON Schema of draft 4
	Command  *Command        `json:"command,omitempty"` // up to 3.0
	Marathon *Marathon       `json:"marathon,omitempty"`

	// Service is ours: the package is a service of the operator.
	Service *Service `json:"service,omitempty"`
	// Profiles are ours: sets of options by name, for example "small".
	Profiles map[string]json.RawMessage `json:"profiles,omitempty"`
}

// License names a licence.
type License struct {
	Name string `json:"name"`
	URL  string `json:"url"`
}

// Manager is the package that manages services of this one.
type Manager struct {
	PackageName       string `json:"packageName"`
	MinPackageVersion string `json:"minPackageVersion,omitempty"`
}

// Command names Python packages with a subcommand for the CLI.
type Command struct {
	Pip []string `json:"pip"`
}

// Marathon is the template of an app, base64.
type Marathon struct {
	V2AppMustacheTemplate []byte `json:"v2AppMustacheTemplate"`
}

// Service is ours: service.yaml.mustache, and the templates of its tasks'
// configuration files by name, all base64.
type Service struct {
	Template  []byte            `json:"template"`
	Templates map[string][]byte `json:"templates,omitempty"`
}

// Resource is resource.json.
type Resource struct {
	Assets *Assets `json:"assets,omitempty"`
	Images *Images `json:"images,omitempty"`
	CLI    *CLI    `json:"cli,omitempty"` // from 3.0
}

// Assets are what an app is made of: files by their URLs, images by their
// names, each under a key that the template uses.
type Assets struct {
	URIs      map[string]string `json:"uris,omitempty"`
	Container *Container        `json:"container,omitempty"`
}

// Container has images by key.
type Container struct {
	Docker map[string]string `json:"docker,omitempty"`
}

// Images are a package's pictures, by their URLs.
type Images struct {
	IconSmall   string   `json:"icon-small,omitempty"`
	IconMedium  string   `json:"icon-medium,omitempty"`
	IconLarge   string   `json:"icon-large,omitempty"`
	Screenshots []string `json:"screenshots,omitempty"`
}

// CLI has the programs of a subcommand: by operating system (linux, darwin,
// windows), then by architecture (x86-64).
type CLI struct {
	Binaries map[string]map[string]Binary `json:"binaries"`
}

// Binary is one program of a subcommand.
type Binary struct {
	Kind        string `json:"kind"` // executable or zip
	URL         string `json:"url"`
	ContentHash []Hash `json:"contentHash"`
}

// Hash is a checksum in hexadecimal digits.
type Hash struct {
	Algo  string `json:"algo"` // sha256
	Value string `json:"value"`
}

// Repository is a place that packages come from.
type Repository struct {
	Name string `json:"name"`
	URI  string `json:"uri"`
}

// Error is the body of every error.
type Error struct {
	Type    string `json:"type"`
	Message string `json:"message"`
	Data    any    `json:"data,omitempty"`
}
