package blueprint

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"dcos.example/dcos/installer/diag"
)

// ProviderOnPrem is the kind of provider that uses machines of one's own, over
// SSH.
const ProviderOnPrem = "onprem"

// OnPrem are the settings of the onprem provider: how one logs in to a machine
// that does not say otherwise.
type OnPrem struct {
	Login
	SudoPassword Field[string] // always secret; empty: sudo asks for none
	Parallel     Field[int]    // how many machines are worked on at once
	Timeout      Field[time.Duration]
	Bastion      *Bastion // nil: machines are reached directly
}

// Login is how one logs in.
type Login struct {
	User            Field[string]
	Port            Field[int]
	KeyFile         Field[string] // "~/…" is the home directory of whoever runs the installer
	Agent           Field[bool]   // use the keys of that person's SSH agent
	Password        Field[string] // always secret
	KnownHosts      Field[string]
	TrustOnFirstUse Field[bool]
}

// Bastion is the machine to go through.
type Bastion struct {
	Address Field[string]
	Login
	Range hcl.Range
}

// Host is one machine of one's own. Its name is its identity.
type Host struct {
	Name         Field[string]
	Address      Field[netip.Addr] // that other hosts use
	SSHAddress   Field[string]     // that the installer uses
	Port         Field[int]
	User         Field[string]
	KeyFile      Field[string]
	PricePerHour Field[float64]
	Node         // what an agent offers; zero: what it finds
	Range        hcl.Range
}

// Bounds of what is written for machines of one's own.
const (
	defParallel  = 20
	maxParallel  = 500
	leastOffered = 64 * MiB
)

var (
	loginAttrs = []hcl.AttributeSchema{{Name: "user"}, {Name: "port"}, {Name: "key_file"}, {Name: "agent"}, {Name: "password"},
		{Name: "known_hosts"}, {Name: "trust_on_first_use"}}
	onpremSchema = &hcl.BodySchema{
		Attributes: append(slices.Clone(loginAttrs), hcl.AttributeSchema{Name: "sudo_password"}, hcl.AttributeSchema{Name: "parallel"}, hcl.AttributeSchema{Name: "timeout"}),
		Blocks:     []hcl.BlockHeaderSchema{{Type: "bastion"}},
	}
	bastionSchema = &hcl.BodySchema{Attributes: append(slices.Clone(loginAttrs), hcl.AttributeSchema{Name: "address", Required: true})}
	hostSchema    = &hcl.BodySchema{Attributes: []hcl.AttributeSchema{{Name: "address", Required: true}, {Name: "ssh_address"}, {Name: "port"}, {Name: "user"},
		{Name: "key_file"}, {Name: "attributes"}, {Name: "reservations"}, {Name: "cpus"}, {Name: "memory"}, {Name: "disk"}, {Name: "price_per_hour"}}}
)

func (p *parser) onprem(b *hcl.Block) *OnPrem {
	content, hd := b.Body.Content(onpremSchema)
	p.diags.AddHCL(hd)
	attrs := content.Attributes
	none := func() Login {
		at := b.DefRange
		return Login{User: Field[string]{Value: "root", Range: at}, Port: Field[int]{Value: 22, Range: at}, KeyFile: Field[string]{Range: at}, Agent: Field[bool]{Range: at},
			Password: Field[string]{Range: at}, KnownHosts: Field[string]{Value: "~/.ssh/known_hosts", Range: at}, TrustOnFirstUse: Field[bool]{Range: at}}
	}
	o := &OnPrem{Login: p.login(attrs, none(), b.DefRange)}
	o.SudoPassword = p.secret(attrs["sudo_password"], b.DefRange, "Whoever reads this file can become root on the machines.", "")
	if s := o.SudoPassword; s.Set && o.User.Value == "root" {
		p.diags.Add(diag.Diagnostic{Severity: diag.Warning, Summary: "Password that nothing asks for", Range: &attrs["sudo_password"].NameRange, Secret: true,
			Detail: "The user is root, who needs no sudo.", Hint: "Set user, or leave sudo_password out."})
	}
	o.Parallel = p.whole(p.scope, attrs, "parallel", defParallel, 1, maxParallel, b.DefRange)
	o.Timeout = p.duration(p.scope, attrs, "timeout", 0, time.Second, 10*time.Minute, b.DefRange)
	for i, bb := range content.Blocks {
		if i > 0 {
			p.duplicate(bb, content.Blocks[0], "bastion block")
			continue
		}
		o.Bastion = p.bastion(bb, o.Login)
	}
	return o
}

