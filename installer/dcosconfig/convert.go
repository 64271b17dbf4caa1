// Package dcosconfig reads the config.yaml of DC/OS's installer and writes the
// file that describes the same cluster here. Every key of DC/OS 1.7 to 2.2,
// open and enterprise, is known: it is mapped, built in, obsolete with a reason,
// or something that this cluster cannot do, which is said. Unknown keys are
// errors: DC/OS ignored them, and so a misspelt one.
package dcosconfig

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"dcos.example/dcos/installer/diag"
)

// Source is a config.yaml.
type Source struct {
	Name string // as the user would write it
	Text []byte
}

// Options say what a config.yaml does not, since DC/OS 1.12 left SSH to the
// user: which hosts there are.
type Options struct {
	Masters, Agents, PublicAgents []netip.Addr // in addition to those in the file
	Beside                        []string     // files of Companions that are there
}

// companions are the files that DC/OS's installer read beside config.yaml, and
// what becomes of them.
func companions() []Entry {
	address := "each host's address is written in its node_group, and preflight checks that the host has it"
	return []Entry{
		{Key: "ip-detect", Status: Obsolete, Became: "address of each host", Note: address},
		{Key: "ip-detect-public", Status: Obsolete, Note: "nobody asks for the public address of a host"},
		{Key: "ip6-detect", Status: Obsolete, Note: noIPv6},
		{Key: "fault-domain-detect", Status: Obsolete, Became: "attributes of the hosts", Note: "write region and zone as attributes of each host"},
		{Key: "ssh_key", Status: Mapped, Became: "key_file in the provider block"},
		{Key: "check_bins", Status: Unsupported, Note: "checks of your own are apps with health checks, or your monitoring's"},
		{Key: "license.txt", Status: Obsolete, Note: "there is no licence to enter"},
	}
}

// Companions names the files that DC/OS's installer read beside config.yaml.
func Companions() []string {
	var out []string
	for _, e := range companions() {
		out = append(out, e.Key)
	}
	return out
}

// Entry is what became of one key.
type Entry struct {
	Key    string
	Line   int // 0: a file beside config.yaml
	Value  string
	Status Status
	Became string // what took its place
	Note   string
}

// Result is a converted file.
type Result struct {
	HCL     []byte
	Cluster string
	Entries []Entry // in the order of the file
}

// conversion is a file in the making.
type conversion struct {
	diags *diag.List
	has   map[string]value
	notes map[string]string // for the report, by key

	name                          string
	admin                         string
	resolve                       []string
	user, keyFile                 string
	port, parallel                int
	wanted                        int // num_masters
	masters, agents, publicAgents []netip.Addr
	ownPassword                   bool
}

// Convert returns the file that describes what src does. With an error among
// the diagnostics there is no file, but the report is complete.
func Convert(src Source, o Options) (Result, diag.List) {
	var l diag.List
	values := parse(src, &l)
	c := &conversion{diags: &l, has: map[string]value{}, notes: map[string]string{}, masters: o.Masters, agents: o.Agents, publicAgents: o.PublicAgents}
	for _, v := range values {
		c.has[v.key] = v
	}
	var res Result
	table := rules()
	for _, v := range values {
		r, ok := table[v.key]
		if !ok {
			c.unknown(v, table)
			continue
		}
		res.Entries = append(res.Entries, c.apply(v, r))
	}
	if len(values) > 0 {
		c.complete(src)
	}
	for _, e := range companions() {
		if slices.Contains(o.Beside, e.Key) {
			res.Entries = append(res.Entries, e)
		}
	}
	for i, e := range res.Entries {
		if n := c.notes[e.Key]; n != "" {
			res.Entries[i].Note = n
		}
	}
	res.Cluster = c.name
	l.Sort()
	if !l.HasErrors() {
		res.HCL = c.write(src.Name, res.Entries)
	}
	return res, l
}

