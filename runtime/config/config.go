// Package config is what a daemon reads at start: one JSON file per role,
// written by genconf and type-checked against these structs on both sides.
// Unknown keys are errors. Secrets are never in these files, only paths to
// them.
package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	"dcos.example/dcos/runtime/fault"
)

// Fixed paths on every host. A release is a directory under ReleaseDir named
// by its digest; CurrentLink points at the active one.
const (
	EtcDir      = "/etc/dcos"
	VarDir      = "/var/lib/dcos"
	RunDir      = "/run/dcos"
	LogDir      = "/var/log/dcos"
	ReleaseDir  = "/opt/dcos/releases"
	CurrentLink = "/opt/dcos/current"
	ReleaseFile = CurrentLink + "/manifest.json"
	UnitDir     = "/etc/systemd/system"

	MasterFile     = EtcDir + "/master.json"
	AgentFile      = EtcDir + "/agent.json"
	CACertFile     = EtcDir + "/pki/ca.crt"
	CAKeyFile      = EtcDir + "/pki/ca.key"     // masters only
	JoinTokenFile  = EtcDir + "/pki/join-token" // every host: agents send it, masters compare
	SealKeyFile    = EtcDir + "/pki/seal.key"   // masters only: 32 bytes, base64; encrypts secrets at rest
	AdminHashFile  = EtcDir + "/pki/admin.json" // masters only: first user {"uid","password_hash"}
	ContainerdConf = EtcDir + "/containerd.toml"
	ContainerdSock = RunDir + "/containerd.sock"

	RegistryDir = VarDir + "/registry" // masters only: the images of the cluster's registry
)

// Units that genconf renders and the installer starts, in start order.
const (
	UnitMaster     = "dcos-master.service"
	UnitContainerd = "dcos-containerd.service"
	UnitAgent      = "dcos-agent.service"
)

// Ports of the runtime. A master and an agent serve the Mesos ports twice:
// with mutual TLS on the host's address, in clear on loopback.
const (
	PortGateway      = 443
	PortGatewayPlain = 80
	PortMaster       = 5050
	PortAgent        = 5051
	PortOrchestrator = 8080
	PortEtcdPeer     = 2380
	PortDNS          = 53
	PortRegistry     = 5000
)

// RegistryHost is the host in the names of images that the cluster's own
// registry serves. Agents reach it at the masters, on PortRegistry, and
// nobody needs to resolve it.
const RegistryHost = "registry.dcos"

// DNSAddr is the address on every host's loopback where its DNS server
// listens; it is the one DC/OS used, so images that name it keep working.
const DNSAddr = "198.51.100.1"

// VIPRange and OverlayRange are the address ranges of named VIPs and overlay
// networks. Hosts route them nowhere.
const (
	VIPRange     = "11.0.0.0/8"
	OverlayRange = "9.0.0.0/8"
)

// Duration is a time.Duration written as text ("10s") in JSON.
type Duration time.Duration

func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// Cluster is what every host of a cluster agrees on.
type Cluster struct {
	ID      string `json:"id"`      // UUID, fixed for the life of the cluster
	Name    string `json:"name"`    // shown to people
	Release string `json:"release"` // version of the release, e.g. "0.1.0"
	// Resolvers are where names outside the cluster are looked up, as
	// "ip:port". Empty: such names do not resolve.
	Resolvers []string `json:"resolvers,omitempty"`
}

// Release is what a daemon reads of the manifest of the release it belongs to.
type Release struct {
	Version    string            `json:"version"`
	Components map[string]string `json:"components"` // version by name
}

// LoadRelease reads the manifest at path, which has more in it for the
// installer.
func LoadRelease(path string) (r Release, err error) {
	const op = "read release manifest"
	b, err := os.ReadFile(path)
	if err != nil {
		return r, fault.New(op, fault.NotFound, err)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fault.Newf(op, fault.Invalid, "%s: %w", path, err)
	}
	return r, nil
}

// Member is one master.
type Member struct {
	Name string     `json:"name"`
	Addr netip.Addr `json:"addr"`
}

// Host is what every daemon knows of the host it runs on.
type Host struct {
	Name string     `json:"name"` // host name, unique in the cluster
	Addr netip.Addr `json:"addr"` // the address that other hosts use
}

// Format is the newest format of Master and Agent that this release reads, and
// the one that genconf writes. It grows when a file of the new form would be
// misunderstood by a daemon that knows only the old one.
const Format = 1

// Master configures `dcosd master`.
type Master struct {
	Format  int     `json:"format"`
	Cluster Cluster `json:"cluster"`
	Host    Host    `json:"host"`
	DataDir string  `json:"data_dir"` // etcd and other state, default VarDir/master

	// HeartbeatInterval and ElectionTimeout are etcd's; leadership of the
	// cluster follows etcd's raft leader, so they bound fail-over.
	HeartbeatInterval Duration `json:"heartbeat_interval"`
	ElectionTimeout   Duration `json:"election_timeout"`

	// AgentPing and AgentMissedPings decide when a silent agent is
	// unreachable: after their product.
	AgentPing        Duration `json:"agent_ping"`
	AgentMissedPings int      `json:"agent_missed_pings"`

	// AgentReregister is how long after a fail-over agents may take to come
	// back before they are marked unreachable.
	AgentReregister Duration `json:"agent_reregister"`

	Backup Backup `json:"backup"`
}

