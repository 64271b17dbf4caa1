package blueprint

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/function"

	"dcos.example/dcos/installer/diag"
)

// sensitive marks values that must not be shown.
const sensitive = "sensitive"

// scope is what an expression may refer to.
type scope struct {
	vars      map[string]cty.Value // value of var.NAME
	locals    map[string]cty.Value
	others    map[string]cty.Value // further roots: cluster, count, hosts
	functions map[string]function.Function
	secrets   []string // texts inside sensitive values
}

func (s *scope) with(name string, v cty.Value) *scope {
	c := *s
	c.others = maps.Clone(s.others)
	if c.others == nil {
		c.others = map[string]cty.Value{}
	}
	c.others[name] = v
	return &c
}

func (s *scope) roots() []string {
	return append([]string{"var", "local"}, slices.Sorted(maps.Keys(s.others))...)
}

func (s *scope) evalContext() *hcl.EvalContext {
	vs := maps.Clone(s.others)
	if vs == nil {
		vs = map[string]cty.Value{}
	}
	vs["var"], vs["local"] = cty.ObjectVal(s.vars), cty.ObjectVal(s.locals)
	return &hcl.EvalContext{Variables: vs, Functions: s.functions}
}

// value evaluates e. References to what does not exist are reported in terms
// of the file ("no variable X"), each with its nearest existing name. A false
// second result means that something was reported, by this call or earlier.
func (s *scope) value(e hcl.Expression, l *diag.List) (cty.Value, bool) {
	before := len(*l)
	for _, t := range e.Variables() {
		s.checkReference(t, l)
	}
	if len(*l) > before {
		return cty.DynamicVal, false
	}
	v, hd := e.Value(s.evalContext())
	l.AddHCL(hd)
	s.conceal((*l)[before:])
	if hd.HasErrors() {
		return cty.DynamicVal, false
	}
	return v, true
}

func (s *scope) checkReference(t hcl.Traversal, l *diag.List) {
	root := t.RootName()
	r := t.SourceRange()
	if !slices.Contains(s.roots(), root) {
		if root == "count" {
			l.Add(diag.Diagnostic{Summary: "No count here", Detail: "count.index exists only in the attributes of a node_group block.", Range: &r})
			return
		}
		hint := diag.DidYouMean(root, s.roots())
		if _, ok := s.vars[root]; ok {
			hint = fmt.Sprintf("A variable is referred to as var.%s.", root)
		} else if _, ok := s.locals[root]; ok {
			hint = fmt.Sprintf("A local value is referred to as local.%s.", root)
		} else if hint == "" {
			hint = fmt.Sprintf("Text is written in quotes: %q.", root)
		}
		l.Add(diag.Diagnostic{Summary: "Unknown name", Detail: fmt.Sprintf("There is no %q here; an expression may refer to %s.", root, strings.Join(s.roots(), ", ")), Hint: hint, Range: &r})
		return
	}
	if len(t) < 2 {
		return
	}
	attr, ok := t[1].(hcl.TraverseAttr)
	if !ok {
		return
	}
	var known map[string]cty.Value
	what := ""
	switch root {
	case "var":
		known, what = s.vars, "variable"
	case "local":
		known, what = s.locals, "local value"
	default:
		v := s.others[root]
		if !v.Type().IsObjectType() || v.Type().HasAttribute(attr.Name) {
			return
		}
		names := slices.Sorted(maps.Keys(v.Type().AttributeTypes()))
		l.Add(diag.Diagnostic{Summary: "Unknown attribute", Detail: fmt.Sprintf("%s has no attribute %q; it has %s.", root, attr.Name, strings.Join(names, ", ")),
			Hint: diag.DidYouMean(attr.Name, names), Range: &r})
		return
	}
	if _, ok := known[attr.Name]; ok {
		return
	}
	hint := diag.DidYouMean(attr.Name, slices.Sorted(maps.Keys(known)))
	if hint == "" && what == "variable" {
		hint = fmt.Sprintf("Declare it with a block: variable %q { … }", attr.Name)
	}
	l.Add(diag.Diagnostic{Summary: "No such " + what, Detail: fmt.Sprintf("No %s %q is declared in this file.", what, attr.Name), Hint: hint, Range: &r})
}

// conceal withholds details that quote a part of a sensitive value: functions
// and conversions put their arguments into their messages. Source lines stay,
// since a reference does not show what it refers to.
func (s *scope) conceal(ds []diag.Diagnostic) {
	for i := range ds {
		for _, secret := range s.secrets {
			if strings.Contains(ds[i].Detail, secret) {
				ds[i].Detail = "The message is withheld because it quotes a sensitive value."
				ds[i].Expression = nil
			}
		}
	}
}

// secretTexts returns the non-empty primitive values inside v as text.
func secretTexts(v cty.Value) []string {
	var out []string
	v, _ = v.UnmarkDeep()
	_ = cty.Walk(v, func(_ cty.Path, x cty.Value) (bool, error) {
		if x.IsKnown() && !x.IsNull() && x.Type().IsPrimitiveType() && x.Type() != cty.Bool {
			if t, err := convert.Convert(x, cty.String); err == nil && t.AsString() != "" {
				out = append(out, t.AsString())
			}
		}
		return true, nil
	})
	return out
}
