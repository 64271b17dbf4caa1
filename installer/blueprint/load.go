package blueprint

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"dcos.example/dcos/installer/diag"
)

// parser carries the findings and the scope from stage to stage.
type parser struct {
	diags diag.List
	files map[string]*hcl.File
	scope *scope
	dir   string // that relative paths are relative to
}

var rootSchema = &hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{
	{Type: "variable", LabelNames: []string{"name"}},
	{Type: "locals"},
	{Type: "cluster", LabelNames: []string{"name"}},
	{Type: "provider", LabelNames: []string{"kind"}},
	{Type: "node_group", LabelNames: []string{"role"}},
	{Type: "preflight"},
	{Type: "upgrade"},
	{Type: "backup"},
	{Type: "output", LabelNames: []string{"name"}},
}}

// Parse reads a cluster's file. The blueprint is never nil, so that its Files
// can show where the findings are; it is usable only if none is an error.
func Parse(src Source, in Values) (*Blueprint, diag.List) {
	p := &parser{files: map[string]*hcl.File{}, dir: in.Dir, scope: &scope{vars: map[string]cty.Value{}, locals: map[string]cty.Value{}, functions: functions()}}
	bp := &Blueprint{files: p.files, scope: p.scope}
	f, hd := hclsyntax.ParseConfig(src.Text, src.Name, hcl.InitialPos)
	p.files[src.Name] = f
	p.diags.AddHCL(hd)
	if hd.HasErrors() {
		return bp, p.diags // what follows a syntax error is mostly noise
	}
	content, hd := f.Body.Content(rootSchema)
	p.diags.AddHCL(hd)
	by := map[string][]*hcl.Block{}
	for _, b := range content.Blocks {
		by[b.Type] = append(by[b.Type], b)
	}
	p.values(p.declareVariables(by["variable"]), in)
	p.locals(by["locals"])

	if b := p.single(by["cluster"], "cluster", `cluster "my-cluster" { }`, f); b != nil {
		bp.Cluster = p.cluster(b)
		p.scope.others = map[string]cty.Value{"cluster": cty.ObjectVal(map[string]cty.Value{
			"name": cty.StringVal(bp.Cluster.Name.Value), "admin_user": cty.StringVal(bp.Cluster.AdminUser.Value)})}
	}
	if b := p.single(by["provider"], "provider", `provider "local" { }`, f); b != nil {
		bp.Provider = p.provider(b)
	}
	bp.Groups = p.nodeGroups(by["node_group"], bp.Provider, f)
	if b := p.first(by["preflight"], "preflight"); b != nil {
		bp.Preflight = p.preflight(b)
	}
	bp.Upgrade = noUpgrade(wholeFile(f))
	if b := p.first(by["upgrade"], "upgrade"); b != nil {
		bp.Upgrade = p.upgrade(b)
	}
	if b := p.first(by["backup"], "backup"); b != nil {
		bp.Backup = p.backup(b)
	}
	bp.Outputs = p.outputs(by["output"])
	p.diags.Sort()
	return bp, p.diags
}

// ClusterName returns the name in the cluster block of a file that may have any
// other fault, or the empty string.
func ClusterName(src Source) string {
	f, _ := hclsyntax.ParseConfig(src.Text, src.Name, hcl.InitialPos)
	if f == nil {
		return ""
	}
	content, _, _ := f.Body.PartialContent(&hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{{Type: "cluster", LabelNames: []string{"name"}}}})
	if len(content.Blocks) != 1 || !nameRE.MatchString(content.Blocks[0].Labels[0]) {
		return ""
	}
	return content.Blocks[0].Labels[0]
}

// single returns the only block of a kind and reports none and further ones.
func (p *parser) single(blocks []*hcl.Block, what, example string, f *hcl.File) *hcl.Block {
	if len(blocks) == 0 {
		p.errorAt(wholeFile(f), "Missing "+what+" block", fmt.Sprintf("The file has no %s block.", what), "Add "+example)
		return nil
	}
	return p.first(blocks, what)
}

// first returns the first block of a kind, nil when there is none, and reports
// further ones.
func (p *parser) first(blocks []*hcl.Block, what string) *hcl.Block {
	if len(blocks) == 0 {
		return nil
	}
	for _, b := range blocks[1:] {
		p.duplicate(b, blocks[0], what+" block")
	}
	return blocks[0]
}

// wholeFile is the place of what is missing: the file, no line of it.
func wholeFile(f *hcl.File) hcl.Range {
	r := f.Body.MissingItemRange()
	return hcl.Range{Filename: r.Filename, Start: hcl.InitialPos, End: hcl.InitialPos}
}