// Agent configures `dcosd agent`.
type Agent struct {
	Format     int               `json:"format"`
	Cluster    Cluster           `json:"cluster"`
	Host       Host              `json:"host"`
	Public     bool              `json:"public"`    // public agents offer role slave_public
	WorkDir    string            `json:"work_dir"`  // sandboxes and checkpoints, default VarDir/agent
	Resources  string            `json:"resources"` // Mesos text form, e.g. "cpus:2;mem:1024"; empty: detect
	Attributes map[string]string `json:"attributes,omitempty"`
	// Reservations are the parts of the resources that only a role may use, in
	// the same text form without roles: {"db-role": "cpus:2;mem:4096"}.
	Reservations map[string]string `json:"reservations,omitempty"`
	LogFile      string            `json:"log_file,omitempty"`

	Containerd string `json:"containerd"` // socket
	// Bridge is the network that apps with their own address get when they
	// name none ("networks":[{"mode":"container/bridge"}]).
	Bridge Bridge `json:"bridge"`
}

// Bridge is a host-local container network.
type Bridge struct {
	Name   string       `json:"name"`
	Subnet netip.Prefix `json:"subnet"` // the first address is the gateway
}

// DefaultMaster returns a Master with every default set.
func DefaultMaster() Master {
	return Master{
		Format:            Format,
		DataDir:           VarDir + "/master",
		HeartbeatInterval: Duration(100 * time.Millisecond),
		ElectionTimeout:   Duration(time.Second),
		AgentPing:         Duration(time.Second),
		AgentMissedPings:  5,
		AgentReregister:   Duration(10 * time.Minute),
		Backup:            DefaultBackup(),
	}
}

// DefaultAgent returns an Agent with every default set.
func DefaultAgent() Agent {
	return Agent{
		Format:     Format,
		WorkDir:    VarDir + "/agent",
		Containerd: ContainerdSock,
		Bridge:     Bridge{Name: "dcos0", Subnet: netip.MustParsePrefix("172.31.254.0/24")},
	}
}

// Validate returns everything that is wrong with m.
func (m Master) Validate() error {
	errs := append(m.Cluster.check(), m.Host.check()...)
	if m.ElectionTimeout < 3*m.HeartbeatInterval {
		errs = append(errs, fmt.Errorf("election_timeout: %s is under three heartbeat_intervals of %s", time.Duration(m.ElectionTimeout), time.Duration(m.HeartbeatInterval)))
	}
	if m.AgentPing <= 0 || m.AgentMissedPings <= 0 {
		errs = append(errs, errors.New("agent_ping and agent_missed_pings: must be positive"))
	}
	errs = append(errs, m.Backup.check()...)
	return invalid("check master configuration", errs)
}

// Validate returns everything that is wrong with a.
func (a Agent) Validate() error {
	errs := append(a.Cluster.check(), a.Host.check()...)
	if a.Bridge.Name == "" || !a.Bridge.Subnet.IsValid() || !a.Bridge.Subnet.Addr().Is4() || a.Bridge.Subnet.Bits() > 29 {
		errs = append(errs, errors.New("bridge: needs a name and an IPv4 subnet of /29 or larger"))
	}
	return invalid("check agent configuration", errs)
}

func (c Cluster) check() (errs []error) {
	if c.ID == "" {
		errs = append(errs, errors.New("cluster.id: missing"))
	}
	if c.Name == "" {
		errs = append(errs, errors.New("cluster.name: missing"))
	}
	return errs
}

func (h Host) check() (errs []error) {
	if h.Name == "" {
		errs = append(errs, errors.New("host.name: missing"))
	}
	if !h.Addr.Is4() {
		errs = append(errs, errors.New("host.addr: must be an IPv4 address"))
	}
	return errs
}

func invalid(op string, errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	return fault.New(op, fault.Invalid, errors.Join(errs...))
}

// Load reads the JSON file at path over v, which holds the defaults, refuses
// keys that v does not have, and validates the result.
func Load[T interface{ Validate() error }](path string, v T) (T, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return v, fault.New("read configuration", fault.NotFound, err)
	}
	if err := known(b); err != nil {
		return v, fault.Newf("read configuration", fault.Invalid, "%s: %w", path, err)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil {
		return v, fault.Newf("read configuration", fault.Invalid, "%s: %w", path, err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return v, fault.Newf("read configuration", fault.Invalid, "%s: text after the configuration", path)
	}
	return v, v.Validate()
}

// known refuses a file of a newer release before its unknown keys confuse.
func known(b []byte) error {
	var f struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(b, &f); err == nil && f.Format > Format {
		return fmt.Errorf("it has format %d and this is release %s, which reads up to format %d: the file was written for a newer release; "+
			"run that one, or install this one again, which writes the file anew", f.Format, Version, Format)
	}
	return nil // what else is wrong, the decoder says
}
