// Package membership is the list of masters as it changes: what it says, how a
// host follows it, and how hosts ask masters about it.
//
// The ensemble below the store decides who is a member. The leading master
// writes that down as one record (package keeper), every host follows the
// record (Source), and a master that starts finds its way in (packages entry
// and seat). ADR 0014 has the reasons.
package membership

import (
	"net/netip"
	"slices"

	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/state"
)

// Record is where the List is stored. The leading master writes it.
var Record = state.Key{Kind: "masters", ID: "live"}

// Paths that masters serve on port 5050. Agents may GET the first two.
const (
	PathStatus  = "/membership"
	PathList    = "/membership/list"
	PathView    = "/membership/view"
	PathJoin    = "/membership/join"
	PathLeave   = "/membership/leave"
	PathRecover = "/membership/recover" // on loopback only
)

// Role is what a member of the ensemble does.
type Role string

const (
	// Voter members decide by majority.
	Voter Role = "voter"
	// Learner members receive everything and are made voters when they have
	// caught up.
	Learner Role = "learner"
)

// Member is a master in the list.
type Member struct {
	Name string     `json:"name"`
	Addr netip.Addr `json:"addr"`
	ID   string     `json:"id"` // of the ensemble's member, hexadecimal; new when the master lost its data
	Role Role       `json:"role"`
}

// List says which masters there are.
type List struct {
	Cluster string `json:"cluster"` // config.Cluster.ID
	// Generation counts ensembles: one that was recovered from the loss of its
	// majority, or restored from a backup, has a higher one. It is a time in
	// Unix seconds, so that it grows even from an old backup.
	Generation int64 `json:"generation"`
	// Revision is the store's at which the list was written. It orders the
	// lists of one generation.
	Revision int64    `json:"revision"`
	Ensemble string   `json:"ensemble"` // id of the ensemble, hexadecimal
	Members  []Member `json:"members"`  // by name
	// Left are the ids of members that were removed on purpose. Who was one of
	// them does not come back by itself.
	Left []string `json:"left,omitempty"`
}

// Known reports whether l is a list at all, not the zero value.
func (l List) Known() bool { return l.Generation != 0 }

// Newer reports whether l was written after o.
func (l List) Newer(o List) bool {
	if l.Generation != o.Generation {
		return l.Generation > o.Generation
	}
	return l.Revision > o.Revision
}

// Find returns the member with an id.
func (l List) Find(id string) (Member, bool) {
	i := slices.IndexFunc(l.Members, func(m Member) bool { return m.ID == id })
	if i < 0 {
		return Member{}, false
	}
	return l.Members[i], true
}

// Voters returns the masters that serve.
func (l List) Voters() (out []config.Member) {
	for _, m := range l.Members {
		if m.Role == Voter {
			out = append(out, config.Member{Name: m.Name, Addr: m.Addr})
		}
	}
	return out
}

// Stage is how far a master is with taking its place.
type Stage string

const (
	Empty    Stage = "empty"    // has no data, and has not decided what to do
	Founding Stage = "founding" // founds an ensemble and waits for a majority of founders
	Starting Stage = "starting" // has data, and waits for a majority
	Joining  Stage = "joining"  // is a learner
	Serving  Stage = "serving"  // is a voter
	Gone     Stage = "gone"     // was removed on purpose and waits to be taken down
)

// View is what a master tells another about itself.
type View struct {
	Cluster string     `json:"cluster"`
	Name    string     `json:"name"`
	Addr    netip.Addr `json:"addr"`
	Stage   Stage      `json:"stage"`
	ID      string     `json:"id,omitempty"` // of its member, when it has data
	// Founders is who it would found an ensemble with, in one text: founders
	// must agree.
	Founders string `json:"founders"`
	// Majority: it takes part in one at this moment.
	Majority bool   `json:"majority"`
	Index    uint64 `json:"index,omitempty"` // of the raft log
	Release  string `json:"release"`
	Reason   string `json:"reason,omitempty"` // why it does not serve
	List     List   `json:"list"`             // the newest it knows; zero: none
}

// Status is the answer to GET PathStatus.
type Status struct {
	Leader     string         `json:"leader"` // name; "" when there is none
	Generation int64          `json:"generation"`
	Revision   int64          `json:"revision"`
	Members    []MemberStatus `json:"members"`
}

// MemberStatus is how one master is.
type MemberStatus struct {
	Member
	Healthy bool   `json:"healthy"` // it just read something that needs a majority
	Index   uint64 `json:"raft_index"`
	Version string `json:"version"`
	Reason  string `json:"reason,omitempty"` // why it is not healthy
}

// JoinRequest asks for a place in the ensemble.
type JoinRequest struct {
	Name string     `json:"name"`
	Addr netip.Addr `json:"addr"`
	// ID is what the master was added as: it runs and asks for its vote.
	ID    string `json:"id,omitempty"`
	Index uint64 `json:"index,omitempty"` // how far it is
	// Previous is what the master was before its data was set aside.
	Previous string `json:"previous,omitempty"`
	// Passed: a master that does not lead passed it on, to who did.
	Passed bool `json:"passed,omitempty"`
}

// JoinReply grants a place.
type JoinReply struct {
	ID   string `json:"id"`
	Role Role   `json:"role"`
	List List   `json:"list"` // with the asker in it
}

// LeaveRequest asks to remove a master, which may be the one asked.
type LeaveRequest struct {
	Name string `json:"name"`
	// Force removes it although too few of the others are healthy.
	Force bool `json:"force,omitempty"`
	// Passed: as in JoinRequest.
	Passed bool `json:"passed,omitempty"`
}

// RecoverRequest asks a master to go on alone.
type RecoverRequest struct {
	Force bool `json:"force"`
}
