//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dcos.example/dcos/ci/lab"
)

// TestMistakes: what a new user gets wrong is answered with what is wrong,
// where, and what to do about it; and nothing has been changed.
func TestMistakes(t *testing.T) {
	s := newSite(t, "dcosoops", "198.19.130.0/24", 2, lab.Roles{Masters: 1})
	right := login{user: "admin", key: s.lab.KeyFile(), known: s.lab.KnownHosts()}
	other := filepath.Join(s.dir, "other")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	unknown := s.write(t, "empty", "")
	before := s.each(t, everything)

	for _, c := range []struct {
		name   string
		login  func(*login)
		second string       // address of h2, if it is not its own
		begin  func() error // what the user did to the machines
		end    func() error
		want   []string
	}{
		{
			name: "wrong key", login: func(l *login) { l.key = other },
			want: []string{"198.19.130.11:22 as admin: refused", "ssh-copy-id -i " + other + ".pub"},
		}, {
			name: "no key", login: func(l *login) { l.key = filepath.Join(s.dir, "nokey") },
			want: []string{"there is no such file", "ssh-keygen -t ed25519 -f " + filepath.Join(s.dir, "nokey")},
		}, {
			name: "host not known", login: func(l *login) { l.known = unknown },
			want: []string{"is not known yet", "SHA256:", ">> " + unknown, "trust_on_first_use"},
		}, {
			name: "another key than before", login: func(l *login) { l.known = s.swapped(t) },
			want: []string{"REFUSED", "ssh-keygen -R '198.19.130.11'"},
		}, {
			name: "sudo asks", login: func(l *login) { l.user = "ops" },
			want: []string{"sudo asks for a password", "sudo_password"},
		}, {
			name: "wrong password for sudo", login: func(l *login) { l.user, l.sudo = "ops", "var.wrong" },
			want: []string{"sudo does not take the password"},
		}, {
			name: "the same machine twice", second: "198.19.130.11",
			want: []string{"Duplicate address", "h2 has the address 198.19.130.11 of h1, at cluster.hcl:"},
		}, {
			name:  "machine is off",
			begin: func() error { return s.lab.PowerOff(interrupted, "h2") },
			end:   func() error { _, err := s.lab.PowerOn(interrupted, "h2"); return err },
			want:  []string{"h2 reach", "198.19.130.12:22: no answer", "start the host"},
		}, {
			name:  "machine hangs",
			begin: func() error { return s.lab.Freeze(interrupted, "h2") },
			end:   func() error { return s.lab.Thaw(interrupted, "h2") },
			want:  []string{"h2 reach", "does not answer in time"},
		}, {
			name:  "port taken",
			begin: s.as("h1", "systemd-run -q --unit=web systemd-socket-activate -l 443 /bin/cat"),
			end:   s.as("h1", "systemctl stop web"),
			want:  []string{"h1 ports", "on port 443", "ss -ltnp"},
		}, {
			name:  "half installed by others",
			begin: s.as("h2", "mkdir -p /etc/dcos && echo x >/etc/dcos/agent.json"),
			end:   s.as("h2", "rm -r /etc/dcos"),
			want:  []string{"h2 leftovers", "/etc/dcos", "systemctl disable --now dcos-agent"},
		}, {
			name:  "DC/OS of old",
			begin: s.as("h2", "mkdir /opt/mesosphere"),
			end:   s.as("h2", "rmdir /opt/mesosphere"),
			want:  []string{"h2 previous-dcos", "/opt/mesosphere/bin/pkgpanda uninstall"},
		}, {
			name:  "copies of one machine",
			begin: s.as("h2", "cp /etc/machine-id /root/ && echo "+s.machineID(t, "h1")+" >/etc/machine-id"),
			end:   s.as("h2", "cp /root/machine-id /etc/machine-id && rm /root/machine-id"),
			want:  []string{"h1, h2 dup-machine-id", "systemd-machine-id-setup"},
		}, {
			name:  "disk full",
			begin: func() error { return s.lab.FillDisk(interrupted, "h1", 0) },
			end:   func() error { return s.lab.FreeDisk(interrupted, "h1") },
			want:  []string{"h1 disk-release", "h1 disk-state", "free at least"},
		}, {
			name:  "firewall between",
			begin: func() error { return s.lab.Partition(interrupted, []string{"h1"}, []string{"h2"}, false) },
			end:   func() error { return s.lab.Heal(interrupted) },
			want:  []string{"h1 → h2 mesh-tcp", "h2 → h1 mesh-tcp", "look at security groups and firewalls"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := right
			if c.login != nil {
				c.login(&l)
			}
			s.write(t, "cluster.hcl", l.hcl(c.second))
			if c.begin != nil {
				must(t, c.begin())
				defer func() { must(t, c.end()) }()
			}
			out, err := s.try("dcos-install", "preflight")
			if err != nil {
				out = err.Error()
			}
			said := strings.Join(strings.Fields(out), " ")
			for _, want := range c.want {
				if !strings.Contains(said, want) {
					t.Errorf("it does not say %q:\n%s", want, out)
				}
			}
		})
	}

	// Whoever applies all the same is stopped, with nothing done.
	s.write(t, "cluster.hcl", right.hcl(""))
	must(t, s.as("h1", "systemd-run -q --unit=web systemd-socket-activate -l 443 /bin/cat")())
	out, err := s.try("dcos-install", "apply", "-auto-approve")
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 || !strings.Contains(err.Error(), "on port 443") {
		t.Errorf("apply with port 443 taken: %v\n%s", err, out)
	}
	must(t, s.as("h1", "systemctl stop web")())
	if diff := cmp.Diff(before, s.each(t, everything)); diff != "" {
		t.Errorf("left (-before +after):\n%s", diff)
	}
}

// login is how a user writes that the machines are reached.
type login struct{ user, key, known, sudo string }

func (l login) hcl(second string) string {
	sudo := ""
	if l.sudo != "" {
		sudo = "sudo_password = " + l.sudo
	}
	if second == "" {
		second = "198.19.130.12"
	}
	return fmt.Sprintf(`
variable "wrong" {
  type      = string
  default   = "nope"
  sensitive = true
}
cluster "dcosoops" {}
provider "onprem" {
  user        = %q
  key_file    = %q
  known_hosts = %q
  %s
}
node_group "master" {
  host "h1" { address = "198.19.130.11" }
}
node_group "agent" {
  host "h2" { address = %q }
}
`, l.user, l.key, l.known, sudo, second)
}

// as returns a function that runs a script as root on a host.
func (s *site) as(host, script string) func() error {
	return func() error {
		_, err := s.on(host, script)
		return err
	}
}

func (s *site) machineID(t *testing.T, host string) string {
	t.Helper()
	id, err := s.on(host, "cat /etc/machine-id")
	must(t, err)
	return strings.TrimSpace(id)
}

// swapped writes a known_hosts file in which the hosts have each other's keys.
func (s *site) swapped(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(s.lab.KnownHosts())
	must(t, err)
	swap := strings.NewReplacer("198.19.130.11,h1", "198.19.130.12,h2", "198.19.130.12,h2", "198.19.130.11,h1")
	return s.write(t, "swapped", swap.Replace(string(b)))
}
