package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"

	"dcos.example/dcos/installer/engine"
	"dcos.example/dcos/installer/program"
	"dcos.example/dcos/installer/topology"
	"dcos.example/dcos/runtime/fault"
)

// keepsMasters refuses a plan that leaves none of the masters that are
// installed: each holds a copy of the cluster's state, and one that comes gets
// it from those that are there. The impact of a plan says whether enough of them
// work.
func (w *work) keepsMasters(p *engine.Plan) error {
	s := w.session
	st, err := s.stack.State()
	if err != nil {
		return err
	}
	have := map[string]bool{}
	for _, res := range st.Resources() {
		if k := engine.KeyOf(res.URN); k.Type == program.TypeNode && text(res.Inputs["role"]) == string(topology.RoleMaster) {
			have[k.Name] = true
		}
	}
	if len(have) == 0 {
		return nil
	}
	var anew []string
	replaced := map[string]bool{}
	for _, step := range p.Steps {
		if program.IsHost(tokens.Type(step.Type)) && step.Op == engine.OpReplace && have[step.Name] {
			replaced[step.Name] = true
			anew = append(anew, fmt.Sprintf("%s would be made anew, because its %s would change", step.Name, strings.Join(step.ReplaceKeys, " and ")))
		}
	}
	for _, h := range w.input.topology.Masters() {
		if have[h.Name] && !replaced[h.Name] {
			return nil
		}
	}
	why := "no master that the file names is one that the cluster has"
	if len(anew) > 0 {
		why = strings.Join(anew, "; ")
	}
	return fault.Newf("plan the masters", fault.Invalid, "%s, and the cluster's state would be lost: nobody would be left to give it to those that come.\n"+
		"Do it in two steps, with one of the present masters in the file at least (%s); or destroy the cluster and apply anew.",
		why, strings.Join(slices.Sorted(maps.Keys(have)), ", "))
}
