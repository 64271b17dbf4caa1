package engine

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
)

// leaf is one value in a property tree: text to show, value to compare.
type leaf struct {
	text  string
	value resource.PropertyValue
}

// changesBetween lists the leaves that differ, sorted by path. It grows with
// the number of leaves.
func changesBetween(old, new resource.PropertyMap) []Change {
	a, b := map[string]leaf{}, map[string]leaf{}
	flatten(a, "", resource.NewProperty(old))
	flatten(b, "", resource.NewProperty(new))
	var out []Change
	for path, n := range b {
		o, had := a[path]
		if had && o.value.DeepEquals(n.value) && !n.value.ContainsUnknowns() {
			continue
		}
		out = append(out, Change{Path: path, Old: o.text, New: n.text})
	}
	for path, o := range a {
		if _, has := b[path]; !has {
			out = append(out, Change{Path: path, Old: o.text})
		}
	}
	slices.SortFunc(out, func(x, y Change) int { return cmp.Compare(x.Path, y.Path) })
	return out
}

func flatten(into map[string]leaf, path string, v resource.PropertyValue) {
	switch {
	case v.IsObject() && (path == "" || len(v.ObjectValue()) > 0):
		for _, k := range slices.Sorted(maps.Keys(v.ObjectValue())) {
			p := string(k)
			if path != "" {
				p = path + "." + p
			}
			flatten(into, p, v.ObjectValue()[k])
		}
	case v.IsArray() && len(v.ArrayValue()) > 0:
		for i, e := range v.ArrayValue() {
			flatten(into, fmt.Sprintf("%s[%d]", path, i), e)
		}
	default:
		into[path] = leaf{render(v), v}
	}
}

// render returns v as JSON, without secrets and unknowns.
func render(v resource.PropertyValue) string {
	switch {
	case v.ContainsSecrets():
		return maskedText
	case v.ContainsUnknowns():
		return unknownText
	}
	b, err := json.Marshal(v.Mappable())
	if err != nil {
		return v.TypeString()
	}
	return string(b)
}
