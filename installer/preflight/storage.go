package preflight

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"dcos.example/dcos/installer/preflight/probe"
	"dcos.example/dcos/runtime/config"
)

const (
	// What the runtime fills beside the release: a master its state with the
	// room to compact it, an agent images and sandboxes.
	masterState = 2 << 30
	agentState  = 4 << 30
	logRoom     = 256 << 20
	tempRoom    = 64 << 20
	leastInodes = 20000
	// goodFsync is what etcd's documentation asks of a disk; beyond the
	// interval of heartbeats a master loses its lead over a write.
	goodFsync = 10 * time.Millisecond
)

func worstFsync() time.Duration { return time.Duration(config.DefaultMaster().HeartbeatInterval) }

const (
	optDir = "/opt/dcos"
	tmpDir = "/tmp"
)

// place is where something of ours goes, and how many bytes it needs there.
type place struct {
	path string
	need int64
}

// places are all of them. What shares a file system must fit there together.
func places(h *Host, in *Input) []place {
	release, state := in.Release.Bytes, int64(agentState)
	if isMaster(h) {
		release, state = release+in.Release.Packages, masterState
	}
	release += release / 4
	if h.installed() { // they are there, or a good part of them
		release, state = 0, state/4
	}
	return []place{{config.VarDir, state}, {optDir, release}, {config.LogDir, logRoom}, {tmpDir, tempRoom}}
}

func storageChecks() []Check {
	room := func(id, path, limit string) Check {
		return Check{ID: id, Title: "Room in " + path, Scope: ScopeHost, Severity: Error, Machine: true,
			Measures: "free space of the file system of " + path + ", for everything of ours that lies on it", Limit: limit,
			Fix: "free space there, or mount a larger file system at " + path, host: func(h *Host, in *Input) verdict { return judgeRoom(h, in, path) }}
	}
	return []Check{
		room("disk-release", optDir, "the unpacked release and a quarter"),
		room("disk-state", config.VarDir, fmt.Sprintf("%s on masters, %s on agents", size(masterState), size(agentState))),
		room("disk-log", config.LogDir, size(logRoom)),
		room("disk-tmp", tmpDir, size(tempRoom)),
		{ID: "inodes", Title: "Inodes are left", Scope: ScopeHost, Severity: Error, Machine: true,
			Measures: "free inodes where the release and the state go", Limit: fmt.Sprintf("at least %d", leastInodes),
			Fix: "remove small files there (find PATH -xdev | cut -d/ -f-4 | sort | uniq -c | sort -n finds where they are), or make the file system anew with more inodes", host: judgeInodes},
		{ID: "mount-read-only", Title: "File systems can be written", Scope: ScopeHost, Severity: Error, Machine: true,
			Measures: "mount options where anything of ours goes", Limit: "not ro", Fix: "mount it read-write; if it became read-only by itself, look at dmesg: the disk may be failing",
			host: func(h *Host, _ *Input) verdict {
				return judgeOption(h, "ro", optDir, config.VarDir, config.LogDir, config.EtcDir, tmpDir)
			}},
		{ID: "mount-noexec", Title: "Programs may run where they lie", Scope: ScopeHost, Severity: Error, Machine: true,
			Measures: "mount options where programs and containers go", Limit: "not noexec", Fix: "take noexec out of /etc/fstab for it, and mount -o remount,exec it",
			host: func(h *Host, _ *Input) verdict { return judgeOption(h, "noexec", optDir, config.VarDir) }},
		{ID: "mount-nodev", Title: "Containers may have devices and set-uid programs", Scope: ScopeHost, Roles: agents, Severity: Warning, Machine: true,
			Measures: "mount options where containers go", Limit: "neither nodev nor nosuid", Fix: "take nodev and nosuid out of /etc/fstab for it, and mount -o remount,dev,suid it",
			host: func(h *Host, _ *Input) verdict {
				if v := judgeOption(h, "nodev", config.VarDir); v.state != Passed {
					return v
				}
				return judgeOption(h, "nosuid", config.VarDir)
			}},
		{ID: "file-system", Title: "State lies on a local disk", Scope: ScopeHost, Severity: Error,
			Measures: "the type of the file system of " + config.VarDir, Limit: "neither of a network, nor in memory, nor an overlay",
			Fix: "mount a file system of a local disk (ext4 or xfs) at " + config.VarDir, host: judgeFileSystem},
		{ID: "overlay", Title: "Containers' layers can lie there", Scope: ScopeHost, Roles: agents, Severity: Error,
			Measures: "an overlay file system made and used in " + config.VarDir, Limit: "it works",
			Fix: "use ext4, or xfs made with ftype=1 (mkfs.xfs -n ftype=1), at " + config.VarDir, host: judgeOverlay},
		{ID: "fsync", Title: "The disk is quick enough", Scope: ScopeHost, Roles: masters, Severity: Warning, Machine: true,
			Measures: "99th percentile of 100 appends of 2300 bytes with fdatasync, as etcd writes its log", Limit: "at most " + span(goodFsync),
			Fix: "put " + config.VarDir + " on an SSD of its own; every change of the cluster waits for it",
			host: func(h *Host, _ *Input) verdict {
				return judgeFsync(h, goodFsync, func(f *probe.Fsync) time.Duration { return f.P99 })
			}},
		{ID: "fsync-slow", Title: "The disk does not cost the lead", Scope: ScopeHost, Roles: masters, Severity: Error, Machine: true,
			Measures: "median of 100 appends of 2300 bytes with fdatasync, as etcd writes its log", Limit: "at most " + span(worstFsync()) + ", the interval of heartbeats",
			Fix: "put " + config.VarDir + " on an SSD; see with iostat -x 1 whether something else keeps this disk busy",
			host: func(h *Host, _ *Input) verdict {
				return judgeFsync(h, worstFsync(), func(f *probe.Fsync) time.Duration { return f.P50 })
			}},
	}
}

