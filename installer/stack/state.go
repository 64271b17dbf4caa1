package stack

import (
	"cmp"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/common/apitype"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"

	"dcos.example/dcos/runtime/fault"
)

// Resource is what is known of one object. A value in a State is never changed,
// only replaced.
type Resource struct {
	URN           resource.URN
	ID            resource.ID
	Type          tokens.Type
	Inputs        resource.PropertyMap // as checked, as last applied
	Outputs       resource.PropertyMap // as the provider last returned them
	Dependencies  []resource.URN
	Protect       bool
	Retain        bool // deleting forgets it and leaves the object
	Doomed        bool // replaced, or left over; to be deleted
	InitErrors    []string
	SecretOutputs []resource.PropertyKey
	Timeouts      resource.CustomTimeouts
	Created       time.Time
	Modified      time.Time
}

// Pending is an operation that began and is not known to have succeeded: it
// failed, or the process died. There is at most one per object.
type Pending struct {
	Op    Op
	URN   resource.URN
	Type  tokens.Type
	ID    resource.ID // empty for a create
	Token string      // of a create; see providers.Token
	// Inputs and Timeouts of a create.
	Inputs   resource.PropertyMap
	Timeouts resource.CustomTimeouts
	Since    time.Time
	Error    string // of the failed try; empty when interrupted
	// Step is the last that the provider told of; StepEnded says that it was
	// done.
	Step      string
	StepEnded bool
}

type objectKey struct {
	urn resource.URN
	id  resource.ID
}

// State is the set of resources of a stack. It is not safe for concurrent use.
type State struct {
	// Serial counts the states of the stack, from 0 for a new one.
	Serial  uint64
	live    map[resource.URN]*Resource
	doomed  map[objectKey]*Resource
	pending map[objectKey]Pending
	by      *Record // the operation that wrote it
}

func newState() *State {
	return &State{
		live:    map[resource.URN]*Resource{},
		doomed:  map[objectKey]*Resource{},
		pending: map[objectKey]Pending{},
	}
}

// Live returns the resource of that name, or nil.
func (s *State) Live(u resource.URN) *Resource { return s.live[u] }

// Resources returns the live resources, sorted by URN.
func (s *State) Resources() []*Resource {
	return slices.SortedFunc(maps.Values(s.live), func(a, b *Resource) int { return cmp.Compare(a.URN, b.URN) })
}

// Doomed returns what was replaced and is still to be deleted.
func (s *State) Doomed() []*Resource {
	return slices.SortedFunc(maps.Values(s.doomed), func(a, b *Resource) int {
		return cmp.Or(cmp.Compare(a.URN, b.URN), cmp.Compare(a.ID, b.ID))
	})
}

// Pending returns the operations whose outcome is open, sorted by URN.
func (s *State) Pending() []Pending {
	return slices.SortedFunc(maps.Values(s.pending), func(a, b Pending) int {
		return cmp.Or(cmp.Compare(a.URN, b.URN), cmp.Compare(a.ID, b.ID))
	})
}

// PendingFor returns the open operation on one object; id is empty for a
// create.
func (s *State) PendingFor(u resource.URN, id resource.ID) (Pending, bool) {
	p, ok := s.pending[objectKey{u, id}]
	return p, ok
}

// Empty reports whether nothing exists and nothing is open.
func (s *State) Empty() bool { return len(s.live)+len(s.doomed)+len(s.pending) == 0 }

// Clone returns a copy that can be folded further on its own.
func (s *State) Clone() *State {
	c := *s
	c.live, c.doomed, c.pending = maps.Clone(s.live), maps.Clone(s.doomed), maps.Clone(s.pending)
	return &c
}

// Apply makes a single-entry change, or that of a call that succeeded, in this
// copy only. Previews use it.
func (s *State) Apply(op Op, r *Resource) { s.fold(change{phase: phaseDone, op: op, resource: r}) }

