package blueprint

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	hcljson "github.com/hashicorp/hcl/v2/json"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	ctyjson "github.com/zclconf/go-cty/cty/json"

	"dcos.example/dcos/installer/diag"
)

// EnvPrefix begins the names of environment variables that set variables.
const EnvPrefix = "DCOS_VAR_"

// Source is a file's name and text.
type Source struct {
	Name string
	Text []byte
}

// Values are what sets variables. Flags win over files, later files over
// earlier ones, files over the environment, and that over defaults.
type Values struct {
	// Dir is the directory of the file, which relative paths in it are relative
	// to. Empty: they stay as they are.
	Dir   string
	Flags []string // "name=value"
	Files []Source // HCL attributes, or JSON when the name ends in .json
	Env   []string // "NAME=value" as of os.Environ; those with EnvPrefix count
}

// Variables returns the values of all variables that are not sensitive, as the
// text of a JSON variable file, and the names of those that are.
func (b *Blueprint) Variables() (plain []byte, sensitives []string, err error) {
	vs := map[string]ctyjson.SimpleJSONValue{}
	for _, name := range slices.Sorted(maps.Keys(b.scope.vars)) {
		v := b.scope.vars[name]
		if v.ContainsMarked() {
			sensitives = append(sensitives, name)
			continue
		}
		if v.IsWhollyKnown() {
			vs[name] = ctyjson.SimpleJSONValue{Value: v}
		}
	}
	plain, err = json.Marshal(vs)
	return plain, sensitives, err
}

// given is one value of a variable and where it comes from.
type given struct {
	text string         // from a flag or the environment …
	expr hcl.Expression // … or from a file
	from string         // "-var", "DCOS_VAR_x" or the file's name
}

type variable struct {
	name        string
	typ         cty.Type
	defaults    *typeexpr.Defaults
	def         hcl.Expression
	sensitive   bool
	description string
	validations []*hcl.Block
	block       *hcl.Block
	bad         bool // its declaration has errors: any value does
}

var variableSchema = &hcl.BodySchema{
	Attributes: []hcl.AttributeSchema{{Name: "type"}, {Name: "default"}, {Name: "description"}, {Name: "sensitive"}},
	Blocks:     []hcl.BlockHeaderSchema{{Type: "validation"}},
}

var validationSchema = &hcl.BodySchema{
	Attributes: []hcl.AttributeSchema{{Name: "condition", Required: true}, {Name: "error_message", Required: true}},
}

func (p *parser) declareVariables(blocks []*hcl.Block) []*variable {
	var out []*variable
	seen := map[string]*hcl.Block{}
	for _, b := range blocks {
		name := b.Labels[0]
		if first, ok := seen[name]; ok {
			p.duplicate(b, first, fmt.Sprintf("variable %q", name))
			continue
		}
		seen[name] = b
		out = append(out, p.declareVariable(b))
	}
	return out
}

func (p *parser) declareVariable(b *hcl.Block) *variable {
	v := &variable{name: b.Labels[0], typ: cty.DynamicPseudoType, block: b}
	before := len(p.diags)
	if !hclsyntax.ValidIdentifier(v.name) {
		p.diags.Errorf(&b.LabelRanges[0], "Invalid variable name", "A name begins with a letter and has letters, digits, '_' and '-'.")
	}
	content, hd := b.Body.Content(variableSchema)
	p.diags.AddHCL(hd)
	if a := content.Attributes["type"]; a != nil {
		t, d, hd := typeexpr.TypeConstraintWithDefaults(a.Expr)
		p.diags.AddHCL(hd)
		if !hd.HasErrors() {
			v.typ, v.defaults = t, d
		}
	}
	constant := &scope{}
	if a := content.Attributes["description"]; a != nil {
		v.description, _ = attrValue[string](p, constant, a, cty.String)
	}
	if a := content.Attributes["sensitive"]; a != nil {
		v.sensitive, _ = attrValue[bool](p, constant, a, cty.Bool)
	}
	if a := content.Attributes["default"]; a != nil {
		v.def = a.Expr
	}
	v.validations = content.Blocks
	v.bad = len(p.diags) > before
	return v
}

