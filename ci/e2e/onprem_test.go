//go:build e2e

package e2e

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dcos.example/dcos/ci/lab"
)

// site is a cluster on simulated machines, which are there before it and stay
// after it.
type site struct {
	*cluster
	lab *lab.Lab
}

// newSite makes machines and writes a cluster file for all but the last spare
// ones. Whoever installs is ops, whose sudo asks for a password. Two runs on
// one machine do not meet, not even in the names of their cgroups, which no
// namespace tells apart; what a killed run left there, ci/alone takes away.
func newSite(t *testing.T, prefix, cidr string, hosts int, roles lab.Roles) *site {
	t.Helper()
	var random [2]byte
	rand.Read(random[:])
	name := prefix + hex.EncodeToString(random[:])
	dir := t.TempDir()
	s := &site{cluster: &cluster{name: name, dir: dir, bin: release(t)}}
	program := filepath.Join(dir, "lab")
	out, err := exec.Command("go", "build", "-o", program, "dcos.example/dcos/ci/lab/cmd/lab").CombinedOutput()
	if err != nil {
		t.Fatalf("build lab: %v\n%s", err, out)
	}
	o := lab.Options{Program: program}
	t.Cleanup(func() {
		if t.Failed() && s.lab != nil {
			s.report(t)
		}
		must(t, lab.Down(context.Background(), o, name))
	})
	r := netip.MustParsePrefix(cidr)
	s.lab, _, err = lab.Up(interrupted, o, lab.Record{Name: name, Range: r, Hosts: lab.Hosts(r, hosts)})
	must(t, err)
	roles.User = "ops"
	s.env = []string{"DCOS_VAR_sudo_password=" + lab.OpsPassword}
	hcl, err := s.lab.HCL(roles)
	must(t, err)
	s.write(t, "cluster.hcl", hcl)
	return s
}

// report logs the ends of the daemons' logs, for who looks into a failure.
func (s *site) report(t *testing.T) {
	for _, h := range s.lab.Record.Hosts {
		out, err := s.on(h.Name, "journalctl --no-pager -n 25 -u 'dcos-*'")
		t.Logf("log of %s (%v):\n%s", h.Name, err, out)
	}
}

// on runs a script as root on a host, whether or not it is part of the cluster.
func (s *site) on(host, script string) (string, error) {
	ctx, cancel := context.WithTimeout(interrupted, patience)
	defer cancel()
	return s.lab.Run(ctx, host, "root", script)
}

// each runs a script on every host and returns what it says, by host.
func (s *site) each(t *testing.T, script string) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	for _, h := range s.lab.Record.Hosts {
		said, err := s.on(h.Name, script)
		must(t, err)
		out[h.Name] = strings.Split(said, "\n")
	}
	return out
}

// timed runs the installer and logs how long it took.
func (s *site) timed(t *testing.T, what string, args ...string) string {
	t.Helper()
	began := time.Now()
	out := s.install(t, args...)
	t.Logf("%s: %.1f s", what, time.Since(began).Seconds())
	return out
}

// everything is what an installer could leave on a host: every file with its
// type, mode, owner, size and, where they are written by hand, content; units;
// and what is in the kernel. Left out is what changes by itself.
const everything = `
find / /var -xdev \( -path /var/log/journal -o -path /var/lib/systemd -o -path /tmp -o -path /var/tmp \
  -o -name wtmp -o -name btmp -o -name lastlog -o -path /home -o -path /root/.cache \) -prune \
  -o -type d -printf '%y %m %u:%g - %p\n' -o -printf '%y %m %u:%g %s %p %l\n' | LC_ALL=C sort
find /etc /usr/local /opt /var/lib -xdev -path /var/lib/systemd -prune -o -type f -exec sha256sum {} + | LC_ALL=C sort -k 2
systemctl list-unit-files --no-legend --plain | grep -v '^session-.*transient' | LC_ALL=C sort
systemctl list-units --no-legend --plain --all 'dcos*'
findmnt -rn -o TARGET | grep -v '^/run/user/\|^/run/credentials' | LC_ALL=C sort
ip -o link | sed 's/@if[0-9]*//' | cut -d' ' -f2,3; ip -o -4 address | awk '{print $2, $4}'; ip route show table all | grep -v ' proto kernel'
nft list ruleset
ls /run/netns 2>/dev/null; cat /etc/resolv.conf
sysctl net.ipv4.ip_forward
ps -eo args | grep -c '[d]cosd\|[c]ontainerd'; true`

// marks are what shows that a host was touched: times of files that the
// installer writes, and when and as which invocation its units were started.
const marks = `
find /etc/dcos /opt/dcos /etc/systemd /etc/resolv.conf /etc/hosts /etc/hostname /var/lib/dcos/bootstrap.json -printf '%p %T@ %C@\n' 2>/dev/null | LC_ALL=C sort
systemctl show -p Id,InvocationID,ActiveEnterTimestampMonotonic,NRestarts 'dcos-*.service'`

