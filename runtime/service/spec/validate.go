package spec

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"dcos.example/dcos/runtime/api/service"
	"dcos.example/dcos/runtime/mustache"
	"dcos.example/dcos/runtime/placement"
)

// Bounds that keep one service from swamping the store and the leader.
const (
	maxInstances = 1000
	maxTasks     = 20
	maxText      = 512 << 10 // templates and secrets together: they travel with each task
)

var (
	nameRE     = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(/[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)
	partRE     = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)
	envRE      = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)
	fileRE     = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)
	userRE     = regexp.MustCompile(`^[A-Za-z0-9_.-]+(:[A-Za-z0-9_.-]+)?$`)
	reserved   = []string{"check"} // names of the API beside services
	strategies = []string{"serial", "parallel", "canary", "serial-canary", "parallel-canary"}
)

// Validate returns everything that is wrong with a normalized spec.
func Validate(s *service.Spec, lines service.Lines) service.Problems {
	c := &checker{s: s, lines: lines}
	c.service()
	for name, p := range s.Pods.All() {
		c.pod(name, p)
	}
	for name, p := range s.Plans.All() {
		c.plan(name, p)
	}
	c.replacement()
	slices.SortStableFunc(c.problems, func(a, b service.Problem) int { return cmp.Compare(a.Line, b.Line) })
	return c.problems
}

// sorted yields a map in the order of its keys.
func sorted[V any](m map[string]V) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if !yield(k, m[k]) {
				return
			}
		}
	}
}

type checker struct {
	s        *service.Spec
	lines    service.Lines
	problems service.Problems
}

func (c *checker) bad(at, format string, args ...any) {
	c.problems = append(c.problems, service.Problem{Path: at, Line: c.lines.Of(at), Message: fmt.Sprintf(format, args...)})
}

func (c *checker) check(ok bool, at, format string, args ...any) {
	if !ok {
		c.bad(at, format, args...)
	}
}

func (c *checker) service() {
	s := c.s
	switch {
	case s.Name == "":
		c.bad("name", "a service needs a name")
	case !nameRE.MatchString(s.Name):
		c.bad("name", "%q is no name of a service: lower-case letters, digits and hyphens, in groups separated by slashes", s.Name)
	case len(strings.ReplaceAll(s.Name, "/", "")) > 50:
		c.bad("name", "the name is longer than 50 characters, which DNS has no room for")
	case slices.Contains(reserved, s.Name):
		c.bad("name", "the name %q is taken by the operator's own API", s.Name)
	}
	c.user("user", s.User)
	c.check(len(s.Pods) > 0, "pods", "a service needs at least one pod")
	for i, r := range s.Requires {
		at := fmt.Sprintf("requires[%d]", i)
		c.check(nameRE.MatchString(r), at, "%q is no name of a service", r)
		c.check(r != s.Name, at, "a service cannot require itself")
	}
	size := 0
	for name, t := range sorted(s.Templates) {
		size += len(t)
		if _, err := mustache.Parse(t); err != nil {
			c.bad("templates."+name, "%v", err)
		}
	}
	for name, sec := range sorted(s.Secrets) {
		at := "secrets." + name
		size += len(sec.Value)
		c.check(fileRE.MatchString(name), at, "%q is no name of a secret: letters, digits, dots, hyphens and underscores", name)
		c.check(sec.Value == "" || sec.Generate == 0, at, "a secret has a value or is generated, not both")
		c.check(sec.Generate >= 0 && sec.Generate <= 256, at+".generate", "%d characters; 8 to 256 can be generated", sec.Generate)
		c.check(sec.Generate == 0 || sec.Generate >= 8, at+".generate", "%d characters are too few to be a secret; at least 8", sec.Generate)
	}
	c.check(size <= maxText, "templates", "templates and secrets are %d bytes together, at most %d are possible", size, maxText)
}

func (c *checker) user(at, user string) {
	c.check(user == "" || userRE.MatchString(user), at, "%q is no name of a user", user)
}

