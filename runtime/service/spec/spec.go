// Package spec judges the specs of services: whether one makes sense, what may
// change from one configuration to the next, what an instance needs of its
// agent, and when two configurations are the same to it. It is pure.
package spec

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"dcos.example/dcos/runtime/api/service"
	"dcos.example/dcos/runtime/resource"
)

// Defaults of a check, in seconds, and of a task.
const (
	defaultInterval = 10
	defaultTimeout  = 10
	defaultFailures = 3
	defaultGrace    = 3 // between SIGTERM and SIGKILL, as Mesos has it
)

// Normalize fills in what a spec may leave out.
func Normalize(s *service.Spec) {
	s.Name = strings.Trim(s.Name, "/")
	for i, r := range s.Requires {
		s.Requires[i] = strings.Trim(r, "/")
	}
	for _, p := range s.Pods.All() {
		if p.Network == "" {
			p.Network = service.NetworkHost
		}
		for _, c := range p.Placement {
			if len(c) > 1 {
				c[1] = strings.ToUpper(c[1])
			}
		}
		for _, v := range p.Volumes.All() {
			if v.Type == "" {
				v.Type = service.VolumeRoot
			}
		}
		for name, f := range p.Secrets {
			if f.Secret == "" {
				f.Secret = name
				p.Secrets[name] = f
			}
		}
		for _, t := range p.Tasks.All() {
			normalizeTask(t)
		}
	}
	for _, p := range s.Plans.All() {
		setDefault(&p.Strategy, "serial")
		for _, ph := range p.Phases.All() {
			setDefault(&ph.Strategy, "serial")
		}
	}
}

func normalizeTask(t *service.Task) {
	setDefault(&t.Goal, service.Running)
	for name, p := range t.Ports.All() {
		setDefault(&p.EnvKey, "PORT_"+Variable(name))
	}
	for _, c := range []*service.Check{t.Health, t.Readiness} {
		if c == nil {
			continue
		}
		setDefault(&c.Interval, defaultInterval)
		setDefault(&c.Timeout, defaultTimeout)
		setDefault(&c.Failures, defaultFailures)
		if c.HTTP != nil {
			setDefault(&c.HTTP.Path, "/")
		}
	}
	for i := range t.TLS {
		setDefault(&t.TLS[i].Dir, "/etc/tls")
	}
	if t.KillGrace == nil {
		grace := defaultGrace
		t.KillGrace = &grace
	}
}

func setDefault[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

// Variable makes a name usable as an environment variable: upper case, the
// rest "_".
func Variable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, s)
}

// Role is the role of a service's framework.
func Role(name string) string { return strings.ReplaceAll(name, "/", "__") + "-role" }

// Domain is where the names of a service's tasks are.
func Domain(name string) string {
	return strings.ReplaceAll(name, "/", "") + ".autoip.dcos.thisdcos.directory"
}

// VIPDomain is where its VIPs are.
func VIPDomain(name string) string {
	return strings.ReplaceAll(name, "/", "") + ".l4lb.thisdcos.directory"
}

// Hash names what a pod's instances are made of: instances of two
// configurations with the same hash are the same. How many there are, and
// where, is not part of it. sealed is what stands for the values of secrets.
func Hash(s *service.Spec, pod string, sealed map[string]string) string {
	p := *s.Pods.Get(pod)
	p.Count, p.AllowDecommission, p.Placement = 0, false, nil
	in := struct {
		Name, User string
		Pod        service.Pod
		Templates  map[string]string
		Secrets    map[string]string
	}{s.Name, s.User, p, map[string]string{}, map[string]string{}}
	for _, t := range p.Tasks.All() {
		for _, c := range t.Configs.All() {
			in.Templates[c.Template] = s.Templates[c.Template]
		}
	}
	for _, f := range p.Secrets {
		in.Secrets[f.Secret] = sealed[f.Secret]
	}
	b, err := json.Marshal(in) // maps are written in order of their keys
	if err != nil {
		panic("spec: a pod does not marshal: " + err.Error())
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:12])
}

// Amount is what tasks need of an agent.
type Amount struct {
	CPUs, Mem, Disk, GPUs resource.Fixed
}

