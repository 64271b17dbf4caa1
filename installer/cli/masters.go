package cli

import (
	"slices"
	"strings"

	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"

	"dcos.example/dcos/installer/engine"
	"dcos.example/dcos/installer/program"
	"dcos.example/dcos/installer/topology"
	"dcos.example/dcos/runtime/fault"
)

// keepsMasters refuses a plan that changes which masters there are, or makes
// one anew, once they are installed: each holds a copy of the cluster's state
// under a name and an address that the others know.
func (w *work) keepsMasters(p *engine.Plan) error {
	s := w.session
	st, err := s.stack.State()
	if err != nil {
		return err
	}
	var have, want []string
	for _, res := range st.Resources() {
		if k := engine.KeyOf(res.URN); k.Type == program.TypeNode && text(res.Inputs["role"]) == string(topology.RoleMaster) {
			have = append(have, k.Name)
		}
	}
	if len(have) == 0 {
		return nil
	}
	for _, h := range w.input.topology.Masters() {
		want = append(want, h.Name)
	}
	slices.Sort(have)
	slices.Sort(want)
	const op = "plan the masters"
	const anew = "To have it otherwise, destroy the cluster and apply anew; its apps are lost with it (dcos marathon app list --json shows them)."
	if !slices.Equal(have, want) {
		return fault.Newf(op, fault.Invalid, "the cluster has %d, the file wants %d. The masters hold the cluster's state, and their number cannot be changed while it exists.\n"+
			"Set the count of node_group \"master\" to %d again. %s", len(have), len(want), len(have), anew)
	}
	for _, step := range p.Steps {
		if program.IsHost(tokens.Type(step.Type)) && step.Op == engine.OpReplace && slices.Contains(have, step.Name) {
			return fault.Newf(op, fault.Invalid, "%s would be made anew, because its %s would change, and the cluster's state on it would be lost.\n"+
				"Take that change of the file back. %s", step.Name, strings.Join(step.ReplaceKeys, " and "), anew)
		}
	}
	return nil
}
