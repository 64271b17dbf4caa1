package stack

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"

	"dcos.example/dcos/runtime/fault"
)

// Operation is one run that may change the stack. It holds the lock from Begin
// to End. Its methods may be called concurrently, except End.
type Operation struct {
	stack  *Stack
	unlock func() error
	record Record

	mu    sync.Mutex
	began map[resource.URN]call // provider calls that run
	state *State
	seq   int      // entries so far; the first is written with the second
	j     *journal // nil until something changes
	ended bool
}

// call is one call of the provider.
type call struct {
	kind string
	at   time.Time
}

// Begin locks the stack for an operation of that kind ("apply"). Command says
// in the message to others what runs; it must not hold secrets. What a killed
// operation left in the journal becomes part of the state first.
func (s *Stack) Begin(kind, command string) (_ *Operation, err error) {
	op := "begin " + kind
	unlock, err := s.lock(command)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, unlock())
		}
	}()
	// A wrong passphrase must be found now, not in the middle.
	if _, err := s.secrets.crypter(); err != nil {
		return nil, err
	}
	st, err := s.recover()
	if err != nil {
		return nil, err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	who := whoami(command)
	return &Operation{
		stack: s, unlock: unlock, state: st,
		record: Record{ID: id.String(), Kind: kind, User: who.User, Host: who.Host, Start: who.Since},
	}, nil
}