func (p *parser) nodeGroups(blocks []*hcl.Block, provider Provider, f *hcl.File) []NodeGroup {
	kind := provider.Kind.Value
	first := map[string]*hcl.Block{}
	byRole := map[string]NodeGroup{}
	unknown := false
	for _, b := range blocks {
		role := b.Labels[0]
		if !slices.Contains(roles, role) {
			unknown = true
			p.errorAt(b.LabelRanges[0], "Unknown role", fmt.Sprintf("A node_group is labelled with the role of its hosts: %s; not %q.", strings.Join(roles, ", "), role), suggestRole(role))
			continue
		}
		if prev, ok := first[role]; ok {
			p.duplicate(b, prev, fmt.Sprintf("node_group %q", role))
			continue
		}
		first[role], byRole[role] = b, p.nodeGroup(b, kind)
	}
	count := func(r Role, n int) string {
		if kind == ProviderOnPrem {
			return fmt.Sprintf("Add node_group %q. %s.", r, exampleHost(r))
		}
		return fmt.Sprintf("Add node_group %q { count = %d }", r, n)
	}
	if first[string(RoleMaster)] == nil {
		p.errorAt(wholeFile(f), "No masters", `The file has no node_group "master" block.`, count(RoleMaster, 1))
	}
	if !unknown && byRole[string(RoleAgent)].Count.Value+byRole[string(RolePublicAgent)].Count.Value == 0 {
		r := wholeFile(f)
		p.diags.Add(diag.Diagnostic{Severity: diag.Warning, Summary: "No agents", Detail: "The cluster has no agents, so nothing can run on it.", Hint: count(RoleAgent, 2), Range: &r})
	}
	var out []NodeGroup
	for _, role := range roles {
		if g, ok := byRole[role]; ok {
			out = append(out, g)
		}
	}
	if kind == ProviderOnPrem {
		p.distinct(provider.OnPrem, out)
	}
	return out
}

// suggestRole knows the words that other systems have for the roles.
func suggestRole(given string) string {
	switch strings.ToLower(strings.TrimSuffix(given, "s")) {
	case "worker", "slave", "node", "private_agent", "private-agent", "private":
		return `Did you mean "agent"?`
	case "public", "public-agent", "slave_public", "edge", "ingress":
		return `Did you mean "public_agent"?`
	case "manager", "controller", "control-plane", "server":
		return `Did you mean "master"?`
	}
	return diag.DidYouMean(given, roles)
}

// locals evaluates local values in the order of their references.
func (p *parser) locals(blocks []*hcl.Block) {
	attrs := hcl.Attributes{}
	for _, b := range blocks {
		as, hd := b.Body.JustAttributes()
		p.diags.AddHCL(hd)
		for _, n := range slices.Sorted(maps.Keys(as)) {
			if prev, ok := attrs[n]; ok {
				p.errorAt(as[n].NameRange, "Duplicate local value", fmt.Sprintf("local.%s has a value already, at %s:%d.", n, prev.Range.Filename, prev.Range.Start.Line), "")
				continue
			}
			attrs[n] = as[n]
			p.scope.locals[n] = cty.DynamicVal
		}
	}
	const visiting, done = 1, 2
	state := map[string]int{}
	var path []string
	var visit func(n string)
	visit = func(n string) {
		state[n] = visiting
		path = append(path, n)
		defer func() { state[n], path = done, path[:len(path)-1] }()
		for _, dep := range localRefs(attrs[n].Expr) {
			switch {
			case attrs[dep] == nil || state[dep] == done:
			case state[dep] == visiting:
				cycle := append(slices.Clone(path[slices.Index(path, dep):]), dep)
				for i := range cycle {
					cycle[i] = "local." + cycle[i]
				}
				p.errorAt(attrs[n].Expr.Range(), "Local values refer to each other", "There is no first one to evaluate: "+strings.Join(cycle, " → ")+".", "")
			default:
				visit(dep)
			}
		}
		v, _ := p.scope.value(attrs[n].Expr, &p.diags)
		p.scope.locals[n] = v
		if v.ContainsMarked() {
			p.scope.secrets = append(p.scope.secrets, markedTexts(v)...)
		}
	}
	for _, n := range slices.Sorted(maps.Keys(attrs)) {
		if state[n] == 0 {
			visit(n)
		}
	}
}

