// Package route decides where a path below /service/ leads. It is pure: the
// gateway gives it what runs in the cluster and asks for targets.
//
// A path is tried one segment longer at a time, up to ten; the first name that
// resolves wins, as in DC/OS. A name is, in this order, the DCOS_SERVICE_NAME
// label of an app, the id or name of a framework with a web UI, or the name of
// a task that has a port. The API of a service that the operator runs comes
// before them all.
package route

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// maxSegments is how many leading segments of a path are tried.
const maxSegments = 10

// Instance is a running task.
type Instance struct {
	ID       string // orders instances, so that a name leads to the same one while it lives
	TaskName string
	Labels   map[string]string
	Host     string // where Ports are reached
	Ports    []int
}

// Framework is a framework that may have a web UI.
type Framework struct {
	ID, Name, WebUI string
}

// Target is where a request goes.
type Target struct {
	Scheme string // "http" or "https"
	Host   string // "host:port"
	Path   string // with the escapes of the request; starts with "/"
	// Prefix was cut from the path: "/service/name". It is empty when the
	// service wants the path as it is.
	Prefix     string
	Unbuffered bool
}

// Table resolves names. It never changes once made, and a lookup costs the
// length of the path, whatever the size of the cluster.
type Table struct {
	byName map[string]entry
}

type entry struct {
	base       url.URL
	keepPath   bool
	unbuffered bool
}

// New makes a Table and says which labels it could not use; one bad app does
// not hide the others.
func New(instances []Instance, frameworks []Framework) (*Table, []error) {
	t := &Table{byName: make(map[string]entry)}
	instances = slices.SortedFunc(slices.Values(instances), func(a, b Instance) int { return cmp.Compare(a.ID, b.ID) })
	frameworks = slices.SortedFunc(slices.Values(frameworks), func(a, b Framework) int { return cmp.Compare(a.ID, b.ID) })
	var errs []error
	for _, in := range instances {
		name, e, ok, err := labelled(in)
		if err != nil {
			errs = append(errs, fmt.Errorf("task %s: %w", in.ID, err))
		}
		if ok {
			t.add(name, e)
		}
	}
	named := make(map[string]entry)
	for _, f := range frameworks {
		if f.WebUI == "" {
			continue
		}
		base, err := webUI(f.WebUI)
		if err != nil {
			errs = append(errs, fmt.Errorf("framework %s: %w", f.ID, err))
			continue
		}
		t.add(f.ID, entry{base: base})
		if _, taken := named[f.Name]; !taken {
			named[f.Name] = entry{base: base}
		}
	}
	for name, e := range named { // after all ids: an id wins over a name
		t.add(name, e)
	}
	for _, in := range instances {
		if len(in.Ports) > 0 && !strings.Contains(in.TaskName, "/") {
			t.add(in.TaskName, entry{base: url.URL{Scheme: "http", Host: hostPort(in.Host, in.Ports[0])}})
		}
	}
	return t, errs
}

// add keeps the first of a name, and the system's names for the system.
func (t *Table) add(name string, e entry) {
	if _, taken := t.byName[name]; !taken && name != "" && !reserved(name) {
		t.byName[name] = e
	}
}

func reserved(name string) bool { return name == "marathon" || name == "metronome" }

// Resolve returns where the escaped path "/service/…" leads.
func (t *Table) Resolve(escaped string) (Target, bool) {
	rest, ok := strings.CutPrefix(escaped, "/service/")
	if !ok {
		return Target{}, false
	}
	segments := strings.Split(rest, "/")
	for n := 1; n <= min(len(segments), maxSegments); n++ {
		name, err := url.PathUnescape(strings.Join(segments[:n], "/"))
		if err != nil {
			return Target{}, false
		}
		e, ok := t.byName[name]
		if !ok {
			continue
		}
		target := Target{Scheme: e.base.Scheme, Host: e.base.Host, Path: escaped, Unbuffered: e.unbuffered}
		if !e.keepPath {
			target.Prefix = "/service/" + strings.Join(segments[:n], "/")
			target.Path = strings.TrimSuffix(e.base.EscapedPath(), "/") + "/" + strings.Join(segments[n:], "/")
		}
		return target, true
	}
	return Target{}, false
}

// Operated splits the escaped path "/service/<name>/v1/…", or v2, of the API
// of a service that the operator runs: known says which there are. A name may
// hold slashes, plain or escaped; the shortest that is known wins. Other paths
// below its name are no part of that API, and found as those of apps are.
func Operated(escaped string, known func(name string) bool) (name, rest string, ok bool) {
	path, ok := strings.CutPrefix(escaped, "/service/")
	if !ok {
		return "", "", false
	}
	segments := strings.Split(path, "/")
	for n := 1; n < min(len(segments), maxSegments+1); n++ {
		name, err := url.PathUnescape(strings.Join(segments[:n], "/"))
		if err != nil {
			return "", "", false
		}
		if version := segments[n]; (version == "v1" || version == "v2") && known(name) {
			return name, "/" + strings.Join(segments[n:], "/"), true
		}
	}
	return "", "", false
}

// labelled reads the DCOS_SERVICE_ labels of a task.
func labelled(in Instance) (name string, e entry, ok bool, err error) {
	name = strings.Trim(in.Labels["DCOS_SERVICE_NAME"], "/")
	if name == "" {
		return "", e, false, nil
	}
	scheme := in.Labels["DCOS_SERVICE_SCHEME"]
	if scheme != "http" && scheme != "https" {
		return "", e, false, fmt.Errorf("label DCOS_SERVICE_SCHEME is %q, must be http or https", scheme)
	}
	index, err := strconv.Atoi(in.Labels["DCOS_SERVICE_PORT_INDEX"])
	if err != nil || index < 0 {
		return "", e, false, fmt.Errorf("label DCOS_SERVICE_PORT_INDEX is %q, must be a number", in.Labels["DCOS_SERVICE_PORT_INDEX"])
	}
	if index >= len(in.Ports) {
		return "", e, false, fmt.Errorf("label DCOS_SERVICE_PORT_INDEX is %d, the task has %d ports", index, len(in.Ports))
	}
	if reserved(name) {
		return "", e, false, fmt.Errorf("label DCOS_SERVICE_NAME is %q, which is kept for the system", name)
	}
	return name, entry{
		base:       url.URL{Scheme: scheme, Host: hostPort(in.Host, in.Ports[index])},
		keepPath:   in.Labels["DCOS_SERVICE_REWRITE_REQUEST_URLS"] == "false",
		unbuffered: in.Labels["DCOS_SERVICE_REQUEST_BUFFERING"] == "false",
	}, true, nil
}

// webUI checks the address that a framework gave. Loopback and link-local
// addresses would be the master's own, where it trusts callers.
func webUI(text string) (url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return url.URL{}, fmt.Errorf("webui_url %q is no http or https address", text)
	}
	host := u.Hostname()
	if addr, err := netip.ParseAddr(host); err == nil {
		if !Reachable(addr) {
			return url.URL{}, fmt.Errorf("webui_url %q is not reachable from other hosts", text)
		}
	} else if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return url.URL{}, fmt.Errorf("webui_url %q is not reachable from other hosts", text)
	}
	return url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}, nil
}

// Reachable reports whether addr means the same on every host. Others are the
// master's own, or its machine's (169.254.169.254).
func Reachable(addr netip.Addr) bool {
	addr = addr.Unmap()
	return addr.IsValid() && !addr.IsLoopback() && !addr.IsUnspecified() && !addr.IsLinkLocalUnicast() && !addr.IsMulticast()
}

func hostPort(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }
