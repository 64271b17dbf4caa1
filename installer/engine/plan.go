package engine

import (
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
)

// Op is what happens to one resource.
type Op string

// A replacement is one step in a plan. When it is carried out it is a create
// and a delete, in the order the step says.
const (
	OpSame    Op = "same"
	OpCreate  Op = "create"
	OpUpdate  Op = "update"
	OpReplace Op = "replace"
	OpDelete  Op = "delete"
	OpForget  Op = "forget" // dropped from the stack, left in place (Goal.Retain)
)

// Plan says what an apply would do, and on what ground.
type Plan struct {
	Stack      string    `json:"stack"`
	Serial     uint64    `json:"serial"`     // of the state it was made on
	ConfigHash string    `json:"configHash"` // Options.ConfigHash it was made for
	Created    time.Time `json:"created"`
	// Steps has one entry per resource, unchanged ones included: goals with
	// dependencies first, then what is deleted with dependents first.
	Steps []Step `json:"steps"`
	// Drift lists what Options.Refresh found changed outside.
	Drift []Drift `json:"drift,omitempty"`
}

// Step is the planned change of one resource.
type Step struct {
	URN  resource.URN `json:"urn"`
	Type string       `json:"type"`
	Name string       `json:"name"`
	Op   Op           `json:"op"`
	// Reason says why, in words, when the changes alone do not.
	Reason string `json:"reason,omitempty"`
	// DeleteFirst says that a replacement removes the old object first.
	DeleteFirst bool `json:"deleteFirst,omitempty"`
	// ReplaceKeys are the inputs that force a replacement.
	ReplaceKeys []string `json:"replaceKeys,omitempty"`
	// Changes of inputs, sorted by path.
	Changes []Change `json:"changes,omitempty"`
	// Dependencies this step waits for.
	Dependencies []resource.URN `json:"dependencies,omitempty"`
}

// Key returns the resource the step is about.
func (s Step) Key() Key { return KeyOf(s.URN) }

// Change is one input that differs. Old and New are JSON texts, empty when
// there is no such value; a secret reads "[secret]" and a value known only
// after apply "[unknown]".
type Change struct {
	Path string `json:"path"`
	Old  string `json:"old,omitempty"`
	New  string `json:"new,omitempty"`
}

// Drift is a difference between the recorded and the real object.
type Drift struct {
	URN     resource.URN `json:"urn"`
	Gone    bool         `json:"gone,omitempty"`
	Changes []Change     `json:"changes,omitempty"`
}

// Counts returns how many steps there are of each kind.
func (p *Plan) Counts() map[Op]int {
	n := map[Op]int{}
	for _, s := range p.Steps {
		n[s.Op]++
	}
	return n
}

// HasChanges reports whether an apply would change anything.
func (p *Plan) HasChanges() bool {
	for _, s := range p.Steps {
		if s.Op != OpSame {
			return true
		}
	}
	return false
}
