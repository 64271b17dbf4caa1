package agent

import (
	"net/netip"
	"testing"
)

func TestHostNetworkFiles(t *testing.T) {
	addr := netip.MustParseAddr("10.0.0.21")
	for hosts, want := range map[string]string{
		"":                                  ownHosts + "10.0.0.21 agent-1\n",
		"127.0.0.1 localhost":               "127.0.0.1 localhost\n10.0.0.21 agent-1\n",
		"127.0.0.1 localhost # agent-1\n":   "127.0.0.1 localhost # agent-1\n10.0.0.21 agent-1\n",
		"127.0.1.1 agent-1.site agent-1\n":  "127.0.1.1 agent-1.site agent-1\n",
		"10.0.0.2 agent-10\n10.0.0.1 agent": "10.0.0.2 agent-10\n10.0.0.1 agent\n10.0.0.21 agent-1\n",
	} {
		if got := withName(hosts, "agent-1", addr); got != want {
			t.Errorf("hosts %q: %q, want %q", hosts, got, want)
		}
	}
	for resolv, want := range map[string]string{
		"":                                       "nameserver 198.51.100.1\n",
		"# ours\nnameserver 198.51.100.1\nx\n":   "# ours\nnameserver 198.51.100.1\nx\n",
		"nameserver 127.0.0.53\noptions edns0\n": "nameserver 127.0.0.53\noptions edns0\n",
		"search site\nnameserver 10.0.0.2\n":     "nameserver 198.51.100.1\nsearch site\nnameserver 10.0.0.2\n",
	} {
		if got := withClusterDNS(resolv); got != want {
			t.Errorf("resolv.conf %q: %q, want %q", resolv, got, want)
		}
	}
}
