// Package checkpoint is the agent's memory on disk: who it is, and for each
// task what it was asked to run and which status updates are not acknowledged
// yet. Everything is on disk before the agent acts on it, so an agent that is
// killed at any instant forgets nothing it has promised.
//
// A task is one append-only file of lines "crc32c json", synced after each
// line: appending costs one fdatasync however many tasks there are, and a line
// torn by a crash is recognised and dropped. The file is removed once the
// task's terminal update is acknowledged.
package checkpoint

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/fault"
)

// Format is the newest format of the directory that this release reads. It
// grows when an older agent would misunderstand what a newer one wrote: one of
// format 1 knows neither volumes nor operations. What has none of them is
// written in format 1, so an older release can follow.
const Format = 2

// Agent is what an agent keeps about itself.
type Agent struct {
	ID     string `json:"id"`
	BootID string `json:"boot_id"` // of the boot in which the tasks were started
	// Checkpointed are the dynamic reservations and volumes the master
	// entrusted to this agent, as mesos.v1.Resource messages, and Operations
	// what frameworks have still to hear of them, as mesos.v1.Operation.
	Checkpointed [][]byte `json:"checkpointed,omitempty"`
	Operations   [][]byte `json:"operations,omitempty"`
}

// format is the oldest format that can say what a has.
func (a Agent) format() int {
	if len(a.Checkpointed) > 0 || len(a.Operations) > 0 {
		return 2
	}
	return 1
}

// agentRecord is the agent's file. One without a format is of the first.
type agentRecord struct {
	Format int `json:"format"`
	Agent
}

// Launch is what the agent accepted to run.
type Launch struct {
	ContainerID string
	Sandbox     string
	Framework   *mesos.FrameworkInfo
	Task        *mesos.TaskInfo
}

// Task is a task as found on disk.
type Task struct {
	Launch
	Pending []*mesos.TaskStatus // updates not acknowledged, oldest first
	Last    *mesos.TaskStatus   // the newest update, acknowledged or not

	Log *Log // open for appending
}

// Store is a directory of checkpoints. One process at a time may have it open.
type Store struct{ dir string }

// Open makes dir if needed and returns the store in it.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(filepath.Join(dir, "tasks"), 0o700); err != nil {
		return nil, fault.New("open checkpoints", fault.Internal, err)
	}
	return &Store{dir: dir}, nil
}

// LoadAgent returns the agent's own record; ok is false before the first save.
func (s *Store) LoadAgent() (a Agent, ok bool, err error) {
	b, err := os.ReadFile(filepath.Join(s.dir, "agent.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return a, false, nil
	}
	var r agentRecord
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		return a, false, fault.New("read agent checkpoint", fault.Internal, err)
	}
	if r.Format > Format {
		return a, false, fault.Newf("read agent checkpoint", fault.Invalid, "%s was written by a newer release, in format %d; this one reads up to %d. "+
			"Run the newer release, or drain the host and remove the directory: its tasks and volumes are then lost", s.dir, r.Format, Format)
	}
	return r.Agent, true, nil
}

// SaveAgent replaces the agent's own record: old or new after a crash, never a
// mixture.
func (s *Store) SaveAgent(a Agent) error {
	const op = "write agent checkpoint"
	b, err := json.MarshalIndent(agentRecord{a.format(), a}, "", "  ")
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	tmp := filepath.Join(s.dir, "agent.json.new")
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	_, err = f.Write(append(b, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, filepath.Join(s.dir, "agent.json"))
	}
	if err == nil {
		err = syncDir(s.dir)
	}
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	return nil
}

// line is one entry of a task's file; exactly one field is set.
type line struct {
	Launch *launchLine `json:"launch,omitempty"`
	Update []byte      `json:"update,omitempty"` // mesos.v1.TaskStatus
	Ack    []byte      `json:"ack,omitempty"`    // uuid of the oldest pending update
}

type launchLine struct {
	ContainerID string `json:"container_id"`
	Sandbox     string `json:"sandbox"`
	Framework   []byte `json:"framework"` // mesos.v1.FrameworkInfo
	Task        []byte `json:"task"`      // mesos.v1.TaskInfo
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func encode(l line) ([]byte, error) {
	b, err := json.Marshal(l)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "%08x %s\n", crc32.Checksum(b, castagnoli), b), nil
}

func decode(text []byte) (l line, ok bool) {
	sum, body, found := bytes.Cut(bytes.TrimSuffix(text, []byte("\n")), []byte(" "))
	if !found || string(sum) != fmt.Sprintf("%08x", crc32.Checksum(body, castagnoli)) {
		return l, false
	}
	return l, json.Unmarshal(body, &l) == nil
}

// Log is the file of one task. Its methods may be called from any goroutine.
type Log struct {
	path string
	mu   sync.Mutex
	f    *os.File
}

