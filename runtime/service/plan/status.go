package plan

import "dcos.example/dcos/runtime/api/service"

// Statuses lists all statuses.
var Statuses = [...]service.PlanStatus{
	service.Error, service.Waiting, service.Delayed, service.InProgress,
	service.Pending, service.Prepared, service.Starting, service.Started, service.Complete,
}

// rank orders the statuses that win over others; the rest have none.
var rank = map[service.PlanStatus]int{
	service.Error: 4, service.Waiting: 3, service.Delayed: 2, service.InProgress: 1,
}

// Combine is the status of two parts together. It does not matter in which
// order, or how often, parts are combined: what wins is ERROR, then WAITING,
// then DELAYED; equals stay what they are; all else is IN_PROGRESS.
//
//	           ERROR WAITING DELAYED IN_PROGRESS  others
//	ERROR      ERROR ERROR   ERROR   ERROR        ERROR
//	WAITING          WAITING WAITING WAITING      WAITING
//	DELAYED                  DELAYED DELAYED      DELAYED
//	IN_PROGRESS                      IN_PROGRESS  IN_PROGRESS
//	others                                        the same, or IN_PROGRESS
func Combine(a, b service.PlanStatus) service.PlanStatus {
	switch {
	case a == b:
		return a
	case rank[a] > rank[b]:
		return a
	case rank[b] > rank[a]:
		return b
	}
	return service.InProgress
}

// begun reports whether work on a step has begun and is not over.
func begun(s service.PlanStatus) bool {
	switch s {
	case service.Prepared, service.Starting, service.Started, service.Delayed:
		return true
	}
	return false
}

// follows is which status of a step may come after which, if nobody interferes:
// no new configuration, restart or forced completion. WAITING is PENDING that
// may not begin.
var follows = map[service.PlanStatus][]service.PlanStatus{
	service.Pending:  {service.Waiting, service.Prepared, service.Starting, service.Started, service.Complete, service.Error},
	service.Waiting:  {service.Pending, service.Prepared, service.Starting, service.Started, service.Complete, service.Error},
	service.Prepared: {service.Starting, service.Started, service.Complete, service.Delayed, service.Error},
	service.Starting: {service.Prepared, service.Started, service.Complete, service.Delayed, service.Error},
	service.Started:  {service.Prepared, service.Starting, service.Complete, service.Delayed, service.Error},
	service.Delayed:  {service.Prepared, service.Starting, service.Started, service.Complete, service.Error},
	service.Error:    {service.Prepared, service.Starting, service.Started, service.Complete, service.Delayed},
}

// Follows reports whether a step may go from one status to another by itself.
// COMPLETE is final; IN_PROGRESS is no status of a step.
func Follows(from, to service.PlanStatus) bool {
	for _, s := range follows[from] {
		if s == to {
			return true
		}
	}
	return from == to && from != service.InProgress
}
