package providers

import (
	"errors"
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
// Its text is that of the reasons, its kind that of the first.
func Partial(reasons ...error) error {
	e := partialError{cause: errors.Join(reasons...), init: &plugin.InitError{}}
	for _, r := range reasons {
		e.init.Reasons = append(e.init.Reasons, r.Error())
	}
	return e
}

// Untouched is the error of an Update that left the object as it was: it
// changed nothing, or took back what it changed and saw that all is as before.
// The record stays as it was, too.
func Untouched(err error) error { return untouched{err} }

// IsUntouched reports whether err is, or wraps, one of Untouched.
func IsUntouched(err error) bool {
	_, ok := errors.AsType[untouched](err)
	return ok
}

type untouched struct{ error }

func (u untouched) Unwrap() error { return u.error }

// partialError is a *plugin.InitError that keeps its causes, and whose text is
// not wrapped in the SDK's words.
type partialError struct {
	cause error
	init  *plugin.InitError
}

func (e partialError) Error() string   { return e.cause.Error() }
func (e partialError) Unwrap() []error { return []error{e.cause, e.init} }
