package stack

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"time"

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
	Serial uint64          `json:"serial"`           // of the state it left
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