func (c *conversion) unknown(v value, table map[string]rule) {
	hint := diag.DidYouMean(v.key, slices.Sorted(maps.Keys(table)))
	if hint == "" {
		hint = "Remove the line. DC/OS ignores keys that it does not know."
	}
	c.diags.Add(diag.Diagnostic{Summary: "Unknown key", Detail: fmt.Sprintf("DC/OS has no key %s in any version from 1.7 to 2.2.", v.key), Hint: hint, Range: &v.name})
}

func (c *conversion) apply(v value, r rule) Entry {
	e := Entry{Key: v.key, Line: v.name.Start.Line, Value: v.text, Status: r.status, Became: r.became, Note: r.note}
	if r.secret && v.text != "" {
		e.Value = "(secret)"
	}
	if r.check != nil {
		if wrong := r.check(v); wrong != "" {
			c.diags.Add(diag.Diagnostic{Summary: "Invalid value", Detail: v.key + ": " + wrong, Range: &v.at, Secret: r.secret})
			return e
		}
	}
	if slices.Contains(r.same, v.text) {
		e.Status = BuiltIn
	}
	if r.put != nil {
		r.put(c, v)
	}
	if e.Status == Unsupported {
		detail := v.key
		if r.note != "" {
			detail += ": " + r.note
		}
		c.diags.Add(diag.Diagnostic{Severity: diag.Warning, Summary: "Not as it was", Detail: detail + ".", Range: &v.name, Secret: r.secret})
	}
	return e
}

func (c *conversion) fail(v value, summary, hint, format string, args ...any) {
	c.diags.Add(diag.Diagnostic{Summary: summary, Detail: fmt.Sprintf(format, args...), Hint: hint, Range: &v.at})
}

// nameOf makes a name of ours of one of DC/OS's, which could be any text.
func nameOf(s string) string {
	s = strings.NewReplacer("DC/OS", "dcos", "dc/os", "dcos").Replace(s)
	var b strings.Builder
	for _, r := range strings.ToLower(s) {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			b.WriteRune(r)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
	}
	name := strings.TrimLeft(b.String(), "0123456789-")
	return strings.Trim(name[:min(len(name), 32)], "-")
}

func (c *conversion) clusterName(v value) {
	if c.name = cmp.Or(nameOf(v.text), "dcos"); c.name != v.text {
		c.notes[v.key] = fmt.Sprintf("names have lower-case letters, digits and hyphens: it is %q now", c.name)
	}
}

// addresses of a list that was checked.
func addresses(v value) []netip.Addr {
	list, err := v.list()
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for _, s := range list {
		if a, err := netip.ParseAddr(s); err == nil {
			out = append(out, a)
		}
	}
	return out
}

func (c *conversion) masterList(v value) { c.masters = append(addresses(v), c.masters...) }
func (c *conversion) agentList(v value)  { c.agents = append(addresses(v), c.agents...) }
func (c *conversion) publicAgentList(v value) {
	c.publicAgents = append(addresses(v), c.publicAgents...)
}

func (c *conversion) numMasters(v value) { c.wanted, _ = strconv.Atoi(v.text) } // checked

func (c *conversion) resolvers(v value) {
	list, err := v.list()
	if err != nil {
		return
	}
	c.resolve = list
	if len(list) == 0 {
		c.notes[v.key] = "names outside the cluster do not resolve"
	}
}

func (c *conversion) discovery(v value) {
	if b := c.has["exhibitor_storage_backend"]; v.text != "static" && b.text == "static" {
		c.fail(v, "Invalid value", "", "`master_discovery` = %q and `exhibitor_storage_backend` = static do not go together, in DC/OS either.", v.text)
	}
}

func (c *conversion) adminUser(v value)     { c.admin = v.text }
func (c *conversion) adminPassword(_ value) { c.ownPassword = true }
func (c *conversion) sshUser(v value)       { c.user = v.text }
func (c *conversion) sshPort(v value)       { c.port, _ = strconv.Atoi(v.text) } // checked
func (c *conversion) sshParallel(v value)   { c.parallel, _ = strconv.Atoi(v.text) }

