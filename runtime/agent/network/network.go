// Package network gives containers their network: a namespace each, an address
// on the host's bridge, and host ports that lead to them. The bridge network is
// built in-process over netlink and one nft table, because a CNI plugin
// process costs more than all of that together; networks of any other name are
// CNI configurations and run their plugins.
//
// Every attachment is a file, so that a restarted agent knows what exists. A
// reboot takes the namespaces away; their files are then dropped.
package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
)

// BridgeName is the default network under the name that DC/OS gave it.
const BridgeName = "mesos-bridge"

// Options say where things are. Zero fields have the defaults of a host.
type Options struct {
	Bridge   config.Bridge
	StateDir string // attachments, one file each
	Table    string // nft table of family ip, default "dcos_agent"
	NetnsDir string // default /run/netns, where ip-netns looks
	Prefix   string // of namespace names, default "dcos-"
	CNIConf  string // *.conflist, default /etc/dcos/cni/net.d
	CNIBin   string // plugins, default /opt/dcos/current/cni
	Log      *slog.Logger
}

// Port leads from a port of the host to one of the container.
type Port struct {
	Host      uint16 `json:"host"`
	Container uint16 `json:"container"`
	Protocol  string `json:"protocol"` // tcp or udp
}

// Request asks for a container's network.
type Request struct {
	ID      string // of the container
	Network string // a CNI network; empty, BridgeName or the bridge's name: the bridge
	Ports   []Port
}

// Attachment is the network of one container.
type Attachment struct {
	ID      string       `json:"id"`
	Network string       `json:"network"` // as asked; empty for the bridge
	Netns   string       `json:"netns"`   // path of the namespace
	Link    string       `json:"link,omitempty"`
	IPs     []netip.Addr `json:"ips"`
	Gateway netip.Addr   `json:"gateway"` // invalid if the network names none
	Ports   []Port       `json:"ports,omitempty"`
}

// Manager owns the bridge, the table and all attachments of this host.
type Manager struct {
	o       Options
	gateway netip.Addr
	nat     *natTable

	mu       sync.Mutex
	attached map[string]*Attachment
	used     map[netip.Addr]string // address → container
	taken    map[portKey]string    // host port → container
	cursor   netip.Addr            // the address given last
}

type portKey struct {
	protocol string
	port     uint16
}

// New makes the bridge and the table, or takes over those of a former run with
// the attachments that still exist.
func New(o Options) (*Manager, error) {
	const op = "set up container network"
	setDefault(&o.Table, defaultTable)
	setDefault(&o.NetnsDir, defaultNetnsDir)
	setDefault(&o.Prefix, defaultPrefix)
	setDefault(&o.CNIConf, config.EtcDir+"/cni/net.d")
	setDefault(&o.CNIBin, config.CurrentLink+"/cni")
	for _, dir := range []string{o.StateDir, o.NetnsDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fault.New(op, fault.Internal, err)
		}
	}
	m := &Manager{
		o: o, gateway: o.Bridge.Subnet.Masked().Addr().Next(),
		attached: make(map[string]*Attachment), used: make(map[netip.Addr]string), taken: make(map[portKey]string),
	}
	m.cursor = m.gateway
	if err := m.load(); err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	if err := ensureBridge(o.Bridge, m.gateway); err != nil {
		return nil, fault.Newf(op, fault.Internal, "bridge %s: %w", o.Bridge.Name, err)
	}
	m.nat = &natTable{name: o.Table, bridge: o.Bridge.Name, subnet: o.Bridge.Subnet.Masked()}
	var ports []mapping
	for _, a := range m.attached {
		ports = append(ports, m.mappings(a)...)
	}
	if err := m.nat.rebuild(ports); err != nil {
		return nil, fault.Newf(op, fault.Internal, "nft table %s: %w", o.Table, err)
	}
	return m, nil
}

// What Options leave empty.
const (
	defaultTable    = "dcos_agent"
	defaultNetnsDir = "/run/netns"
	defaultPrefix   = "dcos-"
)

func setDefault(s *string, v string) {
	if *s == "" {
		*s = v
	}
}

// Gateway is the host's address on the bridge, where its DNS server answers
// containers.
func (m *Manager) Gateway() netip.Addr { return m.gateway }

// onBridge reports whether a network name means the bridge.
func (m *Manager) onBridge(name string) bool {
	return name == "" || name == BridgeName || name == m.o.Bridge.Name
}

// Attach makes a namespace with the network in it. After an error nothing of
// it is left.
func (m *Manager) Attach(ctx context.Context, r Request) (Attachment, error) {
	const op = "attach container to network"
	a := &Attachment{ID: r.ID, Netns: filepath.Join(m.o.NetnsDir, m.o.Prefix+r.ID), Ports: r.Ports}
	if !m.onBridge(r.Network) {
		a.Network = r.Network
	} else {
		a.Link = linkName(r.ID)
	}
	if err := m.reserve(a); err != nil {
		return Attachment{}, err
	}
	err := m.save(a)
	if err == nil {
		err = makeNetns(a.Netns)
	}
	if err == nil {
		if a.Network == "" {
			err = m.join(a)
		} else {
			err = m.cniAdd(ctx, a)
		}
	}
	if err == nil {
		err = m.save(a)
	}
	if err != nil {
		kind := fault.Internal
		if f, ok := errors.AsType[*fault.Error](err); ok {
			kind = f.Kind
		}
		return Attachment{}, fault.New(op, kind, errors.Join(err, m.Detach(context.WithoutCancel(ctx), r.ID)))
	}
	return *a, nil
}

