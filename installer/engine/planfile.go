package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"

	"dcos.example/dcos/runtime/fault"
)

// planVersion is the version of the file format.
const planVersion = 1

type planFile struct {
	Version int   `json:"version"`
	Plan    *Plan `json:"plan"`
}

// Save writes the plan to a file, readable by its owner only, for a later
// Options.Plan. It holds no secrets.
func (p *Plan) Save(path string) error {
	const op = "save plan"
	raw, err := json.MarshalIndent(planFile{planVersion, p}, "", " ")
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".plan-*") // mode 0600
	if err != nil {
		return fault.New(op, fault.Invalid, err)
	}
	defer os.Remove(f.Name()) // a no-op after the rename
	_, err = f.Write(append(raw, '\n'))
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fault.New(op, fault.Invalid, err)
	}
	return nil
}

// LoadPlan reads a plan that Save wrote.
func LoadPlan(path string) (*Plan, error) {
	const op = "load plan"
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.New(op, fault.Invalid, err)
	}
	var f planFile
	if err := json.Unmarshal(raw, &f); err != nil {
		return nil, fault.Newf(op, fault.Invalid, "%s is not a plan: %w", path, err)
	}
	if f.Version != planVersion || f.Plan == nil {
		return nil, fault.Newf(op, fault.Invalid, "%s is a plan of version %d, this program reads %d", path, f.Version, planVersion)
	}
	return f.Plan, nil
}

// fits refuses a plan made for something else. A nil plan fits.
func (p *Plan) fits(stackName string, serial uint64, configHash string) error {
	const op = "use the saved plan"
	switch {
	case p == nil:
		return nil
	case p.Stack != stackName:
		return fault.Newf(op, fault.Invalid, "it was made for the stack %q, this is %q", p.Stack, stackName)
	case p.ConfigHash != configHash:
		return fault.Newf(op, fault.Conflict, "it is stale: the configuration has changed since it was made; plan again")
	case p.Serial != serial:
		return fault.Newf(op, fault.Conflict,
			"it is stale: it was made on state %d and the stack is at %d, another operation ran in between; plan again", p.Serial, serial)
	}
	return nil
}

// holds refuses when now, the plan as it is today, does other things than p.
func (p *Plan) holds(now *Plan) error {
	if p == nil {
		return nil
	}
	type object struct {
		urn resource.URN
		op  Op
	}
	want := map[object]int{}
	for _, s := range p.Steps {
		want[object{s.URN, s.Op}]++
	}
	var differ []string
	for _, s := range now.Steps {
		o := object{s.URN, s.Op}
		if want[o] == 0 {
			differ = append(differ, fmt.Sprintf("%s: now takes a %s", s.Key(), s.Op))
		} else {
			want[o]--
		}
	}
	for o, n := range want {
		if n > 0 {
			differ = append(differ, fmt.Sprintf("%s: no longer takes a %s", KeyOf(o.urn), o.op))
		}
	}
	if len(differ) == 0 {
		return nil
	}
	slices.Sort(differ)
	return fault.Newf("use the saved plan", fault.Conflict, "it is stale, plan again: %s", strings.Join(differ, "; "))
}