// sshKey takes /genconf for the directory that DC/OS's installer saw there.
func (c *conversion) sshKey(v value) {
	c.keyFile = v.text
	if rest, ok := strings.CutPrefix(v.text, "/genconf/"); ok {
		c.keyFile = "genconf/" + rest
	}
}

// complete fills in DC/OS's defaults and checks what concerns several keys.
func (c *conversion) complete(src Source) {
	c.name = cmp.Or(c.name, "dcos")
	if c.has["ssh_user"].key != "" {
		c.keyFile = cmp.Or(c.keyFile, "genconf/ssh_key")
	}
	if _, ok := c.has["resolvers"]; !ok {
		c.resolve = []string{"8.8.8.8", "8.8.4.4"}
	}
	c.mastersNumber(src)
	c.overlap()
	for _, pair := range [][2]string{{"superuser_service_account_uid", "superuser_service_account_public_key"}} {
		a, b := c.has[pair[0]], c.has[pair[1]]
		if (a.text == "") != (b.text == "") {
			given := a
			if a.text == "" {
				given = b
			}
			c.fail(given, "Invalid value", "", "%s and %s must both be set or both be empty.", pair[0], pair[1])
		}
	}
}

func (c *conversion) mastersNumber(src Source) {
	at, n := c.has["master_list"], len(c.masters)
	switch {
	case n == 0 && at.key != "" && at.text != "" && at.text != "[]": // what is wrong with it has been said
	case n == 0:
		v, ok := c.has["num_masters"]
		if !ok {
			if v, ok = c.has["master_discovery"]; !ok {
				v = value{at: *src.line(1)}
			}
		}
		c.fail(v, "No masters", "Give their addresses: -masters 10.0.0.11,10.0.0.12,10.0.0.13", "The file does not say which hosts the masters are: DC/OS found them through a load balancer or ZooKeeper.")
	case n == 1 || n == 3 || n == 5:
		if c.wanted != 0 && c.wanted != n {
			c.fail(c.has["num_masters"], "Invalid value", "", "num_masters is %d, and %d masters are listed.", c.wanted, n)
		}
	case n > 5:
		c.fail(c.orFirst(at, src), "Too many masters", "Leave two out; they can become agents.", "%d masters: a cluster has 1, 3 or 5. More than five make every write slower.", n)
	default:
		c.fail(c.orFirst(at, src), "Invalid number of masters", "", "Must have 1, 3, 5, 7, or 9 masters. Found %d.", n)
	}
}

func (c *conversion) orFirst(v value, src Source) value {
	if v.key == "" {
		v.at = *src.line(1)
	}
	return v
}

// overlap refuses hosts with two roles.
func (c *conversion) overlap() {
	where := map[netip.Addr]string{}
	for _, g := range []struct {
		key   string
		hosts []netip.Addr
	}{{"master_list", c.masters}, {"agent_list", c.agents}, {"public_agent_list", c.publicAgents}} {
		for _, a := range g.hosts {
			first, twice := where[a]
			where[a] = g.key
			switch {
			case !twice:
			case first == g.key:
				c.diags.Add(diag.Diagnostic{Summary: "Host twice", Detail: fmt.Sprintf("%s is given twice as %s.", a, strings.TrimSuffix(g.key, "_list")), Range: c.rangeOf(g.key)})
			default:
				c.diags.Add(diag.Diagnostic{Summary: "Host with two roles", Detail: fmt.Sprintf("%s is in %s and in %s.", a, first, g.key), Range: c.rangeOf(g.key, first)})
			}
		}
	}
}

func (c *conversion) rangeOf(keys ...string) *hcl.Range {
	for _, k := range keys {
		if v, ok := c.has[k]; ok {
			return &v.at
		}
	}
	return nil
}
