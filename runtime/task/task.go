// Package task is the life of a task as a table: which state may follow which.
//
//	STAGING ──► STARTING ──► RUNNING ──► KILLING ──┐
//	   │           │            │                  ▼
//	   └───────────┴────────────┴───────────► terminal: FINISHED FAILED KILLED
//	   │    any live state                    ERROR LOST DROPPED GONE
//	   │         │  ▲                         GONE_BY_OPERATOR
//	   │         ▼  │ agent is back                ▲
//	   │      UNREACHABLE ─────────────────────────┘
//	   └──────────► (also from UNKNOWN, which only answers reconciliation)
//
// A live state only moves forward, because reports may come late or twice;
// terminal states are final. UNREACHABLE is not terminal: its agent may come
// back with the task in any state.
package task

import (
	mesos "dcos.example/dcos/runtime/api/mesos"
)

// State is a task's state as on the wire.
type State = mesos.TaskState

// The states under shorter names.
const (
	Staging        = mesos.TaskState_TASK_STAGING
	Starting       = mesos.TaskState_TASK_STARTING
	Running        = mesos.TaskState_TASK_RUNNING
	Killing        = mesos.TaskState_TASK_KILLING
	Finished       = mesos.TaskState_TASK_FINISHED
	Failed         = mesos.TaskState_TASK_FAILED
	Killed         = mesos.TaskState_TASK_KILLED
	Error          = mesos.TaskState_TASK_ERROR
	Lost           = mesos.TaskState_TASK_LOST
	Dropped        = mesos.TaskState_TASK_DROPPED
	Unreachable    = mesos.TaskState_TASK_UNREACHABLE
	Gone           = mesos.TaskState_TASK_GONE
	GoneByOperator = mesos.TaskState_TASK_GONE_BY_OPERATOR
	Unknown        = mesos.TaskState_TASK_UNKNOWN
)

// States lists every state in the order of a life.
var States = [...]State{
	Staging, Starting, Running, Killing, Unreachable, Unknown,
	Finished, Failed, Killed, Error, Lost, Dropped, Gone, GoneByOperator,
}

// set is a set of states, one bit per wire number.
type set uint16

func of(states ...State) (s set) {
	for _, st := range states {
		s |= 1 << st
	}
	return s
}

func (s set) has(st State) bool { return st >= 0 && int(st) < 16 && s&(1<<st) != 0 }

var (
	terminal = of(Finished, Failed, Killed, Error, Lost, Dropped, Gone, GoneByOperator)
	live     = of(Staging, Starting, Running, Killing)
)

// next holds what may follow each state; a state may always follow itself.
// Terminal states have no row.
var next = map[State]set{
	Staging:     of(Starting, Running, Killing, Unreachable) | terminal,
	Starting:    of(Running, Killing, Unreachable) | terminal,
	Running:     of(Killing, Unreachable) | terminal,
	Killing:     of(Unreachable) | terminal,
	Unreachable: live | terminal,
	Unknown:     live | terminal | of(Unreachable),
}

// Terminal reports whether s is final: the task has stopped, or never ran, and
// its resources are free.
func Terminal(s State) bool { return terminal.has(s) }

// Live reports whether s holds resources on an agent in touch with the master.
func Live(s State) bool { return live.has(s) }

// Follows reports whether a task may go from one state to another. A state
// follows itself unless it is terminal: a running task reports health as
// RUNNING again.
func Follows(from, to State) bool {
	if from == to {
		return !Terminal(from)
	}
	return next[from].has(to)
}

// Next returns the state to hold for a task in state held after a report says
// heard: heard if it may follow, held if the report is late.
func Next(held, heard State) State {
	if Follows(held, heard) {
		return heard
	}
	return held
}

// ForFramework returns the state as a framework understands it: one that is
// not partition aware knows a single word, LOST, for all of them.
func ForFramework(s State, partitionAware bool) State {
	if partitionAware {
		return s
	}
	switch s {
	case Dropped, Unreachable, Gone, GoneByOperator, Unknown:
		return Lost
	}
	return s
}