// bastion reads the machine in between, which is logged in to like the others
// unless it says otherwise.
func (p *parser) bastion(b *hcl.Block, like Login) *Bastion {
	content, hd := b.Body.Content(bastionSchema)
	p.diags.AddHCL(hd)
	attrs := content.Attributes
	like.Port.Value = 22 // that of the machines says nothing about this one
	if attrs["key_file"] != nil || attrs["agent"] != nil || attrs["password"] != nil {
		like.KeyFile.Value, like.Agent.Value, like.Password.Value = "", false, ""
	}
	out := &Bastion{Range: b.DefRange, Login: p.login(attrs, like, b.DefRange), Address: field(p, p.scope, attrs, "address", cty.String, "", b.DefRange)}
	p.endpoint("address", out.Address)
	return out
}

// login reads the attributes of a login; what is not there is as in def.
func (p *parser) login(attrs hcl.Attributes, def Login, at hcl.Range) Login {
	s := p.scope
	inherit := func(f Field[string], name string) Field[string] {
		if attrs[name] == nil {
			return Field[string]{Value: f.Value, Range: f.Range}
		}
		return field(p, s, attrs, name, cty.String, f.Value, at)
	}
	l := Login{
		User: inherit(def.User, "user"), Port: p.port(s, attrs, def.Port.Value, at),
		KeyFile: p.path(inherit(def.KeyFile, "key_file")), KnownHosts: p.path(inherit(def.KnownHosts, "known_hosts")),
		Agent:           field(p, s, attrs, "agent", cty.Bool, def.Agent.Value, at),
		TrustOnFirstUse: field(p, s, attrs, "trust_on_first_use", cty.Bool, def.TrustOnFirstUse.Value, at),
		Password:        Field[string]{Value: def.Password.Value, Range: at},
	}
	if attrs["password"] != nil {
		l.Password = p.secret(attrs["password"], at, "Whoever reads this file can log in to the machines.", "Use key_file or agent")
	}
	p.sshUser(l.User)
	return l
}

