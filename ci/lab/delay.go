package lab

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/vishvananda/netlink"

	"dcos.example/dcos/ci/lab/wire"
	"dcos.example/dcos/providers/local/network"
)

// Wire is the process between a host's port and the lab's bridge while the
// host's packets are delayed. It runs in the lab's network.
func Wire(ctx context.Context, dir, host string, delay, jitter time.Duration, ready *os.File) error {
	l, err := inside(dir)
	if err != nil {
		return err
	}
	if err := l.group("wire-" + host).Join(os.Getpid()); err != nil {
		return err
	}
	inner, err := wire.Tap(innerTap(host))
	if err != nil {
		return err
	}
	outer, err := wire.Tap(outerTap(host))
	if err != nil {
		return err
	}
	lan, err := netlink.NewHandle()
	if err != nil {
		return err
	}
	defer lan.Close()
	h, err := l.host(host)
	if err != nil {
		return err
	}
	mac := network.MAC(h.Address)
	mac[0] = 0x06 // local too, and unlike that of any host
	if _, err := addBridge(delayBridge(host), mac); err != nil {
		return err
	}
	for link, bridge := range map[string]string{innerTap(host): delayBridge(host), outerTap(host): bridgeName} {
		network.QuietIPv6(link)
		if err := plug(lan, link, bridge); err != nil {
			return err
		}
	}
	err = plug(lan, host, delayBridge(host))
	if _, off := errors.AsType[netlink.LinkNotFoundError](err); err != nil && !off { // its next boot does so
		return err
	}
	if err := announce(ready); err != nil {
		return err
	}
	return wire.Run(ctx, inner, outer, delay, jitter)
}
