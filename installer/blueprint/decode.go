package blueprint

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/gocty"

	"dcos.example/dcos/installer/diag"
	"dcos.example/dcos/runtime/resource"
)

// attrValue evaluates a to a Go value and refuses sensitive ones, since every
// attribute but one is shown in plans and logs. A false second result means
// that something was reported, or that the value is null, that is, left out.
func attrValue[T any](p *parser, s *scope, a *hcl.Attribute, ty cty.Type) (T, bool) {
	return decode[T](p, s, a, ty, false)
}

// attrValueMarked is attrValue for the places where secrets may go.
func attrValueMarked[T any](p *parser, s *scope, a *hcl.Attribute, ty cty.Type) (T, bool) {
	return decode[T](p, s, a, ty, true)
}

func decode[T any](p *parser, s *scope, a *hcl.Attribute, ty cty.Type, secrets bool) (out T, ok bool) {
	v, good := s.value(a.Expr, &p.diags)
	if !good || !v.IsWhollyKnown() {
		return out, false // reported where it became unknown
	}
	r := a.Expr.Range()
	if v.ContainsMarked() {
		if !secrets {
			p.diags.Add(diag.Diagnostic{Summary: "Sensitive value not allowed here", Range: &r,
				Detail: fmt.Sprintf("%s is shown in plans, logs and files, so it cannot be made of a sensitive variable.", a.Name)})
			return out, false
		}
		v, _ = v.UnmarkDeep()
	}
	if v.IsNull() {
		return out, false
	}
	cv, err := convert.Convert(v, ty)
	if err == nil {
		err = gocty.FromCtyValue(cv, &out)
	}
	if err != nil {
		p.diags.Add(diag.Diagnostic{Summary: "Wrong type", Detail: fmt.Sprintf("%s: %s.", a.Name, err), Range: &r, Secret: secrets,
			Expression: a.Expr, EvalContext: s.evalContext()})
		return out, false
	}
	return out, true
}

// field decodes an optional attribute; at is where it would have been.
func field[T any](p *parser, s *scope, attrs hcl.Attributes, name string, ty cty.Type, def T, at hcl.Range) Field[T] {
	f := Field[T]{Value: def, Range: at}
	a := attrs[name]
	if a == nil {
		return f
	}
	f.Range = a.Expr.Range()
	if v, ok := attrValue[T](p, s, a, ty); ok {
		f.Value, f.Set = v, true
	}
	return f
}

func (p *parser) errorAt(r hcl.Range, summary, detail, hint string) {
	p.diags.Add(diag.Diagnostic{Summary: summary, Detail: detail, Hint: hint, Range: &r})
}

func (p *parser) duplicate(b, first *hcl.Block, what string) {
	p.errorAt(b.DefRange, "Duplicate block", fmt.Sprintf("Another %s is at %s:%d.", what, first.DefRange.Filename, first.DefRange.Start.Line), "")
}

var (
	nameRE = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$`)
	userRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,95}$`)
)

var clusterSchema = &hcl.BodySchema{Attributes: []hcl.AttributeSchema{
	{Name: "release"}, {Name: "admin_user"}, {Name: "admin_password"}, {Name: "resolvers"},
}}

func (p *parser) cluster(b *hcl.Block) Cluster {
	c := Cluster{Range: b.DefRange, Name: Field[string]{Value: b.Labels[0], Range: b.LabelRanges[0], Set: true}}
	if !nameRE.MatchString(c.Name.Value) {
		p.errorAt(c.Name.Range, "Invalid cluster name", fmt.Sprintf("%q is not a name: it begins with a lower-case letter, has up to 32 lower-case letters, digits and hyphens, and does not end with a hyphen.", c.Name.Value),
			suggestName(c.Name.Value))
	}
	content, hd := b.Body.Content(clusterSchema)
	p.diags.AddHCL(hd)
	attrs := content.Attributes
	c.Release = field(p, p.scope, attrs, "release", cty.String, "", b.DefRange)
	c.AdminUser = field(p, p.scope, attrs, "admin_user", cty.String, "admin", b.DefRange)
	if u := c.AdminUser; u.Set && !userRE.MatchString(u.Value) {
		p.errorAt(u.Range, "Invalid user name", fmt.Sprintf("%q is not a user name: it has letters, digits and . _ @ -, and begins with a letter or digit.", u.Value), "")
	}
	c.AdminPassword = p.password(attrs["admin_password"], b)
	rs := field(p, p.scope, attrs, "resolvers", cty.List(cty.String), []string(nil), b.DefRange)
	c.Resolvers = Field[[]netip.AddrPort]{Range: rs.Range, Set: rs.Set}
	for _, r := range rs.Value {
		ap, err := parseResolver(r)
		if err != nil {
			p.errorAt(rs.Range, "Invalid resolver", fmt.Sprintf("%q is not an address: %s.", r, err), `Write an IP address, with a port if it is not 53: "9.9.9.9" or "192.0.2.1:5353".`)
			continue
		}
		c.Resolvers.Value = append(c.Resolvers.Value, ap)
	}
	return c
}

