// Package unit reads the subset of systemd's service files that a local host
// runs. It is pure: text in, Unit out. Directives that change nothing on a
// local host are accepted silently; any other unknown one is reported as a
// warning, so that a unit never loses a promise without a trace.
package unit

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"dcos.example/dcos/runtime/fault"
)

// Type says when a service counts as started.
type Type string

const (
	Simple  Type = "simple"  // as soon as the process runs
	Notify  Type = "notify"  // when it sends READY=1
	Oneshot Type = "oneshot" // when it has ended with success
)

// Restart says after which endings a service is started again.
type Restart string

const (
	RestartNo        Restart = "no"
	RestartAlways    Restart = "always"
	RestartOnFailure Restart = "on-failure"
)

// Kill says which processes of a service are stopped with it.
type Kill string

const (
	KillGroup   Kill = "control-group" // every process of its cgroup
	KillProcess Kill = "process"       // the main process; others live on
	KillMixed   Kill = "mixed"         // ask the main process, then kill the group
)

// Unlimited is the value of a limit written as "infinity".
const Unlimited = ^uint64(0)

// Command is one ExecStart or ExecStartPre line.
type Command struct {
	Argv          []string
	IgnoreFailure bool // written with a leading "-"
}

// Unit is one service file.
type Unit struct {
	Name        string // file name, "dcos-agent.service"
	Description string
	After       []string
	Requires    []string
	WantedBy    []string

	Type            Type
	StartPre        []Command
	Start           Command
	Environment     []string // KEY=value, in file order
	EnvironmentFile []string // a leading "-" means: may be missing
	WorkingDir      string
	Restart         Restart
	RestartDelay    time.Duration
	StartTimeout    time.Duration // 0: for ever
	StopTimeout     time.Duration // 0: for ever
	RemainAfterExit bool
	Kill            Kill
	Limits          map[string]uint64 // by rlimit name: NOFILE, NPROC, MEMLOCK, CORE
	DiscardOutput   bool              // StandardOutput=null

	Warnings []string // directives that are not honoured here
}

// harmless are directives whose absence changes nothing that a local host
// promises: ordering and description of units it does not have, and sandboxing
// or accounting that the host itself already provides or does without.
var harmless = map[string]bool{
	"Documentation": true, "Wants": true, "Before": true, "Conflicts": true, "DefaultDependencies": true,
	"StartLimitIntervalSec": true, "StartLimitBurst": true, "StartLimitInterval": true, "Delegate": true, "TasksMax": true,
	"OOMScoreAdjust": true, "SyslogIdentifier": true, "NotifyAccess": true, "StandardError": true, "StandardInput": true,
	"ExecReload": true, "ReadWritePaths": true, "UMask": true, "TimeoutAbortSec": true, "Slice": true, "Alias": true,
	"CPUAccounting": true, "MemoryAccounting": true, "TasksAccounting": true, "IOAccounting": true, "OOMPolicy": true,
	"RestartSteps": true, "RestartMaxDelaySec": true, "RuntimeDirectoryPreserve": true, "KillSignal": true, "SendSIGKILL": true,
	"Also": true, "ConditionPathExists": true, "AssertPathExists": true,
}

// parser collects the problems of one file.
type parser struct {
	u    Unit
	errs []error
	line int
}

func (p *parser) bad(format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf("%s:%d: "+format, append([]any{p.u.Name, p.line}, args...)...))
}

