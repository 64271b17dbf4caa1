package cosmos

import "encoding/json"

// SearchRequest asks for packages; without a query, for all. A * in it stands
// for any text, and then the query must match a whole field.
type SearchRequest struct {
	Query string `json:"query,omitempty"`
}

// SearchResponse has the packages found: selected ones first, then by name.
type SearchResponse struct {
	Packages []SearchResult `json:"packages"`
}

// SearchResult is a package with all its versions.
type SearchResult struct {
	Name           string            `json:"name"`
	CurrentVersion string            `json:"currentVersion"`
	Versions       map[string]string `json:"versions"` // release version by version
	Description    string            `json:"description"`
	Framework      bool              `json:"framework"`
	Tags           []string          `json:"tags"`
	Selected       *bool             `json:"selected,omitempty"`
	Images         *Images           `json:"images,omitempty"`
}

// ListRequest asks for what is installed.
type ListRequest struct {
	PackageName string `json:"packageName,omitempty"`
	AppID       string `json:"appId,omitempty"`
}

// ListResponse has what is installed, by package and app.
type ListResponse struct {
	Packages []Installation `json:"packages"`
}

// Installation is an app or service and what it was installed from.
type Installation struct {
	AppID              string             `json:"appId"`
	PackageInformation PackageInformation `json:"packageInformation"`
}

// PackageInformation is the package of an installation, as it then was.
type PackageInformation struct {
	PackageDefinition  json.RawMessage `json:"packageDefinition"`
	ResourceDefinition json.RawMessage `json:"resourceDefinition,omitempty"`
}

// ListVersionsRequest asks for the versions of a package.
type ListVersionsRequest struct {
	PackageName            string `json:"packageName"`
	IncludePackageVersions bool   `json:"includePackageVersions"` // must be true
}

// ListVersionsResponse has release versions by version.
type ListVersionsResponse struct {
	Results map[string]string `json:"results"`
}

// DescribeRequest asks for one revision of a package; without a version, for
// the current one.
type DescribeRequest struct {
	PackageName    string `json:"packageName"`
	PackageVersion string `json:"packageVersion,omitempty"`
}

// DescribeResponse is version 3 of the answer: the package as its repository
// has it.
type DescribeResponse struct {
	Package json.RawMessage `json:"package"`
}

// DescribeResponseV1 is what DC/OS 1.7 answered.
type DescribeResponseV1 struct {
	Package          json.RawMessage `json:"package"`
	MarathonMustache string          `json:"marathonMustache"`
	Command          *Command        `json:"command,omitempty"`
	Config           json.RawMessage `json:"config,omitempty"`
	Resource         json.RawMessage `json:"resource,omitempty"`
}

// RenderRequest asks for the app that an installation would start.
type RenderRequest struct {
	PackageName    string          `json:"packageName"`
	PackageVersion string          `json:"packageVersion,omitempty"`
	Options        json.RawMessage `json:"options,omitempty"`
	AppID          string          `json:"appId,omitempty"`
	Profile        string          `json:"profile,omitempty"` // ours: see Package.Profiles
}

// RenderResponse has the app, or, for a service of the operator, which is ours,
// its specification.
type RenderResponse struct {
	MarathonJSON json.RawMessage `json:"marathonJson,omitempty"`
	ServiceJSON  json.RawMessage `json:"serviceJson,omitempty"` // ours
}

// InstallRequest asks for a package to be installed.
type InstallRequest struct {
	PackageName    string          `json:"packageName"`
	PackageVersion string          `json:"packageVersion,omitempty"`
	Options        json.RawMessage `json:"options,omitempty"`
	AppID          string          `json:"appId,omitempty"`
	ManagerID      string          `json:"managerId,omitempty"`
	Profile        string          `json:"profile,omitempty"` // ours: see Package.Profiles
}

