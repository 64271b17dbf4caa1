// Package failure is the table of what the package API answers when something
// cannot be done: types, statuses and messages as DC/OS has them, and a few of
// ours.
package failure

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// Error is an answer that is no success.
type Error struct {
	Type    string
	Status  int
	Message string
	Data    map[string]any // nil: none
}

func (e *Error) Error() string { return e.Message }

// With returns e with one more entry of data.
func (e *Error) With(key string, value any) *Error {
	if e.Data == nil {
		e.Data = map[string]any{}
	}
	e.Data[key] = value
	return e
}

// Suggest adds names that may have been meant, to people and to programs.
func (e *Error) Suggest(names []string) *Error {
	if len(names) == 0 {
		return e
	}
	e.Message += ". Did you mean " + strings.Join(names, " or ") + "?"
	return e.With("suggestions", names)
}

func bad(kind, format string, args ...any) *Error {
	return &Error{Type: kind, Status: http.StatusBadRequest, Message: fmt.Sprintf(format, args...)}
}

// Requests that cannot be read.

// NotValid is a header with the wrong media type.
func NotValid(header, got string, want []string) *Error {
	return bad("not_valid", "Item header '%s' deemed invalid by rule: Media type was [%s] but should be one of [%s]", header, got, strings.Join(want, ", ")).
		With("invalidItem", map[string]string{"type": "header", "name": header}).With("specified", got).With("available", want)
}

// NotPresent is a header that is missing.
func NotPresent(header string) *Error {
	return bad("not_present", "Item header '%s' not present but required", header)
}

// JSON is a body that is no JSON (stage "parse"), or not of the right form
// ("decode"), at path.
func JSON(stage, reason, path string) *Error {
	return bad("json_error", "Item body is not what is asked for: %s", reason).
		With("type", stage).With("reason", reason).With("path", path)
}

// Multiple are several problems of one request.
func Multiple(all []*Error) *Error {
	var messages []string
	var list []map[string]any
	for _, e := range all {
		messages = append(messages, e.Message)
		one := map[string]any{"type": e.Type, "message": e.Message}
		if e.Data != nil {
			one["data"] = e.Data
		}
		list = append(list, one)
	}
	return bad("multiple_errors", "Multiple errors while processing request: %s", strings.Join(messages, "; ")).With("errors", list)
}

// TooLarge is a body of more than limit bytes.
func TooLarge(limit int64) *Error {
	return &Error{Type: "json_error", Status: http.StatusRequestEntityTooLarge, Message: fmt.Sprintf("The request is longer than %d bytes", limit)}
}

// Unhandled is what nobody thought of.
func Unhandled(err error) *Error {
	return &Error{Type: "unhandled_exception", Status: http.StatusInternalServerError, Message: err.Error()}
}

// ServiceUnavailable is a part of the cluster that does not answer.
func ServiceUnavailable(name string, err error) *Error {
	return (&Error{Type: "ServiceUnavailable", Status: http.StatusServiceUnavailable, Message: "Service is not available [" + name + "]: " + err.Error()}).
		With("serviceName", name)
}

// Packages.

// PackageNotFound is a name that no repository has.
func PackageNotFound(name string) *Error {
	return bad("PackageNotFound", "Package [%s] not found", name).With("packageName", name)
}

// VersionNotFound is a version that no repository has of a package.
func VersionNotFound(name, version string) *Error {
	return bad("VersionNotFound", "Version [%s] of package [%s] not found", version, name).
		With("packageName", name).With("packageVersion", version)
}

// ProfileNotFound is ours: a package has no profile of that name.
func ProfileNotFound(name, profile string, have []string) *Error {
	message := "it has none"
	if len(have) > 0 {
		message = "it has " + strings.Join(have, ", ")
	}
	return bad("ProfileNotFound", "Package [%s] has no profile [%s]: %s", name, profile, message).
		With("packageName", name).With("profiles", have)
}

// NotImplemented is a wish the API has room for and nobody grants.
func NotImplemented(message string) *Error { return bad("NotImplemented", "%s", message) }

// NoV2Description is a package that the second version of a description cannot
// express.
func NoV2Description(major int) *Error {
	return bad("ConversionFromPackageToV2DescribeResponse", "A v%d package cannot be converted into a v2 DescribeResponse", major)
}

// Options and rendering.

// JSONSchemaMismatch are options that are wrong; reports says how.
func JSONSchemaMismatch(reports any) *Error {
	return bad("JsonSchemaMismatch", "Options JSON failed validation").With("errors", reports)
}

// OptionsNotAllowed are options for a package that has none.
func OptionsNotAllowed() *Error {
	return bad("OptionsNotAllowed", "No schema available to validate the provided options")
}

