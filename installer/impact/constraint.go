package impact

import (
	"regexp"
	"strconv"
)

// allows reports whether t's app lets it run on a, once it has left from.
func (w *world) allows(a, from *agent, t Task) bool {
	app, known := w.apps[t.App]
	if t.App == "" || !known {
		return true
	}
	for _, c := range app.Constraints {
		if !w.satisfied(c, a, from, t) {
			return false
		}
	}
	return true
}

// satisfied plays one constraint. Groups that should be even are no reason not
// to run.
func (w *world) satisfied(c Constraint, a, from *agent, t Task) bool {
	here, ok := valueOf(a, c.Field)
	switch c.Operator {
	case "UNIQUE":
		return ok && w.beside(c.Field, here, from, t) == 0
	case "MAX_PER":
		most, err := strconv.Atoi(c.Value)
		return ok && (err != nil || w.beside(c.Field, here, from, t) < most)
	case "CLUSTER":
		if c.Value != "" {
			return ok && here == c.Value
		}
		there, _ := valueOf(from, c.Field) // its siblings are where it was
		return ok && here == there
	case "IS":
		return ok && here == c.Value
	case "LIKE":
		return ok && matches(c.Value, here)
	case "UNLIKE":
		return !ok || !matches(c.Value, here)
	}
	return true
}

// beside counts the app's instances elsewhere that have the same value.
func (w *world) beside(field, value string, from *agent, t Task) (n int) {
	for _, a := range w.agents {
		if a == from {
			continue
		}
		if v, ok := valueOf(a, field); !ok || v != value {
			continue
		}
		for _, x := range a.tasks {
			if x.App == t.App {
				n++
			}
		}
	}
	return n
}

func valueOf(a *agent, field string) (string, bool) {
	switch field {
	case "hostname", "@hostname":
		return a.Hostname, true
	}
	v, ok := a.Attributes[field]
	return v, ok
}

func matches(pattern, s string) bool {
	re, err := regexp.Compile("^(?:" + pattern + ")$")
	return err == nil && re.MatchString(s)
}