// values evaluates all variables.
func (p *parser) values(decl []*variable, in Values) {
	names := make([]string, len(decl))
	for i, v := range decl {
		names[i] = v.name
		p.scope.vars[v.name] = cty.DynamicVal
	}
	givens := p.collect(names, sensitiveNames(decl), in)
	for _, v := range decl {
		if v.bad {
			continue
		}
		if val, ok := p.variableValue(v, givens[v.name]); ok {
			if v.sensitive {
				p.scope.secrets = append(p.scope.secrets, secretTexts(val)...)
				val = val.Mark(sensitive)
			}
			p.scope.vars[v.name] = val
		}
	}
	for _, v := range decl {
		p.validate(v)
	}
}

func sensitiveNames(decl []*variable) map[string]bool {
	m := map[string]bool{}
	for _, v := range decl {
		if v.sensitive {
			m[v.name] = true
		}
	}
	return m
}

// collect gathers what sets each variable, the winning one per name.
func (p *parser) collect(names []string, secret map[string]bool, in Values) map[string]*given {
	out := map[string]*given{}
	for _, kv := range in.Env {
		k, val, _ := strings.Cut(kv, "=")
		if name, ok := strings.CutPrefix(k, EnvPrefix); ok && slices.Contains(names, name) {
			out[name] = &given{text: val, from: k}
		}
	}
	for _, src := range in.Files {
		p.collectFile(src, names, secret, out)
	}
	for _, kv := range in.Flags {
		name, val, ok := strings.Cut(kv, "=")
		if !ok {
			p.diags.Add(diag.Diagnostic{Summary: "Invalid -var", Detail: fmt.Sprintf("-var takes name=value; %q has no equals sign.", kv)})
			continue
		}
		if !slices.Contains(names, name) {
			p.diags.Add(diag.Diagnostic{Summary: "No such variable", Detail: fmt.Sprintf("-var sets %q, which the file does not declare.", name),
				Hint: orElse(diag.DidYouMean(name, names), declared(names))})
			continue
		}
		out[name] = &given{text: val, from: "-var"}
	}
	return out
}

func declared(names []string) string {
	if len(names) == 0 {
		return "The file declares no variables."
	}
	return "Declared are: " + strings.Join(names, ", ") + "."
}