// TestOnprem: machines become a cluster, another one joins, and in the end they
// are what they were.
func TestOnprem(t *testing.T) {
	s := newSite(t, "dcose2e", "198.19.129.0/24", 6, lab.Roles{Masters: 3, Public: 1, Spare: 1})
	before := s.each(t, everything)

	s.timed(t, "preflight", "preflight")
	if diff := cmp.Diff(before, s.each(t, everything)); diff != "" {
		t.Errorf("preflight leaves (-before +after):\n%s", diff)
	}
	s.timed(t, "apply", "apply", "-auto-approve")
	s.setup(t)
	if len(s.masters) != 3 || len(s.hosts) != 5 {
		t.Fatalf("status tells of hosts %v and masters %v", s.hosts, s.masters)
	}
	if diff := cmp.Diff(before["h6"], s.each(t, everything)["h6"]); diff != "" {
		t.Errorf("a host that is not in the file was changed:\n%s", diff)
	}

	s.dcos(t, "marathon", "app", "add", s.write(t, "hello.json", text(hello(t, nil))))
	s.reached(t, "h1", "h4", "h5")

	again := s.timed(t, "second apply", "apply", "-auto-approve")
	if !strings.Contains(again, "Nothing to do") {
		t.Errorf("the second apply says\n%s", again)
	}

	// One more agent. It comes first in its group: order means nothing.
	touched := s.each(t, marks)
	delete(touched, "h6")
	tasks := s.await(t, "/hello")
	s.join(t, "h6")
	s.timed(t, "another agent", "apply", "-auto-approve")
	now := s.each(t, marks)
	if len(now["h6"]) < 10 {
		t.Errorf("marks of the new agent are only %q", now["h6"])
	}
	delete(now, "h6")
	if diff := cmp.Diff(touched, now); diff != "" {
		t.Errorf("other hosts were touched (-before +after):\n%s", diff)
	}
	same(t, tasks, s.await(t, "/hello"))
	pinned := sleeper("/on-h6", "sleep 1000", object{"constraints": [][]string{{"hostname", "CLUSTER", s.addr("h6")}}})
	must(t, s.call("POST", marathon+"/apps", pinned, nil)) // it goes with the cluster
	s.await(t, "/on-h6")
	s.reached(t, "h6")

	// Nobody asked for anything beyond the hosts.
	asked, err := s.lab.Asked()
	must(t, err)
	if len(asked) > 0 {
		t.Errorf("hosts tried to reach %q", asked)
	}

	s.timed(t, "destroy", "destroy", "-auto-approve")
	if diff := cmp.Diff(before, s.each(t, everything)); diff != "" {
		t.Errorf("destroy leaves (-before +after):\n%s", diff)
	}
}

// addr is the address of a host, whether or not it is part of the cluster.
func (s *site) addr(host string) string {
	for _, h := range s.lab.Record.Hosts {
		if h.Name == host {
			return h.Address.String()
		}
	}
	return ""
}

// join adds a host to the agents of the cluster file, as their first.
func (s *site) join(t *testing.T, host string) {
	t.Helper()
	path := filepath.Join(s.dir, "cluster.hcl")
	b, err := os.ReadFile(path)
	must(t, err)
	const group = "node_group \"agent\" {\n"
	if !strings.Contains(string(b), group) {
		t.Fatalf("no %q in\n%s", group, b)
	}
	entry := fmt.Sprintf("%s  host %q {\n    address = %q\n    memory  = \"1GiB\"\n  }\n", group, host, s.addr(host))
	s.write(t, "cluster.hcl", strings.Replace(string(b), group, entry, 1))
}

// reached waits until the demo app answers at its VIP on each of the hosts,
// which have no more than a shell to ask with.
func (s *site) reached(t *testing.T, hosts ...string) {
	t.Helper()
	a := s.await(t, "/hello")
	name := strings.Trim(strings.TrimPrefix(vip, "http:"), "/")
	ask := fmt.Sprintf(`timeout 5 bash -c 'exec 3<>/dev/tcp/%[1]s/80 && printf "GET / HTTP/1.0\r\nHost: %[1]s\r\n\r\n" >&3 && cat <&3'`, name)
	for _, host := range hosts {
		eventually(t, "VIP on "+host, func() error {
			out, err := s.on(host, ask)
			if err != nil {
				return err
			}
			for _, id := range ids(a) {
				if strings.Contains(out, id) {
					return nil
				}
			}
			return fmt.Errorf("%s answers %q, which is none of %v", vip, out, ids(a))
		})
	}
}
