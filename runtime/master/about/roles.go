package about

import (
	"slices"
	"strings"

	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/master/core"
	"dcos.example/dcos/runtime/resource"
	"dcos.example/dcos/runtime/task"
)

// Roles returns every role that a framework subscribes to, a task is allocated
// to or something is reserved to, and "*". It costs O(tasks).
func Roles(s *core.Snapshot) []RoleView {
	byName := map[string]*RoleView{}
	get := func(name string) *RoleView {
		if byName[name] == nil {
			byName[name] = &RoleView{Name: name, Weight: 1}
		}
		return byName[name]
	}
	get(resource.AnyRole)
	sum := func(into *resource.Resources, ps []*mesos.Resource) {
		if r, err := resource.FromProto(ps); err == nil {
			*into = into.Add(bare(r))
		}
	}
	for _, f := range s.Frameworks {
		for _, role := range f.Roles {
			v := get(role)
			v.Frameworks = append(v.Frameworks, f.Info.Id)
		}
		for _, t := range f.Tasks {
			if !task.Terminal(t.GetState()) {
				sum(&get(TaskRole(t, f)).Allocated, t.Resources)
			}
		}
		for _, o := range f.Offers {
			role := o.GetAllocationInfo().GetRole()
			if role == "" && len(f.Roles) > 0 {
				role = f.Roles[0]
			}
			sum(&get(role).Offered, o.Resources)
		}
	}
	for _, a := range s.Agents {
		for _, role := range a.Total.ReservedRoles() {
			v := get(role)
			v.Reserved = v.Reserved.Add(bare(a.Total.Reserved(role)))
		}
	}
	out := make([]RoleView, 0, len(byName))
	for _, v := range byName {
		v.Whole = v.Allocated.Add(v.Offered)
		out = append(out, *v)
	}
	slices.SortFunc(out, func(a, b RoleView) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// TaskRole is the role that a task's resources are allocated to.
func TaskRole(t *mesos.Task, f core.FrameworkView) string {
	if len(t.Resources) > 0 {
		if role := t.Resources[0].GetAllocationInfo().GetRole(); role != "" {
			return role
		}
	}
	if len(f.Roles) > 0 {
		return f.Roles[0]
	}
	return resource.AnyRole
}