func orElse(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func (p *parser) collectFile(src Source, names []string, secret map[string]bool, out map[string]*given) {
	var f *hcl.File
	var hd hcl.Diagnostics
	if strings.HasSuffix(src.Name, ".json") {
		f, hd = hcljson.Parse(src.Text, src.Name)
	} else {
		f, hd = hclsyntax.ParseConfig(src.Text, src.Name, hcl.InitialPos)
	}
	if hd.HasErrors() { // such a file may hold secrets: say where, show nothing
		l := diag.FromHCL(hd)
		for i := range l {
			l[i].Secret = true
		}
		p.diags = append(p.diags, l...)
		return
	}
	attrs, hd := f.Body.JustAttributes()
	p.diags.AddHCL(hd)
	if !slices.ContainsFunc(slices.Collect(maps.Keys(attrs)), func(n string) bool { return secret[n] }) {
		p.files[src.Name] = f
	}
	for _, name := range slices.Sorted(maps.Keys(attrs)) {
		a := attrs[name]
		if !slices.Contains(names, name) {
			p.diags.Add(diag.Diagnostic{Summary: "No such variable", Detail: fmt.Sprintf("This file sets %q, which the cluster's file does not declare.", name),
				Hint: orElse(diag.DidYouMean(name, names), declared(names)), Range: &a.NameRange})
			continue
		}
		out[name] = &given{expr: a.Expr, from: src.Name}
	}
}

func (p *parser) variableValue(v *variable, g *given) (cty.Value, bool) {
	at := v.block.DefRange
	var val cty.Value
	switch {
	case g == nil && v.def == nil:
		how := fmt.Sprintf("Set it with -var %s=…, in a -var-file or as %s%s in the environment, or give the variable a default.", v.name, EnvPrefix, v.name)
		if v.sensitive {
			how = fmt.Sprintf("Set it as %s%s in the environment or in a -var-file: other users of this machine can read a command line.", EnvPrefix, v.name)
		}
		p.diags.Add(diag.Diagnostic{Summary: "No value for variable", Detail: fmt.Sprintf("Variable %q has no default and was not set.", v.name), Hint: how, Range: &at})
		return val, false
	case g == nil:
		at = v.def.Range()
		x, hd := v.def.Value(&hcl.EvalContext{})
		if hd.HasErrors() {
			l := diag.FromHCL(hd)
			for i := range l {
				l[i].Secret = v.sensitive
				if len(v.def.Variables()) > 0 {
					l[i].Hint = "A default is a constant. Use locals for a value that is made of others."
				}
			}
			p.diags = append(p.diags, l...)
			return val, false
		}
		val = x
	case g.expr != nil:
		at = g.expr.Range()
		x, hd := g.expr.Value(nil)
		if hd.HasErrors() {
			p.badGiven(v, g, hd)
			return val, false
		}
		val = x
	default:
		x, ok := p.parseGiven(v, g)
		if !ok {
			return val, false
		}
		val = x
	}
	if v.defaults != nil && !val.IsNull() {
		val = v.defaults.Apply(val)
	}
	cv, err := convert.Convert(val, v.typ)
	if err != nil {
		from := "its default"
		if g != nil {
			from = g.from
		}
		p.diags.Add(diag.Diagnostic{Summary: "Invalid value for variable", Range: &at, Secret: v.sensitive,
			Detail: fmt.Sprintf("The value of %q from %s is not a %s: %s.", v.name, from, typeexpr.TypeString(v.typ), err)})
		return val, false
	}
	return cv, true
}

// parseGiven reads a flag's or an environment variable's text: as it stands
// for a text, number or bool, as an expression for anything else.
func (p *parser) parseGiven(v *variable, g *given) (cty.Value, bool) {
	if v.typ.IsPrimitiveType() || v.typ == cty.DynamicPseudoType {
		return cty.StringVal(g.text), true
	}
	e, hd := hclsyntax.ParseExpression([]byte(g.text), g.from, hcl.InitialPos)
	if !hd.HasErrors() {
		var val cty.Value
		if val, hd = e.Value(nil); !hd.HasErrors() {
			return val, true
		}
	}
	p.badGiven(v, g, hd)
	return cty.DynamicVal, false
}

func (p *parser) badGiven(v *variable, g *given, hd hcl.Diagnostics) {
	at := v.block.DefRange
	detail := hd[0].Summary + ": " + hd[0].Detail
	if v.sensitive {
		detail = "The message is withheld because the variable is sensitive."
	}
	p.diags.Add(diag.Diagnostic{Summary: "Invalid value for variable", Range: &at, Secret: v.sensitive,
		Detail: fmt.Sprintf("The value of %q from %s cannot be read as a %s. %s", v.name, g.from, typeexpr.TypeString(v.typ), detail)})
}

// validate checks the author's own conditions. They may use every variable.
func (p *parser) validate(v *variable) {
	if v.bad || p.scope.vars[v.name].RawEquals(cty.DynamicVal) {
		return
	}
	for _, b := range v.validations {
		content, hd := b.Body.Content(validationSchema)
		p.diags.AddHCL(hd)
		if hd.HasErrors() {
			continue
		}
		cond, msg := content.Attributes["condition"], content.Attributes["error_message"]
		ok, good := attrValueMarked[bool](p, p.scope, cond, cty.Bool)
		if !good || ok {
			continue
		}
		text := "The value does not satisfy the variable's validation."
		if mv, good := p.scope.value(msg.Expr, &p.diags); good && !mv.ContainsMarked() {
			if s, err := convert.Convert(mv, cty.String); err == nil && s.IsKnown() && !s.IsNull() {
				text = s.AsString()
			}
		}
		r := cond.Expr.Range()
		p.diags.Add(diag.Diagnostic{Summary: fmt.Sprintf("Invalid value for variable %q", v.name), Detail: text, Range: &r,
			Expression: cond.Expr, EvalContext: p.scope.evalContext()})
	}
}