// recover folds what a killed operation left into state.json and the history.
func (s *Stack) recover() (*State, error) {
	const op = "recover from an interrupted operation"
	st, head, err := s.load()
	if err != nil {
		return nil, err
	}
	if head != nil {
		r := *head.Operation
		r.End, r.Result, r.Serial, r.Open = time.Now().UTC(), Interrupted, st.Serial, st.open(r.Start)
		if st.Serial > head.Base {
			st.by = &r
			if err := s.commit(st); err != nil {
				return nil, fault.New(op, fault.Internal, err)
			}
		}
		if err := s.appendHistory(r); err != nil {
			return nil, fault.New(op, fault.Internal, err)
		}
		s.log.Warn("an earlier operation was interrupted; what it did is kept", "kind", r.Kind, "start", r.Start)
	} else if st.by != nil {
		// Died between the state and the history.
		if err := s.appendHistory(*st.by); err != nil {
			return nil, fault.New(op, fault.Internal, err)
		}
	}
	if err := os.Remove(s.path(journalFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(op, fault.Denied, err)
	}
	return st, s.removeLeftovers()
}

// removeLeftovers removes files whose writer died before the rename. Only the
// holder of the lock writes such files, apart from the moment a stack is made.
func (s *Stack) removeLeftovers() error {
	left, err := filepath.Glob(s.path(".new-*"))
	for _, f := range left {
		if fi, serr := os.Stat(f); serr == nil && time.Since(fi.ModTime()) > time.Minute {
			err = errors.Join(err, os.Remove(f))
		}
	}
	return err
}

// commit writes st as state.json and keeps the one before.
func (s *Stack) commit(st *State) error {
	if err := s.backup(); err != nil {
		return fmt.Errorf("keep the state before: %w", err)
	}
	return s.saveDocument(st)
}

func (s *Stack) backup() error {
	dir := s.path(backupDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return err
	}
	slices.Sort(old) // by time: the names are fixed-width
	for len(old) >= keepBackups {
		if err := os.Remove(old[0]); err != nil {
			return err
		}
		old = old[1:]
	}
	name := time.Now().UTC().Format("20060102T150405.000000000") + ".json"
	err = os.Link(s.path(stateFile), filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// ID of the operation in the history.
func (o *Operation) ID() string { return o.record.ID }

// State returns the state as of now; the caller owns the copy.
func (o *Operation) State() *State {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.state.Clone()
}

// Begin notes that the provider is about to be called for r, and returns when
// that is on the disk. For a create, r has no ID yet.
func (o *Operation) Begin(op Op, r *Resource, token string) error {
	o.mu.Lock()
	if o.began == nil {
		o.began = map[resource.URN]call{}
	}
	o.began[r.URN] = call{kindOf(op, r), time.Now()}
	o.mu.Unlock()
	note := &Resource{URN: r.URN, ID: r.ID, Type: r.Type}
	if op == OpCreate || op == OpReplace {
		note.ID, note.Inputs, note.Timeouts = "", r.Inputs, r.Timeouts
	}
	return o.append(change{phase: phaseBegin, op: op, resource: note, token: token})
}

// Done notes what the object is now, after a call that succeeded or for one of
// the single-entry changes.
func (o *Operation) Done(op Op, r *Resource) error {
	o.mu.Lock()
	if c, ok := o.began[r.URN]; ok {
		delete(o.began, r.URN)
		if o.record.Took == nil {
			o.record.Took = map[string]Timing{}
		}
		o.record.Took[c.kind] = o.record.Took[c.kind].with(time.Since(c.at))
	}
	o.mu.Unlock()
	return o.append(change{phase: phaseDone, op: op, resource: r})
}

// Failed notes that the call failed, and why; the text must hold no secrets. If
// part of the object exists, r is that part and has InitErrors.
func (o *Operation) Failed(op Op, r *Resource, why string) error {
	if len(r.InitErrors) == 0 || op == OpDelete {
		r = &Resource{URN: r.URN, ID: r.ID, Type: r.Type}
	}
	return o.append(change{phase: phaseFailed, op: op, resource: r, err: why})
}

// Undone notes that an update failed and that the object is as it was before.
func (o *Operation) Undone(r *Resource, why string) error {
	return o.append(change{phase: phaseFailed, op: OpUpdate, undone: true, err: why,
		resource: &Resource{URN: r.URN, ID: r.ID, Type: r.Type}})
}

// Step notes how far a call under way has come: a step begins, or has ended.
// It is for those who look after a crash, so it does not wait for the disk, and
// that it cannot be written is found out by the next entry that matters.
func (o *Operation) Step(op Op, r *Resource, step string, ended bool) {
	c := change{phase: phaseStep, op: op, step: step, ended: ended, resource: &Resource{URN: r.URN, ID: r.ID, Type: r.Type}}
	if j, _, err := o.queue(c); err == nil {
		j.flush()
	}
}

func (o *Operation) append(c change) error {
	j, n, err := o.queue(c)
	if err != nil {
		return err
	}
	if err := j.sync(n); err != nil {
		return fault.New("write the journal", fault.Unavailable, err)
	}
	return nil
}

// queue folds a change and hands it to the journal, which numbers it.
func (o *Operation) queue(c change) (*journal, int, error) {
	c.at = time.Now().UTC()
	rd, err := o.stack.freeze(c.resource)
	if err != nil {
		return nil, 0, fault.New("write the journal", fault.Internal, err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	j, err := o.journal()
	if err != nil {
		return nil, 0, fault.New("write the journal", fault.Unavailable, err)
	}
	line, err := entry{Seq: o.seq, Time: c.at, Phase: c.phase, Op: c.op, Resource: &rd, Token: c.token, Error: c.err,
		Undone: c.undone, Step: c.step, Ended: c.ended}.line()
	if err != nil {
		return nil, 0, fault.New("write the journal", fault.Internal, err)
	}
	o.seq++
	o.state.fold(c)
	return j, j.add(line), nil // under o.mu, so that the file has the order of the fold
}

// errEnded meets a call that was given up and comes back after the end.
var errEnded = errors.New("the operation has ended")

// journal returns the open journal, made on first use. Caller holds o.mu.
func (o *Operation) journal() (*journal, error) {
	if o.ended {
		return nil, errEnded
	}
	if o.j != nil {
		return o.j, nil
	}
	s := o.stack
	f, err := os.OpenFile(s.path(journalFile), os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	s.observe("journal created")
	if err := syncDir(s.dir); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	line, err := entry{Phase: phaseStart, Time: o.record.Start, Base: o.state.Serial, Operation: &o.record}.line()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	o.j, o.seq = newJournal(f, s.observe), 1
	o.j.add(line)
	return o.j, nil
}

// End folds the journal into state.json, appends to the history and releases
// the lock. When nothing changed the state is left as it is. After an error the
// journal is still there, and the next operation does the rest.
func (o *Operation) End(r OperationResult, counts map[string]int) (err error) {
	op := "end " + o.record.Kind
	o.mu.Lock()
	defer o.mu.Unlock()
	defer func() { err = errors.Join(err, o.unlock()) }()
	s := o.stack
	o.ended = true
	o.record.End, o.record.Result, o.record.Counts, o.record.Open = time.Now().UTC(), r, counts, o.state.open(o.record.Start)
	if o.j != nil {
		if err := o.j.close(); err != nil {
			return fault.New(op, fault.Unavailable, err)
		}
		o.state.Serial++
		o.record.Serial = o.state.Serial
		o.state.by = &o.record
		if err := s.commit(o.state); err != nil {
			return fault.New(op, fault.Unavailable, err)
		}
		s.observe("state committed")
	}
	o.record.Serial = o.state.Serial
	if err := s.appendHistory(o.record); err != nil {
		return fault.New(op, fault.Unavailable, err)
	}
	s.observe("history written")
	if o.j != nil {
		if err := os.Remove(s.path(journalFile)); err != nil {
			return fault.New(op, fault.Unavailable, err)
		}
		s.observe("journal removed")
	}
	return nil
}