func (c *checker) pod(name string, p *service.Pod) {
	at := "pods." + name
	c.check(partRE.MatchString(name), at, "%q is no name of a pod: lower-case letters, digits and hyphens", name)
	c.check(p.Count >= 0 && p.Count <= maxInstances, at+".count", "%d instances; 0 to %d are possible", p.Count, maxInstances)
	c.user(at+".user", p.User)
	c.check(p.Network == service.NetworkHost || p.Network == service.NetworkContainer, at+".network",
		"%q is no network of a pod: %s or %s", p.Network, service.NetworkHost, service.NetworkContainer)
	for i, con := range p.Placement {
		if text := placement.Check(con); text != "" {
			c.bad(fmt.Sprintf("%s.placement[%d]", at, i), "%s", text)
		}
	}
	c.check(len(p.Tasks) > 0, at+".tasks", "a pod needs at least one task")
	c.check(len(p.Tasks) <= maxTasks, at+".tasks", "%d tasks, at most %d are possible", len(p.Tasks), maxTasks)
	places := mounts{c: c, taken: map[string]string{}}
	for vol, v := range p.Volumes.All() {
		vat := at + ".volumes." + vol
		c.check(partRE.MatchString(vol), vat, "%q is no name of a volume: lower-case letters, digits and hyphens", vol)
		c.check(v.Size > 0, vat+".size", "a volume of %d MiB; at least 1 is needed", v.Size)
		c.check(v.Type == service.VolumeRoot, vat+".type", "volumes of type %q are not possible yet, only %s", v.Type, service.VolumeRoot)
		places.add(vat+".path", v.Path, p.Image)
	}
	envs := map[string]string{}
	for key, f := range sorted(p.Secrets) {
		sat := at + ".secrets." + key
		if _, ok := c.s.Secrets[f.Secret]; !ok {
			c.bad(sat, "there is no secret %q under secrets", f.Secret)
		}
		c.check(f.EnvKey != "" || f.File != "", sat, "the secret goes nowhere: give it an env-key, a file, or both")
		if f.EnvKey != "" {
			c.env(sat+".env-key", f.EnvKey, envs)
		}
		if f.File != "" {
			places.add(sat+".file", f.File, p.Image)
		}
	}
	c.sharing(name, p)
	c.ports(name, p)
	for task, t := range p.Tasks.All() {
		c.task(at+".tasks."+task, task, p, t, places.clone())
	}
}

// sharing looks whether volumes would be used by two tasks at once.
func (c *checker) sharing(pod string, p *service.Pod) {
	if len(p.Volumes) == 0 || p.ShareVolumes {
		return
	}
	var forever []string
	for name, t := range p.Tasks.All() {
		if t.Goal == service.Running {
			forever = append(forever, name)
		}
	}
	if c.shared(pod, forever) {
		return
	}
	for name, pl := range c.s.Plans.All() {
		for _, ph := range pl.Phases.All() {
			if ph.Pod == pod && c.sharedIn(pod, p, ph, forever, IsDeploy(name) || name == PlanReplace) {
				return
			}
		}
	}
}

// sharedIn walks the steps of each instance. In deploy and replace nothing runs
// that they have not started.
func (c *checker) sharedIn(pod string, p *service.Pod, ph *service.Phase, forever []string, fresh bool) bool {
	for _, steps := range stepsByInstance(ph.Steps) {
		users := forever
		if fresh {
			users = nil
		}
		for _, names := range steps {
			if c.shared(pod, append(slices.Clone(users), names...)) {
				return true
			}
			for _, n := range names {
				if t := p.Tasks.Get(n); t != nil && t.Goal == service.Running {
					users = append(slices.Clone(users), n)
				}
			}
		}
	}
	return false
}

// shared complains about the first two of names.
func (c *checker) shared(pod string, names []string) bool {
	slices.Sort(names)
	if names = slices.Compact(names); len(names) < 2 {
		return false
	}
	c.bad("pods."+pod+".share-volumes", "tasks %s and %s would use the volumes at the same time; set share-volumes: true if they may", names[0], names[1])
	return true
}

// ports looks for two tasks of a pod that want one port.
func (c *checker) ports(pod string, p *service.Pod) {
	taken := map[int]string{}
	for task, t := range p.Tasks.All() {
		for name, port := range t.Ports.All() {
			at := "pods." + pod + ".tasks." + task + ".ports." + name
			c.check(partRE.MatchString(name), at, "%q is no name of a port: lower-case letters, digits and hyphens", name)
			c.check(port.Port >= 0 && port.Port <= 65535, at+".port", "%d is no port", port.Port)
			if other, ok := taken[port.Port]; ok && port.Port != 0 {
				c.bad(at+".port", "port %d is that of %s already", port.Port, other)
			}
			taken[port.Port] = task + "." + name
			if v := port.VIP; v != nil {
				c.check(partRE.MatchString(v.Prefix), at+".vip.prefix", "%q is no name in DNS", v.Prefix)
				c.check(v.Port > 0 && v.Port <= 65535, at+".vip.port", "%d is no port", v.Port)
			}
		}
	}
}

