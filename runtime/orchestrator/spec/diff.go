package spec

import (
	"bytes"
	"encoding/json"

	"dcos.example/dcos/runtime/api/marathon"
)

// Difference is how far two definitions of an app are apart.
type Difference uint8

const (
	Same   Difference = iota
	Scaled            // only the number of instances differs
	Config            // running instances must be replaced
)

// Diff compares two canonical apps; versions do not count.
func Diff(a, b *marathon.App) Difference {
	x, y := *a, *b
	scaled := x.Instances != y.Instances
	x.Instances, x.Version, x.VersionInfo = 0, "", nil
	y.Instances, y.Version, y.VersionInfo = 0, "", nil
	bx, errX := json.Marshal(x)
	by, errY := json.Marshal(y)
	switch {
	case errX != nil || errY != nil || !bytes.Equal(bx, by):
		return Config
	case scaled:
		return Scaled
	}
	return Same
}

// Stamp gives a, the successor of old (nil for none), its version at time at,
// in the API's form.
func Stamp(a, old *marathon.App, d Difference, at string) {
	info := marathon.VersionInfo{LastScalingAt: at, LastConfigChangeAt: at}
	if old != nil && old.VersionInfo != nil && d == Scaled {
		info.LastConfigChangeAt = old.VersionInfo.LastConfigChangeAt
	}
	a.Version, a.VersionInfo = at, &info
}

// Clone returns a deep copy.
func Clone(a *marathon.App) *marathon.App {
	b, err := json.Marshal(a)
	if err != nil {
		panic("spec: a canonical app does not marshal: " + err.Error())
	}
	out := new(marathon.App)
	if err := json.Unmarshal(b, out); err != nil {
		panic("spec: a canonical app does not unmarshal: " + err.Error())
	}
	return out
}
