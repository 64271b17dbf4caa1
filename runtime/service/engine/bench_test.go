package engine

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/service"
	"dcos.example/dcos/runtime/resource"
	"dcos.example/dcos/runtime/service/plan"
	"dcos.example/dcos/runtime/service/spec"
	"dcos.example/dcos/runtime/state/memory"
)

// deployed is an engine of n instances that all run.
func deployed(b *testing.B, n int) *Engine {
	s, _, err := service.Parse(fmt.Appendf(nil, "name: s\npods: {p: {count: %d, volumes: {v: {path: v, size: 10}}, tasks: {t: {cmd: x, cpus: 0.1, memory: 10, ports: {a: {port: 0}}}}}}\n", n))
	if err != nil {
		b.Fatal(err)
	}
	spec.Normalize(s)
	v, err := NewVault(make([]byte, 32))
	if err != nil {
		b.Fatal(err)
	}
	e, err := Install(b.Context(), Config{Store: memory.New(), Vault: v, Log: slog.New(slog.DiscardHandler)}, s, service.Package{}, time.Now())
	if err != nil {
		b.Fatal(err)
	}
	now := time.Now()
	for k := range n {
		i := &instance{id: plan.Instance{Pod: "p", Index: k}, rec: podRecord{
			Config: e.rec.Target, Agent: fmt.Sprint("a", k), Reservation: fmt.Sprint("r", k), Ports: map[string]int{"t/a": 1000 + k%100},
			Volumes: map[string]volumeRecord{"v": {ID: fmt.Sprint("v", k), Made: true}},
			Tasks: map[string]*taskRecord{"t": {
				ID: fmt.Sprint("t", k), Config: e.rec.Target, State: "TASK_RUNNING", Since: now,
				Token: "pod:" + e.target().hash["p"], Reached: "pod:" + e.target().hash["p"],
			}},
		}}
		e.adopt(i)
	}
	e.turn(now)
	return e
}

// BenchmarkTurn is a look at a service that rests: what every event costs.
func BenchmarkTurn(b *testing.B) {
	for _, n := range []int{3, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			e := deployed(b, n)
			for b.Loop() {
				e.turn(time.Now())
			}
		})
	}
}

// BenchmarkOffers is a round of offers of 1,000 agents for one instance that is
// to be placed.
func BenchmarkOffers(b *testing.B) {
	e := deployed(b, 100)
	var offers []*mesos.Offer
	for k := range 1000 {
		id := fmt.Sprint("o", k)
		offers = append(offers, &mesos.Offer{
			Id: &mesos.OfferID{Value: &id}, AgentId: &mesos.AgentID{Value: proto.String(fmt.Sprint("b", k))}, Hostname: proto.String(fmt.Sprint("h", k)),
			Resources: resource.MustParse("cpus:0.01;mem:1;disk:1;ports:[1-2]").Proto(), // too small: every reason is looked for
		})
	}
	i := &instance{id: plan.Instance{Pod: "p", Index: 100}, rec: podRecord{Config: e.rec.Target, Reservation: "r", Tasks: map[string]*taskRecord{}}}
	for b.Loop() {
		for _, o := range offers {
			e.offers[o.GetId().GetValue()] = o
		}
		e.heldSince = time.Time{}
		e.matchHeld(time.Now(), []want{{i: i, tasks: []string{"t"}}})
	}
}