// join connects a namespace to the bridge and opens its ports.
func (m *Manager) join(a *Attachment) error {
	if err := connect(a, m.o.Bridge, m.gateway); err != nil {
		return err
	}
	return m.nat.add(m.mappings(a))
}

// mappings are the nft map's elements of an attachment. CNI networks map
// their ports themselves.
func (m *Manager) mappings(a *Attachment) (out []mapping) {
	if a.Network != "" {
		return nil
	}
	for _, p := range a.Ports {
		out = append(out, mapping{p, a.IPs[0]})
	}
	return out
}

// reserve books the address and the ports of a new attachment.
func (m *Manager) reserve(a *Attachment) error {
	const op = "attach container to network"
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.attached[a.ID] != nil {
		return fault.Newf(op, fault.Exists, "container %s has a network", a.ID)
	}
	for _, p := range a.Ports {
		if p.Protocol != "tcp" && p.Protocol != "udp" {
			return fault.Newf(op, fault.Invalid, "protocol %q of port %d is neither tcp nor udp", p.Protocol, p.Host)
		}
		if by := m.taken[portKey{p.Protocol, p.Host}]; by != "" {
			return fault.Newf(op, fault.Conflict, "host port %d/%s leads to container %s already", p.Host, p.Protocol, by)
		}
	}
	if a.Network == "" {
		ip, err := m.allocate()
		if err != nil {
			return err
		}
		a.IPs, a.Gateway = []netip.Addr{ip}, m.gateway
	}
	m.book(a)
	return nil
}

// book enters an attachment in the indexes. The lock is held.
func (m *Manager) book(a *Attachment) {
	m.attached[a.ID] = a
	for _, p := range a.Ports {
		m.taken[portKey{p.Protocol, p.Host}] = a.ID
	}
	if a.Network == "" {
		for _, ip := range a.IPs {
			m.used[ip] = a.ID
		}
	}
}

// allocate returns a free address after the last one given, so that an address
// rests as long as possible before it is used again. It costs as many steps as
// there are used addresses in a row.
func (m *Manager) allocate() (netip.Addr, error) {
	subnet := m.o.Bridge.Subnet.Masked()
	ip := m.cursor
	for range 1 << (32 - subnet.Bits()) {
		ip = ip.Next()
		if !subnet.Contains(ip) || !subnet.Contains(ip.Next()) { // past the end, or broadcast
			ip = m.gateway
			continue
		}
		if _, busy := m.used[ip]; !busy && ip != m.gateway {
			m.cursor = ip
			return ip, nil
		}
	}
	return netip.Addr{}, fault.Newf("allocate container address", fault.Exhausted, "every address of %s is in use", subnet)
}

// Get returns the attachment of a container.
func (m *Manager) Get(id string) (Attachment, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if a := m.attached[id]; a != nil {
		return *a, true
	}
	return Attachment{}, false
}

// IDs returns the containers that have a network.
func (m *Manager) IDs() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	ids := make([]string, 0, len(m.attached))
	for id := range m.attached {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// Detach takes a container's network away. It may be repeated; a container
// without one is no error.
func (m *Manager) Detach(ctx context.Context, id string) error {
	m.mu.Lock()
	a := m.attached[id]
	m.mu.Unlock()
	if a == nil {
		return nil
	}
	var errs []error
	if a.Network != "" {
		errs = append(errs, m.cniDel(ctx, a))
	} else {
		errs = append(errs, m.nat.remove(m.mappings(a)), removeLink(a.Link))
	}
	errs = append(errs, removeNetns(a.Netns))
	if err := errors.Join(errs...); err != nil {
		return fault.New("detach container from network", fault.Internal, err)
	}
	if err := os.Remove(m.file(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.New("detach container from network", fault.Internal, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.attached, id)
	for _, p := range a.Ports {
		delete(m.taken, portKey{p.Protocol, p.Host})
	}
	for _, ip := range a.IPs {
		if m.used[ip] == id {
			delete(m.used, ip)
		}
	}
	return nil
}

// Destroy removes every attachment, the bridge and the table.
func (m *Manager) Destroy(ctx context.Context) error {
	var errs []error
	for _, id := range m.IDs() {
		errs = append(errs, m.Detach(ctx, id))
	}
	return errors.Join(append(errs, m.nat.drop(), removeBridge(m.o.Bridge.Name))...)
}

func (m *Manager) file(id string) string { return filepath.Join(m.o.StateDir, id+".json") }

// save writes an attachment. It is not synced: a crash of the machine takes
// the network away as well.
func (m *Manager) save(a *Attachment) error {
	b, err := json.Marshal(a)
	if err != nil {
		return err
	}
	tmp := m.file(a.ID) + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, m.file(a.ID))
}

// load reads the attachments of a former run. One without its namespace is
// gone, except for what a CNI plugin may hold outside it.
func (m *Manager) load() error {
	names, err := filepath.Glob(filepath.Join(m.o.StateDir, "*.json"))
	if err != nil {
		return err
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		a := &Attachment{}
		if err := json.Unmarshal(b, a); err != nil || a.ID != strings.TrimSuffix(filepath.Base(name), ".json") {
			return fmt.Errorf("%s is damaged; remove it and restart the host's containers", name)
		}
		if !isNetns(a.Netns) && a.Network == "" {
			m.o.Log.Info("container network is gone", "container", a.ID)
			_ = removeLink(a.Link)
			if err := errors.Join(removeNetns(a.Netns), os.Remove(name)); err != nil {
				return err
			}
			continue
		}
		m.book(a)
	}
	return nil
}
