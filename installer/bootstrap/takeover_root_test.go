//go:build root

package bootstrap_test

import (
	"strings"
	"testing"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"

	"dcos.example/dcos/installer/bootstrap"
	"dcos.example/dcos/providers"
	"dcos.example/dcos/runtime/fault"
)

// TestTakeOver: the installer goes on with a host that installed itself for
// the same cluster, and touches none of its units; hosts of other clusters are
// refused.
func TestTakeOver(t *testing.T) {
	w := newWorld(t)
	path, digest := release(t, "1.0.0")
	of := func(cluster string) resource.PropertyMap {
		in := w.node(path, digest, "one", "daemon")
		in["files"].ObjectValue()["/etc/dcos/agent.json"] = resource.NewProperty(resource.PropertyMap{
			"content": str(`{"cluster":{"id":"` + cluster + `"}}`), "mode": resource.NewProperty(float64(0o644))})
		return in
	}
	create := func(token string, in resource.PropertyMap) error {
		_, err := w.dcos.Create(providers.WithToken(w.ctx(), token), plugin.CreateRequest{URN: urn(bootstrap.TypeNode, "agent-1"), Type: bootstrap.TypeNode, Properties: in})
		return err
	}
	const ours, theirs = "0b9c1b1e-5a0a-4c8e-9a54-8a3f6a3a7f11", "11111111-5a0a-4c8e-9a54-8a3f6a3a7f11"
	if err := create(bootstrap.OwnerOf(ours), of(ours)); err != nil {
		t.Fatal(err)
	}
	since := w.since("dcos-daemon.service")
	if err := create(strings.Repeat("2", 32), of(theirs)); !fault.Is(err, fault.Exists) {
		t.Errorf("another cluster: %v", err)
	}
	if err := create(strings.Repeat("3", 32), of(ours)); err != nil {
		t.Errorf("the same cluster: %v", err)
	}
	if !w.since("dcos-daemon.service").Equal(since) {
		t.Error("taking the host over restarted its unit")
	}
}
