package stack

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/common/apitype"

	"dcos.example/dcos/runtime/fault"
)

// Op is a change of the state as the journal names it.
type Op string

// The changes. The first four frame a provider call: begin, then done or
// failed. The others are single entries.
const (
	OpCreate  Op = "create"  // a resource that was not there
	OpReplace Op = "replace" // a second object for a URN; the first becomes doomed
	OpUpdate  Op = "update"
	OpDelete  Op = "delete"
	OpRecord  Op = "record" // what is known changed, the object did not
	OpForget  Op = "forget" // gone from the world, or left there on purpose
	OpAdopt   Op = "adopt"  // what an interrupted create left is known now, and doomed
	OpDrop    Op = "drop"   // an interrupted create left nothing
)

type phase string

const (
	phaseStart  phase = "start" // first entry: the operation and the serial it builds on
	phaseBegin  phase = "begin"
	phaseDone   phase = "done"
	phaseFailed phase = "failed"
	phaseStep   phase = "step" // of a call under way; it changes no resource
)

// entry is one line of the journal: eight hexadecimal digits of CRC-32
// (Castagnoli) over the JSON, a blank, the JSON. One type for all phases, so
// that an operator can read the file with the eye.
type entry struct {
	Seq      int                 `json:"seq"`
	Time     time.Time           `json:"time"`
	Phase    phase               `json:"phase"`
	Op       Op                  `json:"op,omitempty"`
	Resource *apitype.ResourceV3 `json:"resource,omitempty"`
	Token    string              `json:"token,omitempty"`
	Error    string              `json:"error,omitempty"`
	Undone   bool                `json:"undone,omitempty"` // failed, and the object is as it was
	Step     string              `json:"step,omitempty"`
	Ended    bool                `json:"ended,omitempty"` // the step

	Base      uint64  `json:"base,omitempty"`
	Operation *Record `json:"operation,omitempty"`
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (e entry) line() ([]byte, error) {
	b, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "%08x %s\n", crc32.Checksum(b, castagnoli), b), nil
}

// parseJournal returns the entries of raw. A bad or unfinished line is where a
// crash cut the file off, provided that no good line follows; otherwise the
// file was damaged later and nobody can say what happened.
func parseJournal(raw []byte) ([]entry, error) {
	var entries []entry
	bad := 0
	for n := 1; len(raw) > 0; n++ {
		line, rest, whole := bytes.Cut(raw, []byte("\n"))
		raw = rest
		e, ok := parseLine(line)
		switch ok = ok && whole; {
		case ok && bad > 0:
			return nil, fmt.Errorf("line %d is damaged and line %d is not", bad, n)
		case ok && e.Seq != len(entries):
			return nil, fmt.Errorf("line %d has number %d, want %d", n, e.Seq, len(entries))
		case ok:
			entries = append(entries, e)
		case bad == 0:
			bad = n
		}
	}
	return entries, nil
}

func parseLine(line []byte) (entry, bool) {
	var e entry
	sum, body, ok := bytes.Cut(line, []byte(" "))
	want, err := strconv.ParseUint(string(sum), 16, 32)
	if !ok || err != nil || uint32(want) != crc32.Checksum(body, castagnoli) {
		return e, false
	}
	return e, json.Unmarshal(body, &e) == nil
}

// replay folds the journal into st and returns its first entry, or nil when
// there is no journal or it has been folded in before.
func (s *Stack) replay(st *State, raw []byte) (*entry, error) {
	op := "read " + s.path(journalFile)
	entries, err := parseJournal(raw)
	if err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	if len(entries) == 0 {
		return nil, nil // nothing, or a crash before the first entry was whole
	}
	head := entries[0]
	if head.Phase != phaseStart || head.Operation == nil {
		return nil, fault.Newf(op, fault.Internal, "it does not begin with a start entry")
	}
	if head.Base < st.Serial {
		return nil, nil
	}
	if head.Base > st.Serial {
		return nil, fault.Newf(op, fault.Internal, "it continues state %d, but %s is older: state %d", head.Base, stateFile, st.Serial)
	}
	for _, e := range entries[1:] {
		c := change{phase: e.Phase, op: e.Op, token: e.Token, err: e.Error, at: e.Time, undone: e.Undone, step: e.Step, ended: e.Ended}
		if e.Resource == nil {
			return nil, fault.Newf(op, fault.Internal, "entry %d names no resource", e.Seq)
		}
		if c.resource, err = s.thaw(*e.Resource); err != nil {
			return nil, err
		}
		st.fold(c)
	}
	if len(entries) > 1 {
		st.Serial++ // the serial that folding it in for good will give
	}
	return &head, nil
}

