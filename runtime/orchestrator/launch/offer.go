// Package launch matches offers with wanted instances and writes the tasks
// that come of it. It is pure: randomness is passed in.
package launch

import (
	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/placement"
	"dcos.example/dcos/runtime/resource"
)

// Offer is an offer ready to be matched.
type Offer struct {
	ID    string
	Agent string
	placement.Place
	Resources   resource.Resources
	Maintenance bool // the agent's machine has a maintenance window
	Proto       *mesos.Offer
}

// FromProto reads an offer.
func FromProto(o *mesos.Offer) (Offer, error) {
	rs, err := resource.FromProto(o.GetResources())
	if err != nil {
		return Offer{}, fault.New("read offer "+o.GetId().GetValue(), fault.Invalid, err)
	}
	return Offer{
		ID: o.GetId().GetValue(), Agent: o.GetAgentId().GetValue(), Proto: o, Resources: rs.NonRevocable(),
		Maintenance: o.GetUnavailability() != nil,
		Place:       placement.Of(o.GetHostname(), o.GetDomain(), o.GetAttributes()),
	}, nil
}
