package cli

import (
	"context"
	"net/http"
	"slices"
	"time"

	"dcos.example/dcos/installer/engine"
	"dcos.example/dcos/installer/gateway"
	"dcos.example/dcos/installer/program"
	"dcos.example/dcos/runtime/fault"
)

// askTime bounds a question to the cluster that only improves an answer.
const askTime = 3 * time.Second

// gateway returns a client of the running cluster, as the administrator whom
// the state knows.
func (s *session) gateway() (*gateway.Client, error) {
	st, err := s.stack.State()
	if err != nil {
		return nil, err
	}
	res := st.Live(program.ClusterKey(s.cluster).URN(s.stack.Name()))
	if res == nil {
		return nil, fault.Newf("reach the cluster", fault.NotFound, "it has not been made yet")
	}
	c := gateway.Config{Dial: s.run.app.Dial, CA: text(res.Inputs["caCert"]), User: text(res.Inputs["adminUser"]), Password: text(res.Inputs["adminPassword"])}
	if v := res.Inputs["masters"]; v.IsArray() {
		for _, m := range v.ArrayValue() {
			c.Masters = append(c.Masters, text(m))
		}
	}
	return gateway.New(c)
}

// leader returns the name of the leading master, "" when the cluster does not
// say.
func (s *session) leader(ctx context.Context) string {
	c, err := s.gateway()
	if err != nil {
		return ""
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	var members struct {
		Leader string `json:"leader"`
	}
	if err := c.JSON(ctx, http.MethodGet, "/system/v1/members", nil, &members); err != nil {
		return ""
	}
	return members.Leader
}

// order lets the changes of p go through the hosts one after the other: the
// masters first, the leading one of them last.
func (s *session) order(ctx context.Context, goals []engine.Goal, p *engine.Plan, r program.Rolling) {
	changed := 0
	for _, step := range p.Steps {
		if step.Type == string(program.TypeNode) && (step.Op == engine.OpUpdate || step.Op == engine.OpReplace) && slices.Contains(r.Masters, step.Name) {
			changed++
		}
	}
	if changed > 1 {
		r.Leader = s.leader(ctx)
	}
	program.Roll(goals, r)
}
