package network

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	gocni "github.com/containerd/go-cni"

	"dcos.example/dcos/runtime/fault"
)

// cni loads the configuration of one network.
func (m *Manager) cni(name string) (gocni.CNI, error) {
	files, err := filepath.Glob(filepath.Join(m.o.CNIConf, "*.conflist"))
	if err != nil {
		return nil, err
	}
	var known []string
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var conf struct{ Name string }
		if err := json.Unmarshal(b, &conf); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if conf.Name == name {
			return gocni.New(gocni.WithPluginDir([]string{m.o.CNIBin}), gocni.WithInterfacePrefix("eth"),
				gocni.WithMinNetworkCount(1), gocni.WithConfListFile(file))
		}
		known = append(known, conf.Name)
	}
	slices.Sort(known)
	return nil, fault.Newf("load CNI network", fault.NotFound, "network %q is not configured on this agent; %s has %q", name, m.o.CNIConf, known)
}

func portMap(a *Attachment) gocni.NamespaceOpts {
	ports := make([]gocni.PortMapping, 0, len(a.Ports))
	for _, p := range a.Ports {
		ports = append(ports, gocni.PortMapping{HostPort: int32(p.Host), ContainerPort: int32(p.Container), Protocol: p.Protocol})
	}
	return gocni.WithCapabilityPortMap(ports)
}

// cniAdd runs the plugins of a network and takes the addresses they gave.
func (m *Manager) cniAdd(ctx context.Context, a *Attachment) error {
	c, err := m.cni(a.Network)
	if err != nil {
		return err
	}
	res, err := c.Setup(ctx, a.ID, a.Netns, portMap(a))
	if err != nil {
		return fmt.Errorf("CNI network %s: %w", a.Network, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, i := range res.Interfaces {
		if i.Sandbox == "" {
			continue
		}
		for _, conf := range i.IPConfigs {
			if ip, ok := netip.AddrFromSlice(conf.IP); ok && !ip.IsLoopback() {
				a.IPs = append(a.IPs, ip.Unmap())
				if gw, ok := netip.AddrFromSlice(conf.Gateway); ok && !a.Gateway.IsValid() {
					a.Gateway = gw.Unmap()
				}
			}
		}
	}
	return nil
}

// cniDel runs the plugins' removal, with the same ports, or their rules leak.
func (m *Manager) cniDel(ctx context.Context, a *Attachment) error {
	c, err := m.cni(a.Network)
	if fault.Is(err, fault.NotFound) {
		m.o.Log.Warn("CNI network was removed while in use", "network", a.Network, "container", a.ID)
		return nil
	}
	if err != nil {
		return err
	}
	return c.Remove(ctx, a.ID, a.Netns, portMap(a))
}
