package checkpoint_test

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	mesos "dcos.example/dcos/runtime/api/mesos"

	"dcos.example/dcos/runtime/agent/checkpoint"
	"dcos.example/dcos/runtime/fault"
)

func open(t *testing.T, dir string) *checkpoint.Store {
	t.Helper()
	s, err := checkpoint.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func launch(id string) checkpoint.Launch {
	return checkpoint.Launch{
		ContainerID: id, Sandbox: "/s/" + id,
		Framework: &mesos.FrameworkInfo{User: proto.String("u"), Name: proto.String("f")},
		Task: &mesos.TaskInfo{
			Name: proto.String("n"), TaskId: &mesos.TaskID{Value: proto.String("t-" + id)}, AgentId: &mesos.AgentID{Value: proto.String("a")},
		},
	}
}

func status(uuid string, st mesos.TaskState) *mesos.TaskStatus {
	return &mesos.TaskStatus{TaskId: &mesos.TaskID{Value: proto.String("t")}, State: st.Enum(), Uuid: []byte(uuid)}
}

func load(t *testing.T, s *checkpoint.Store) ([]checkpoint.Task, []error) {
	t.Helper()
	tasks, warnings, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		t.Cleanup(func() { _ = task.Log.Close() })
	}
	return tasks, warnings
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestAgent(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if _, ok, err := s.LoadAgent(); ok || err != nil {
		t.Fatalf("a new store has an agent: %t, %v", ok, err)
	}
	want := checkpoint.Agent{ID: "a-1", BootID: "b", Checkpointed: [][]byte{{1, 2}}}
	must(t, s.SaveAgent(want))
	got, ok, err := open(t, dir).LoadAgent()
	if diff := cmp.Diff(want, got); err != nil || !ok || diff != "" {
		t.Errorf("%v %t %s", err, ok, diff)
	}
}

func TestTask(t *testing.T) {
	dir := t.TempDir()
	l := launch("c1")
	log, err := open(t, dir).Begin(l)
	must(t, err)
	running, done := status("1", mesos.TaskState_TASK_RUNNING), status("2", mesos.TaskState_TASK_FINISHED)
	must(t, log.Update(running))
	must(t, log.Update(done))
	must(t, log.Ack([]byte("1")))
	must(t, log.Close())
	tasks, warnings := load(t, open(t, dir))
	if len(tasks) != 1 || len(warnings) != 0 {
		t.Fatalf("%d tasks, warnings %v", len(tasks), warnings)
	}
	got := tasks[0]
	if diff := cmp.Diff(l, got.Launch, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]*mesos.TaskStatus{done}, got.Pending, protocmp.Transform()); diff != "" || !proto.Equal(got.Last, done) {
		t.Error(diff, got.Last)
	}
	must(t, got.Log.Ack([]byte("2")))
	must(t, got.Log.Remove())
	if tasks, _ := load(t, open(t, dir)); len(tasks) != 0 {
		t.Errorf("a removed task is back: %v", tasks)
	}
	if _, err := open(t, dir).Begin(l); err != nil {
		t.Errorf("begin again: %v", err)
	}
	if _, err := open(t, dir).Begin(l); err == nil {
		t.Error("one container id was begun twice")
	}
}