var sshUserRE = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.@\\-]{0,63}\$?$`)

func (p *parser) sshUser(f Field[string]) {
	if f.Set && !sshUserRE.MatchString(f.Value) {
		p.errorAt(f.Range, "Invalid user name", fmt.Sprintf("user: %q is not the name of a user on a machine.", f.Value), "")
	}
}

func (p *parser) port(s *scope, attrs hcl.Attributes, def int, at hcl.Range) Field[int] {
	return p.whole(s, attrs, "port", def, 1, 65535, at)
}

// path makes a path relative to the directory of the file absolute.
func (p *parser) path(f Field[string]) Field[string] {
	if f.Set && f.Value != "" && p.dir != "" && !filepath.IsAbs(f.Value) && !strings.HasPrefix(f.Value, "~") {
		f.Value = filepath.Join(p.dir, f.Value)
	}
	return f
}

// secret reads a text that may be sensitive and is never shown. In the file
// itself it is a reason to warn of the risk; instead says what else one might
// do.
func (p *parser) secret(a *hcl.Attribute, at hcl.Range, risk, instead string) Field[string] {
	f := Field[string]{Range: at}
	if a == nil {
		return f
	}
	f.Range = a.Expr.Range()
	if len(a.Expr.Variables()) == 0 {
		if lit, hd := a.Expr.Value(nil); !hd.HasErrors() {
			p.scope.secrets = append(p.scope.secrets, secretTexts(lit)...)
		}
		what := "Secret"
		if strings.HasSuffix(a.Name, "password") {
			what = "Password"
		}
		hint := fmt.Sprintf("declare a variable with sensitive = true, set it in the environment as %sNAME, and write %s = var.NAME.", EnvPrefix, a.Name)
		if instead != "" {
			hint = instead + ", or " + hint
		} else {
			hint = "D" + hint[1:]
		}
		p.diags.Add(diag.Diagnostic{Severity: diag.Warning, Summary: what + " in the file", Range: &a.NameRange, Secret: true, Detail: risk, Hint: hint})
	}
	v, ok := attrValueMarked[string](p, p.scope, a, cty.String)
	if !ok {
		return f
	}
	f.Value, f.Set = v, true
	if v == "" {
		p.diags.Add(diag.Diagnostic{Summary: "Empty secret", Detail: fmt.Sprintf("%s is empty.", a.Name), Hint: "Leave it out, or write null.", Range: &f.Range, Secret: true})
	} else {
		p.scope.secrets = append(p.scope.secrets, v)
	}
	return f
}

// whole reads a whole number between least and most.
func (p *parser) whole(s *scope, attrs hcl.Attributes, name string, def, least, most int, at hcl.Range) Field[int] {
	n := field(p, s, attrs, name, cty.Number, float64(def), at)
	f := Field[int]{Value: def, Range: n.Range, Set: n.Set}
	if !n.Set {
		return f
	}
	if n.Value != math.Trunc(n.Value) || n.Value < float64(least) || n.Value > float64(most) {
		p.errorAt(n.Range, "Invalid number", fmt.Sprintf("%s is %v; it must be a whole number from %d to %d.", name, n.Value, least, most), "")
		return f
	}
	f.Value = int(n.Value)
	return f
}

// duration reads a time between least and most, with units up to days.
func (p *parser) duration(s *scope, attrs hcl.Attributes, name string, def, least, most time.Duration, at hcl.Range) Field[time.Duration] {
	text := field(p, s, attrs, name, cty.String, "", at)
	f := Field[time.Duration]{Value: def, Range: text.Range, Set: text.Set}
	if !text.Set {
		return f
	}
	d, err := time.ParseDuration(text.Value)
	var days int
	if n, rest := 0, ""; err != nil {
		if n, _ = fmt.Sscanf(text.Value, "%d%s", &days, &rest); n == 2 && rest == "d" && days < 10_000 {
			d, err = time.Duration(days)*24*time.Hour, nil
		}
	}
	switch {
	case err != nil:
		p.errorAt(f.Range, "Invalid duration", fmt.Sprintf("%s: %q is not a duration.", name, text.Value), fmt.Sprintf(`Write a number and a unit, s, m, h or d: %s = "24h".`, name))
	case d < least || d > most:
		p.errorAt(f.Range, "Duration out of bounds", fmt.Sprintf("%s is %s; it must be from %s to %s.", name, text.Value, least, most), "")
	default:
		f.Value = d
	}
	return f
}

// name of a host: RFC 1123, in lower case because names are compared as text.
var hostNameRE = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$`)

var lastLabelRE = regexp.MustCompile(`(^|\.)[0-9]+$`)

func (p *parser) hostName(f Field[string]) {
	switch n := f.Value; {
	case n == "localhost" || len(n) > 253 || !hostNameRE.MatchString(n):
		hint := ""
		if s := strings.Trim(regexp.MustCompile(`[^a-z0-9.]+`).ReplaceAllString(strings.ToLower(n), "-"), "-."); s != n && hostNameRE.MatchString(s) {
			hint = fmt.Sprintf("For example %q.", s)
		}
		p.errorAt(f.Range, "Invalid host name", fmt.Sprintf("%q is not the name of a host: parts of up to 63 lower-case letters, digits and hyphens, beginning and ending with a letter or digit, with dots between them.", n), hint)
	case lastLabelRE.MatchString(n):
		p.errorAt(f.Range, "Invalid host name", fmt.Sprintf("%q would be taken for an address or a number.", n), "Begin the last part with a letter.")
	}
}

