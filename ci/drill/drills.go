package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// drill is one thing that is done to the cluster.
type drill struct {
	name string
	what string
	// do does it and returns the hosts whose tasks may have been restarted by
	// it. The cluster must become healthy by itself afterwards.
	do func(ctx context.Context, f *field, d *doing) error
	// dark is how long the API may be away; 0: three seconds for a fail-over.
	dark time.Duration
	// restored: the machines are other ones afterwards, and the cluster is as
	// the backup was.
	restored bool
}

// doing is what a drill tells while it goes on.
type doing struct {
	faults  int      // injected
	touched []string // hosts whose tasks may be restarted
}

func (d *doing) fault(touched ...string) {
	d.faults++
	d.touched = append(d.touched, touched...)
}

// failover is how long nobody leads after the leader is gone: an election and
// the new leader's first commit, with room for a busy machine.
const failover = 10 * time.Second

var drills = []drill{
	{name: "kill-leader", what: "the leading master's process is killed (SIGKILL), three times", dark: failover, do: killLeader},
	{name: "partition-agent", what: "an agent is cut off until it is given up, and comes back", dark: failover, do: partitionAgent},
	{name: "partition-leader", what: "the leading master is cut off from all others, and comes back", dark: failover, do: partitionLeader},
	{name: "replace-master", what: "a master loses its power for good; a new machine takes its place", dark: failover, do: replaceMaster},
	{name: "lose-quorum", what: "two of three masters lose their power, and come back", dark: time.Minute, do: loseQuorum},
	{name: "recover", what: "two of three masters are lost for good; dcos-install recover goes on from the third", dark: 3 * time.Minute, do: recoverQuorum},
	{name: "reboot-all", what: "every host is rebooted, one after the other", dark: failover, do: rebootAll},
	{name: "full-disk", what: "the disk of the leading master fills up, and has room again", dark: time.Minute, do: fullDisk},
	{name: "upgrade", what: "another release is brought to all hosts under load, and back again", dark: failover, do: upgrade},
	{name: "upgrade-fails", what: "a release whose agent does not start: the host is put back, the roll ends", dark: failover, do: upgradeFails},
	{name: "restore", what: "all machines are lost; a backup is restored onto new ones", dark: 10 * time.Minute, restored: true, do: restore},
}

func killLeader(ctx context.Context, f *field, d *doing) error {
	for range 3 {
		leader, err := f.leader(ctx)
		if err != nil {
			return err
		}
		d.fault()
		if _, err := f.on(ctx, leader, `kill -KILL "$(systemctl show -p MainPID --value dcos-master)"`); err != nil {
			return err
		}
		if err := f.healthy(ctx); err != nil {
			return err
		}
	}
	return nil
}

// busiest returns an agent with instances of the watched app.
func (f *field) busiest(ctx context.Context) (string, error) {
	a, err := f.app(ctx)
	if err != nil {
		return "", err
	}
	count := map[string]int{}
	for _, t := range a.Tasks {
		count[t.Host]++
	}
	best := f.agents[0]
	for _, h := range f.agents {
		if count[f.address(h).String()] > count[f.address(best).String()] {
			best = h
		}
	}
	return best, nil
}

func partitionAgent(ctx context.Context, f *field, d *doing) error {
	agent, err := f.busiest(ctx)
	if err != nil {
		return err
	}
	d.fault(agent)
	// The machine still reaches it: witnesses see its instances, the cluster
	// does not.
	if err := f.lab.Partition(ctx, []string{agent}, f.masters, false); err != nil {
		return err
	}
	at := f.address(agent).String()
	if err := f.until(ctx, 2*time.Minute, "the instances of "+agent+" elsewhere", func(ctx context.Context) error {
		a, err := f.app(ctx)
		if err != nil {
			return err
		}
		n := 0
		for _, t := range a.Tasks {
			if t.Host != at && t.State == "TASK_RUNNING" {
				n++
			}
		}
		if n < instances {
			return fmt.Errorf("%d of %d", n, instances)
		}
		return nil
	}); err != nil {
		return err
	}
	return f.lab.Heal(ctx, agent)
}

func partitionLeader(ctx context.Context, f *field, d *doing) error {
	leader, err := f.leader(ctx)
	if err != nil {
		return err
	}
	others := slices.DeleteFunc(f.hosts(), func(h string) bool { return h == leader })
	d.fault()
	if err := f.lab.Partition(ctx, []string{leader}, others, false); err != nil {
		return err
	}
	err = f.until(ctx, time.Minute, "another leader", func(ctx context.Context) error {
		for _, m := range f.masters {
			if m == leader {
				continue
			}
			out, err := f.on(ctx, m, "/opt/dcos/current/bin/dcosd members list")
			if err != nil {
				return err
			}
			for line := range strings.Lines(out) {
				if strings.Contains(line, "leads") && !strings.HasPrefix(line, leader+" ") {
					return nil
				}
			}
			return fmt.Errorf("%s knows of none:\n%s", m, out)
		}
		return errors.New("there is no other master")
	})
	if err != nil {
		return err
	}
	return f.lab.Heal(ctx)
}