// Parse reads the unit file called name. The error lists every problem.
func Parse(name, text string) (Unit, error) {
	p := &parser{u: Unit{
		Name: name, Type: Simple, Restart: RestartNo, RestartDelay: 100 * time.Millisecond,
		StartTimeout: 90 * time.Second, StopTimeout: 90 * time.Second, Kill: KillGroup,
	}}
	section := ""
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		p.line = i + 1
		l := strings.TrimSpace(lines[i])
		if l == "" || l[0] == '#' || l[0] == ';' {
			continue
		}
		for strings.HasSuffix(l, `\`) && i+1 < len(lines) {
			i++
			l = strings.TrimSuffix(l, `\`) + " " + strings.TrimSpace(lines[i])
		}
		if l[0] == '[' {
			section = strings.Trim(l, "[]")
			continue
		}
		key, value, ok := strings.Cut(l, "=")
		if !ok {
			p.bad("%q is neither a section nor key=value", l)
			continue
		}
		p.set(section, strings.TrimSpace(key), strings.TrimSpace(value))
	}
	p.line = len(lines)
	if len(p.u.Start.Argv) == 0 {
		p.bad("has no ExecStart")
	}
	if p.u.Type == Oneshot && p.u.Restart == RestartAlways {
		p.bad("Restart=always with Type=oneshot never ends")
	}
	if len(p.errs) > 0 {
		return Unit{}, fault.New("read unit "+name, fault.Invalid, errors.Join(p.errs...))
	}
	return p.u, nil
}

func (p *parser) set(section, key, value string) {
	switch section {
	case "Unit", "Service", "Install":
	default:
		p.u.Warnings = append(p.u.Warnings, fmt.Sprintf("line %d: section [%s] is ignored", p.line, section))
		return
	}
	u := &p.u
	switch key {
	case "Description":
		u.Description = value
	case "After":
		u.After = append(u.After, strings.Fields(value)...)
	case "Requires", "BindsTo":
		u.Requires = append(u.Requires, strings.Fields(value)...)
	case "WantedBy", "RequiredBy":
		u.WantedBy = append(u.WantedBy, strings.Fields(value)...)
	case "Type":
		u.Type = oneOf(p, key, Type(value), Simple, Notify, Oneshot, "exec")
		if u.Type == "exec" {
			u.Type = Simple
		}
	case "Restart":
		u.Restart = oneOf(p, key, Restart(value), RestartNo, RestartAlways, RestartOnFailure)
	case "KillMode":
		u.Kill = oneOf(p, key, Kill(value), KillGroup, KillProcess, KillMixed)
	case "ExecStart":
		if len(u.Start.Argv) > 0 {
			p.bad("second ExecStart")
		}
		u.Start = p.command(value)
	case "ExecStartPre":
		u.StartPre = append(u.StartPre, p.command(value))
	case "Environment":
		words, err := split(value)
		if err != nil {
			p.bad("Environment: %v", err)
		}
		for _, w := range words {
			if !strings.Contains(w, "=") {
				p.bad("Environment: %q has no =", w)
			}
			u.Environment = append(u.Environment, w)
		}
	case "EnvironmentFile":
		u.EnvironmentFile = append(u.EnvironmentFile, value)
	case "WorkingDirectory":
		u.WorkingDir = value
	case "RemainAfterExit":
		u.RemainAfterExit = value == "yes" || value == "true" || value == "1" || value == "on"
	case "StandardOutput":
		u.DiscardOutput = value == "null"
	case "User", "Group":
		if value != "root" && value != "0" {
			p.bad("%s=%s: a local host runs its services as root only", key, value)
		}
	default:
		p.setOther(key, value)
	}
}

func (p *parser) setOther(key, value string) {
	u := &p.u
	durations := map[string][]*time.Duration{
		"RestartSec": {&u.RestartDelay}, "TimeoutStartSec": {&u.StartTimeout},
		"TimeoutStopSec": {&u.StopTimeout}, "TimeoutSec": {&u.StartTimeout, &u.StopTimeout},
	}
	if into, ok := durations[key]; ok {
		d, err := span(value)
		if err != nil {
			p.bad("%s: %v", key, err)
		}
		for _, t := range into {
			*t = d
		}
		return
	}
	if name, ok := strings.CutPrefix(key, "Limit"); ok && slices.Contains([]string{"NOFILE", "NPROC", "MEMLOCK", "CORE"}, name) {
		// "soft:hard" sets the soft limit; the hard one is the host's.
		soft, _, _ := strings.Cut(value, ":")
		n, err := strconv.ParseUint(soft, 10, 64)
		if soft == "infinity" {
			n, err = Unlimited, nil
		}
		if err != nil {
			p.bad("%s: %q is neither a number nor infinity", key, value)
		}
		if u.Limits == nil {
			u.Limits = map[string]uint64{}
		}
		u.Limits[name] = n
		return
	}
	if !harmless[key] {
		u.Warnings = append(u.Warnings, fmt.Sprintf("line %d: %s is not honoured on a local host", p.line, key))
	}
}

func oneOf[T ~string](p *parser, key string, v T, allowed ...T) T {
	if !slices.Contains(allowed, v) {
		p.bad("%s=%s: must be one of %v", key, v, allowed)
	}
	return v
}

func (p *parser) command(value string) (c Command) {
	for value != "" && strings.ContainsRune("-@:+!", rune(value[0])) {
		if value[0] == '@' {
			p.bad("ExecStart with @ is not supported")
		}
		c.IgnoreFailure = c.IgnoreFailure || value[0] == '-'
		value = value[1:]
	}
	argv, err := split(value)
	if err != nil {
		p.bad("command: %v", err)
	}
	if len(argv) == 0 || argv[0][0] != '/' {
		p.bad("command %q: must start with an absolute path", value)
	}
	c.Argv = argv
	return c
}

// split cuts s into words as systemd does: quotes group, a backslash escapes,
// %% is a percent sign and no other specifier is known. Variables are kept for
// Expand.
func split(s string) (words []string, err error) {
	var w strings.Builder
	in, quote := false, byte(0)
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quote == 0 && (c == ' ' || c == '\t'):
			if in {
				words = append(words, w.String())
				w.Reset()
				in = false
			}
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote, in = c, true
		case c == '\\' && i+1 < len(s):
			i++
			w.WriteByte(s[i])
			in = true
		case c == '%':
			if i+1 >= len(s) || s[i+1] != '%' {
				return nil, fmt.Errorf("specifier in %q is not supported, write %%%% for a percent sign", s)
			}
			i++
			w.WriteByte('%')
			in = true
		default:
			w.WriteByte(c)
			in = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("quote in %q is not closed", s)
	}
	if in {
		words = append(words, w.String())
	}
	return words, nil
}

// Expand replaces ${NAME} and $NAME in argv by the values of env (KEY=value,
// the last of a key wins). An argument that is $NAME alone becomes as many
// words as its value has, as systemd does.
func Expand(argv, env []string) []string {
	get := func(name string) string {
		for _, kv := range slices.Backward(env) {
			if k, v, _ := strings.Cut(kv, "="); k == name {
				return v
			}
		}
		return ""
	}
	var out []string
	for _, a := range argv {
		if len(a) > 1 && a[0] == '$' && !strings.ContainsAny(a[1:], "${}/.:-=") {
			out = append(out, strings.Fields(get(a[1:]))...)
			continue
		}
		var b strings.Builder
		for i := 0; i < len(a); i++ {
			if a[i] == '$' && i+1 < len(a) && a[i+1] == '$' {
				i++
			} else if a[i] == '$' && i+1 < len(a) && a[i+1] == '{' {
				if end := strings.IndexByte(a[i:], '}'); end > 0 {
					b.WriteString(get(a[i+2 : i+end]))
					i += end
					continue
				}
			}
			b.WriteByte(a[i])
		}
		out = append(out, b.String())
	}
	return out
}

// span reads systemd's time spans: plain seconds, "5s", "1min 30s", "500ms",
// "infinity" (0 here: no limit).
func span(s string) (time.Duration, error) {
	if s == "infinity" {
		return 0, nil
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		return time.Duration(f * float64(time.Second)), nil
	}
	// Longest names first: "min" must not be read as "m", nor "ms" as "m".
	r := strings.NewReplacer(" ", "", "min", "m", "msec", "ms", "usec", "us", "sec", "s", "hour", "h", "hr", "h")
	d, err := time.ParseDuration(r.Replace(s))
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a time span", s)
	}
	return d, nil
}

// Order returns units so that each comes after those it names in After or
// Requires, otherwise in the given order. Names that are not among units are
// ignored. A cycle is broken where it is found and reported.
func Order(units []Unit) (ordered []Unit, cycle error) {
	byName := map[string]int{}
	for i, u := range units {
		byName[u.Name] = i
	}
	const (
		unseen = iota
		open
		done
	)
	mark := make([]int, len(units))
	var visit func(i int)
	visit = func(i int) {
		mark[i] = open
		for _, dep := range slices.Concat(units[i].Requires, units[i].After) {
			j, ok := byName[dep]
			switch {
			case ok && mark[j] == unseen:
				visit(j)
			case ok && mark[j] == open && j != i:
				cycle = errors.Join(cycle, fmt.Errorf("%s and %s each start after the other", units[i].Name, dep))
			}
		}
		mark[i] = done
		ordered = append(ordered, units[i])
	}
	for i := range units {
		if mark[i] == unseen {
			visit(i)
		}
	}
	return ordered, cycle
}