func (p *parser) hostAddress(text Field[string]) Field[netip.Addr] {
	f := Field[netip.Addr]{Range: text.Range, Set: text.Set}
	if !text.Set {
		return f
	}
	a, err := netip.ParseAddr(text.Value)
	switch {
	case err == nil && a.Is4():
		f.Value = a
	case err == nil:
		p.errorAt(text.Range, "Not an IPv4 address", fmt.Sprintf("%s is an IPv6 address. Hosts of a cluster reach each other over IPv4.", text.Value), "Write the machine's IPv4 address; the installer may log in over IPv6: ssh_address.")
	case hostNameRE.MatchString(strings.ToLower(text.Value)) && !lastLabelRE.MatchString(text.Value):
		p.errorAt(text.Range, "Not an IPv4 address", fmt.Sprintf("%q is a name. Hosts reach each other by address, also while DNS is down.", text.Value),
			fmt.Sprintf("Write the machine's IPv4 address. To log in by name, add ssh_address = %q.", text.Value))
	default:
		p.errorAt(text.Range, "Not an IPv4 address", fmt.Sprintf("%q is not an address.", text.Value), `For example "10.0.0.11".`)
	}
	return f
}

// endpoint checks what the installer connects to: a name or an address.
func (p *parser) endpoint(name string, f Field[string]) {
	if !f.Set {
		return
	}
	if _, err := netip.ParseAddr(f.Value); err == nil || hostNameRE.MatchString(strings.ToLower(f.Value)) && !lastLabelRE.MatchString(f.Value) {
		return
	}
	hint := ""
	if ap, err := netip.ParseAddrPort(f.Value); err == nil {
		hint = fmt.Sprintf("Write %s = %q and port = %d.", name, ap.Addr(), ap.Port())
	} else if host, port, ok := strings.Cut(f.Value, ":"); ok && hostNameRE.MatchString(host) {
		hint = fmt.Sprintf("Write %s = %q and port = %s.", name, host, port)
	} else if user, host, ok := strings.Cut(f.Value, "@"); ok {
		hint = fmt.Sprintf("Write %s = %q and user = %q.", name, host, user)
	}
	p.errorAt(f.Range, "Invalid address", fmt.Sprintf("%s: %q is neither a host name nor an address.", name, f.Value), hint)
}

// ownHosts reads the machines of a group.
func (p *parser) ownHosts(g *NodeGroup, content *hcl.BodyContent) {
	attrs := content.Attributes
	for _, b := range content.Blocks {
		name := Field[string]{Value: b.Labels[0], Range: b.LabelRanges[0], Set: true}
		hc, hd := b.Body.Content(hostSchema)
		p.diags.AddHCL(hd)
		g.Hosts = append(g.Hosts, p.host(g.Role, name, hc.Attributes, attrs, b.DefRange))
	}
	readable := true
	if a := attrs["hosts"]; a != nil {
		var short []Host
		short, readable = p.shortHosts(g.Role, a, attrs)
		g.Hosts = append(g.Hosts, short...)
	} else if len(g.Hosts) == 0 && g.Role != RoleMaster {
		p.errorAt(g.Range, "No hosts", fmt.Sprintf("node_group %q names no machine.", g.Role), exampleHost(g.Role)+", or leave the group out.")
	}
	g.Count = Field[int]{Value: len(g.Hosts), Range: g.Range}
	if n := len(g.Hosts); g.Role == RoleMaster && readable && n != 1 && n != 3 && n != 5 {
		p.errorAt(g.Range, "Invalid number of masters", mastersWrong(n), exampleIf(n == 0, g.Role))
	}
}

func exampleHost(r Role) string {
	n, a := "a1", "10.0.0.21"
	switch r {
	case RoleMaster:
		n, a = "m1", "10.0.0.11"
	case RolePublicAgent:
		n, a = "p1", "10.0.0.31"
	}
	return fmt.Sprintf(`Name each machine: host %q { address = %q }, or in short hosts = { %s = %q }`, n, a, n, a)
}

func exampleIf(show bool, r Role) string {
	if !show {
		return ""
	}
	return exampleHost(r) + "."
}

// host reads one host block; group are the attributes that all of the group
// share.
func (p *parser) host(role Role, name Field[string], own, group hcl.Attributes, at hcl.Range) Host {
	h := Host{Name: name, Range: at, Address: p.hostAddress(field(p, p.scope, own, "address", cty.String, "", at))}
	p.hostName(name)
	s := p.hostScope(h)
	h.SSHAddress = field(p, s, own, "ssh_address", cty.String, "", at)
	p.endpoint("ssh_address", h.SSHAddress)
	h.Port = p.port(s, own, 0, at)
	h.User = field(p, s, own, "user", cty.String, "", at)
	p.sshUser(h.User)
	h.KeyFile = p.path(field(p, s, own, "key_file", cty.String, "", at))
	h.PricePerHour = field(p, s, own, "price_per_hour", cty.Number, 0.0, at)
	if h.PricePerHour.Value < 0 {
		p.errorAt(h.PricePerHour.Range, "Negative price", fmt.Sprintf("price_per_hour is %v.", h.PricePerHour.Value), "")
	}
	h.Node = p.offered(role, own, group, s, at)
	return h
}

