package bootstrap

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"time"

	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/providers"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
)

const (
	// gatewayTime is how long a master may take to open its gateway before the
	// wait is left to the Cluster: of several masters, one alone cannot.
	gatewayTime = 10 * time.Second
	// wellTime is how long a host may take to be part of the cluster again.
	wellTime = time.Minute
	// logTail is how much of a log an error quotes, in bytes.
	logTail = 2 << 10
	// settled is how long a unit must have run to count as up. A program that
	// finds fault with its configuration ends sooner.
	settled = 300 * time.Millisecond
	// crashes is how many restarts in a row say that a unit will not come up.
	crashes = 3
)

// comesUp sees that every unit stays up, and that a master's gateway opens.
func (i *installation) comesUp(ctx context.Context) error {
	if err := i.stayUp(ctx, i.n.units); err != nil || i.n.role != roleMaster {
		return err
	}
	addr := net.JoinHostPort(i.n.address, strconv.Itoa(config.PortGateway))
	providers.Note(ctx, "verify", "waiting for the gateway on "+addr)
	bounded, cancel := context.WithTimeoutCause(ctx, gatewayTime, errTime)
	defer cancel()
	err := i.p.poll(bounded, func() (bool, error) {
		if i.answers(bounded, addr) {
			return true, nil
		}
		// It may have died meanwhile: then there is nothing to wait for.
		_, err := i.up(bounded, i.n.units, nil)
		return false, err
	})
	if errors.Is(err, errTime) && ctx.Err() == nil {
		providers.Note(ctx, "verify", "its gateway does not answer yet; the cluster is waited for at the end")
		return nil
	}
	return err
}

// stayUp waits until units have run for a while.
func (i *installation) stayUp(ctx context.Context, units []string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, gatewayTime, errTime)
	defer cancel()
	before := map[string]int{} // restarts when we began to look
	last := ""
	err := i.p.poll(ctx, func() (bool, error) {
		down, err := i.up(ctx, units, before)
		last = down
		return down == "", err
	})
	if errors.Is(err, errTime) && last != "" {
		return i.down(context.WithoutCancel(ctx), last)
	}
	return err
}

// up returns the first unit that has not run long enough yet, "" when there is
// none. An error says that waiting does not help.
func (i *installation) up(ctx context.Context, units []string, before map[string]int) (down string, _ error) {
	v, err := i.h.Look(ctx, host.Query{Units: units})
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return "", err
	}
	for _, u := range units {
		st, ok := v.Units[u]
		if !ok {
			return u, fault.Newf("look at "+u, fault.NotFound, "the host has no such unit")
		}
		if _, seen := before[u]; !seen && before != nil {
			before[u] = st.Restarts
		}
		if st.Active && time.Since(st.Since) >= settled {
			continue
		}
		if st.State == "failed" || st.State == "inactive" || before != nil && st.Restarts >= before[u]+crashes {
			return u, i.down(ctx, u)
		}
		if down == "" {
			down = u
		}
	}
	return down, nil
}

// down says that a unit does not stay up, with the end of its log.
func (i *installation) down(ctx context.Context, unit string) error {
	st, err := i.h.UnitStatus(ctx, unit, logTail)
	if err != nil {
		return err
	}
	exit := ""
	if st.LastExit != "" {
		exit = ", " + st.LastExit
	}
	return fault.Newf("start "+unit, fault.Unavailable, "it does not stay up: it is %s%s%s; the end of its log%s", st.State, exit, taken(st.Log), indent(st.Log))
}

// taken explains the most common reason why a daemon does not stay up.
func taken(log string) string {
	if strings.Contains(log, "address already in use") {
		return "; something else listens on a port that it needs: stop that first (ss -ltnp shows it)"
	}
	return ""
}

func (i *installation) answers(ctx context.Context, addr string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	conn, err := i.p.dialer(i.n.ref, i.h)(ctx, "tcp", addr)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// tunnel is a host through which others can be reached.
type tunnel interface {
	DialContext(ctx context.Context, network, addr string) (net.Conn, error)
}

type dialFunc = func(ctx context.Context, network, addr string) (net.Conn, error)

// dialer reaches addresses of the cluster that h belongs to: from the host
// itself where this machine needs a bastion.
func (p *Provider) dialer(ref host.Ref, h host.Host) dialFunc {
	if t, ok := h.(tunnel); ok && ref.SSH.Bastion != nil {
		return t.DialContext
	}
	return p.o.Dial
}

// statusCommand asks the host itself whether it is part of its cluster: an
// agent is registered with the leading master, a master's gateway answers and
// its member of the store is a healthy voter.
var statusCommand = []string{config.CurrentLink + "/bin/dcosd", "status"}

// The exit codes of statusCommand.
const (
	statusWell   = 0
	statusNot    = 1
	statusNoSuch = 2 // an older release does not know the command
)

// errUnknown is what is said of a host that cannot tell how it is.
var errUnknown = errors.New("it cannot tell")

// well asks the host how it is. The first result is nil when it is part of its
// cluster, the second when it could be asked.
func (i *installation) well(ctx context.Context) (notYet, _ error) {
	out, err := i.h.Run(ctx, statusCommand...)
	if err != nil {
		return nil, err
	}
	switch out.Code {
	case statusWell:
		return nil, nil
	case statusNot:
		return errors.New(strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(out.Stderr), "dcosd:"))), nil
	default:
		return errUnknown, nil
	}
}

// waitWell returns when the host is part of its cluster.
func (i *installation) waitWell(ctx context.Context) error {
	bounded, cancel := context.WithTimeoutCause(ctx, wellTime, errTime)
	defer cancel()
	var lacks error
	err := i.p.poll(bounded, func() (bool, error) {
		notYet, err := i.well(bounded)
		if err != nil && bounded.Err() != nil {
			return false, context.Cause(bounded)
		}
		if err != nil || notYet == nil || errors.Is(notYet, errUnknown) {
			return true, err
		}
		if lacks == nil || lacks.Error() != notYet.Error() {
			providers.Note(ctx, "verify", "waiting: "+notYet.Error())
		}
		lacks = notYet
		return false, nil
	})
	if errors.Is(err, errTime) && lacks != nil {
		return fault.Newf("rejoin the cluster", fault.Unavailable, "not within %s: %w", wellTime, lacks)
	}
	return err
}
