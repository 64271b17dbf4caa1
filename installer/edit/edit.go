// Package edit changes a cluster's file in place: one host more, one less,
// another address. It works on the text, so comments, layout and everything
// else stay as their author wrote them, and it is pure. Whether the edited file
// means what was wanted is for the caller to see by evaluating it.
package edit

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"

	"dcos.example/dcos/runtime/fault"
)

// parse reads src both ways: ranges come from the one, changes of blocks go
// through the other.
func parse(src []byte) (*hclsyntax.Body, *hclwrite.File, error) {
	const op = "change the file"
	f, d := hclsyntax.ParseConfig(src, "", hcl.InitialPos)
	if d.HasErrors() {
		return nil, nil, fault.New(op, fault.Invalid, d)
	}
	w, d := hclwrite.ParseConfig(src, "", hcl.InitialPos)
	if d.HasErrors() {
		return nil, nil, fault.New(op, fault.Invalid, d)
	}
	return f.Body.(*hclsyntax.Body), w, nil
}

func group(body *hclsyntax.Body, role string) *hclsyntax.Block {
	for _, b := range body.Blocks {
		if b.Type == "node_group" && len(b.Labels) == 1 && b.Labels[0] == role {
			return b
		}
	}
	return nil
}

// Count sets the number of hosts of a role to n, in the group's count or in
// the default of the variable that is the count. A group that is not there is
// added.
func Count(src []byte, role string, n int) ([]byte, error) {
	op := fmt.Sprintf("set the count of node_group %q to %d", role, n)
	body, file, err := parse(src)
	if err != nil {
		return nil, err
	}
	g := group(body, role)
	if g == nil {
		b := file.Body().AppendNewBlock("node_group", []string{role})
		b.Body().SetAttributeValue("count", cty.NumberIntVal(int64(n)))
		return separated(src, file), nil
	}
	a := g.Body.Attributes["count"]
	if a == nil { // one is what there is without
		file.Body().FirstMatchingBlock("node_group", []string{role}).Body().SetAttributeValue("count", cty.NumberIntVal(int64(n)))
		return file.Bytes(), nil
	}
	if literal(a.Expr) {
		return splice(src, a.Expr.Range(), fmt.Sprint(n)), nil
	}
	if name, ok := variable(a.Expr); ok {
		for _, b := range body.Blocks {
			if b.Type != "variable" || len(b.Labels) != 1 || b.Labels[0] != name {
				continue
			}
			if d := b.Body.Attributes["default"]; d != nil && literal(d.Expr) {
				return splice(src, d.Expr.Range(), fmt.Sprint(n)), nil
			}
		}
		return nil, fault.Newf(op, fault.Invalid, "line %d: the count is var.%s, which has no number as its default; set it where you set the variable, and apply", a.SrcRange.Start.Line, name)
	}
	return nil, fault.Newf(op, fault.Invalid, "line %d: the count is computed; change it by hand, and apply", a.SrcRange.Start.Line)
}

func literal(e hclsyntax.Expression) bool { _, ok := e.(*hclsyntax.LiteralValueExpr); return ok }

// variable returns the name in an expression that is var.NAME and nothing else.
func variable(e hclsyntax.Expression) (string, bool) {
	t, ok := e.(*hclsyntax.ScopeTraversalExpr)
	if !ok || len(t.Traversal) != 2 || t.Traversal.RootName() != "var" {
		return "", false
	}
	name, ok := t.Traversal[1].(hcl.TraverseAttr)
	return name.Name, ok
}

func splice(src []byte, at hcl.Range, text string) []byte {
	return bytes.Join([][]byte{src[:at.Start.Byte], []byte(text), src[at.End.Byte:]}, nil)
}

// separated puts a blank line before a block that was appended at the end.
func separated(src []byte, file *hclwrite.File) []byte {
	out := file.Bytes()
	n := len(src)
	if n == 0 || len(out) < n || !bytes.HasPrefix(out, src) {
		return out
	}
	rest := strings.TrimLeft(string(out[n:]), "\n")
	return []byte(strings.TrimRight(string(src), "\n") + "\n\n" + rest)
}