func (c *checker) env(at, key string, seen map[string]string) {
	c.check(envRE.MatchString(key), at, "%q is no name of an environment variable", key)
	if other, ok := seen[key]; ok {
		c.bad(at, "the variable %s is set at %s already", key, other)
	}
	seen[key] = at
}

func (c *checker) task(at, name string, p *service.Pod, t *service.Task, places mounts) {
	c.check(partRE.MatchString(name), at, "%q is no name of a task: lower-case letters, digits and hyphens", name)
	c.check(t.Goal == service.Running || t.Goal == service.Once || t.Goal == service.Finish, at+".goal",
		"%q is no goal: %s, %s or %s", t.Goal, service.Running, service.Once, service.Finish)
	c.check(t.Cmd != "" || p.Image != "", at+".cmd", "a task needs a cmd if its pod has no image")
	c.user(at+".user", t.User)
	c.check(t.CPUs >= 0.01, at+".cpus", "a task needs at least 0.01 cpus, not %g", t.CPUs)
	c.check(t.Memory >= 4, at+".memory", "a task needs at least 4 MiB of memory, not %g", t.Memory)
	c.check(t.Disk >= 0, at+".disk", "%g is no amount of disk", t.Disk)
	c.check(t.GPUs >= 0, at+".gpus", "%d is no number of gpus", t.GPUs)
	c.check(*t.KillGrace >= 0, at+".kill-grace-period", "%d s; it cannot be negative", *t.KillGrace)
	for key := range sorted(t.Env) {
		c.check(envRE.MatchString(key), at+".env."+key, "%q is no name of an environment variable", key)
	}
	envs := map[string]string{}
	for port, pt := range t.Ports.All() {
		c.env(at+".ports."+port+".env-key", pt.EnvKey, envs)
	}
	for cfg, f := range t.Configs.All() {
		if _, ok := c.s.Templates[f.Template]; !ok {
			c.bad(at+".configs."+cfg+".template", "there is no template %q", f.Template)
		}
		places.add(at+".configs."+cfg+".dest", f.Dest, p.Image)
	}
	for i, enc := range t.TLS {
		tat := fmt.Sprintf("%s.transport-encryption[%d]", at, i)
		c.check(fileRE.MatchString(enc.Name), tat+".name", "%q is no name of a file", enc.Name)
		c.check(enc.Type == service.TLS || enc.Type == service.Keystore, tat+".type", "%q is neither %s nor %s", enc.Type, service.TLS, service.Keystore)
		for _, f := range TLSFiles(enc) {
			places.add(tat, path.Join(enc.Dir, f), p.Image)
		}
	}
	c.checkOf(at+".health-check", t, t.Health)
	c.checkOf(at+".readiness-check", t, t.Readiness)
	if t.Goal != service.Running {
		c.check(t.Readiness == nil, at+".readiness-check", "a task that runs to its end is never ready; remove the check or set goal: RUNNING")
	}
}

// TLSFiles are the names of the files of one kind of transport encryption.
func TLSFiles(e service.TransportEncryption) []string {
	if e.Type == service.Keystore {
		return []string{e.Name + ".keystore", e.Name + ".truststore", e.Name + ".password"}
	}
	return []string{e.Name + ".crt", e.Name + ".key", e.Name + ".ca"}
}

func (c *checker) checkOf(at string, t *service.Task, k *service.Check) {
	if k == nil {
		return
	}
	n := 0
	if k.Cmd != "" {
		n++
	}
	port := ""
	if k.TCP != nil {
		n, port = n+1, k.TCP.Port
		at := at + ".tcp.port"
		c.check(t.Ports.Get(port) != nil, at, "the task has no port %q", port)
	}
	if k.HTTP != nil {
		n, port = n+1, k.HTTP.Port
		c.check(t.Ports.Get(port) != nil, at+".http.port", "the task has no port %q", port)
		c.check(strings.HasPrefix(k.HTTP.Path, "/"), at+".http.path", "%q does not begin with a slash", k.HTTP.Path)
	}
	c.check(n == 1, at, "a check is exactly one of cmd, tcp and http; this has %d of them", n)
	for name, v := range sorted(map[string]float64{
		"delay": k.Delay, "timeout": k.Timeout, "interval": k.Interval, "grace-period": k.Grace, "max-consecutive-failures": float64(k.Failures),
	}) {
		c.check(v >= 0, at+"."+name, "it cannot be negative")
	}
}

