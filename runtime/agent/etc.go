package agent

import (
	"bufio"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"dcos.example/dcos/runtime/agent/container"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
)

// Where the host keeps what containers on its network get copies of.
const (
	hostHosts  = "/etc/hosts"
	hostResolv = "/etc/resolv.conf"
)

// networkFiles gives a container of an image its own hosts and resolv.conf, in
// which the names of the cluster and its own can be found. On the host's
// network they begin as the host's. A task on the host's root has the host's.
func (a *Agent) networkFiles(t *task, d *described) error {
	const op = "write network files"
	if d.network == nil && d.spec.Image == "" {
		return nil
	}
	files, err := a.networkTexts(t, d)
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	for _, p := range t.info.GetContainer().GetDocker().GetParameters() {
		if name, ip, ok := strings.Cut(p.GetValue(), ":"); p.GetKey() == "add-host" && ok {
			files["hosts"] += ip + " " + name + "\n"
		}
	}
	dir := filepath.Join(a.o.Config.WorkDir, "meta", "etc", t.containerID)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fault.New(op, fault.Internal, err)
	}
	for name, content := range files {
		f := filepath.Join(dir, name)
		if err := os.WriteFile(f, []byte(content), 0o644); err != nil {
			return fault.New(op, fault.Internal, err)
		}
		target := "/etc/" + name
		if slices.ContainsFunc(d.spec.Mounts, func(m container.Mount) bool { return m.Target == target }) {
			continue // the task brings its own
		}
		d.spec.Mounts = append(d.spec.Mounts, container.Mount{Source: f, Target: target})
	}
	return nil
}

// networkTexts are the files by their names below /etc.
func (a *Agent) networkTexts(t *task, d *described) (map[string]string, error) {
	if d.network == nil {
		name := d.spec.Hostname
		if name == "" {
			var err error
			if name, err = os.Hostname(); err != nil {
				return nil, err
			}
		}
		hosts, err1 := readIfThere(hostHosts)
		resolv, err2 := readIfThere(hostResolv)
		return map[string]string{
			"hosts": withName(hosts, name, a.o.Config.Host.Addr), "resolv.conf": withClusterDNS(resolv),
		}, errors.Join(err1, err2)
	}
	if d.spec.Hostname == "" {
		d.spec.Hostname = t.containerID[:min(12, len(t.containerID))]
	}
	hosts := ownHosts
	for _, ip := range t.attachment.IPs {
		hosts += ip.String() + " " + d.spec.Hostname + "\n"
	}
	files := map[string]string{"hosts": hosts, "hostname": d.spec.Hostname + "\n"}
	if gw := t.attachment.Gateway; gw.IsValid() {
		files["resolv.conf"] = "nameserver " + gw.String() + "\noptions timeout:1 attempts:3\n"
	}
	return files, nil
}

const ownHosts = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"

func readIfThere(file string) (string, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(b), err
}

// withName adds the host's name to its hosts file if it is not there: programs
// look themselves up.
func withName(hosts, name string, addr netip.Addr) string {
	if hosts == "" {
		hosts = ownHosts
	}
	for s := bufio.NewScanner(strings.NewReader(hosts)); s.Scan(); {
		line, _, _ := strings.Cut(s.Text(), "#")
		if f := strings.Fields(line); len(f) > 1 && slices.Contains(f[1:], name) {
			return hosts
		}
	}
	return strings.TrimRight(hosts, "\n") + "\n" + addr.String() + " " + name + "\n"
}

// resolvedStub is where systemd-resolved answers, which asks the cluster's DNS
// server for the cluster's names.
const resolvedStub = "127.0.0.53"

// withClusterDNS puts the cluster's DNS server before those of a host that does
// not ask it, as one may that was set up otherwise.
func withClusterDNS(resolv string) string {
	for s := bufio.NewScanner(strings.NewReader(resolv)); s.Scan(); {
		f := strings.Fields(s.Text())
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		if f[1] == config.DNSAddr || f[1] == resolvedStub {
			return resolv
		}
		break // the first is who is asked
	}
	return "nameserver " + config.DNSAddr + "\n" + resolv
}
