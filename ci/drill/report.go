package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// writeReport writes what was seen as a page of the documentation.
func writeReport(path string, seen []outcome) error {
	var b strings.Builder
	b.WriteString(`# Reliability

What a cluster of ` + fmt.Sprintf("%d masters, %d agents and a public agent", masters, agents) + ` kept while it was broken on purpose. Each host is a simulated machine (` + "`ci/lab`" + `): systemd, sshd, an address, a disk of its own. Witnesses look on through public interfaces alone:

- **Instances**: an app of ` + fmt.Sprint(instances) + ` instances, each asked directly four times a second. Its upgradeStrategy allows ` + fmt.Sprint(least) + ` at the least.
- **Writes**: apps are added to a ledger five times a second. One that was acknowledged must be there at the end. The longest pause is the time without an acknowledged write.
- **Requests**: ten a second through the app's VIP from another host, by a client that never tries twice. They are counted, and no promise is made: what is on its way to a host that loses its power is lost.
- **Restarted**: tasks that are gone although nothing was done to their host.

`)
	var u unix.Utsname
	_ = unix.Uname(&u) // cannot fail with a valid pointer
	fmt.Fprintf(&b, "From `make drill` on %s: %d CPUs, Linux %s.\n\n", time.Now().UTC().Format("2006-01-02"), runtime.NumCPU(), unix.ByteSliceToString(u.Release[:]))
	b.WriteString("| drill | what | faults | fewest instances | writes | lost | longest pause | requests | failed | restarted | held |\n|---|---|---|---|---|---|---|---|---|---|---|\n")
	faults, held := 0, 0
	for _, o := range seen {
		s := o.seen
		verdict := "yes"
		switch {
		case len(o.broken) > 0:
			verdict = "**no**: " + strings.Join(o.broken, "; ")
		case o.err != nil:
			first, _, _ := strings.Cut(o.err.Error(), "\n")
			verdict = "**no**: " + first
		default:
			held++
		}
		faults += o.doing.faults
		lost, restarted := fmt.Sprint(s.lost), fmt.Sprint(s.restarted)
		if o.drill.restored {
			lost, restarted = "since the backup: "+lost, "all, on new machines"
		}
		fmt.Fprintf(&b, "| %s | %s | %d | %d of %d | %d | %s | %.1f s | %d | %d | %s | %s |\n",
			o.drill.name, o.drill.what, o.doing.faults, s.fewest, instances, s.writes, lost, s.writeGap.Seconds(), s.asked, s.unanswered, restarted, verdict)
	}
	fmt.Fprintf(&b, "\n%d drills, %d faults, %d drills held every promise.\n\n", len(seen), faults, held)
	b.WriteString("Not covered: skewed clocks and writes lost with the power, since simulated hosts share the kernel, its clock and its page cache; hosts of different kernels.\n")
	return os.WriteFile(path, []byte(b.String()), 0o644)
}