// InstallResponse tells what was installed. Version 1 of it ends with AppID.
// A package with nothing to run has no AppID.
type InstallResponse struct {
	PackageName      string          `json:"packageName"`
	PackageVersion   string          `json:"packageVersion"`
	AppID            string          `json:"appId,omitempty"`
	PostInstallNotes string          `json:"postInstallNotes,omitempty"`
	CLI              json.RawMessage `json:"cli,omitempty"` // a CLI
}

// UninstallRequest asks for installations to be removed.
type UninstallRequest struct {
	PackageName    string `json:"packageName"`
	AppID          string `json:"appId,omitempty"`
	All            bool   `json:"all,omitempty"`
	ManagerID      string `json:"managerId,omitempty"`
	PackageVersion string `json:"packageVersion,omitempty"`
}

// UninstallResponse lists what is removed.
type UninstallResponse struct {
	Results []Uninstalled `json:"results"`
}

// Uninstalled is one removed installation.
type Uninstalled struct {
	PackageName        string `json:"packageName"`
	AppID              string `json:"appId"`
	PackageVersion     string `json:"packageVersion,omitempty"`
	PostUninstallNotes string `json:"postUninstallNotes,omitempty"`
}

// RepositoryAddRequest adds a repository before the one that now has that
// index, or at the end.
type RepositoryAddRequest struct {
	Name  string `json:"name"`
	URI   string `json:"uri"`
	Index *int   `json:"index,omitempty"`
}

// RepositoryDeleteRequest names a repository by its name, its URI, or both.
type RepositoryDeleteRequest struct {
	Name string `json:"name,omitempty"`
	URI  string `json:"uri,omitempty"`
}

// RepositoryResponse has the repositories, the one that is asked first first.
type RepositoryResponse struct {
	Repositories []RepositoryStatus `json:"repositories"`
}

// RepositoryStatus is a repository and, which is ours, how it does.
type RepositoryStatus struct {
	Repository
	// Packages is how many revisions are known from it.
	Packages int `json:"packages,omitempty"`
	// Fetched is when they were, RFC 3339.
	Fetched string `json:"fetched,omitempty"`
	// Error says why it could not be read the last time. What it had before
	// is still offered.
	Error string `json:"error,omitempty"`
}

// ServiceDescribeRequest asks about one installation.
type ServiceDescribeRequest struct {
	AppID          string `json:"appId"`
	PackageName    string `json:"packageName,omitempty"`
	PackageVersion string `json:"packageVersion,omitempty"`
	ManagerID      string `json:"managerId,omitempty"`
}

// ServiceDescribeResponse has the package of an installation, where it may go
// from there, and its options.
type ServiceDescribeResponse struct {
	Package             json.RawMessage `json:"package"`
	UpgradesTo          []string        `json:"upgradesTo"`
	DowngradesTo        []string        `json:"downgradesTo"`
	ResolvedOptions     json.RawMessage `json:"resolvedOptions,omitempty"`
	UserProvidedOptions json.RawMessage `json:"userProvidedOptions,omitempty"`
}

// ServiceUpdateRequest changes the options of an installation, its version, or
// both. With Replace, Options are all there are; without, they are merged into
// those it was installed with.
type ServiceUpdateRequest struct {
	AppID          string          `json:"appId"`
	PackageName    string          `json:"packageName,omitempty"`
	PackageVersion string          `json:"packageVersion,omitempty"`
	Options        json.RawMessage `json:"options,omitempty"`
	Replace        bool            `json:"replace"`
	ManagerID      string          `json:"managerId,omitempty"`
	Profile        string          `json:"profile,omitempty"` // ours: see Package.Profiles
}

// ServiceUpdateResponse tells what an installation is on its way to.
type ServiceUpdateResponse struct {
	Package              json.RawMessage `json:"package"`
	ResolvedOptions      json.RawMessage `json:"resolvedOptions"`
	MarathonDeploymentID string          `json:"marathonDeploymentId"` // empty for a service of the operator
}

// Capabilities is the answer of GET /capabilities.
type Capabilities struct {
	Capabilities []Capability `json:"capabilities"`
}

// Capability is something that the cluster can do.
type Capability struct {
	Name string `json:"name"`
}