func suggestName(n string) string {
	s := strings.Trim(regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(n), "-"), "-0123456789")
	if nameRE.MatchString(s) {
		return fmt.Sprintf("For example %q.", s)
	}
	return ""
}

func parseResolver(s string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a, 53), nil
	}
	return netip.ParseAddrPort(s)
}

func (p *parser) password(a *hcl.Attribute, b *hcl.Block) Field[string] {
	f := Field[string]{Range: b.DefRange}
	if a == nil {
		return f
	}
	f = p.secret(a, b.DefRange, "Whoever reads this file can sign in as the administrator.", "Leave admin_password out to have one generated")
	if f.Set && f.Value != "" && len(f.Value) < minPwdLen {
		p.diags.Add(diag.Diagnostic{Summary: "Password too short", Detail: fmt.Sprintf("The administrator's password has fewer than %d characters.", minPwdLen), Range: &f.Range, Secret: true})
	}
	return f
}

// unavailable are providers that are planned for but not part of this release.
var unavailable = map[string]string{
	"aws":   "machines on AWS",
	"azure": "machines on Azure",
}

var localSchema = &hcl.BodySchema{Attributes: []hcl.AttributeSchema{{Name: "range"}, {Name: "uplink"}, {Name: "dir"}}}

func (p *parser) provider(b *hcl.Block) Provider {
	kind := b.Labels[0]
	out := Provider{Kind: Field[string]{Value: kind, Range: b.LabelRanges[0], Set: true}, Range: b.DefRange}
	if what, ok := unavailable[kind]; ok {
		p.errorAt(b.LabelRanges[0], "Provider not in this release", fmt.Sprintf("Provider %q, which would use %s, is not in this release.", kind, what), `Use provider "onprem" with machines that you can log in to, or "local", which makes hosts on this machine.`)
		return out
	}
	switch kind {
	case ProviderLocal:
	case ProviderOnPrem:
		out.OnPrem = p.onprem(b)
		return out
	default:
		p.errorAt(b.LabelRanges[0], "Unknown provider", fmt.Sprintf("There is no provider %q.", kind), suggestProvider(kind))
		return out
	}
	content, hd := b.Body.Content(localSchema)
	p.diags.AddHCL(hd)
	s := p.scope
	text := field(p, s, content.Attributes, "range", cty.String, defLocalIP, b.DefRange)
	out.Local.Range = Field[netip.Prefix]{Range: text.Range, Set: text.Set}
	if pre, err := netip.ParsePrefix(text.Value); err != nil {
		p.errorAt(text.Range, "Invalid address range", fmt.Sprintf("range: %q is not an address range in CIDR notation.", text.Value), `Write the first address and the length of the prefix: "198.18.0.0/24".`)
	} else {
		out.Local.Range.Value = pre
	}
	out.Local.Uplink = field(p, s, content.Attributes, "uplink", cty.Bool, false, b.DefRange)
	out.Local.Dir = field(p, s, content.Attributes, "dir", cty.String, "", b.DefRange)
	return out
}

// suggestProvider knows what others call machines of one's own.
func suggestProvider(given string) string {
	switch strings.ToLower(given) {
	case "ssh", "baremetal", "bare-metal", "on-prem", "on_prem", "static", "onpremise", "machines":
		return `Did you mean "onprem"?`
	case "docker", "vagrant", "kind", "localhost":
		return `Did you mean "local"?`
	}
	return orElse(diag.DidYouMean(given, []string{ProviderLocal, ProviderOnPrem, "aws", "azure"}), `This release has providers "local" and "onprem".`)
}