// document is state.json.
type document struct {
	Version    int                  `json:"version"`
	Stack      string               `json:"stack"`
	Serial     uint64               `json:"serial"`
	Operation  *Record              `json:"operation,omitempty"`
	Deployment apitype.DeploymentV3 `json:"deployment"`
	Pending    []pendingDoc         `json:"pending,omitempty"`
}

type pendingDoc struct {
	Op       Op                 `json:"op"`
	Resource apitype.ResourceV3 `json:"resource"`
	Token    string             `json:"token,omitempty"`
	Since    time.Time          `json:"since"`
	Error    string             `json:"error,omitempty"`
	Step     string             `json:"step,omitempty"`
	Ended    bool               `json:"ended,omitempty"`
}

const documentVersion = 1

// State reads the stack as it is, without the lock: the last written state with
// the journal folded in. While another process works on the stack it is a
// moment of that work.
func (s *Stack) State() (*State, error) {
	st, _, err := s.load()
	return st, err
}

// Earlier yields the states that are kept from before the current one, the
// newest first. Each is read when it is asked for.
func (s *Stack) Earlier() iter.Seq2[*State, error] {
	return func(yield func(*State, error) bool) {
		names, err := filepath.Glob(filepath.Join(s.path(backupDir), "*.json"))
		if err != nil {
			yield(nil, fault.New("list the states of the stack", fault.Internal, err))
			return
		}
		slices.Sort(names) // by time: the names are fixed-width
		for _, name := range slices.Backward(names) {
			if !yield(s.loadFile(filepath.Join(backupDir, filepath.Base(name)))) {
				return
			}
		}
	}
}

// By returns the operation that wrote the state; its end and result are not
// known while it runs. The state of a new stack has none.
func (s *State) By() (Record, bool) {
	if s.by == nil {
		return Record{}, false
	}
	return *s.by, true
}

// load also returns the header of the journal that was folded in, if any.
func (s *Stack) load() (*State, *entry, error) {
	const op = "read the state of the stack"
	// Between reading the state and the journal another process may finish its
	// operation. Then the state has been replaced, and we look again.
	for range 10 {
		before, _ := os.Stat(s.path(stateFile))
		st, err := s.loadDocument()
		if err != nil {
			return nil, nil, err
		}
		raw, err := s.readFile(journalFile)
		if err != nil {
			return nil, nil, fault.New(op, fault.Denied, err)
		}
		after, _ := os.Stat(s.path(stateFile))
		if (before == nil) != (after == nil) || before != nil && !os.SameFile(before, after) {
			continue
		}
		head, err := s.replay(st, raw)
		if err != nil {
			return nil, nil, err
		}
		return st, head, nil
	}
	return nil, nil, fault.Newf(op, fault.Unavailable, "%s keeps changing", s.path(stateFile))
}

func (s *Stack) loadDocument() (*State, error) { return s.loadFile(stateFile) }

// loadFile reads a state from a file of the stack's directory; one that is not
// there is empty.
func (s *Stack) loadFile(name string) (*State, error) {
	const op = "read the state of the stack"
	raw, err := s.readFile(name)
	if err != nil {
		return nil, fault.New(op, fault.Denied, err)
	}
	st := newState()
	if raw == nil {
		return st, nil
	}
	var d document
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, fault.Newf(op, fault.Internal, "%s is damaged (%v); %s holds the states before it", s.path(name), err, s.path(backupDir))
	}
	if d.Version != documentVersion {
		return nil, fault.Newf(op, fault.Invalid, "%s has version %d, this program reads %d", s.path(name), d.Version, documentVersion)
	}
	if d.Stack != s.name {
		return nil, fault.Newf(op, fault.Invalid, "%s belongs to the stack %q, not to %q", s.dir, d.Stack, s.name)
	}
	st.Serial, st.by = d.Serial, d.Operation
	for _, rd := range d.Deployment.Resources {
		r, err := s.thaw(rd)
		if err != nil {
			return nil, err
		}
		if r.Doomed {
			st.doomed[objectKey{r.URN, r.ID}] = r
		} else {
			st.live[r.URN] = r
		}
	}
	for _, pd := range d.Pending {
		r, err := s.thaw(pd.Resource)
		if err != nil {
			return nil, err
		}
		p := Pending{Op: pd.Op, URN: r.URN, Type: r.Type, ID: r.ID, Token: pd.Token, Inputs: r.Inputs,
			Timeouts: r.Timeouts, Since: pd.Since, Error: pd.Error, Step: pd.Step, StepEnded: pd.Ended}
		st.pending[objectKey{p.URN, p.ID}] = p
	}
	return st, nil
}

