package stack

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"

	"dcos.example/dcos/runtime/fault"
)

// OperationResult says how an operation ended.
type OperationResult string

const (
	Succeeded   OperationResult = "succeeded"
	Failed      OperationResult = "failed"
	Stopped     OperationResult = "stopped"     // by the operator
	Interrupted OperationResult = "interrupted" // its process died
)

// Record is one operation in the history. It holds no secrets and no
// properties.
type Record struct {
	ID     string          `json:"id"` // sorts by time
	Kind   string          `json:"kind"`
	User   string          `json:"user"`
	Host   string          `json:"host"`
	Start  time.Time       `json:"start"`
	End    time.Time       `json:"end,omitzero"`
	Result OperationResult `json:"result,omitempty"`
	Counts map[string]int  `json:"counts,omitempty"` // changes done
	// Took is how long the provider's calls took that succeeded, by what they
	// did: "create Host", "update Node agent".
	Took   map[string]Timing `json:"took,omitempty"`
	Serial uint64            `json:"serial"` // of the state it left
	// Open are the changes that it began and did not finish.
	Open []Unfinished `json:"open,omitempty"`
}

// Unfinished is a change of one resource that was begun and is not done.
type Unfinished struct {
	URN   resource.URN `json:"urn"`
	Op    Op           `json:"op"`
	Step  string       `json:"step,omitempty"`  // the last that was told of
	Ended bool         `json:"ended,omitempty"` // that step was done
	Error string       `json:"error,omitempty"` // empty: interrupted
}

// open returns what was begun since start and is not done.
func (s *State) open(start time.Time) []Unfinished {
	var out []Unfinished
	for _, p := range s.Pending() {
		if !p.Since.Before(start) {
			out = append(out, Unfinished{URN: p.URN, Op: p.Op, Step: p.Step, Ended: p.StepEnded, Error: p.Error})
		}
	}
	return out
}

// Timing sums up calls of one kind.
type Timing struct {
	Calls int           `json:"calls"`
	Mean  time.Duration `json:"meanNanos"`
	Max   time.Duration `json:"maxNanos"`
}

func (t Timing) with(d time.Duration) Timing {
	n := time.Duration(t.Calls)
	return Timing{Calls: t.Calls + 1, Mean: (t.Mean*n + d) / (n + 1), Max: max(t.Max, d)}
}

// kindOf is the key of Record.Took for a call.
func kindOf(op Op, r *Resource) string {
	k := string(op) + " " + string(r.URN.Type().Name())
	if role := r.Inputs["role"]; role.IsString() {
		k += " " + role.StringValue()
	}
	return k
}

// History returns the operations that changed or tried to change the stack,
// oldest first.
func (s *Stack) History() ([]Record, error) {
	raw, err := s.readFile(historyFile)
	if err != nil {
		return nil, fault.New("read the history of the stack", fault.Denied, err)
	}
	var out []Record
	for line := range bytes.Lines(raw) {
		var r Record
		// A line that a crash cut off is completed by a second, whole one.
		if json.Unmarshal(line, &r) == nil && r.ID != "" {
			out = append(out, r)
		}
	}
	return out, nil
}

// appendHistory adds r unless the history has it.
func (s *Stack) appendHistory(r Record) error {
	have, err := s.History()
	if err != nil {
		return err
	}
	if slices.ContainsFunc(have, func(h Record) bool { return h.ID == r.ID }) {
		return nil
	}
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(s.path(historyFile), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	if fi, serr := f.Stat(); serr == nil && fi.Size() > 0 {
		last := make([]byte, 1)
		if _, rerr := f.ReadAt(last, fi.Size()-1); rerr == nil && last[0] != '\n' {
			line = append([]byte("\n"), line...)
		}
	}
	_, err = f.Write(append(line, '\n'))
	return errors.Join(err, f.Sync(), f.Close())
}
