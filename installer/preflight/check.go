// Package preflight finds what would stop an installation before anything is
// changed: it asks each host once for facts, lets the hosts measure each
// other, and judges all of it by one table of checks.
//
// Collect talks to the hosts and takes bounded time; Judge is pure. A check
// answers with what was measured, its limit and what to do, with the host, the
// port and the value in it.
package preflight

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"dcos.example/dcos/installer/preflight/probe"
	"dcos.example/dcos/installer/topology"
)

// Role is the role of a host in the cluster.
type Role = topology.Role

// Severity says what a failed check means.
type Severity string

const (
	// Error: the host, or the cluster, would not work.
	Error Severity = "error"
	// Warning: it would, but worse than it could.
	Warning Severity = "warning"
)

// Scope is what a check is about.
type Scope string

const (
	ScopeHost    Scope = "host"
	ScopePair    Scope = "pair" // one host and how it reaches another
	ScopeCluster Scope = "cluster"
)

// State is how a check ended.
type State string

const (
	Passed  State = "passed"
	Failed  State = "failed"
	Ignored State = "ignored" // failed, and the file or a flag says to go on
	Unknown State = "unknown" // could not be measured
	Skipped State = "skipped" // the host is not made yet
)

// Check is one line of the table. Limit and Fix are in general terms; results
// have them in particular.
type Check struct {
	ID       string   `json:"id"`
	Title    string   `json:"title"`
	Scope    Scope    `json:"scope"`
	Roles    []Role   `json:"roles,omitempty"` // empty: all
	Severity Severity `json:"severity"`
	Measures string   `json:"measures"`
	Limit    string   `json:"limit"`
	Fix      string   `json:"fix"`
	// Machine says that the check is of the machine below the host, or of what
	// the maker of hosts that share one answers for, and is not made on those.
	Machine bool `json:"-"`

	// Exactly one is set, by Scope.
	host    func(*Host, *Input) verdict
	pair    func(pair, *Input) verdict
	cluster func(*Input) []finding
}

// applies says whether the check is made on a host.
func (c *Check) applies(h *Host) bool {
	return (len(c.Roles) == 0 || slices.Contains(c.Roles, h.Role)) && !(c.Machine && h.Shared)
}

// Result is what became of one check on one host, or between two.
type Result struct {
	Check    string   `json:"check"`
	Host     string   `json:"host,omitempty"`
	Peer     string   `json:"peer,omitempty"`
	State    State    `json:"state"`
	Severity Severity `json:"severity"`
	Measured string   `json:"measured,omitempty"`
	Limit    string   `json:"limit,omitempty"`
	Fix      string   `json:"fix,omitempty"`
	Reason   string   `json:"reason,omitempty"` // why ignored, unknown or skipped
}

// Stops says whether the result forbids to install.
func (r Result) Stops() bool { return r.State == Failed && r.Severity == Error }

// Input is everything that is judged.
type Input struct {
	Hosts     []*Host // in the order of the cluster
	Resolvers []netip.AddrPort
	// ClusterID is that of the cluster, empty before it is made.
	ClusterID string
	Release   Release
	// Ignore are checks by id with the reason.
	Ignore map[string]string
}

// Release is what is to be installed.
type Release struct {
	Name     string
	Bytes    int64  // unpacked, without packages
	Packages int64  // bytes of those, which masters have besides
	Arch     string // as of uname -m; empty: not known
}

// verdict is what a check says.
type verdict struct {
	state                State
	measured, limit, fix string
}

func pass(format string, args ...any) verdict {
	return verdict{state: Passed, measured: fmt.Sprintf(format, args...)}
}

// fail has what was measured; limit and fix are those of the table unless set
// with the methods below.
func fail(format string, args ...any) verdict {
	return verdict{state: Failed, measured: fmt.Sprintf(format, args...)}
}

func unknown(format string, args ...any) verdict {
	return verdict{state: Unknown, measured: fmt.Sprintf(format, args...)}
}

func (v verdict) over(format string, args ...any) verdict {
	v.limit = fmt.Sprintf(format, args...)
	return v
}

func (v verdict) do(format string, args ...any) verdict {
	v.fix = fmt.Sprintf(format, args...)
	return v
}

