package providers

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"

	"dcos.example/dcos/runtime/fault"
)

// Provider makes, reads, changes and removes the resources of one package.
// The package comment says what each call promises.
type Provider interface {
	// Check validates the new inputs and fills in defaults. What it returns is
	// what Diff, Create and Update are given. Problems with what the user wrote
	// go into Failures, all of them.
	Check(ctx context.Context, req plugin.CheckRequest) (plugin.CheckResponse, error)
	// Diff says what it takes to get from the recorded to the new inputs.
	Diff(ctx context.Context, req plugin.DiffRequest) (plugin.DiffResponse, error)
	// Create makes the object, or adopts and finishes what an earlier call left.
	Create(ctx context.Context, req plugin.CreateRequest) (plugin.CreateResponse, error)
	// Read reports the object as it is; an empty ID in the answer: it is gone.
	Read(ctx context.Context, req plugin.ReadRequest) (plugin.ReadResponse, error)
	// Update drives the object to NewInputs in place.
	Update(ctx context.Context, req plugin.UpdateRequest) (plugin.UpdateResponse, error)
	// Delete removes the object and all its parts; gone already is success.
	Delete(ctx context.Context, req plugin.DeleteRequest) (plugin.DeleteResponse, error)
}

// Every provider of the SDK is one of ours.
var _ Provider = plugin.Provider(nil)

// Set holds the providers of a run by the package of their resource types:
// "local" serves "local:machine:Machine".
type Set map[tokens.Package]Provider

// For returns the provider of a resource type, or an Invalid error that names
// the packages there are.
func (s Set) For(t tokens.Type) (Provider, error) {
	if p, ok := s[t.Package()]; ok {
		return p, nil
	}
	var known []string
	for _, k := range slices.Sorted(maps.Keys(s)) {
		known = append(known, string(k))
	}
	return nil, fault.New("find a provider for "+string(t), fault.Invalid,
		fmt.Errorf("no package %q; known: %s", t.Package(), strings.Join(known, ", ")))
}