// A crash may cut the file at any byte. What was whole before the cut is
// there afterwards, and the file can be appended to.
func TestCrashPoints(t *testing.T) {
	dir := t.TempDir()
	log, err := open(t, dir).Begin(launch("c1"))
	must(t, err)
	file := filepath.Join(dir, "tasks", "c1.log")
	var ends []int64 // sizes after launch, update, ack
	size := func() {
		fi, err := os.Stat(file)
		must(t, err)
		ends = append(ends, fi.Size())
	}
	size()
	must(t, log.Update(status("1", mesos.TaskState_TASK_RUNNING)))
	size()
	must(t, log.Ack([]byte("1")))
	size()
	must(t, log.Close())
	whole, err := os.ReadFile(file)
	must(t, err)
	for cut := range int64(len(whole)) + 1 {
		dir := t.TempDir()
		s := open(t, dir)
		must(t, os.WriteFile(filepath.Join(dir, "tasks", "c1.log"), whole[:cut], 0o600))
		tasks, warnings := load(t, s)
		if cut < ends[0] {
			if len(tasks) != 0 {
				t.Fatalf("cut at %d: a task without a launch", cut)
			}
			continue
		}
		if len(tasks) != 1 {
			t.Fatalf("cut at %d: %d tasks", cut, len(tasks))
		}
		pending := 0
		if cut >= ends[1] && cut < ends[2] {
			pending = 1
		}
		if got := len(tasks[0].Pending); got != pending || (tasks[0].Last != nil) != (cut >= ends[1]) {
			t.Fatalf("cut at %d: %d pending, last %v", cut, got, tasks[0].Last)
		}
		if torn := cut != ends[0] && cut != ends[1] && cut != ends[2]; torn != (len(warnings) == 1) {
			t.Fatalf("cut at %d: warnings %v", cut, warnings)
		}
		must(t, tasks[0].Log.Update(status("9", mesos.TaskState_TASK_FAILED)))
		if again, w := load(t, s); len(w) != 0 || string(again[0].Last.GetUuid()) != "9" {
			t.Fatalf("cut at %d: after an update %v, %v", cut, again[0].Last, w)
		}
	}
}

func TestBitRot(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	log, err := s.Begin(launch("c1"))
	must(t, err)
	must(t, log.Update(status("1", mesos.TaskState_TASK_RUNNING)))
	must(t, log.Close())
	file := filepath.Join(dir, "tasks", "c1.log")
	b, err := os.ReadFile(file)
	must(t, err)
	b[len(b)-5] ^= 1
	must(t, os.WriteFile(file, b, 0o600))
	if tasks, warnings := load(t, s); len(tasks) != 1 || tasks[0].Last != nil || len(warnings) != 1 {
		t.Errorf("tasks %v, warnings %v; want the launch alone and a warning", tasks, warnings)
	}
}

func BenchmarkUpdate(b *testing.B) {
	s, err := checkpoint.Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	log, err := s.Begin(launch("c1"))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := log.Update(status("1", mesos.TaskState_TASK_RUNNING)); err != nil {
			b.Fatal(err)
		}
	}
}

func TestNewerFormatIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	must(t, s.SaveAgent(checkpoint.Agent{ID: "a", BootID: "b"}))
	if a, ok, err := s.LoadAgent(); err != nil || !ok || a.ID != "a" {
		t.Fatalf("own format: %+v %v %v", a, ok, err)
	}
	file := filepath.Join(dir, "agent.json")
	must(t, os.WriteFile(file, []byte(`{"id":"old"}`), 0o600))
	if a, ok, err := s.LoadAgent(); err != nil || !ok || a.ID != "old" {
		t.Fatalf("before there were formats: %+v %v %v", a, ok, err)
	}
	must(t, os.WriteFile(file, []byte(`{"format":3,"id":{}}`), 0o600))
	if _, _, err := s.LoadAgent(); err == nil {
		t.Error("format 3 was read")
	}
	must(t, os.WriteFile(file, []byte(`{"format":3,"id":"new"}`), 0o600))
	if _, _, err := s.LoadAgent(); !fault.Is(err, fault.Invalid) {
		t.Errorf("a newer format: %v", err)
	}
}

// An agent without reservations can be followed by a release that knows none.
func TestFormatIsTheOldestThatFits(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	kept := checkpoint.Agent{ID: "a", Checkpointed: [][]byte{{1}}, Operations: [][]byte{{2}, {3}}}
	for _, c := range []struct {
		a      checkpoint.Agent
		format string
	}{
		{checkpoint.Agent{ID: "a"}, `"format": 1,`}, {kept, `"format": 2,`},
		{checkpoint.Agent{ID: "a", Operations: [][]byte{{1}}}, `"format": 2,`}, {checkpoint.Agent{ID: "a"}, `"format": 1,`},
	} {
		must(t, s.SaveAgent(c.a))
		b, err := os.ReadFile(filepath.Join(dir, "agent.json"))
		if err != nil || !strings.Contains(string(b), c.format) {
			t.Errorf("%+v is %s, %v", c.a, b, err)
		}
		if got, _, err := s.LoadAgent(); err != nil || !reflect.DeepEqual(got, c.a) {
			t.Errorf("%+v came back as %+v, %v", c.a, got, err)
		}
	}
}
