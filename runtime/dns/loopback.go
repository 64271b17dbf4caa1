package dns

import (
	"errors"
	"net"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"dcos.example/dcos/runtime/fault"
)

// AddLoopback gives the host's loopback device the address that every host's
// DNS server has. Doing it again does nothing.
func AddLoopback(addr netip.Addr) error {
	op := "add " + addr.String() + " to the loopback device"
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	a := &netlink.Addr{IPNet: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(addr.BitLen(), addr.BitLen())}}
	if err := netlink.AddrAdd(lo, a); err != nil && !errors.Is(err, unix.EEXIST) {
		return fault.New(op, fault.Internal, err)
	}
	return nil
}

// RemoveLoopback takes the address away again. One that is gone is fine.
func RemoveLoopback(addr netip.Addr) error {
	op := "remove " + addr.String() + " from the loopback device"
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	a := &netlink.Addr{IPNet: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(addr.BitLen(), addr.BitLen())}}
	if err := netlink.AddrDel(lo, a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fault.New(op, fault.Internal, err)
	}
	return nil
}

// freebind lets a socket listen on an address that the host does not have yet:
// that of the container bridge appears when the agent makes it.
func freebind(_, _ string, c syscall.RawConn) error {
	var err error
	if ctl := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_FREEBIND, 1)
	}); ctl != nil {
		return ctl
	}
	return err
}