// Begin records a task before anything is done for it.
func (s *Store) Begin(l Launch) (*Log, error) {
	const op = "checkpoint task"
	fw, err1 := proto.Marshal(l.Framework)
	ti, err2 := proto.Marshal(l.Task)
	if err := errors.Join(err1, err2); err != nil {
		return nil, fault.New(op, fault.Invalid, err)
	}
	dir := filepath.Join(s.dir, "tasks")
	path := filepath.Join(dir, l.ContainerID+".log")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	log := &Log{path: path, f: f}
	err = log.append(line{Launch: &launchLine{ContainerID: l.ContainerID, Sandbox: l.Sandbox, Framework: fw, Task: ti}})
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return nil, fault.New(op, fault.Internal, errors.Join(err, f.Close(), os.Remove(path)))
	}
	return log, nil
}

// Update records a status update; it may be sent once this has returned.
func (l *Log) Update(st *mesos.TaskStatus) error {
	b, err := proto.Marshal(st)
	if err == nil {
		err = l.append(line{Update: b})
	}
	if err != nil {
		return fault.New("checkpoint status update", fault.Internal, err)
	}
	return nil
}

// Ack records that the oldest pending update was acknowledged.
func (l *Log) Ack(uuid []byte) error {
	if err := l.append(line{Ack: uuid}); err != nil {
		return fault.New("checkpoint acknowledgement", fault.Internal, err)
	}
	return nil
}

// Remove forgets the task.
func (l *Log) Remove() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return nil
	}
	err := errors.Join(l.f.Close(), os.Remove(l.path))
	l.f = nil
	if err != nil {
		return fault.New("remove checkpoint", fault.Internal, err)
	}
	return nil
}

// Close releases the file and keeps it on disk.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return nil
	}
	err := l.f.Close()
	l.f = nil
	return err
}

func (l *Log) append(ln line) error {
	b, err := encode(ln)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return fs.ErrClosed
	}
	if _, err := l.f.Write(b); err != nil {
		return err
	}
	return unix.Fdatasync(int(l.f.Fd()))
}

// Load returns every task on disk. Damaged files are reported in warnings:
// what follows a damaged line is dropped, and a file without a launch, which
// a crash in Begin leaves behind, is removed.
func (s *Store) Load() (tasks []Task, warnings []error, err error) {
	const op = "read checkpoints"
	dir := filepath.Join(s.dir, "tasks")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, fault.New(op, fault.Internal, err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".log") {
			continue
		}
		t, warn, err := loadTask(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, nil, fault.New(op, fault.Internal, err)
		}
		if warn != nil {
			warnings = append(warnings, fmt.Errorf("%s: %w", e.Name(), warn))
		}
		if t != nil {
			tasks = append(tasks, *t)
		}
	}
	return tasks, warnings, nil
}

func loadTask(path string) (t *Task, warn, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, nil, err
	}
	var good int64
	r := bufio.NewReader(f)
	for {
		text, rerr := r.ReadBytes('\n')
		if rerr != nil && rerr != io.EOF {
			return nil, nil, errors.Join(rerr, f.Close())
		}
		if len(text) == 0 {
			break
		}
		l, ok := decode(text)
		if !ok || rerr == io.EOF {
			warn = fmt.Errorf("dropped what follows byte %d, which a crash cut off", good)
			break
		}
		if t, err = apply(t, l); err != nil {
			warn = fmt.Errorf("dropped what follows byte %d: %w", good, err)
			break
		}
		good += int64(len(text))
	}
	if t == nil {
		return nil, warn, errors.Join(f.Close(), os.Remove(path))
	}
	if warn != nil {
		if err := errors.Join(f.Truncate(good), f.Sync()); err != nil {
			return nil, nil, errors.Join(err, f.Close())
		}
	}
	t.Log = &Log{path: path, f: f}
	return t, warn, nil
}

// apply folds one line into the task.
func apply(t *Task, l line) (*Task, error) {
	if l.Launch != nil {
		t = &Task{Launch: Launch{
			ContainerID: l.Launch.ContainerID, Sandbox: l.Launch.Sandbox,
			Framework: &mesos.FrameworkInfo{}, Task: &mesos.TaskInfo{},
		}}
		return t, errors.Join(proto.Unmarshal(l.Launch.Framework, t.Framework), proto.Unmarshal(l.Launch.Task, t.Task))
	}
	if t == nil {
		return nil, errors.New("the file does not begin with a launch")
	}
	if l.Update != nil {
		st := &mesos.TaskStatus{}
		if err := proto.Unmarshal(l.Update, st); err != nil {
			return t, err
		}
		t.Pending, t.Last = append(t.Pending, st), st
		return t, nil
	}
	if len(t.Pending) == 0 || !bytes.Equal(t.Pending[0].GetUuid(), l.Ack) {
		return t, errors.New("an acknowledgement fits no update")
	}
	t.Pending = t.Pending[1:]
	return t, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
