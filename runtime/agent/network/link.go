package network

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"dcos.example/dcos/runtime/config"
)

// ensureBridge makes the bridge with its address, and lets the host forward.
func ensureBridge(b config.Bridge, gateway netip.Addr) error {
	link, err := netlink.LinkByName(b.Name)
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.HardwareAddr, attrs.Flags = b.Name, mac(gateway), net.FlagUp
		if err = netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err == nil {
			link, err = netlink.LinkByName(b.Name)
		}
	}
	if err != nil {
		return err
	}
	if _, ok := link.(*netlink.Bridge); !ok {
		return fmt.Errorf("a link of this name exists and is of type %s", link.Type())
	}
	addr := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(gateway, b.Subnet.Bits()))}
	if err := netlink.AddrReplace(link, addr); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	return errors.Join(
		forward(link),
		// lets the host's loopback reach a container through a mapped port
		sysctl("net/ipv4/conf/"+b.Name+"/route_localnet", "1"),
	)
}

const (
	forwarding = "net/ipv4/ip_forward"
	// forwards is the alias of a bridge for which we made the host forward.
	// Like the setting itself it lasts until the host reboots.
	forwards = "dcos: forwarding was off before"
)

// forward lets the host forward, and notes at the bridge if it did not before.
func forward(bridge netlink.Link) error {
	if b, err := os.ReadFile("/proc/sys/" + forwarding); err != nil || strings.TrimSpace(string(b)) != "0" {
		return err
	}
	if err := netlink.LinkSetAlias(bridge, forwards); err != nil { // first: a note too many is harmless
		return err
	}
	return sysctl(forwarding, "1")
}

// removeBridge takes the bridge away, and forwarding with it if that came with it.
func removeBridge(name string) error {
	link, err := netlink.LinkByName(name)
	if err == nil && link.Attrs().Alias == forwards {
		if err := sysctl(forwarding, "0"); err != nil {
			return err
		}
	}
	return removeLink(name)
}

// sysctl sets a kernel parameter unless it has the value already: /proc/sys
// may be read-only.
func sysctl(key, value string) error {
	file := "/proc/sys/" + key
	if b, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(b)) == value {
		return nil
	}
	return os.WriteFile(file, []byte(value), 0)
}

// mac derives a link's address from its IP address, so that neighbours who
// remember an address from a former container are right about this one.
func mac(ip netip.Addr) net.HardwareAddr {
	b := ip.As4()
	return net.HardwareAddr{0x02, 0xdc, b[0], b[1], b[2], b[3]}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// linkName is the host's end of a container's cable: at most 15 characters.
func linkName(id string) string {
	sum := sha256.Sum256([]byte(id))
	return "dcv" + hex.EncodeToString(sum[:6])
}

// connect lays the cable between a namespace and the bridge.
func connect(a *Attachment, b config.Bridge, gateway netip.Addr) error {
	bridge, err := netlink.LinkByName(b.Name)
	if err != nil {
		return fmt.Errorf("bridge %s: %w", b.Name, err)
	}
	ns, err := netns.GetFromPath(a.Netns)
	if err != nil {
		return err
	}
	defer ns.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex, attrs.Flags = a.Link, bridge.Attrs().Index, net.FlagUp
	veth := &netlink.Veth{
		LinkAttrs: attrs, PeerName: "eth0",
		PeerHardwareAddr: mac(a.IPs[0]), PeerNamespace: netlink.NsFd(int(ns)),
	}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("make veth %s: %w", a.Link, err)
	}
	// A container reaches itself by a mapped port of the host. Where bridged
	// packets pass netfilter, that goes out of the port it came in by.
	if err := netlink.LinkSetHairpin(veth, true); err != nil {
		return fmt.Errorf("set hairpin mode of %s: %w", a.Link, err)
	}
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		return err
	}
	defer h.Close()
	return configure(h, a.IPs[0], b.Subnet.Bits(), gateway)
}

// configure sets addresses and routes inside the namespace.
func configure(h *netlink.Handle, ip netip.Addr, bits int, gateway netip.Addr) error {
	eth, err := h.LinkByName("eth0")
	if err != nil {
		return err
	}
	if err := h.AddrAdd(eth, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(ip, bits))}); err != nil {
		return err
	}
	if err := h.LinkSetUp(eth); err != nil {
		return err
	}
	return h.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Gw: gateway.AsSlice()})
}

// removeLink deletes a link; one that does not exist is no error.
func removeLink(name string) error {
	link, err := netlink.LinkByName(name)
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
		return nil
	}
	if err != nil {
		return err
	}
	if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return err
	}
	return nil
}

// makeNetns makes a namespace that lives at path until removeNetns, with its
// loopback up.
func makeNetns(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	done := make(chan error)
	go func() {
		// The thread is never unlocked: it ends with this goroutine, as it
		// lives in the new namespace.
		runtime.LockOSThread()
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("unshare network: %w", err)
			}
			own := fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
			if err := unix.Mount(own, path, "", unix.MS_BIND, ""); err != nil {
				return fmt.Errorf("mount network namespace: %w", err)
			}
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return err
			}
			return netlink.LinkSetUp(lo)
		}()
	}()
	return <-done
}

// removeNetns lets go of a namespace; one that does not exist is no error.
func removeNetns(path string) error {
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// isNetns reports whether a namespace is mounted at path.
func isNetns(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.NSFS_MAGIC
}

// Dial connects from inside a network namespace; an empty path is the host's.
func Dial(ctx context.Context, nsPath, network, address string) (net.Conn, error) {
	var d net.Dialer
	if nsPath == "" {
		return d.DialContext(ctx, network, address)
	}
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, fmt.Errorf("dial in a namespace needs a numeric address: %w", err)
	}
	type result struct {
		c   net.Conn
		err error
	}
	done := make(chan result, 1)
	go func() {
		// A socket belongs to the namespace its thread was in. With a numeric
		// address the dialer makes it on the calling thread. The thread is not
		// unlocked, so it ends with the goroutine.
		runtime.LockOSThread()
		ns, err := netns.GetFromPath(nsPath)
		if err != nil {
			done <- result{nil, err}
			return
		}
		err = netns.Set(ns)
		if err = errors.Join(err, ns.Close()); err != nil {
			done <- result{nil, err}
			return
		}
		c, err := d.DialContext(ctx, network, address)
		done <- result{c, err}
	}()
	r := <-done
	return r.c, r.err
}
