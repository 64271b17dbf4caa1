package config

import (
	"errors"
	"fmt"
	"slices"
)

// MastersFile names the masters of the cluster. Every host has one; daemons
// read it anew while they run, so its change restarts no unit.
const MastersFile = EtcDir + "/masters.json"

// Masters is the content of MastersFile.
type Masters struct {
	Masters []Member `json:"masters"` // every master that is wanted now, in a stable order
	// Founders are the names of the masters that the cluster was made with.
	// Only they may found an ensemble when none is there yet.
	Founders []string `json:"founders"`
}

// Validate returns everything that is wrong with m. That a founder is not
// among the masters is fine: it may have left since.
func (m Masters) Validate() error {
	var errs []error
	if len(m.Masters) == 0 {
		errs = append(errs, errors.New("masters: missing"))
	}
	for i, mm := range m.Masters {
		if mm.Name == "" || !mm.Addr.Is4() {
			errs = append(errs, fmt.Errorf("masters: element %d needs a name and an IPv4 address", i))
		}
		if slices.ContainsFunc(m.Masters[:i], func(o Member) bool { return o.Name == mm.Name || o.Addr == mm.Addr }) {
			errs = append(errs, fmt.Errorf("masters: %s (%s) has the name or the address of another", mm.Name, mm.Addr))
		}
	}
	if len(m.Founders) == 0 {
		errs = append(errs, errors.New("founders: missing"))
	}
	return invalid("check list of masters", errs)
}
