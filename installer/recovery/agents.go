package recovery

import (
	"net/netip"

	"dcos.example/dcos/runtime/backup/archive"
)

// Standing is what is known of the agent on a host of the cluster's file.
type Standing struct {
	Known bool   // the host could be looked at
	ID    string // the agent's id on its disk; "" when there is none
}

// Forget returns the agents of a backup that will not come back, so that
// nothing waits for them: those whose host is not in the file, and those whose
// host is there but holds another agent, or none. Agents on hosts that could
// not be looked at may come back.
func Forget(agents []archive.Agent, hosts map[netip.Addr]Standing) []string {
	var out []string
	for _, a := range agents {
		h, listed := hosts[a.Addr]
		if !listed || h.Known && h.ID != a.ID {
			out = append(out, a.ID)
		}
	}
	return out
}
