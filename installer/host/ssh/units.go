package ssh

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/runtime/fault"
)

// startLog is how much of a log the error of a start quotes, in bytes.
const startLog = 2 << 10

// unitsBelow ends what lookScript prints of files.
const unitsBelow = "== units\n"

// showUnits prints the time since boot, as times of units count from there and
// the clock of the machine may be wrong; then the units, an empty line between.
func showUnits(names []string) string {
	return "echo '" + strings.TrimSpace(unitsBelow) + "'\ncat /proc/uptime\n" +
		"systemctl show -p Id,Names,LoadState,ActiveState,SubState,NRestarts,ExecMainCode,ExecMainStatus,ExecMainExitTimestampMonotonic,ActiveEnterTimestampMonotonic -- " +
		quoted(names) + " || exit 1\n"
}

// parseUnits reads what showUnits printed. Units that are not there are left
// out.
func parseUnits(text string, now time.Time) (map[string]host.Unit, error) {
	units := map[string]host.Unit{}
	if text == "" {
		return units, nil
	}
	head, rest, _ := strings.Cut(text, "\n")
	up, _, _ := strings.Cut(head, " ")
	seconds, err := strconv.ParseFloat(up, 64)
	if err != nil {
		return nil, fmt.Errorf("/proc/uptime says %q", head)
	}
	for block := range strings.SplitSeq(strings.TrimSpace(rest), "\n\n") {
		p := map[string]string{}
		for l := range strings.Lines(block) {
			key, value, _ := strings.Cut(strings.TrimSpace(l), "=")
			p[key] = value
		}
		if p["LoadState"] == "not-found" || p["LoadState"] == "" {
			continue
		}
		u := host.Unit{Active: p["ActiveState"] == "active", State: p["ActiveState"]}
		if s := p["SubState"]; s == "auto-restart" {
			u.State += " (" + s + ")"
		}
		u.Restarts, _ = strconv.Atoi(p["NRestarts"]) // absent before systemd 235
		if us, err := strconv.ParseFloat(p["ActiveEnterTimestampMonotonic"], 64); err == nil && us > 0 {
			u.Since = now.Add(-time.Duration((seconds - us/1e6) * float64(time.Second)))
		}
		if at := p["ExecMainExitTimestampMonotonic"]; at != "" && at != "0" {
			u.LastExit = ended(p["ExecMainCode"], p["ExecMainStatus"])
		}
		for name := range strings.FieldsSeq(p["Names"] + " " + p["Id"]) {
			units[name] = u
		}
	}
	return units, nil
}

// ended puts the CLD_ code and status of a process into words.
func ended(code, status string) string {
	switch code {
	case "1":
		return "exit status " + status
	case "2":
		return "killed by signal " + status
	case "3":
		return "killed by signal " + status + ", core dumped"
	default:
		return ""
	}
}

// logScript prints the end of a unit's log.
func logScript(name string, bytes int) string {
	return "if command -v journalctl >/dev/null 2>&1; then journalctl -q --no-pager -o cat -n 60 -u " + host.Quote(name) + " 2>/dev/null | tail -c " + strconv.Itoa(bytes) +
		"\nelse echo '(this machine keeps no journal that could be quoted)'; fi\n"
}

// UnitStatus implements host.Units.
func (m *machine) UnitStatus(ctx context.Context, name string, tail int) (host.Unit, error) {
	what := "look at " + name
	script := showUnits([]string{name})
	if tail > 0 {
		script += "echo '== log'\n" + logScript(name, tail)
	}
	out, err := m.do(ctx, command{what: what, script: script + "true"})
	if err != nil {
		return host.Unit{}, err
	}
	_, out, _ = strings.Cut(out, unitsBelow)
	text, log, _ := strings.Cut(out, "== log\n")
	units, err := parseUnits(text, time.Now())
	if err != nil {
		return host.Unit{}, fault.New("host "+m.ref.Name+": "+what, fault.Internal, err)
	}
	u, ok := units[name]
	if !ok {
		return u, fault.Newf("host "+m.ref.Name+": "+what, fault.NotFound, "there is no such unit")
	}
	u.Log = log
	return u, nil
}

// StartUnit implements host.Units.
func (m *machine) StartUnit(ctx context.Context, name string) error {
	n := host.Quote(name)
	_, err := m.do(ctx, command{what: "start " + name,
		script: "systemctl reset-failed " + n + " >/dev/null 2>&1\nsystemctl start " + n + " && exit 0\necho 'the end of its log:' >&2\n{ " + logScript(name, startLog) + "} >&2\nexit 1"})
	return err
}

// StopUnit implements host.Units.
func (m *machine) StopUnit(ctx context.Context, name string) error {
	n := host.Quote(name)
	_, err := m.do(ctx, command{what: "stop " + name,
		script: "[ \"$(systemctl show -p LoadState --value " + n + ")\" = not-found ] || systemctl stop " + n})
	return err
}

// EnableUnit implements host.Units.
func (m *machine) EnableUnit(ctx context.Context, name string, on bool) error {
	n := host.Quote(name)
	if on {
		_, err := m.do(ctx, command{what: "enable " + name, script: "systemctl enable --quiet --no-reload " + n})
		return err
	}
	_, err := m.do(ctx, command{what: "disable " + name,
		script: "[ \"$(systemctl show -p LoadState --value " + n + ")\" = not-found ] || systemctl disable --quiet --no-reload " + n})
	return err
}
