//go:build root

package bootstrap_test

import (
	"testing"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"

	"dcos.example/dcos/installer/bootstrap"
	"dcos.example/dcos/providers/conformance"
	"dcos.example/dcos/runtime/fault"
)

func TestNodeConforms(t *testing.T) {
	path, digest := release(t, "1.0.0")
	conformance.Run(t, func(t *testing.T) conformance.Subject {
		w := newWorld(t)
		replace := w.node(path, digest, "one", "daemon")
		replace["role"] = str("public_agent")
		return conformance.Subject{
			Provider: w.dcos, Type: bootstrap.TypeNode, Name: "agent-1",
			Inputs: w.node(path, digest, "one", "daemon"), Update: w.node(path, digest, "two", "daemon"), Replace: replace,
			Count: func(t *testing.T, _ resource.URN) int {
				if _, err := w.host().ReadFile(t.Context(), bootstrap.RecordPath); fault.Is(err, fault.NotFound) {
					out, err := w.host().Run(t.Context(), "/bin/sh", "-c", "ls /opt/dcos/releases /etc/dcos /etc/systemd/system 2>/dev/null | grep -c -e '^1.0.0' -e daemon")
					if err != nil || out.Stdout != "0\n" {
						t.Errorf("no record, but on the host: %+v, %v", out, err)
					}
					return 0
				} else if err != nil {
					t.Fatal(err)
				}
				return 1
			},
		}
	})
}
