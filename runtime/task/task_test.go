package task_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/task"
)

var update = flag.Bool("update", false, "rewrite golden files")

func TestStatesAreAllOfTheWire(t *testing.T) {
	seen := map[task.State]bool{}
	for _, s := range task.States {
		seen[s] = true
	}
	for n, name := range mesos.TaskState_name {
		if !seen[task.State(n)] {
			t.Errorf("%s is not in States", name)
		}
	}
	if len(seen) != len(task.States) {
		t.Error("States has duplicates")
	}
}

// TestAllPairs checks what must hold for each pair, and pins the table.
func TestAllPairs(t *testing.T) {
	var b strings.Builder
	for _, from := range task.States {
		fmt.Fprintf(&b, "%s:", strings.TrimPrefix(from.String(), "TASK_"))
		for _, to := range task.States {
			follows := task.Follows(from, to)
			if follows {
				fmt.Fprintf(&b, " %s", strings.TrimPrefix(to.String(), "TASK_"))
			}
			if task.Terminal(from) && follows {
				t.Errorf("%s leaves a terminal state for %s", from, to)
			}
			if !task.Terminal(from) && task.Terminal(to) && !follows {
				t.Errorf("%s can never end as %s", from, to)
			}
			if from != to && task.Live(from) && task.Live(to) && follows && task.Follows(to, from) {
				t.Errorf("%s and %s can alternate", from, to)
			}
			if got := task.Next(from, to); follows && got != to || !follows && got != from {
				t.Errorf("Next(%s, %s) = %s", from, to, got)
			}
		}
		b.WriteByte('\n')
	}
	const golden = "testdata/table.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), b.String()); d != "" {
		t.Errorf("table (-want +got):\n%s", d)
	}
}

func TestForFramework(t *testing.T) {
	for _, s := range task.States {
		if task.ForFramework(s, true) != s {
			t.Errorf("%s is rewritten for a partition-aware framework", s)
		}
	}
	for _, s := range []task.State{task.Dropped, task.Unreachable, task.Gone, task.GoneByOperator, task.Unknown, task.Lost} {
		if got := task.ForFramework(s, false); got != task.Lost {
			t.Errorf("%s becomes %s", s, got)
		}
	}
	if task.ForFramework(task.Running, false) != task.Running {
		t.Error("RUNNING is rewritten")
	}
}
