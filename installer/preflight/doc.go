package preflight

import (
	"fmt"
	"strings"
)

// Document describes the table in Markdown: docs/preflight.md is this.
func Document() string {
	var b strings.Builder
	b.WriteString(documentHead)
	for _, group := range []struct {
		title  string
		checks []Check
	}{
		{"Access", accessChecks()}, {"System", systemChecks()}, {"Kernel", kernelChecks()}, {"Storage", storageChecks()},
		{"Network of a host", networkChecks()}, {"Between hosts", pairChecks()}, {"What is there already", occupantChecks()}, {"Whole cluster", clusterChecks()},
	} {
		fmt.Fprintf(&b, "\n## %s\n| id | | on | measured | limit | what to do |\n|---|---|---|---|---|---|\n", group.title)
		for _, c := range group.checks {
			fmt.Fprintf(&b, "| `%s` | %s (%s) | %s | %s | %s | %s |\n", c.ID, cell(c.Title), c.Severity, on(c), cell(c.Measures), cell(c.Limit), cell(c.Fix))
		}
	}
	return b.String()
}

func on(c Check) string {
	where := "all"
	if len(c.Roles) > 0 {
		where = "agents"
		if c.Roles[0] == masters[0] {
			where = "masters"
		}
	}
	switch {
	case c.Scope == ScopePair:
		where = "pairs"
	case c.Scope == ScopeCluster:
		where = "the cluster"
	}
	if c.Machine {
		where += ", real machines"
	}
	return where
}

func cell(s string) string { return strings.ReplaceAll(s, "|", "\\|") }

const documentHead = `# Preflight
` + "`dcos-install preflight`" + ` finds what would stop an installation, host by host, and says what to do about it. The same checks are made before every apply that makes or changes hosts; an error stops it before anything is changed. This page is written from the table of checks (` + "`go test ./installer/preflight -update`" + `).

## How it works
Each host is asked once: a POSIX shell script reads files, asks the host's init, and writes facts as lines; it changes nothing. Then dcos-probe, 4 MB from the release, is put into /tmp (/var/tmp or /var/lib/dcos where that is full or noexec) and removes itself as it starts; a host that has the release runs that one. The probes of all hosts listen for a few seconds on the cluster's ports that are free there, and measure each other: masters all others, agents all masters and the next agent. They answer only to each other, and send to nobody but the hosts and the ` + "`resolvers`" + ` of the file. For ` + "`fsync`" + ` and ` + "`overlay`" + ` they make files in /var/lib/dcos, or the nearest directory above that is there, and remove them. What was found out is then judged by the table below.

A host that cannot be reached fails ` + "`reach`" + `; the others are still checked. A check that could not measure is *unknown* and stops nothing. Hosts of the provider local share kernel, clock and disks with the machine they are on: checks marked "real machines" are not made there, and hosts that are not made yet are skipped. Hosts that run the cluster already are checked as they are: its own programs, ports and addresses are fine.

## Errors, warnings, and going on regardless
An *error* would keep a host or the cluster from working; ` + "`preflight`" + ` then ends with 1, and apply does not begin. A *warning* is shown. What you know better can be ignored, with the reason for whoever reads the file next:

` + "```hcl" + `
preflight {
  ignore = {
    swap        = "the hosts hibernate"
    path-mtu    = "the VPN is replaced in May"
  }
}
` + "```" + `

or once: ` + "`dcos-install apply -ignore swap`" + `. Ids that do not exist are errors.
`