// finding is the verdict of a check of the whole cluster, on the hosts that it
// is about.
type finding struct {
	hosts []string
	verdict
}

// pair is one host and what it saw of another.
type pair struct {
	from, to *Host
	link     *probe.Link
}

// Judge holds what was found out against the table. Results come by host in
// the order of in.Hosts, then by check in the order of the table; those of the
// cluster are with the first host they are about. It costs hosts and measured
// pairs times checks.
func Judge(in Input) []Result {
	var out []Result
	add := func(c *Check, h, peer string, v verdict) {
		r := Result{Check: c.ID, Host: h, Peer: peer, State: v.state, Severity: c.Severity, Measured: v.measured}
		switch v.state {
		case Failed:
			r.Limit, r.Fix = v.limit, v.fix
			if r.Limit == "" {
				r.Limit = c.Limit
			}
			if r.Fix == "" {
				r.Fix = c.Fix
			}
			if why, ok := in.Ignore[c.ID]; ok {
				r.State, r.Reason = Ignored, why
			}
		case Unknown, Skipped:
			r.Measured, r.Reason = "", v.measured
		}
		out = append(out, r)
	}
	table := Checks()
	byName := map[string]*Host{}
	for _, h := range in.Hosts {
		byName[h.Name] = h
	}
	whole := map[string][]func(){} // by first host
	for i := range table {
		c := &table[i]
		if c.cluster == nil {
			continue
		}
		for _, f := range c.cluster(&in) {
			first := ""
			if len(f.hosts) > 0 {
				first = f.hosts[0]
				if !slices.ContainsFunc(f.hosts, func(n string) bool { return !byName[n].Witness }) {
					continue
				}
			}
			whole[first] = append(whole[first], func() { add(c, strings.Join(f.hosts, ", "), "", f.verdict) })
		}
	}
	for _, h := range in.Hosts {
		if h.Absent != "" {
			add(reach(table), h.Name, "", verdict{state: Skipped, measured: h.Absent})
		} else {
			for i := range table {
				c := &table[i]
				switch {
				case !c.applies(h):
				case h.Witness && c.ID == idReach && !h.reached():
					v := c.host(h, &in)
					add(c, h.Name, "", unknown("%s", v.measured)) // it changes nothing
				case h.Witness && c.host != nil:
				case c.ID == idReach || c.host != nil && h.reached():
					if v := c.host(h, &in); v.state != "" {
						add(c, h.Name, "", v)
					}
				case c.pair != nil && h.Probe != nil:
					for j := range h.Probe.Links {
						l := &h.Probe.Links[j]
						if to := byName[l.Peer]; to != nil {
							if v := c.pair(pair{h, to, l}, &in); v.state != "" {
								add(c, h.Name, l.Peer, v)
							}
						}
					}
				}
			}
		}
		for _, f := range whole[h.Name] {
			f()
		}
	}
	for _, f := range whole[""] {
		f()
	}
	return out
}

const idReach = "reach"

func reach(table []Check) *Check {
	for i := range table {
		if table[i].ID == idReach {
			return &table[i]
		}
	}
	panic("the table of checks has no " + idReach)
}

// IDs returns the ids of all checks.
func IDs() []string {
	var out []string
	for _, c := range Checks() {
		out = append(out, c.ID)
	}
	return out
}

// Checks returns the table.
func Checks() []Check {
	return slices.Concat(accessChecks(), systemChecks(), kernelChecks(), storageChecks(), networkChecks(), pairChecks(), occupantChecks(), clusterChecks())
}

var (
	masters = []Role{topology.RoleMaster}
	agents  = []Role{topology.RoleAgent, topology.RolePublicAgent}
)

func isMaster(h *Host) bool { return h.Role == topology.RoleMaster }

// size writes bytes for people.
func size(n int64) string {
	if n < 10<<30 {
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}

// span writes a duration for people.
func span(d time.Duration) string {
	switch a := d.Abs(); {
	case a >= 10*time.Second:
		return d.Round(time.Second).String()
	case a >= 100*time.Millisecond:
		return d.Round(10 * time.Millisecond).String()
	case a >= time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	default:
		return d.Round(time.Microsecond).String()
	}
}