func judgeRoom(h *Host, in *Input, path string) verdict {
	d, ok := h.Facts.disk(path)
	if !ok {
		return unknown("its stat says nothing of %s", path)
	}
	var need int64
	var with []string
	var most place
	for _, p := range places(h, in) {
		other, ok := h.Facts.disk(p.path)
		if ok && other.device == d.device && other.mount == d.mount {
			need += p.need
			with = append(with, p.path)
			if p.need > most.need {
				most = p
			}
		}
	}
	share := ""
	if len(with) > 1 {
		share = " for " + strings.Join(with, ", ") + " together"
	}
	switch {
	case d.free >= need:
		return pass("%s free on %s", size(d.free), d.mount)
	case most.path == path:
		return fail("%s free on %s", size(d.free), d.mount).over("%s%s", size(need), share).
			do("free at least %s on %s of %s, or mount a larger file system at %s", size(need-d.free), d.mount, h.Name, path)
	default:
		return verdict{} // told of where most is needed
	}
}

func judgeInodes(h *Host, _ *Input) verdict {
	var seen []string
	for _, p := range []string{optDir, config.VarDir} {
		d, ok := h.Facts.disk(p)
		if !ok {
			return unknown("its stat says nothing of %s", p)
		}
		if d.total == 0 { // btrfs makes them as needed
			continue
		}
		if d.inodes < leastInodes {
			return fail("%d of %d on %s", d.inodes, d.total, d.mount)
		}
		seen = append(seen, fmt.Sprintf("%d on %s", d.inodes, d.mount))
	}
	if len(seen) == 0 {
		return pass("made as needed")
	}
	return pass("%s", strings.Join(slices.Compact(seen), ", "))
}

func judgeOption(h *Host, option string, paths ...string) verdict {
	for _, p := range paths {
		d, ok := h.Facts.disk(p)
		if !ok || d.kind == "" {
			return unknown("its mount table says nothing of %s", p)
		}
		if slices.Contains(d.options, option) {
			return fail("%s of %s is mounted %s", d.mount, p, option).do("on %s: mount -o remount,%s %s, and the same in /etc/fstab", h.Name, opposite[option], d.mount)
		}
	}
	return pass("not %s", option)
}

var opposite = map[string]string{"ro": "rw", "noexec": "exec", "nodev": "dev", "nosuid": "suid"}

func judgeFileSystem(h *Host, _ *Input) verdict {
	d, ok := h.Facts.disk(config.VarDir)
	if !ok || d.kind == "" {
		return unknown("its mount table says nothing of %s", config.VarDir)
	}
	remote := slices.ContainsFunc([]string{"nfs", "cifs", "smb", "ceph", "glusterfs", "9p", "fuse", "afs", "lustre", "gpfs", "ocfs2", "gfs2"}, func(p string) bool { return strings.HasPrefix(d.kind, p) })
	switch {
	case remote:
		return fail("%s, of a network", d.kind)
	case d.kind == "tmpfs" || d.kind == "ramfs":
		return fail("%s, lost at a reboot", d.kind)
	case d.kind == "overlay" && !isMaster(h):
		return fail("overlay, on which no other can lie")
	default:
		return pass("%s", d.kind)
	}
}

func judgeOverlay(h *Host, _ *Input) verdict {
	switch {
	case h.installed() && (h.Probe == nil || h.Probe.Overlay == ""):
		return verdict{} // containers lie there
	case h.Probe == nil || h.Probe.Overlay == "":
		return unknown("%s", h.unmeasured())
	}
	if h.Probe.Overlay == probe.Works {
		return pass("works")
	}
	d, _ := h.Facts.disk(config.VarDir)
	return fail("%s on %s", h.Probe.Overlay, d.kind)
}

func judgeFsync(h *Host, most time.Duration, of func(*probe.Fsync) time.Duration) verdict {
	if h.Probe == nil || h.Probe.Fsync == nil {
		return unknown("%s", h.unmeasured())
	}
	f := h.Probe.Fsync
	switch {
	case f.Error != "":
		return unknown("%s", f.Error)
	case f.Writes == 0:
		return fail("no append was done in time")
	case of(f) > most:
		return fail("p50 %s, p99 %s in %s", span(f.P50), span(f.P99), f.Measured)
	default:
		return pass("p50 %s, p99 %s", span(f.P50), span(f.P99))
	}
}