// OptionsNotStored is an app that does not say what it was installed with.
func OptionsNotStored() *Error {
	return bad("OptionsNotStored", "The options of the current service were not stored")
}

// TemplateNotFound is a package with nothing to run.
func TemplateNotFound(name, version string) *Error {
	return bad("ServiceMarathonTemplateNotFound", "Package: [%s] version: [%s] does not have a Marathon template defined and can not be rendered", name, version).
		With("packageName", name).With("packageVersion", version)
}

// TemplateMustBeObject is a template that renders to JSON, but to no object.
func TemplateMustBeObject() *Error {
	return bad("MarathonTemplateMustBeJsonObject", "Rendered Marathon JSON must be a JSON object")
}

// JSONParsing is a template that renders to no JSON, or cannot be rendered.
func JSONParsing(name, version, reason string) *Error {
	return bad("JsonParsingError", "The template of package [%s] version [%s] does not render to JSON: %s", name, version, reason).
		With("parsingError", reason)
}

// ServiceSpecInvalid is ours: a template that renders to no specification of a
// service.
func ServiceSpecInvalid(name, version string, problems any, reason string) *Error {
	return bad("ServiceSpecInvalid", "The service of package [%s] version [%s] is not well described: %s", name, version, reason).
		With("errors", problems)
}

// Installing.

// AlreadyInstalled is an app or a service that is there.
func AlreadyInstalled(appID string) *Error {
	return (&Error{Type: "PackageAlreadyInstalled", Status: http.StatusConflict, Message: "Package is already installed"}).With("appId", appID)
}

// ImagesMissing is ours: images that the registry of the cluster has not.
func ImagesMissing(name string, images []string) *Error {
	return bad("ImagesMissing", "Package [%s] needs images that the registry of the cluster does not have: %s. Install from a bundle that has the package, or push them", name, strings.Join(images, ", ")).
		With("images", images)
}

// ServiceRefused is ours: what the operator says of a service that cannot be as
// asked. Problems are all of them.
func ServiceRefused(status int, message string, problems json.RawMessage) *Error {
	e := &Error{Type: "ServiceRefused", Status: status, Message: message}
	if problems != nil {
		e.With("errors", problems)
	}
	return e
}

// NotInstalled is a package without an installation.
func NotInstalled(name string) *Error {
	return bad("PackageNotInstalled", "Package [%s] is not installed", name).With("packageName", name)
}

// NoSuchApp is a package without an installation of that id.
func NoSuchApp(name, appID string) *Error {
	return bad("UninstallNonExistentAppForPackage", "Package [%s] with id [%s] is not installed", name, appID).
		With("packageName", name).With("appId", appID)
}

// AmbiguousAppID are several installations where one is meant.
func AmbiguousAppID(name string, ids []string) *Error {
	return bad("AmbiguousAppId", "Multiple apps named [%s] are installed: [%s]", name, strings.Join(ids, ", ")).
		With("packageName", name).With("appIds", ids)
}

// MultipleFrameworkIDs are several frameworks where one is meant; the app is
// removed.
func MultipleFrameworkIDs(name, version, framework string, ids []string) *Error {
	return bad("MultipleFrameworkIds", "Uninstalled package [%s] version [%s]\nUnable to shutdown [%s] service framework with name [%s] because there are multiple framework ids matching this name: [%s]", name, version, name, framework, strings.Join(ids, ", ")).
		With("packageName", name).With("packageVersion", version).With("frameworkName", framework).With("ids", ids)
}

// IncompleteUninstall is an app that is removed while its framework is not.
func IncompleteUninstall(name string) *Error {
	return (&Error{Type: "IncompleteUninstall", Status: http.StatusServiceUnavailable, Message: "Incomplete uninstall of package [" + name + "] due to Mesos unavailability"}).
		With("packageName", name)
}

// FailedToStartUninstall is a service that does not take the order to uninstall
// itself.
func FailedToStartUninstall(appID, why string) *Error {
	return bad("FailedToStartUninstall", "Failed to start the uninstall of [%s]: %s", appID, why).With("appId", appID)
}

// Updating.

// MarathonAppNotFound is an app that is not there.
func MarathonAppNotFound(appID string) *Error {
	return bad("MarathonAppNotFound", "Unable to locate service with marathon appId: '%s'", appID).With("appId", appID)
}

// NotAPackage is an app that no package was installed as.
func NotAPackage(appID string) *Error {
	return bad("AppNotInstalledByPackage", "App [%s] was not installed from a package, or does not say so", appID).With("appId", appID)
}

// AppIDChanged are options that would move an app elsewhere.
func AppIDChanged(now, wanted string) *Error {
	return bad("AppIdChanged", "The new appId %s must be equal to the old appId %s", wanted, now).
		With("oldAppId", now).With("newAppId", wanted)
}