// hostScope lets attributes of a group depend on the host.
func (p *parser) hostScope(h Host) *scope {
	address := ""
	if h.Address.Value.IsValid() {
		address = h.Address.Value.String()
	}
	return p.scope.with("host", cty.ObjectVal(map[string]cty.Value{"name": cty.StringVal(h.Name.Value), "address": cty.StringVal(address)}))
}

// offeredAttrs say what an agent offers.
var offeredAttrs = []string{"attributes", "reservations", "cpus", "memory", "disk"}

// offered is what an agent offers of a machine: its own attributes, or those
// of its group. Attributes of both add up.
func (p *parser) offered(role Role, own, group hcl.Attributes, s *scope, at hcl.Range) Node {
	if role == RoleMaster {
		for _, as := range []hcl.Attributes{own, group} {
			for _, name := range offeredAttrs {
				if a := as[name]; a != nil {
					p.diags.Add(diag.Diagnostic{Severity: diag.Warning, Summary: "Masters offer nothing", Range: &a.NameRange,
						Detail: fmt.Sprintf("%s says what apps can have of a machine, and apps run on agents.", name), Hint: "Leave it out."})
				}
			}
		}
		return Node{}
	}
	attrs := hcl.Attributes{}
	for _, as := range []hcl.Attributes{group, own} {
		for _, name := range offeredAttrs {
			if as[name] != nil {
				attrs[name] = as[name]
			}
		}
	}
	n := Node{
		CPUs:       field(p, s, attrs, "cpus", cty.Number, 0.0, at),
		Attributes: field(p, s, attrs, "attributes", cty.Map(cty.String), map[string]string(nil), at),
		Memory:     p.size(attrs, s, "memory", 0, leastOffered, GiB, at),
		Disk:       p.size(attrs, s, "disk", 0, leastOffered, 10*GiB, at),

		Reservations: field(p, s, attrs, "reservations", cty.Map(cty.String), map[string]string(nil), at),
	}
	if n.CPUs.Set && n.CPUs.Value < minCPUs {
		p.errorAt(n.CPUs.Range, "Too few CPUs", fmt.Sprintf("cpus is %v; an agent has to offer at least %v.", n.CPUs.Value, minCPUs), "Leave it out to offer what the machine has.")
	}
	if own["attributes"] != nil && group["attributes"] != nil {
		if base := field(p, s, group, "attributes", cty.Map(cty.String), map[string]string(nil), at); len(base.Value) > 0 {
			all := maps.Clone(base.Value)
			maps.Copy(all, n.Attributes.Value)
			n.Attributes.Value = all
		}
	}
	p.checkAttributes(n.Attributes)
	p.checkReservations(n)
	return n
}

// shortHosts reads hosts = { name = "address" }. A false second result means
// that how many there are is not known.
func (p *parser) shortHosts(role Role, a *hcl.Attribute, group hcl.Attributes) ([]Host, bool) {
	const example = `Write hosts = { a1 = "10.0.0.21", a2 = "10.0.0.22" }, or a host block for each.`
	v, ok := p.scope.value(a.Expr, &p.diags)
	if !ok || !v.IsWhollyKnown() {
		return nil, false
	}
	at := a.Expr.Range()
	if v.ContainsMarked() {
		p.errorAt(at, "Sensitive value not allowed here", "hosts is shown in plans, logs and files, so it cannot be made of a sensitive variable.", "")
		return nil, false
	}
	if v.IsNull() || !v.Type().IsObjectType() && !v.Type().IsMapType() {
		p.errorAt(at, "Wrong type", "hosts is a map from the names of machines to their addresses.", example)
		return nil, false
	}
	where := p.keysOf(a.Expr)
	var out []Host
	values := v.AsValueMap()
	for _, n := range slices.Sorted(maps.Keys(values)) {
		pos, ok := where[n]
		if !ok {
			pos = [2]hcl.Range{at, at}
		}
		x := values[n]
		if x.IsNull() || x.Type() != cty.String {
			p.errorAt(pos[1], "Wrong type", fmt.Sprintf("The address of %s must be a text.", n), example)
			continue
		}
		h := Host{Name: Field[string]{Value: n, Range: pos[0], Set: true}, Range: pos[0],
			Address: p.hostAddress(Field[string]{Value: x.AsString(), Range: pos[1], Set: true})}
		p.hostName(h.Name)
		h.SSHAddress, h.Port, h.User, h.KeyFile = Field[string]{Range: pos[0]}, Field[int]{Range: pos[0]}, Field[string]{Range: pos[0]}, Field[string]{Range: pos[0]}
		h.PricePerHour.Range = pos[0]
		h.Node = p.offered(role, nil, group, p.hostScope(h), pos[0])
		out = append(out, h)
	}
	return out, true
}

