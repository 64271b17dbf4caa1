package spec

import (
	"dcos.example/dcos/runtime/api/service"
)

// Compare returns why a running service cannot go from one normalized spec to
// another, with what to do instead.
func Compare(from, to *service.Spec, lines service.Lines) service.Problems {
	c := &checker{s: to, lines: lines}
	if from.Name != to.Name {
		c.bad("name", "a service cannot be renamed from %q: its volumes and addresses belong to that name; install a second one", from.Name)
		return c.problems
	}
	hadVolumes := false
	for pod, old := range from.Pods.All() {
		at := "pods." + pod
		p := to.Pods.Get(pod)
		if p == nil {
			c.check(old.Count == 0 || old.AllowDecommission, at,
				"pod %s cannot be removed, it would take its %d instances and their volumes with it; set allow-decommission: true for it first, in an update of its own", pod, old.Count)
			continue
		}
		c.check(p.Count >= old.Count || p.AllowDecommission, at+".count",
			"%d instances cannot become %d, as those beyond would lose their volumes; set allow-decommission: true if the service can do without them", old.Count, p.Count)
		if old.Count == 0 {
			continue // nothing is there yet
		}
		c.volumes(at, old, p)
		if len(old.Volumes) > 0 {
			hadVolumes = true
			c.check(old.User == p.User, at+".user", "the user cannot change from %q: the files in the volumes belong to it; keep it, or install a second service and move the data", old.User)
			for name, t := range p.Tasks.All() {
				if o := old.Tasks.Get(name); o != nil {
					c.check(o.User == t.User, at+".tasks."+name+".user", "the user cannot change from %q: the files in the volumes belong to it", o.User)
				}
			}
		}
		c.check(old.ShareVolumes == p.ShareVolumes || len(old.Volumes) == 0, at+".share-volumes",
			"volumes that exist cannot begin or cease to be shared; install a second service and move the data")
	}
	c.check(from.User == to.User || !hadVolumes, "user",
		"the user cannot change from %q: the files in the volumes belong to it; keep it, or install a second service and move the data", from.User)
	return c.problems
}

// volumes compares the volumes of a pod. Instances that exist keep theirs.
func (c *checker) volumes(at string, old, p *service.Pod) {
	for name, o := range old.Volumes.All() {
		vat := at + ".volumes." + name
		v := p.Volumes.Get(name)
		if v == nil {
			c.bad(vat, "a volume cannot be removed from instances that exist, its data would be lost; keep it")
			continue
		}
		c.check(v.Size == o.Size, vat+".size", "the size of a volume cannot change from %d MiB to %d: instances have it already; keep it, or install a second service with larger volumes and move the data", o.Size, v.Size)
		c.check(v.Type == o.Type, vat+".type", "the type of a volume cannot change from %s", o.Type)
		c.check(v.Path == o.Path, vat+".path", "the path of a volume cannot change from %s: the service would not find its data", o.Path)
	}
	for name := range p.Volumes.All() {
		if old.Volumes.Get(name) == nil {
			c.bad(at+".volumes."+name, "the %d instances that exist cannot get a further volume; add another pod with it, or install a second service and move the data", old.Count)
		}
	}
}