func replaceMaster(ctx context.Context, f *field, d *doing) error {
	leader, err := f.leader(ctx)
	if err != nil {
		return err
	}
	d.fault()
	if err := f.renew(ctx, leader); err != nil {
		return err
	}
	_, err = f.install(ctx, "apply", "-auto-approve", "-bundle", f.s.bundle)
	return err
}

// renew puts new machines in the place of hosts.
func (f *field) renew(ctx context.Context, hosts ...string) error {
	for _, h := range hosts {
		if err := f.lab.PowerOff(ctx, h); err != nil {
			return err
		}
	}
	for _, h := range hosts {
		if err := f.lab.Renew(ctx, h); err != nil {
			return err
		}
		if _, err := f.lab.PowerOn(ctx, h); err != nil {
			return err
		}
	}
	return nil
}

func loseQuorum(ctx context.Context, f *field, d *doing) error {
	lost, err := f.followers(ctx)
	if err != nil {
		return err
	}
	for _, m := range lost {
		d.fault()
		if err := f.lab.PowerOff(ctx, m); err != nil {
			return err
		}
	}
	time.Sleep(5 * time.Second) // a while without a quorum, in which tasks run on
	for _, m := range lost {
		if _, err := f.lab.PowerOn(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

func recoverQuorum(ctx context.Context, f *field, d *doing) error {
	lost, err := f.followers(ctx)
	if err != nil {
		return err
	}
	for range lost {
		d.fault()
	}
	if err := f.renew(ctx, lost...); err != nil {
		return err
	}
	if _, err := f.install(ctx, "recover", "-auto-approve"); err != nil {
		return err
	}
	_, err = f.install(ctx, "apply", "-auto-approve", "-bundle", f.s.bundle)
	return err
}

func rebootAll(ctx context.Context, f *field, d *doing) error {
	for _, h := range f.hosts() {
		d.fault(h)
		if _, err := f.lab.Reboot(ctx, h); err != nil {
			return err
		}
		if err := f.healthy(ctx); err != nil {
			return fmt.Errorf("after the reboot of %s: %w", h, err)
		}
	}
	return nil
}

func fullDisk(ctx context.Context, f *field, d *doing) error {
	leader, err := f.leader(ctx)
	if err != nil {
		return err
	}
	d.fault()
	if err := f.lab.FillDisk(ctx, leader, 0); err != nil {
		return err
	}
	time.Sleep(10 * time.Second) // in which writes go on
	// Now it has to start on a full disk, and the others to go on without it.
	d.fault()
	if _, err := f.on(ctx, leader, `systemctl kill -s KILL dcos-master`); err != nil {
		return err
	}
	if err := f.until(ctx, time.Minute, "a leader", func(ctx context.Context) error {
		_, err := f.leader(ctx)
		return err
	}); err != nil {
		return err
	}
	time.Sleep(5 * time.Second)
	return f.lab.FreeDisk(ctx, leader)
}

func upgrade(ctx context.Context, f *field, d *doing) error {
	for _, b := range []string{f.s.next, f.s.bundle} {
		for range f.hosts() {
			d.fault()
		}
		if _, err := f.install(ctx, "upgrade", "-auto-approve", "-to", b); err != nil {
			return err
		}
		if err := f.healthy(ctx); err != nil {
			return err
		}
	}
	return nil
}

// upgradeFails makes the third host that an upgrade comes to refuse the new
// release: its agent's port is taken while the agent restarts. The host must be
// put back and the rest be left alone.
func upgradeFails(ctx context.Context, f *field, d *doing) error {
	bad := f.agents[len(f.agents)-1]
	d.fault(bad)
	// A unit of the host's owner that makes the new release fail, and no other.
	const hinder = `mkdir -p /etc/systemd/system/dcos-agent.service.d && cat >/etc/systemd/system/dcos-agent.service.d/drill.conf <<'X'
[Service]
ExecStartPre=/bin/sh -c '! grep -q "\\"version\\": *\\"%s\\"" /opt/dcos/current/manifest.json'
X
systemctl daemon-reload`
	version, err := versionOf(f.s.next)
	if err != nil {
		return err
	}
	if _, err := f.on(ctx, bad, fmt.Sprintf(hinder, version)); err != nil {
		return err
	}
	out, err := f.install(ctx, "upgrade", "-auto-approve", "-to", f.s.next)
	if err == nil {
		return fmt.Errorf("the upgrade succeeded although %s cannot run it:\n%s", bad, tail(out, 30))
	}
	running, rerr := f.on(ctx, bad, "basename $(readlink /opt/dcos/current); systemctl is-active dcos-agent")
	if rerr != nil {
		return fmt.Errorf("after a failed upgrade: %w", rerr)
	}
	if strings.HasPrefix(running, version+"-") || !strings.Contains(running, "\nactive") {
		return fmt.Errorf("%s was not put back: it runs %q\n%s", bad, running, tail(out, 30))
	}
	if err := f.healthy(ctx); err != nil {
		return err
	}
	if _, err := f.on(ctx, bad, "rm -r /etc/systemd/system/dcos-agent.service.d && systemctl daemon-reload"); err != nil {
		return err
	}
	_, err = f.install(ctx, "rollback", "-auto-approve")
	return err
}

// versionOf returns the version of a bundle, from its name.
func versionOf(bundle string) (string, error) {
	name := strings.TrimSuffix(filepath.Base(bundle), ".bundle")
	_, version, ok := strings.Cut(name, "-")
	if !ok {
		return "", fmt.Errorf("the name of %s does not tell its version", bundle)
	}
	return version, nil
}

// restore backs the cluster up, loses everything, and has it back on new
// machines: the apps, the ledger as it was then, the first user.
func restore(ctx context.Context, f *field, d *doing) error {
	backup := filepath.Join(f.dir, "cluster.backup")
	if _, err := f.install(ctx, "backup", "-out", backup); err != nil {
		return err
	}
	if st, err := os.Stat(backup); err != nil {
		return err
	} else if st.Size() == 0 {
		return errors.New("the backup is empty")
	}
	for _, h := range f.hosts() {
		d.fault(h)
	}
	if err := f.renew(ctx, f.hosts()...); err != nil {
		return err
	}
	_, err := f.install(ctx, "restore", backup, "-auto-approve", "-bundle", f.s.bundle)
	return err
}

// outcome is a drill that was run.
type outcome struct {
	drill  drill
	doing  doing
	seen   seen
	took   time.Duration
	err    error
	broken []string // promises
}

// run runs a drill under the eyes of a witness, and judges.
func (f *field) run(ctx context.Context, dr drill) outcome {
	start := time.Now()
	o := outcome{drill: dr}
	w, err := f.watch(ctx, f.public)
	if err != nil {
		o.err = err
		return o
	}
	err = dr.do(ctx, f, &o.doing)
	if err == nil {
		err = f.healthy(ctx)
	}
	if ctx.Err() == nil && err == nil {
		time.Sleep(2 * time.Second) // what comes late is seen too
	}
	o.seen, o.err = w.end(ctx, o.doing.touched)
	if err != nil {
		o.err = err
	}
	o.took = time.Since(start)
	if o.err == nil {
		if o.broken = o.judge(); len(o.broken) > 0 {
			o.err = fmt.Errorf("broken: %s", strings.Join(o.broken, "; "))
		}
	}
	return o
}

// judge returns the promises that were not kept.
func (o outcome) judge() (broken []string) {
	promise := func(kept bool, format string, args ...any) {
		if !kept {
			broken = append(broken, fmt.Sprintf(format, args...))
		}
	}
	s := o.seen
	promise(s.writes > 0 && s.samples > 0, "nothing was seen: %d writes, %d samples", s.writes, s.samples)
	if o.drill.restored {
		return broken // what came after the backup is lost, and tasks are new
	}
	promise(s.fewest >= least, "%d instances answered, the app's minimum is %d", s.fewest, least)
	promise(s.lost == 0, "%d of %d acknowledged writes are lost", s.lost, s.writes)
	promise(s.restarted == 0, "%d of %d tasks on hosts that nothing was done to were restarted", s.restarted, s.tasks)
	promise(s.writeGap <= o.drill.dark+writeEvery, "no write for %s, %s are allowed", s.writeGap.Round(time.Millisecond), o.drill.dark)
	return broken
}

func (o outcome) line() string {
	s := o.seen
	text := fmt.Sprintf("%-18s %5.1f s  %d faults, fewest instances %d/%d in %d samples, %d writes (%d lost, longest pause %s), %d requests (%d failed), %d restarted",
		o.drill.name, o.took.Seconds(), o.doing.faults, s.fewest, instances, s.samples, s.writes, s.lost, s.writeGap.Round(10*time.Millisecond), s.asked, s.unanswered, s.restarted)
	if o.err != nil {
		return text + "\nFAILED " + o.drill.name + ": " + o.err.Error()
	}
	return text
}

// stream runs a script on a host and hands over what it writes.
func (f *field) stream(ctx context.Context, host, script string, each func(byte)) error {
	return f.lab.Stream(ctx, host, "root", script, writer(each))
}

type writer func(byte)

func (w writer) Write(b []byte) (int, error) {
	for _, c := range b {
		w(c)
	}
	return len(b), nil
}