// Add adds a host block for a machine to the group of its role, which is made
// if there is none.
func Add(src []byte, role, name, address string) ([]byte, error) {
	body, file, err := parse(src)
	if err != nil {
		return nil, err
	}
	host := hclwrite.NewBlock("host", []string{name})
	host.Body().SetAttributeValue("address", cty.StringVal(address))
	if group(body, role) == nil {
		file.Body().AppendNewBlock("node_group", []string{role}).Body().AppendBlock(host)
		return separated(src, file), nil
	}
	g := file.Body().FirstMatchingBlock("node_group", []string{role})
	if at := group(body, role); at.OpenBraceRange.Start.Line == at.CloseBraceRange.Start.Line {
		// A group on one line has no room for a block.
		g.Body().AppendNewline()
	}
	g.Body().AppendBlock(host)
	return hclwrite.Format(file.Bytes()), nil
}

// place is where a machine is written.
type place struct {
	group *hclsyntax.Block
	block *hclsyntax.Block           // its host block, or
	item  *hclsyntax.ObjectConsItem  // its entry in hosts = { … }
	items []hclsyntax.ObjectConsItem // of which this is
}

func find(body *hclsyntax.Body, name string) (place, bool) {
	for _, g := range body.Blocks {
		if g.Type != "node_group" {
			continue
		}
		for _, b := range g.Body.Blocks {
			if b.Type == "host" && len(b.Labels) == 1 && b.Labels[0] == name {
				return place{group: g, block: b}, true
			}
		}
		a := g.Body.Attributes["hosts"]
		if a == nil {
			continue
		}
		o, ok := a.Expr.(*hclsyntax.ObjectConsExpr)
		if !ok {
			continue
		}
		for i := range o.Items {
			if k, d := o.Items[i].KeyExpr.Value(nil); !d.HasErrors() && k.Type() == cty.String && k.IsKnown() && k.AsString() == name {
				return place{group: g, item: &o.Items[i], items: o.Items}, true
			}
		}
	}
	return place{}, false
}

func notWritten(op, name string) error {
	return fault.Newf(op, fault.NotFound, "the file names no host %q by itself: neither a host block nor an entry of hosts; change it by hand, and apply", name)
}

// Remove takes a machine out of the file. The group stays.
func Remove(src []byte, name string) ([]byte, error) {
	body, file, err := parse(src)
	if err != nil {
		return nil, err
	}
	at, ok := find(body, name)
	switch {
	case !ok:
		return nil, notWritten("remove host "+name, name)
	case at.block != nil:
		g := file.Body().FirstMatchingBlock("node_group", at.group.Labels)
		g.Body().RemoveBlock(g.Body().FirstMatchingBlock("host", []string{name}))
		return file.Bytes(), nil
	}
	start, end := at.item.KeyExpr.Range().Start.Byte, at.item.ValueExpr.Range().End.Byte
	end += spaces(src[end:])
	comma := end < len(src) && src[end] == ','
	if comma {
		end++
		end += spaces(src[end:])
	}
	lineStart := bytes.LastIndexByte(src[:start], '\n') + 1
	lineEnd := end
	if end < len(src) && (src[end] == '#' || bytes.HasPrefix(src[end:], []byte("//"))) { // what is said of it
		if i := bytes.IndexByte(src[end:], '\n'); i >= 0 {
			lineEnd = end + i
		}
	}
	if lineEnd < len(src) && src[lineEnd] == '\n' && strings.TrimSpace(string(src[lineStart:start])) == "" {
		return append(bytes.Clone(src[:lineStart]), src[lineEnd+1:]...), nil // a line of its own
	}
	if !comma { // the last of a line: the comma before it goes too
		if i := bytes.LastIndexByte(src[:start], ','); i >= 0 && strings.TrimSpace(string(src[i+1:start])) == "" {
			start = i
			end = at.item.ValueExpr.Range().End.Byte
		}
	}
	return append(bytes.Clone(src[:start]), src[end:]...), nil
}

func spaces(b []byte) int { return len(b) - len(bytes.TrimLeft(b, " \t")) }

// Address gives a machine another address.
func Address(src []byte, name, address string) ([]byte, error) {
	op := "set the address of host " + name
	body, file, err := parse(src)
	if err != nil {
		return nil, err
	}
	at, ok := find(body, name)
	switch {
	case !ok:
		return nil, notWritten(op, name)
	case at.block != nil:
		g := file.Body().FirstMatchingBlock("node_group", at.group.Labels)
		g.Body().FirstMatchingBlock("host", []string{name}).Body().SetAttributeValue("address", cty.StringVal(address))
		return file.Bytes(), nil
	}
	return splice(src, at.item.ValueExpr.Range(), fmt.Sprintf("%q", address)), nil
}
