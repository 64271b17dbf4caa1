// Package facts reads what a Linux machine says of itself, as far as it
// matters to how an installer treats it: which distribution it is, who starts
// its services, what guards it. Script runs on the machine and needs a POSIX
// shell and coreutils; Parse is pure.
package facts

import (
	"slices"
	"strings"
)

// Script prints what Parse reads.
const Script = `
echo "uid $(id -u)"
echo "init $(cat /proc/1/comm 2>/dev/null)"
[ -d /run/systemd/system ] && echo "systemd yes"
for f in /etc/os-release /usr/lib/os-release; do
  [ -r "$f" ] && { while IFS= read -r l || [ -n "$l" ]; do echo "os $l"; done < "$f"; break; }
done
[ -r /sys/fs/selinux/enforce ] && echo "selinux $(cat /sys/fs/selinux/enforce)"
for f in /usr/lib/systemd/system/firewalld.service /lib/systemd/system/firewalld.service; do
  [ -e "$f" ] && { systemctl is-active --quiet firewalld && echo "firewall firewalld"; break; }
done
[ -r /etc/ufw/ufw.conf ] && while read -r l; do [ "$l" = ENABLED=yes ] && echo "firewall ufw"; done < /etc/ufw/ufw.conf
for d in /run/log/journal /var/log/journal; do [ -d "$d" ] && echo "journal $d"; done
for t in restorecon chcon journalctl systemctl sha256sum stat base64; do command -v $t >/dev/null 2>&1 && echo "tool $t"; done
for d in / /etc /opt /var/lib; do [ -w "$d" ] || echo "readonly $d"; done
`

// Family is a group of distributions that are alike.
type Family string

// The families that are told apart.
const (
	Debian  Family = "debian"  // and Ubuntu
	RHEL    Family = "rhel"    // and Fedora, CentOS, Rocky, Alma, Oracle, Amazon
	SUSE    Family = "suse"    // SLES, openSUSE
	Flatcar Family = "flatcar" // and its ancestors; /usr is read-only there
	Other   Family = "other"
)

// SELinux is how SELinux guards a machine.
type SELinux string

// The modes of SELinux.
const (
	SELinuxOff        SELinux = "off"
	SELinuxPermissive SELinux = "permissive"
	SELinuxEnforcing  SELinux = "enforcing"
)

// Facts are what is known of a machine.
type Facts struct {
	Root     bool // the script ran as root
	Init     string
	Systemd  bool
	Family   Family
	ID       string // "ubuntu"
	Version  string // "24.04"
	Name     string // "Ubuntu 24.04.1 LTS"
	SELinux  SELinux
	Firewall []string // that are on: firewalld, ufw
	Journal  bool     // there is one that can be read
	ReadOnly []string // of the directories we write below
	tools    []string
}

// Has reports whether a program is there that Script asks for.
func (f Facts) Has(tool string) bool { return slices.Contains(f.tools, tool) }

// Missing lists what the installer needs and the machine does not have.
func (f Facts) Missing() []string {
	var out []string
	for _, t := range []string{"systemctl", "sha256sum", "stat", "base64"} {
		if !f.Has(t) {
			out = append(out, t)
		}
	}
	return out
}

// Relabel returns the command that gives files the labels that SELinux wants
// for them, "" where that is not needed or cannot be done.
func (f Facts) Relabel() string {
	if f.SELinux != SELinuxOff && f.Has("restorecon") {
		return "restorecon -RF"
	}
	return ""
}

// RelabelPrograms is Relabel for a directory of programs: without the right
// label they may not be run.
func (f Facts) RelabelPrograms() string {
	if f.SELinux != SELinuxOff && !f.Has("restorecon") && f.Has("chcon") {
		return "chcon -R -t bin_t"
	}
	return f.Relabel()
}

// Parse reads the output of Script.
func Parse(text string) Facts {
	f := Facts{Family: Other, SELinux: SELinuxOff}
	os := map[string]string{}
	for l := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimRight(l, "\r\n"), " ")
		switch key {
		case "uid":
			f.Root = value == "0"
		case "init":
			f.Init = value
		case "systemd":
			f.Systemd = true
		case "os":
			if name, v, ok := strings.Cut(value, "="); ok {
				os[name] = unquote(v)
			}
		case "selinux":
			f.SELinux = SELinuxPermissive
			if value == "1" {
				f.SELinux = SELinuxEnforcing
			}
		case "firewall":
			f.Firewall = append(f.Firewall, value)
		case "journal":
			f.Journal = true
		case "tool":
			f.tools = append(f.tools, value)
		case "readonly":
			f.ReadOnly = append(f.ReadOnly, value)
		}
	}
	f.ID, f.Version, f.Name = os["ID"], os["VERSION_ID"], os["PRETTY_NAME"]
	f.Family = family(append([]string{f.ID}, strings.Fields(os["ID_LIKE"])...))
	return f
}

// family goes by the first name that is known: the machine's own, then those
// it says it is like.
func family(ids []string) Family {
	for _, id := range ids {
		switch id {
		case "debian", "ubuntu":
			return Debian
		case "rhel", "fedora", "centos", "rocky", "almalinux", "ol", "amzn":
			return RHEL
		case "suse", "sles", "opensuse", "opensuse-leap", "opensuse-tumbleweed", "sle-micro":
			return SUSE
		case "flatcar", "coreos":
			return Flatcar
		}
	}
	return Other
}

// unquote reads a value as os-release writes it.
func unquote(v string) string {
	if len(v) >= 2 && (v[0] == '"' || v[0] == '\'') && v[len(v)-1] == v[0] {
		v = v[1 : len(v)-1]
	}
	return strings.NewReplacer(`\"`, `"`, `\$`, `$`, "\\`", "`", `\\`, `\`).Replace(v)
}
