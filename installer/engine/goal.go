package engine

import (
	"fmt"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/urn"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"
)

// Project is the project part of every URN the engine makes.
const Project = "dcos"

// Key names a resource within a stack: its type and a name unique among the
// resources of that type.
type Key struct {
	Type tokens.Type // package:module:Type, for example local:machine:Machine
	Name string
}

// String is "Type name" without the package and module: "Machine m1".
func (k Key) String() string { return string(k.Type.Name()) + " " + k.Name }

// URN returns the name of k that is written into the state of a stack.
func (k Key) URN(stack string) resource.URN {
	return urn.New(tokens.QName(stack), Project, "", k.Type, k.Name)
}

// KeyOf is the inverse of Key.URN.
func KeyOf(u resource.URN) Key { return Key{Type: u.Type(), Name: u.Name()} }

// Goal is one resource that should exist.
type Goal struct {
	Key
	// Inputs gives the properties; nil means none. It is called in every
	// preview and again in apply, and must be pure. It sees the outputs of
	// Dependencies only.
	Inputs Inputs
	// Dependencies must be in place before this resource and go after it. All
	// of them must be goals of the same run.
	Dependencies []Key

	// Protect refuses any plan that would delete or replace the resource, until
	// an apply with Protect false.
	Protect bool
	// Retain leaves the object in place when the resource is deleted from the
	// stack; the engine merely forgets it.
	Retain bool
	// DeleteBeforeReplace removes the old object before the new one is made,
	// together with dependents that must be replaced too. Without it the new
	// object comes first, unless the provider asks.
	DeleteBeforeReplace bool
	// IgnoreChanges lists top-level inputs whose changes are no change.
	IgnoreChanges []string
	// SecretOutputs lists outputs to treat as secret beyond those the provider
	// marks.
	SecretOutputs []resource.PropertyKey
	// Roll orders changes of what already works; the zero value is no order.
	Roll Roll
	// Timeouts bound single calls, in seconds; zero means no bound.
	Timeouts resource.CustomTimeouts
}

// Inputs computes the properties of a goal from the outputs of its
// dependencies.
type Inputs func(Outputs) (resource.PropertyMap, error)

// Constant returns inputs that depend on nothing.
func Constant(m resource.PropertyMap) Inputs {
	return func(Outputs) (resource.PropertyMap, error) { return m, nil }
}

// Outputs are what a goal's dependencies returned.
type Outputs struct {
	of map[Key]outputs
}

// Known are the outputs of resources that exist elsewhere: with them the inputs
// of a goal can be computed without an engine.
func Known(of map[Key]resource.PropertyMap) Outputs {
	o := Outputs{of: map[Key]outputs{}}
	for k, props := range of {
		o.of[k] = outputs{props: props}
	}
	return o
}

// outputs of one dependency; partial says that a preview predicted them, so a
// key that is missing is unknown rather than absent.
type outputs struct {
	id      resource.ID
	props   resource.PropertyMap
	partial bool
}

// Get returns one output of a dependency. In a preview it may be unknown
// (IsComputed). Asking for a resource that is not a declared dependency panics:
// the plan would depend on luck. A key the dependency does not have is null.
func (o Outputs) Get(k Key, key resource.PropertyKey) resource.PropertyValue {
	d := o.dependency(k)
	v, ok := d.props[key]
	if !ok && d.partial {
		return resource.MakeComputed(resource.NewProperty(""))
	}
	return v
}

func (o Outputs) dependency(k Key) outputs {
	d, ok := o.of[k]
	if !ok {
		panic(fmt.Sprintf("engine: inputs read %s without declaring it as a dependency", k))
	}
	return d
}
