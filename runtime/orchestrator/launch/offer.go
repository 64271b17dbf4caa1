// Package launch matches offers with wanted instances and writes the tasks
// that come of it. It is pure: randomness is passed in.
package launch

import (
	"slices"
	"strings"

	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/resource"
)

// Place is where an instance runs or could run, as constraints see it.
type Place struct {
	Host       string            `json:"host"`
	Region     string            `json:"region,omitempty"`
	Zone       string            `json:"zone,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
}

// value returns the place's value of a constraint's field.
func (p Place) value(field string) (string, bool) {
	switch field {
	case "hostname", "@hostname":
		return p.Host, true
	case "@region":
		return p.Region, p.Region != ""
	case "@zone":
		return p.Zone, p.Zone != ""
	}
	v, ok := p.Attributes[field]
	return v, ok
}

// Offer is an offer ready to be matched.
type Offer struct {
	ID    string
	Agent string
	Place
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
	d := o.GetDomain().GetFaultDomain()
	out := Offer{
		ID: o.GetId().GetValue(), Agent: o.GetAgentId().GetValue(), Proto: o, Resources: rs.NonRevocable(),
		Maintenance: o.GetUnavailability() != nil,
		Place: Place{
			Host: o.GetHostname(), Region: d.GetRegion().GetName(), Zone: d.GetZone().GetName(),
			Attributes: map[string]string{},
		},
	}
	for _, a := range o.GetAttributes() {
		if _, ok := out.Attributes[a.GetName()]; !ok { // the first of duplicates counts
			out.Attributes[a.GetName()] = attribute(a)
		}
	}
	return out, nil
}

// attribute writes an agent's attribute as constraints compare it.
func attribute(a *mesos.Attribute) string {
	switch a.GetType() {
	case mesos.Value_SCALAR:
		return resource.Float(a.GetScalar().GetValue()).String()
	case mesos.Value_RANGES:
		var rs []resource.Range
		for _, r := range a.GetRanges().GetRange() {
			rs = append(rs, resource.Range{Begin: r.GetBegin(), End: r.GetEnd()})
		}
		return strings.ReplaceAll(resource.NewRanges(rs...).String(), " ", "")
	case mesos.Value_SET:
		return "{" + strings.Join(slices.Sorted(slices.Values(a.GetSet().GetItem())), ",") + "}"
	}
	return a.GetText().GetValue()
}