var groupSchema = &hcl.BodySchema{
	Attributes: []hcl.AttributeSchema{{Name: "count"}, {Name: "hosts"}, {Name: "cpus"}, {Name: "memory"}, {Name: "disk"}, {Name: "attributes"}, {Name: "reservations"}},
	Blocks:     []hcl.BlockHeaderSchema{{Type: "host", LabelNames: []string{"name"}}},
}

// nodeGroup reads a group of hosts of a provider; its kind is empty when the
// provider is wrong itself.
func (p *parser) nodeGroup(b *hcl.Block, provider string) NodeGroup {
	g := NodeGroup{Role: Role(b.Labels[0]), Range: b.DefRange}
	content, hd := b.Body.Content(groupSchema)
	p.diags.AddHCL(hd)
	attrs := content.Attributes
	switch provider {
	case ProviderOnPrem:
		if a := attrs["count"]; a != nil {
			p.errorAt(a.NameRange, "Count of machines of one's own", "count is for providers that make machines; machines of one's own have names and addresses.", exampleHost(g.Role)+".")
		}
		if attrs["count"] == nil || attrs["hosts"] != nil || len(content.Blocks) > 0 {
			p.ownHosts(&g, content)
		}
		return g
	case ProviderLocal:
		hint := fmt.Sprintf(`Write count = %d instead, or use provider "onprem".`, max(len(content.Blocks), 1))
		for _, hb := range content.Blocks {
			p.errorAt(hb.DefRange, "Host of another provider", `Provider "local" makes its hosts itself and gives them names and addresses.`, hint)
		}
		if a := attrs["hosts"]; a != nil {
			p.errorAt(a.NameRange, "Hosts of another provider", `Provider "local" makes its hosts itself and gives them names and addresses.`, hint)
		}
	}
	g.Count = p.count(g.Role, attrs["count"], b)
	if a := attrs["attributes"]; a != nil && g.Role == RoleMaster {
		p.errorAt(a.NameRange, "Masters have no attributes", "Attributes are matched by constraints of apps, and apps run on agents.", "")
		delete(attrs, "attributes")
	}
	if a := attrs["reservations"]; a != nil && g.Role == RoleMaster {
		p.errorAt(a.NameRange, "Masters have no reservations", "What is reserved are parts of agents.", "")
		delete(attrs, "reservations")
	}
	n := max(g.Count.Value, 1) // evaluated at least once: a group of 0 is checked too
	for i := range n {
		s := p.scope.with("count", cty.ObjectVal(map[string]cty.Value{"index": cty.NumberIntVal(int64(i))}))
		before := len(p.diags)
		node := p.node(g.Role, attrs, s, b)
		if i < g.Count.Value {
			g.Nodes = append(g.Nodes, node)
		}
		if p.diags[before:].HasErrors() {
			break // the next index most likely says the same
		}
	}
	return g
}

var masterCounts = map[int]string{
	0: "a cluster needs a master",
	2: "two masters survive no more failures than one",
	4: "four masters survive no more failures than three",
}

// mastersWrong says why a cluster does not have n masters.
func mastersWrong(n int) string {
	why := masterCounts[n]
	if n > 5 {
		why = "more than five masters make every write slower"
	}
	return fmt.Sprintf("A cluster has 1, 3 or 5 masters, not %d: %s.", n, why)
}

func (p *parser) count(role Role, a *hcl.Attribute, b *hcl.Block) Field[int] {
	c := Field[int]{Value: 1, Range: b.DefRange}
	if a == nil {
		return c
	}
	c.Range = a.Expr.Range()
	n, ok := attrValue[float64](p, p.scope, a, cty.Number)
	if !ok {
		return c
	}
	switch {
	case n != math.Trunc(n) || n < 0 || n > maxCount:
		p.errorAt(c.Range, "Invalid count", fmt.Sprintf("count is %v; it must be a whole number from 0 to %d.", n, maxCount), "")
		return c
	case role == RoleMaster && n != 1 && n != 3 && n != 5:
		p.errorAt(c.Range, "Invalid number of masters", mastersWrong(int(n)), "")
		return c
	}
	c.Value, c.Set = int(n), true
	return c
}

