package lab

import (
	"fmt"
	"strings"

	"dcos.example/dcos/runtime/fault"
)

// Roles says what the hosts of a lab are to be: the first Masters of them
// masters, the last Public public agents, the rest agents. The rest in Spare
// is left out.
type Roles struct {
	Masters, Public, Spare int
	User                   string // who logs in: root, admin, or ops, whose sudo asks for a password
}

// HCL returns a cluster file for the hosts of the lab.
func (l *Lab) HCL(r Roles) (string, error) {
	agents := len(l.hosts()) - r.Masters - r.Public - r.Spare
	if r.Masters < 1 || r.Masters%2 == 0 || r.Public < 0 || r.Spare < 0 || agents < 0 {
		return "", fault.Newf("write a cluster file", fault.Invalid,
			"%d hosts cannot be %d masters, %d public agents and %d spare: masters are 1, 3 or 5", len(l.hosts()), r.Masters, r.Public, r.Spare)
	}
	var b strings.Builder
	if r.User == "ops" {
		fmt.Fprintf(&b, "# In the environment: DCOS_VAR_sudo_password, which is %s\nvariable \"sudo_password\" {\n  type      = string\n  sensitive = true\n}\n\n", OpsPassword)
	}
	fmt.Fprintf(&b, "cluster %q {}\n\nprovider \"onprem\" {\n", l.Name)
	fmt.Fprintf(&b, "  user        = %q\n  key_file    = %q\n  known_hosts = %q\n", r.User, l.KeyFile(), l.KnownHosts())
	if r.User == "ops" {
		b.WriteString("\n  sudo_password = var.sudo_password\n")
	}
	b.WriteString("}\n")
	next := l.hosts()
	for _, group := range []struct {
		name string
		n    int
	}{{"master", r.Masters}, {"agent", agents}, {"public_agent", r.Public}} {
		if group.n == 0 {
			continue
		}
		fmt.Fprintf(&b, "\nnode_group %q {\n", group.name)
		for _, h := range next[:group.n] {
			fmt.Fprintf(&b, "  host %q {\n    address = %q\n", h.Name, h.Address)
			if group.name != "master" { // a host sees the machine's memory, whatever its share
				fmt.Fprintf(&b, "    memory  = \"%dMiB\"\n", h.MemoryMiB)
			}
			if h.CPUs > 0 && group.name != "master" {
				fmt.Fprintf(&b, "    cpus    = %g\n", h.CPUs)
			}
			b.WriteString("  }\n")
		}
		b.WriteString("}\n")
		next = next[group.n:]
	}
	return b.String(), nil
}
