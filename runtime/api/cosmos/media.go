package cosmos

import "strconv"

// Media types of repositories.
const (
	TypeRepository    = "application/vnd.dcos.universe.repo+json"
	TypeRepositoryZip = "application/zip" // version 2
)

// TypeError is the media type of every error.
const TypeError = "application/vnd.dcos.package.error+json;charset=utf-8;version=v1"

// TypeCapabilities is what GET /capabilities answers.
const TypeCapabilities = "application/vnd.dcos.capabilities+json;charset=utf-8;version=v1"

// Call is one path of the API with the media types it takes and answers.
// Accept lists the answers' types, the one for whoever has no preference first.
type Call struct {
	Path    string
	Request string
	Accept  []string
}

// The calls.
var (
	Search           = call("/package/search", "package", "search", "v1")
	List             = call("/package/list", "package", "list", "v1")
	ListVersions     = call("/package/list-versions", "package", "list-versions", "v1")
	Describe         = call("/package/describe", "package", "describe", "v3", "v2", "v1")
	Render           = call("/package/render", "package", "render", "v1")
	Install          = call("/package/install", "package", "install", "v2", "v1")
	Uninstall        = call("/package/uninstall", "package", "uninstall", "v1")
	RepositoryList   = call("/package/repository/list", "package", "repository.list", "v1")
	RepositoryAdd    = call("/package/repository/add", "package", "repository.add", "v1")
	RepositoryDelete = call("/package/repository/delete", "package", "repository.delete", "v1")
	ServiceDescribe  = call("/service/describe", "service", "describe", "v1")
	ServiceUpdate    = call("/service/update", "service", "update", "v1")
)

func call(path, of, name string, versions ...string) Call {
	c := Call{Path: path, Request: "application/vnd.dcos." + of + "." + name + "-request+json;charset=utf-8;version=v1"}
	for _, v := range versions {
		c.Accept = append(c.Accept, "application/vnd.dcos."+of+"."+name+"-response+json;charset=utf-8;version="+v)
	}
	return c
}

// RepositoryType is the media type of a JSON repository of version 3 to 5.
func RepositoryType(version int) string {
	return TypeRepository + ";charset=utf-8;version=v" + strconv.Itoa(version)
}

// PackageType is the media type under which an app keeps the package it was
// installed from; version is the packaging version's first number.
func PackageType(version string) string {
	return "application/vnd.dcos.universe.package+json;charset=utf-8;version=v" + version
}