// BadVersionUpdate is a version that cannot follow the present one.
func BadVersionUpdate(name, from, to string, valid []string) *Error {
	return bad("BadVersionUpdate", "Package [%s] can not be updated from version [%s] to version [%s]. Valid versions: [%s]", name, from, to, strings.Join(valid, ", ")).
		With("currentVersion", from).With("updateVersion", to).With("validVersions", valid)
}

// Repositories.

// RepositoryAlreadyPresent is a name or a URI that is taken.
func RepositoryAlreadyPresent(what, value string) *Error {
	return bad("RepositoryAlreadyPresent", "Repository %s [%s] is already present in the list", what, value).With(what, value)
}

// RepositoryNotPresent is a repository that is not in the list.
func RepositoryNotPresent(name, uri string) *Error {
	e := bad("RepositoryNotPresent", "Repository is not present in the list")
	switch {
	case name != "" && uri != "":
		e.Message = fmt.Sprintf("Repository with name [%s] and URI [%s] is not present in the list", name, uri)
	case name != "":
		e.Message = fmt.Sprintf("Repository name [%s] is not present in the list", name)
	case uri != "":
		e.Message = fmt.Sprintf("Repository URI [%s] is not present in the list", uri)
	}
	return e.With("name", name).With("uri", uri)
}

// RepositoryURISyntax is a URI that is none.
func RepositoryURISyntax(name, uri, cause string) *Error {
	return bad("RepositoryUriSyntax", "URI for repository [%s] has invalid syntax: [%s]", name, uri).With("cause", cause)
}

// RepositoryURIConnection is a repository that cannot be read.
func RepositoryURIConnection(name, uri, cause string) *Error {
	return bad("RepositoryUriConnection", "Could not access data at URI for repository [%s]: [%s]: %s", name, uri, cause).With("cause", cause)
}

// UnsupportedContentType is a repository of a type that is none.
func UnsupportedContentType(name, uri, cause string) *Error {
	return bad("UnsupportedContentType", "Repository [%s] at [%s]: %s", name, uri, cause).With("cause", cause)
}

// RepositoryInvalid is ours: a repository whose content cannot be taken.
func RepositoryInvalid(name, uri, cause string) *Error {
	return bad("RepositoryInvalid", "The content of repository [%s] at [%s] is refused: %s", name, uri, cause).With("cause", cause)
}

// UnsupportedRepositoryURI is a URI of a scheme that nobody fetches.
func UnsupportedRepositoryURI(uri string) *Error {
	return bad("UnsupportedRepositoryUri", "Repository URI [%s] uses an unsupported scheme. Only http, https and file are supported", uri).With("uri", uri)
}

// AddIndexOutOfBounds is a place beyond the list.
func AddIndexOutOfBounds(index, most int) *Error {
	return bad("RepositoryAddIndexOutOfBounds", "Index (%d) is out of range. Index value must be between 0 and %d inclusive.", index, most).
		With("attempted", index).With("max", most)
}

// RepoNameOrURIMissing is a deletion of nothing.
func RepoNameOrURIMissing() *Error {
	return bad("RepoNameOrUriMissing", "Must specify either the name or URI of the repository")
}

// ConcurrentAccess is a list that others keep changing.
func ConcurrentAccess() *Error {
	return bad("ConcurrentAccess", "Retry operation. Operation didn't complete due to concurrent access.")
}

// ResourceNotFound is a URL that no package names.
func ResourceNotFound(url string) *Error {
	return &Error{Type: "ResourceNotFound", Status: http.StatusNotFound, Message: "No package names a resource [" + url + "]"}
}

// Marathon.

// MarathonBadResponse is a request that the orchestrator refuses, with its
// answer.
func MarathonBadResponse(status int, answer any) *Error {
	return bad("MarathonBadResponse", "Received response status code %d from Marathon%s", status, said(answer)).With("marathonError", answer)
}

// MarathonFailed is a request that the orchestrator does not get done.
func MarathonFailed(status int) *Error {
	if status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout {
		return &Error{Type: "MarathonBadGateway", Status: http.StatusBadGateway, Message: fmt.Sprintf("Received response status code %d from Marathon", status)}
	}
	return &Error{Type: "MarathonGenericError", Status: http.StatusInternalServerError, Message: fmt.Sprintf("Received response status code %d from Marathon", status)}
}

func said(answer any) string {
	m, _ := answer.(map[string]any)
	text, _ := m["message"].(string)
	if text == "" {
		return ""
	}
	if details, ok := m["details"].([]any); ok {
		for _, d := range details {
			d, _ := d.(map[string]any)
			if errors, ok := d["errors"].([]any); ok {
				text += fmt.Sprintf("; %v: %v", d["path"], errors)
			}
		}
	}
	return ": " + text
}