func (s *Stack) saveDocument(st *State) error {
	d := document{Version: documentVersion, Stack: s.name, Serial: st.Serial, Operation: st.by}
	d.Deployment.Manifest = apitype.ManifestV1{Time: time.Now().UTC(), Version: "dcos-install"}
	d.Deployment.SecretsProviders = &apitype.SecretsProvidersV1{Type: s.secrets.kind}
	for _, r := range append(st.Resources(), st.Doomed()...) {
		rd, err := s.freeze(r)
		if err != nil {
			return err
		}
		d.Deployment.Resources = append(d.Deployment.Resources, rd)
	}
	for _, p := range st.Pending() {
		rd, err := s.freeze(p.resource())
		if err != nil {
			return err
		}
		d.Pending = append(d.Pending, pendingDoc{Op: p.Op, Resource: rd, Token: p.Token, Since: p.Since, Error: p.Error, Step: p.Step, Ended: p.StepEnded})
	}
	raw, err := json.MarshalIndent(d, "", " ")
	if err != nil {
		return err
	}
	return s.writeFile(stateFile, append(raw, '\n'))
}

// resource returns the part of a pending operation that is stored as one.
func (p Pending) resource() *Resource {
	return &Resource{URN: p.URN, Type: p.Type, ID: p.ID, Inputs: p.Inputs, Timeouts: p.Timeouts}
}

func (s *Stack) freeze(r *Resource) (apitype.ResourceV3, error) {
	d := apitype.ResourceV3{
		URN: r.URN, Custom: true, Delete: r.Doomed, ID: r.ID, Type: r.Type, Protect: r.Protect, RetainOnDelete: r.Retain,
		Dependencies: r.Dependencies, InitErrors: r.InitErrors, AdditionalSecretOutputs: r.SecretOutputs,
	}
	if r.Timeouts.IsNotEmpty() {
		d.CustomTimeouts = &r.Timeouts
	}
	if !r.Created.IsZero() {
		d.Created, d.Modified = &r.Created, &r.Modified
	}
	var err error
	if d.Inputs, err = s.secrets.encodeMap(r.Inputs); err == nil {
		d.Outputs, err = s.secrets.encodeMap(r.Outputs)
	}
	if err != nil {
		return d, fmt.Errorf("encode %s: %w", r.URN, err)
	}
	return d, nil
}

func (s *Stack) thaw(d apitype.ResourceV3) (*Resource, error) {
	r := &Resource{
		URN: d.URN, Doomed: d.Delete, ID: d.ID, Type: d.Type, Protect: d.Protect, Retain: d.RetainOnDelete,
		Dependencies: d.Dependencies, InitErrors: d.InitErrors, SecretOutputs: d.AdditionalSecretOutputs,
	}
	if d.CustomTimeouts != nil {
		r.Timeouts = *d.CustomTimeouts
	}
	if d.Created != nil && d.Modified != nil {
		r.Created, r.Modified = *d.Created, *d.Modified
	}
	var err error
	if r.Inputs, err = s.secrets.decodeMap(d.Inputs); err == nil {
		r.Outputs, err = s.secrets.decodeMap(d.Outputs)
	}
	if err != nil {
		return nil, fault.New(fmt.Sprintf("read %s %s from the state", r.Type.Name(), d.URN.Name()), fault.KindOf(err), err)
	}
	return r, nil
}