// change is an entry as the fold needs it.
type change struct {
	phase    phase
	op       Op
	resource *Resource
	token    string
	err      string
	undone   bool
	step     string
	ended    bool
	at       time.Time
}

// fold applies one change. It is the only place where the state changes, for a
// running operation as for a replay.
func (s *State) fold(c change) {
	r := c.resource
	key := objectKey{r.URN, r.ID}
	switch {
	case c.phase == phaseBegin:
		p := Pending{Op: c.op, URN: r.URN, Type: r.Type, ID: r.ID, Token: c.token, Timeouts: r.Timeouts, Since: c.at}
		if c.op == OpCreate || c.op == OpReplace {
			p.Inputs = r.Inputs
		}
		s.pending[key] = p
		return
	case c.phase == phaseStep:
		if p, ok := s.pending[key]; ok {
			p.Step, p.StepEnded = c.step, c.ended
			s.pending[key] = p
		}
		return
	case c.phase == phaseFailed && c.undone:
		delete(s.pending, key)
		return
	case c.phase == phaseFailed && len(r.InitErrors) == 0:
		key := key
		if c.op == OpCreate || c.op == OpReplace {
			key.id = ""
		}
		if p, ok := s.pending[key]; ok {
			p.Error = c.err
			s.pending[key] = p
		}
		return
	}
	// Done, or failed with something to keep: the object is as r says.
	switch c.op {
	case OpCreate, OpReplace:
		delete(s.pending, objectKey{r.URN, ""})
		if old := s.live[r.URN]; old != nil && old.ID != r.ID {
			gone := *old
			gone.Doomed = true
			s.doomed[objectKey{old.URN, old.ID}] = &gone
		}
		s.live[r.URN] = r
	case OpUpdate:
		delete(s.pending, key)
		s.live[r.URN] = r
	case OpRecord:
		s.live[r.URN] = r
	case OpDelete, OpForget:
		delete(s.pending, key)
		delete(s.doomed, key)
		if l := s.live[r.URN]; l != nil && l.ID == r.ID {
			delete(s.live, r.URN)
		}
	case OpAdopt:
		delete(s.pending, objectKey{r.URN, ""})
		s.doomed[key] = r
	case OpDrop:
		delete(s.pending, objectKey{r.URN, ""})
	}
}

// journal is the file being appended to. Entries that arrive while an fsync is
// under way wait together for the next one, so the cost per entry falls with
// the number of parallel operations.
type journal struct {
	f       *os.File
	observe func(string)

	mu      sync.Mutex
	done    *sync.Cond
	buf     []byte
	queued  int
	synced  int
	writing bool
	err     error // sticks: after a failed write nothing is certain
}

func newJournal(f *os.File, observe func(string)) *journal {
	j := &journal{f: f, observe: observe}
	j.done = sync.NewCond(&j.mu)
	return j
}

// add queues a line and returns its number for sync. The order of calls is the
// order in the file.
func (j *journal) add(line []byte) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.buf = append(j.buf, line...)
	j.queued++
	return j.queued
}

// sync returns when line n is on the disk. The first caller writes and syncs
// for all that have queued, the others wait.
func (j *journal) sync(n int) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.synced < n && j.err == nil {
		if j.writing {
			j.done.Wait()
			continue
		}
		buf, upto := j.buf, j.queued
		j.buf, j.writing = nil, true
		j.mu.Unlock()
		j.observe("journal queued")
		_, err := j.f.Write(buf)
		j.observe("journal written")
		if err == nil {
			err = j.f.Sync()
		}
		j.observe("journal synced")
		j.mu.Lock()
		j.writing = false
		if err != nil {
			j.err = err
		} else {
			j.synced = upto
		}
		j.done.Broadcast()
	}
	return j.err
}

// flush writes what is queued, so that it outlives this process. It does not
// wait for the disk.
func (j *journal) flush() {
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.writing {
		j.done.Wait()
	}
	if len(j.buf) == 0 || j.err != nil {
		return
	}
	buf := j.buf
	j.buf, j.writing = nil, true
	j.mu.Unlock()
	_, err := j.f.Write(buf)
	j.mu.Lock()
	j.writing = false
	if err != nil {
		j.err = err
	}
	j.done.Broadcast()
}

// close waits for a write under way, refuses further entries and closes.
func (j *journal) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.writing {
		j.done.Wait()
	}
	if j.err == nil {
		j.err = errEnded
	}
	return j.f.Close()
}