// keysOf returns where the keys and values of an object are written, as far as
// that can be seen, and reports keys that are written twice.
func (p *parser) keysOf(e hcl.Expression) map[string][2]hcl.Range {
	pairs, hd := hcl.ExprMap(e)
	if hd.HasErrors() {
		return nil
	}
	out := map[string][2]hcl.Range{}
	for _, kv := range pairs {
		k, hd := kv.Key.Value(p.scope.evalContext())
		if hd.HasErrors() || k.IsNull() || !k.IsKnown() || k.IsMarked() || k.Type() != cty.String {
			continue
		}
		if first, ok := out[k.AsString()]; ok {
			p.errorAt(kv.Key.Range(), "Duplicate name", fmt.Sprintf("%q is at %s:%d already.", k.AsString(), first[0].Filename, first[0].Start.Line), "")
			continue
		}
		out[k.AsString()] = [2]hcl.Range{kv.Key.Range(), kv.Value.Range()}
	}
	return out
}

// distinct reports machines that share a name, an address or what they are
// logged in at, and those that nobody can log in to.
func (p *parser) distinct(o *OnPrem, groups []NodeGroup) {
	seen := map[string]Field[string]{} // key → the first that has it
	taken := func(what, value string, by Field[string], at hcl.Range) {
		key := what + " " + value
		first, ok := seen[key]
		if !ok {
			seen[key] = by
			return
		}
		detail := fmt.Sprintf("%s has the %s %s of %s, at %s:%d. Each host is a machine of its own.", by.Value, what, value, first.Value, first.Range.Filename, first.Range.Start.Line)
		if what == "name" {
			detail = fmt.Sprintf("Another host is named %q, at %s:%d. A name stands for one machine, whatever its role.", value, first.Range.Filename, first.Range.Start.Line)
		}
		p.errorAt(at, "Duplicate "+what, detail, "")
	}
	endpoint := func(h Host, address string) string {
		return fmt.Sprintf("%s port %d", address, cmp.Or(h.Port.Value, o.Port.Value))
	}
	locked := false
	for _, g := range groups {
		for _, h := range g.Hosts {
			if a := h.Address.Value; a.IsValid() && !h.SSHAddress.Set {
				seen["ssh_address "+endpoint(h, a.String())] = h.Name
			}
			taken("name", h.Name.Value, h.Name, h.Name.Range)
			if h.Address.Value.IsValid() {
				taken("address", h.Address.Value.String(), h.Name, h.Address.Range)
			}
			if !o.canLogIn() && h.KeyFile.Value == "" && !locked {
				locked = true // the others are too
				p.errorAt(h.Range, "No way to log in", fmt.Sprintf("Neither the provider nor host %s has a key or a password.", h.Name.Value),
					`Add to the provider key_file = "~/.ssh/id_ed25519", or agent = true, or password = var.NAME.`)
			}
		}
	}
	for _, g := range groups {
		for _, h := range g.Hosts {
			if h.SSHAddress.Set {
				taken("ssh_address", endpoint(h, h.SSHAddress.Value), h.Name, h.SSHAddress.Range)
			}
		}
	}
}

func (l Login) canLogIn() bool {
	return l.KeyFile.Value != "" || l.Agent.Value || l.Password.Value != ""
}
