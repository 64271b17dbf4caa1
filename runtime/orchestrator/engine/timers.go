package engine

import (
	"container/heap"
	"time"

	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/scheduler"
)

// timers are things to do later. A function looks itself whether there is
// still a reason to act.
type timers struct{ heap timerHeap }

type timer struct {
	at time.Time
	f  func(now time.Time)
}

type timerHeap []timer

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h timerHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *timerHeap) Push(x any)        { *h = append(*h, x.(timer)) }
func (h *timerHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}

func (t *timers) add(at time.Time, f func(time.Time)) { heap.Push(&t.heap, timer{at, f}) }

// run does what is due.
func (t *timers) run(now time.Time) {
	for len(t.heap) > 0 && !t.heap[0].at.After(now) {
		heap.Pop(&t.heap).(timer).f(now)
	}
}

// next is how long nothing is due, an hour at most.
func (t *timers) next(now time.Time) time.Duration {
	if len(t.heap) == 0 {
		return time.Hour
	}
	return min(time.Hour, max(0, t.heap[0].at.Sub(now)))
}

const (
	reconcileAgain = 15 * time.Second // for instances the master did not answer about
	reconcileEvery = 10 * time.Minute
	reconcileChunk = 1000 // tasks in one call
)

// reconcile asks the master about every instance, and for tasks we do not
// know; it asks again for those without an answer.
func (e *Engine) reconcile() {
	for _, i := range e.instances {
		i.silent = true
	}
	e.reconcileSilent()
	// Without tasks the master tells all it has.
	e.call(&scheduler.Call{Type: scheduler.Call_RECONCILE.Enum(), Reconcile: &scheduler.Call_Reconcile{}})
	flow := e.flow.epoch
	e.timers.add(time.Now().Add(reconcileAgain), func(time.Time) { e.reconcileLate(flow, reconcileAgain) })
	e.timers.add(time.Now().Add(reconcileEvery), func(time.Time) {
		if e.flow.epoch == flow {
			e.reconcile()
		}
	})
}

func (e *Engine) reconcileLate(flow uint64, pause time.Duration) {
	if e.flow.epoch != flow || !e.reconcileSilent() {
		return
	}
	pause = min(2*pause, reconcileEvery/2)
	e.timers.add(time.Now().Add(pause), func(time.Time) { e.reconcileLate(flow, pause) })
}

// reconcileSilent reports whether any instance was not heard of.
func (e *Engine) reconcileSilent() bool {
	var tasks []*scheduler.Call_Reconcile_Task
	flush := func() {
		if len(tasks) > 0 {
			e.call(&scheduler.Call{Type: scheduler.Call_RECONCILE.Enum(), Reconcile: &scheduler.Call_Reconcile{Tasks: tasks}})
			tasks = nil
		}
	}
	any := false
	for _, i := range e.instances {
		if !i.silent {
			continue
		}
		any = true
		tasks = append(tasks, &scheduler.Call_Reconcile_Task{
			TaskId: &mesos.TaskID{Value: proto.String(i.rec.Task)}, AgentId: &mesos.AgentID{Value: proto.String(i.rec.Agent)},
		})
		if len(tasks) == reconcileChunk {
			flush()
		}
	}
	flush()
	return any
}