// markedTexts returns the texts of v's sensitive parts: a local made of a
// secret is a secret of its own.
func markedTexts(v cty.Value) []string {
	plain, marks := v.UnmarkDeepWithPaths()
	var out []string
	for _, m := range marks {
		if x, err := m.Path.Apply(plain); err == nil {
			out = append(out, secretTexts(x)...)
		}
	}
	return out
}

func localRefs(e hcl.Expression) []string {
	var out []string
	for _, t := range e.Variables() {
		if len(t) < 2 || t.RootName() != "local" {
			continue
		}
		if a, ok := t[1].(hcl.TraverseAttr); ok {
			out = append(out, a.Name)
		}
	}
	return out
}

var outputSchema = &hcl.BodySchema{Attributes: []hcl.AttributeSchema{{Name: "value", Required: true}, {Name: "description"}, {Name: "sensitive"}}}

// Applied is what an apply makes known to outputs.
type Applied struct {
	ClusterID, URL, CACert string // empty: not known
	Masters                []string
	Hosts                  map[string]HostInfo
}

// HostInfo is what outputs may say of a host, as hosts["agent-1"].address.
type HostInfo struct{ Address, Role string }

func (s *scope) applied(a Applied) *scope {
	known := func(v string) cty.Value {
		if v == "" {
			return cty.UnknownVal(cty.String)
		}
		return cty.StringVal(v)
	}
	cluster := map[string]cty.Value{"name": cty.UnknownVal(cty.String), "admin_user": cty.UnknownVal(cty.String)}
	if c, ok := s.others["cluster"]; ok {
		maps.Copy(cluster, c.AsValueMap())
	}
	cluster["id"], cluster["url"], cluster["ca_certificate"] = known(a.ClusterID), known(a.URL), known(a.CACert)
	cluster["masters"] = cty.UnknownVal(cty.List(cty.String))
	if len(a.Masters) > 0 {
		var ms []cty.Value
		for _, m := range a.Masters {
			ms = append(ms, cty.StringVal(m))
		}
		cluster["masters"] = cty.ListVal(ms)
	}
	host := cty.Object(map[string]cty.Type{"address": cty.String, "role": cty.String})
	hosts := cty.UnknownVal(cty.Map(host))
	if len(a.Hosts) > 0 {
		m := map[string]cty.Value{}
		for n, h := range a.Hosts {
			m[n] = cty.ObjectVal(map[string]cty.Value{"address": cty.StringVal(h.Address), "role": cty.StringVal(h.Role)})
		}
		hosts = cty.MapVal(m)
	}
	return s.with("cluster", cty.ObjectVal(cluster)).with("hosts", hosts)
}

func (p *parser) outputs(blocks []*hcl.Block) []Output {
	var out []Output
	seen := map[string]*hcl.Block{}
	for _, b := range blocks {
		name := b.Labels[0]
		if prev, ok := seen[name]; ok {
			p.duplicate(b, prev, fmt.Sprintf("output %q", name))
			continue
		}
		seen[name] = b
		content, hd := b.Body.Content(outputSchema)
		p.diags.AddHCL(hd)
		o := Output{Name: name, Range: b.DefRange}
		constant := &scope{}
		if a := content.Attributes["description"]; a != nil {
			o.Description, _ = attrValue[string](p, constant, a, cty.String)
		}
		if a := content.Attributes["sensitive"]; a != nil {
			o.Sensitive, _ = attrValue[bool](p, constant, a, cty.Bool)
		}
		a := content.Attributes["value"]
		if a == nil {
			continue
		}
		o.expr = a.Expr
		if v, ok := p.scope.applied(Applied{}).value(a.Expr, &p.diags); ok && v.ContainsMarked() && !o.Sensitive {
			p.errorAt(a.Expr.Range(), "Output shows a sensitive value", fmt.Sprintf("Output %q is made of a sensitive variable.", name), "Add sensitive = true to the output, or leave the variable out of it.")
		}
		out = append(out, o)
	}
	return out
}

// Evaluate returns the outputs as far as a makes them known.
func (b *Blueprint) Evaluate(a Applied) ([]OutputValue, diag.List) {
	var l diag.List
	s := b.scope.applied(a)
	var out []OutputValue
	for _, o := range b.Outputs {
		v, ok := s.value(o.expr, &l)
		if !ok {
			continue
		}
		v, _ = v.UnmarkDeep()
		out = append(out, OutputValue{Name: o.Name, Description: o.Description, Sensitive: o.Sensitive, Value: v})
	}
	return out, l
}
