package providers

import (
	"slices"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
)

// DiffInputs is the Diff most providers want: old and new inputs are compared
// value by value, an unknown counts as changed, and a change of one of the
// replace keys asks for a replacement. Keys listed in the request's
// IgnoreChanges do not count.
func DiffInputs(req plugin.DiffRequest, replace ...resource.PropertyKey) plugin.DiffResponse {
	ignore := func(k resource.PropertyKey) bool { return slices.Contains(req.IgnoreChanges, string(k)) }
	// Diff, not DiffIncludeUnknowns: the latter takes an unknown for equal and
	// would hide that a replaced dependency changes its dependents.
	d := req.OldInputs.Diff(req.NewInputs, resource.IgnoreKeyFunc(ignore))
	if d == nil || !d.AnyChanges() {
		return plugin.DiffResponse{Changes: plugin.DiffNone}
	}
	res := plugin.DiffResponse{
		Changes:      plugin.DiffSome,
		ChangedKeys:  d.ChangedKeys(),
		DetailedDiff: plugin.NewDetailedDiffFromObjectDiff(d, true),
	}
	slices.Sort(res.ChangedKeys)
	for _, k := range replace {
		if d.Changed(k) {
			res.ReplaceKeys = append(res.ReplaceKeys, k)
		}
	}
	return res
}

// Unknown is the value of an output that is known only after apply.
func Unknown() resource.PropertyValue {
	return resource.MakeComputed(resource.NewProperty(""))
}

// Partial is the error of a Create or Update that made something and could not
// finish it. Return it together with the ID and the properties of what exists.
func Partial(reasons ...error) error {
	e := &plugin.InitError{}
	for _, r := range reasons {
		e.Reasons = append(e.Reasons, r.Error())
	}
	return e
}