func (c *checker) plan(name string, p *service.Plan) {
	at := "plans." + name
	c.check(partRE.MatchString(name), at, "%q is no name of a plan: lower-case letters, digits and hyphens", name)
	c.check(name != PlanRecovery && name != PlanDecommission, at, "the plan %s is the operator's own", name)
	c.strategy(at, p.Strategy)
	c.check(len(p.Phases) > 0, at+".phases", "a plan needs at least one phase")
	for phase, ph := range p.Phases.All() {
		pat := at + ".phases." + phase
		c.check(partRE.MatchString(phase), pat, "%q is no name of a phase: lower-case letters, digits and hyphens", phase)
		c.strategy(pat, ph.Strategy)
		pod := c.s.Pods.Get(ph.Pod)
		if pod == nil {
			c.bad(pat+".pod", "there is no pod %q", ph.Pod)
			continue
		}
		for i, st := range ph.Steps {
			sat := fmt.Sprintf("%s.steps[%d]", pat, i)
			c.check(st.Instance < max(pod.Count, 1), sat, "pod %s has no instance %d, only %d", ph.Pod, st.Instance, pod.Count)
			c.check(len(st.Tasks) > 0, sat, "a step needs at least one task")
			for _, t := range st.Tasks {
				c.check(pod.Tasks.Get(t) != nil, sat, "pod %s has no task %q", ph.Pod, t)
			}
		}
	}
	if IsDeploy(name) {
		c.covers(at, p)
	}
}

func (c *checker) strategy(at, s string) {
	c.check(slices.Contains(strategies, s), at+".strategy", "%q is no strategy: %s", s, strings.Join(strategies, ", "))
}

// covers looks for pods and tasks that a deployment would forget.
func (c *checker) covers(at string, p *service.Plan) {
	for pod, def := range c.s.Pods.All() {
		var steps []service.Step
		found := false
		for _, ph := range p.Phases.All() {
			if ph.Pod == pod {
				found = true
				steps = append(steps, ph.Steps...)
				if len(ph.Steps) == 0 {
					steps = append(steps, service.Step{Tasks: slices.Concat(DefaultSteps(c.s, pod)...)})
				}
			}
		}
		if !found {
			c.bad(at+".phases", "no phase deploys pod %s", pod)
			continue
		}
		for name, t := range def.Tasks.All() {
			used := slices.ContainsFunc(steps, func(s service.Step) bool { return slices.Contains(s.Tasks, name) })
			c.check(used || t.Goal != service.Running, at+".phases", "no step starts task %s of pod %s", name, pod)
		}
	}
}

func (c *checker) replacement() {
	r := c.s.Replacement
	if r == nil {
		return
	}
	at := "replacement-failure-policy"
	c.check(r.Timeout == nil || *r.Timeout >= 30, at+".permanent-failure-timeout", "at least 30 s, or an agent that restarts costs the data on it")
	c.check(r.Pause >= 0, at+".min-replace-delay", "it cannot be negative")
}

// mounts finds two things at one place in a container.
type mounts struct {
	c     *checker
	taken map[string]string
}

func (m mounts) clone() mounts {
	taken := make(map[string]string, len(m.taken))
	for k, v := range m.taken {
		taken[k] = v
	}
	return mounts{m.c, taken}
}

func (m mounts) add(at, target, image string) {
	clean := path.Clean(target)
	switch {
	case target == "":
		m.c.bad(at, "a path in the container is needed")
		return
	case path.IsAbs(target) && image == "":
		m.c.bad(at, "%q would be on the host itself, as the pod has no image; write it without a slash in front, then it is in the sandbox", target)
	case clean == "/" || clean == "." || strings.HasPrefix(clean, "../"):
		m.c.bad(at, "%q is no place for a file or volume", target)
	}
	if other, ok := m.taken[clean]; ok {
		m.c.bad(at, "%q is where %s goes already", target, other)
	}
	m.taken[clean] = at
}
