package spec

import (
	"encoding/json"

	"dcos.example/dcos/runtime/api/marathon"
	"dcos.example/dcos/runtime/fault"
)

// ParseApp reads a complete app whose relative ids resolve against base.
func ParseApp(body []byte, base AppID, pol Policy) (*marathon.App, error) {
	a := marathon.NewApp()
	if err := marathon.Decode(body, a); err != nil {
		return nil, fault.New("read app", fault.Invalid, err)
	}
	if a.ID == "" {
		return nil, fault.New("read app", fault.Invalid, &marathon.TypeError{
			Details: []marathon.Detail{{Path: "/id", Errors: []string{"error.path.missing"}}},
		})
	}
	return canonical(a, base, pol)
}

// canonical checks a and brings it to the form that is stored.
func canonical(a *marathon.App, base AppID, pol Policy) (*marathon.App, error) {
	op := "check app " + a.ID
	a.ID = string(ParseID(a.ID, base))
	for i, d := range a.Dependencies {
		a.Dependencies[i] = string(ParseID(d, AppID(a.ID).Parent()))
	}
	a.Version, a.VersionInfo = "", nil
	dropNull(a)
	var p Problems
	checkDeprecated(a, &p)
	if err := p.err(); err != nil {
		return nil, fault.New(op, fault.Invalid, err)
	}
	normalize(a, pol)
	if err := validate(a, pol); err != nil {
		return nil, fault.New(op, fault.Invalid, err)
	}
	return a, nil
}

// dropNull makes nulls absent where a field keeps its raw JSON.
func dropNull(a *marathon.App) {
	drop := func(raw *json.RawMessage) {
		if blank(*raw) {
			*raw = nil
		}
	}
	drop(&a.Check)
	drop(&a.ExecutorResources)
	c := a.Container
	if c == nil {
		return
	}
	drop(&c.AppC)
	drop(&c.LinuxInfo)
	if c.Docker != nil {
		drop(&c.Docker.Credential)
		drop(&c.Docker.PullConfig)
	}
	for i := range c.Volumes {
		drop(&c.Volumes[i].External)
		drop(&c.Volumes[i].Persistent)
	}
}

// Update is a change of one app as a client sent it.
type Update struct {
	ID       string // as written, "" when absent
	Rollback string // the version to go back to, "" for none
	fields   map[string]json.RawMessage
	body     []byte
}

// ParseUpdate reads an update without applying it.
func ParseUpdate(body []byte) (Update, error) {
	const op = "read app update"
	if err := marathon.Decode(body, marathon.NewApp()); err != nil {
		return Update{}, fault.New(op, fault.Invalid, err)
	}
	u := Update{body: body}
	if err := json.Unmarshal(body, &u.fields); err != nil {
		return u, fault.New(op, fault.Invalid, &marathon.SyntaxError{Text: err.Error()})
	}
	u.ID = u.text("id")
	if u.Rollback = u.text("version"); u.Rollback != "" {
		for k, v := range u.fields {
			if k != "id" && k != "version" && !blank(v) {
				var p Problems
				p.add("/", "The 'version' field may only be combined with the 'id' field.")
				return u, fault.New(op, fault.Invalid, p.err())
			}
		}
	}
	return u, nil
}

func (u Update) text(field string) string {
	var s string
	_ = json.Unmarshal(u.fields[field], &s) // types were checked
	return s
}

// Complete returns the app that u makes of nothing: absent fields get their
// defaults.
func (u Update) Complete(id AppID, pol Policy) (*marathon.App, error) {
	a := marathon.NewApp()
	if err := marathon.Decode(u.body, a); err != nil {
		return nil, fault.New("read app update", fault.Invalid, err)
	}
	a.ID = string(id)
	return canonical(a, Root, pol)
}

// Over returns current with the top-level fields of u replaced.
func (u Update) Over(current *marathon.App, pol Policy) (*marathon.App, error) {
	const op = "merge app update"
	b, err := json.Marshal(current)
	if err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(b, &fields); err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	u.dropReplaced(fields)
	for k, v := range u.fields {
		if blank(v) {
			delete(fields, k)
		} else {
			fields[k] = v
		}
	}
	if b, err = json.Marshal(fields); err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	a := marathon.NewApp()
	if err := marathon.Decode(b, a); err != nil {
		return nil, fault.New(op, fault.Invalid, err)
	}
	a.ID = current.ID
	return canonical(a, Root, pol)
}

// dropReplaced removes from fields, a canonical app, what a deprecated field
// of u stands for under another name.
func (u Update) dropReplaced(fields map[string]json.RawMessage) {
	if _, ok := u.fields["uris"]; ok {
		delete(fields, "fetch")
	}
	if _, ok := u.fields["ports"]; ok {
		delete(fields, "portDefinitions")
	}
	if raw, ok := u.fields["ipAddress"]; ok && !blank(raw) {
		delete(fields, "networks")
		delete(fields, "portDefinitions")
	}
	if raw, ok := u.fields["networks"]; ok && !blank(raw) {
		var nets []marathon.Network
		if json.Unmarshal(raw, &nets) == nil && len(nets) > 0 && nets[0].Mode != marathon.ModeHost {
			delete(fields, "portDefinitions")
		}
	}
	var c struct {
		Docker struct{ Network string }
	}
	if raw, ok := u.fields["container"]; ok && json.Unmarshal(raw, &c) == nil && c.Docker.Network != "" {
		delete(fields, "networks")
		if c.Docker.Network != "HOST" {
			delete(fields, "portDefinitions")
		}
	}
}