// Plus adds.
func (a Amount) Plus(b Amount) Amount {
	return Amount{a.CPUs + b.CPUs, a.Mem + b.Mem, a.Disk + b.Disk, a.GPUs + b.GPUs}
}

// Max is the larger of both in each.
func (a Amount) Max(b Amount) Amount {
	return Amount{max(a.CPUs, b.CPUs), max(a.Mem, b.Mem), max(a.Disk, b.Disk), max(a.GPUs, b.GPUs)}
}

// Of is what a task needs.
func Of(t *service.Task) Amount {
	return Amount{
		resource.Float(t.CPUs), resource.Float(t.Memory), resource.Float(t.Disk), resource.Float(float64(t.GPUs)),
	}
}

// Need is what one instance of a pod reserves, beside its volumes: the most
// that its tasks use at once, in any step of any plan. Tasks that run for ever
// run beside those of all plans but deploy, which stops them first if they
// change.
func Need(s *service.Spec, pod string) Amount {
	p := s.Pods.Get(pod)
	var forever Amount
	for _, t := range p.Tasks.All() {
		if t.Goal == service.Running {
			forever = forever.Plus(Of(t))
		}
	}
	most := forever
	for name, pl := range s.Plans.All() {
		for _, ph := range pl.Phases.All() {
			if ph.Pod != pod {
				continue
			}
			for _, steps := range stepsByInstance(ph.Steps) {
				most = most.Max(peak(p, steps, forever, IsDeploy(name)))
			}
		}
	}
	if !slices.ContainsFunc(s.Plans, func(n service.Named[service.Plan]) bool { return IsDeploy(n.Name) }) {
		most = most.Max(peak(p, DefaultSteps(s, pod), forever, true))
	}
	return most
}

// stepsByInstance lists what the steps of a phase are for each instance that
// it names, and for the rest.
func stepsByInstance(steps service.Steps) map[int][][]string {
	out := map[int][][]string{}
	for _, st := range steps {
		out[st.Instance] = append(out[st.Instance], st.Tasks)
	}
	return out
}

// peak is the most that one instance uses at once through its steps.
func peak(p *service.Pod, steps [][]string, forever Amount, deploy bool) Amount {
	running, most := forever, Amount{}
	if deploy {
		running = Amount{}
	}
	for _, names := range steps {
		short := Amount{}
		for _, n := range names {
			t := p.Tasks.Get(n)
			switch {
			case t == nil:
			case t.Goal != service.Running:
				short = short.Plus(Of(t))
			case deploy:
				running = running.Plus(Of(t))
			}
		}
		most = most.Max(running.Plus(short))
	}
	return most
}

// IsDeploy reports whether a plan of that name installs and updates.
func IsDeploy(plan string) bool { return plan == PlanDeploy || plan == PlanUpdate }

// Plans with a meaning of their own.
const (
	PlanDeploy       = "deploy"
	PlanUpdate       = "update" // in place of deploy once the service is installed
	PlanRecovery     = "recovery"
	PlanDecommission = "decommission"
	// PlanReplace, if a spec has it, says by which steps an instance is made
	// anew elsewhere; without it, by those of deploy.
	PlanReplace = "replace"
)

// DefaultSteps are the steps by which an instance of pod is deployed if no plan
// says any: all its tasks at once, but for those that only another plan uses.
func DefaultSteps(s *service.Spec, pod string) [][]string {
	elsewhere := map[string]bool{}
	for name, pl := range s.Plans.All() {
		if IsDeploy(name) {
			continue
		}
		for _, ph := range pl.Phases.All() {
			if ph.Pod == pod {
				for _, st := range ph.Steps {
					for _, t := range st.Tasks {
						elsewhere[t] = true
					}
				}
			}
		}
	}
	var names []string
	for name, t := range s.Pods.Get(pod).Tasks.All() {
		if t.Goal == service.Running || !elsewhere[name] {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return [][]string{names}
}

// Secrets lists the names of the secrets a pod uses, sorted.
func Secrets(p *service.Pod) []string {
	used := map[string]bool{}
	for _, f := range p.Secrets {
		used[f.Secret] = true
	}
	return slices.Sorted(maps.Keys(used))
}
