// Package blueprint reads a cluster's HCL file into typed values. It evaluates
// in stages, each adding names to the scope of the next: variables, locals,
// the cluster, the provider, the node groups; outputs are checked here and
// evaluated again after an apply, when everything is known.
//
// It is pure: the caller reads the files and the environment. Every field
// keeps the place where it was written, all findings are reported at once, and
// a value that came from a sensitive variable is accepted only where nothing
// would show it.
package blueprint

import (
	"fmt"
	"net/netip"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

// Role is what a host does. Its text is the label of the node group.
type Role string

const (
	RoleMaster      Role = "master"
	RoleAgent       Role = "agent"
	RolePublicAgent Role = "public_agent"
)

// Roles lists every role, in the order in which hosts are listed.
var roles = []string{string(RoleMaster), string(RoleAgent), string(RolePublicAgent)}

// Field is one value with the place that set it.
type Field[T any] struct {
	Value T
	Range hcl.Range // the value, or the block's header when it was left out
	Set   bool      // written by the user; false: the default
}

// Size is a number of bytes.
type Size uint64

const (
	MiB Size = 1 << 20
	GiB Size = 1 << 30
)

// MiB returns s in whole mebibytes, rounded down.
func (s Size) MiB() int { return int(s / MiB) }

func (s Size) String() string {
	switch {
	case s >= GiB && s%GiB == 0:
		return fmt.Sprintf("%dGiB", s/GiB)
	case s >= MiB && s%MiB == 0:
		return fmt.Sprintf("%dMiB", s/MiB)
	}
	return fmt.Sprintf("%dB", uint64(s))
}

// Blueprint is a cluster as its author wants it.
type Blueprint struct {
	Cluster   Cluster
	Provider  Provider
	Groups    []NodeGroup // at most one of each role, in the order of the roles
	Preflight Preflight
	Upgrade   Upgrade
	Backup    *Backup  // nil: none
	Outputs   []Output // in the order of the file

	files map[string]*hcl.File
	scope *scope // what outputs may refer to, besides what an apply makes known
}

// Files returns the sources that ranges refer to, for showing snippets. It
// holds no text given for a sensitive variable.
func (b *Blueprint) Files() map[string]*hcl.File { return b.files }

// Group returns the node group of a role, or nil.
func (b *Blueprint) Group(r Role) *NodeGroup {
	for i := range b.Groups {
		if b.Groups[i].Role == r {
			return &b.Groups[i]
		}
	}
	return nil
}

// Cluster is the `cluster "name" { … }` block.
type Cluster struct {
	Name          Field[string]
	Release       Field[string] // version the bundle must have; empty: whatever the bundle is
	AdminUser     Field[string]
	AdminPassword Field[string] // always secret; empty: one is generated
	Resolvers     Field[[]netip.AddrPort]
	Range         hcl.Range
}

// Provider is the `provider "kind" { … }` block: where machines come from.
type Provider struct {
	Kind   Field[string]
	Local  Local   // set when Kind is "local"
	OnPrem *OnPrem // set when Kind is "onprem"
	Range  hcl.Range
}

// ProviderLocal is the kind of provider that simulates hosts on this machine.
const ProviderLocal = "local"

// Local are the settings of the local provider.
type Local struct {
	Range  Field[netip.Prefix] // addresses of the hosts; the first one is the gateway
	Uplink Field[bool]         // whether hosts reach the outside through this machine
	Dir    Field[string]       // where the disks of the hosts live; empty: in the state directory
}

// NodeGroup is a `node_group "role" { … }` block.
type NodeGroup struct {
	Role  Role
	Count Field[int]
	Nodes []Node // local: one per host; len is Count
	Hosts []Host // onprem: host blocks as in the file, then those of the short form by name; len is Count
	Range hcl.Range
}

// Node is one host of a group: the group's attributes evaluated for its index.
type Node struct {
	CPUs       Field[float64]
	Memory     Field[Size]
	Disk       Field[Size]
	Attributes Field[map[string]string] // Mesos attributes of an agent
	// Reservations are the parts of an agent that only a role may use, in
	// Mesos' text form.
	Reservations Field[map[string]string]
}

// Output is an `output "name" { … }` block.
type Output struct {
	Name        string
	Description string
	Sensitive   bool
	Range       hcl.Range
	expr        hcl.Expression
}

// OutputValue is an evaluated output. Value is unknown as long as it depends
// on something that an apply makes; it carries no marks.
type OutputValue struct {
	Name        string
	Description string
	Sensitive   bool
	Value       cty.Value
}

// Default sizes of hosts, by role.
var defaultNodes = map[Role]struct {
	cpus         float64
	memory, disk Size
}{
	RoleMaster:      {1, 1 * GiB, 10 * GiB},
	RoleAgent:       {1, 2 * GiB, 10 * GiB},
	RolePublicAgent: {1, 1 * GiB, 10 * GiB},
}

// Bounds of hosts. A master with its etcd and a daemon with containerd do not
// fit into less memory.
const (
	minCPUs    = 0.1
	minMemory  = 512 * MiB
	minDisk    = 1 * GiB
	maxCount   = 10_000
	minPwdLen  = 8
	defLocalIP = "198.18.0.0/16"
)