func (p *parser) node(role Role, attrs hcl.Attributes, s *scope, b *hcl.Block) Node {
	def := defaultNodes[role]
	n := Node{
		CPUs:       field(p, s, attrs, "cpus", cty.Number, def.cpus, b.DefRange),
		Attributes: field(p, s, attrs, "attributes", cty.Map(cty.String), map[string]string(nil), b.DefRange),

		Reservations: field(p, s, attrs, "reservations", cty.Map(cty.String), map[string]string(nil), b.DefRange),
	}
	if n.CPUs.Value < minCPUs {
		p.errorAt(n.CPUs.Range, "Too few CPUs", fmt.Sprintf("cpus is %v; a host needs at least %v.", n.CPUs.Value, minCPUs), "")
	}
	n.Memory = p.size(attrs, s, "memory", def.memory, minMemory, def.memory, b.DefRange)
	n.Disk = p.size(attrs, s, "disk", def.disk, minDisk, def.disk, b.DefRange)
	p.checkAttributes(n.Attributes)
	p.checkReservations(n)
	return n
}

// checkReservations reads reservations as the agent will, and holds their sum
// against what the host is said to have. How much of that an agent offers, and
// what is not said, is known later.
func (p *parser) checkReservations(n Node) {
	f := n.Reservations
	const example = `Write reservations = { kafka-role = "cpus:2;mem:4096;disk:10240" }; mem and disk are in MiB.`
	var sum resource.Resources
	for _, role := range slices.Sorted(maps.Keys(f.Value)) {
		part, err := resource.Parse(f.Value[role])
		if err == nil {
			_, err = part.Assign(resource.AnyRole, role, part)
		}
		if err != nil || part.Empty() {
			detail := fmt.Sprintf("%s = %q reserves nothing.", role, f.Value[role])
			if err != nil {
				detail = fmt.Sprintf("%s = %q: %s.", role, f.Value[role], err)
			}
			p.errorAt(f.Range, "Invalid reservation", detail, example)
			continue
		}
		sum = sum.Add(part)
	}
	for _, c := range []struct {
		name string
		has  float64
	}{{resource.CPUs, n.CPUs.Value}, {resource.Mem, float64(n.Memory.Value.MiB())}, {resource.Disk, float64(n.Disk.Value.MiB())}} {
		if want := sum.Scalar(c.name).Float(); c.has > 0 && want > c.has {
			p.errorAt(f.Range, "Too much reserved", fmt.Sprintf("Roles are to have %s:%v of a host with %v.", c.name, want, c.has), "")
		}
	}
}

func (p *parser) checkAttributes(f Field[map[string]string]) {
	for _, k := range slices.Sorted(maps.Keys(f.Value)) {
		v := f.Value[k]
		if strings.ContainsAny(k, ":; ") || k == "" || strings.ContainsAny(v, ";") {
			p.errorAt(f.Range, "Invalid attribute", fmt.Sprintf("%q = %q: a name has no ':', ';' or space, and a value no ';'.", k, v), "")
		}
	}
}

func (p *parser) size(attrs hcl.Attributes, s *scope, name string, def, least, like Size, at hcl.Range) Field[Size] {
	text := field(p, s, attrs, name, cty.String, "", at)
	f := Field[Size]{Value: def, Range: text.Range, Set: text.Set}
	if !text.Set {
		return f
	}
	example := fmt.Sprintf("Write a number and a unit: %s = %q.", name, like)
	if text.Value != "" && strings.Trim(text.Value, "0123456789.") == "" {
		p.errorAt(f.Range, "Size without a unit", fmt.Sprintf("%s is %s: of what?", name, text.Value), example)
		return f
	}
	v, err := humanize.ParseBytes(text.Value)
	if err != nil || v > math.MaxInt64 {
		p.errorAt(f.Range, "Invalid size", fmt.Sprintf("%s: %q is not a size.", name, text.Value), example)
		return f
	}
	f.Value = Size(v)
	if f.Value < least {
		p.errorAt(f.Range, "Too small", fmt.Sprintf("%s is %q; a host needs at least %s.", name, text.Value, least), "")
	}
	return f
}
