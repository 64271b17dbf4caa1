package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dcos.example/dcos/installer/cli/view"
	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/installer/recovery"
	"dcos.example/dcos/runtime/fault"
)

// recoverTime bounds the wait for the master that goes on alone, and then for
// those that follow it.
const recoverTime = 2 * time.Minute

func (r *run) recoverCommand() *cobra.Command {
	var master string
	approve := false
	c := &cobra.Command{
		Use:   "recover",
		Short: "Go on after the masters have lost their majority for good",
		Long: `With most masters gone for good, those that are left refuse to decide anything. This command
looks at them, picks the one that knows most, lets it go on alone, and the others that are there
join it anew. What only the lost masters knew is lost; apps and tasks that run go on.

Masters that are merely down come back by themselves when they are started: do that first.
Afterwards bring the number of masters back with dcos-install apply.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := r.interruptible(c.Context())
			defer stop()
			return r.recover(ctx, master, approve)
		},
	}
	c.Flags().StringVar(&master, "master", "", "`name` of the master to go on with (default: the one that knows most)")
	c.Flags().BoolVar(&approve, "auto-approve", false, "do not ask")
	return r.withCluster(c)
}

// survivor is a master that can be reached.
type survivor struct {
	name string
	host host.Host
	view recovery.MasterView
}

func (r *run) recover(ctx context.Context, master string, approved bool) error {
	const op = "recover the cluster"
	s, err := r.openExisting(nil, "recover")
	if err != nil {
		return err
	}
	if err := r.app.Allowed(s.meta.Provider); err != nil {
		return err
	}
	left, gone, err := s.survivors(ctx)
	if err != nil {
		return err
	}
	doc := view.Recovery{Cluster: s.cluster, Gone: gone, Masters: []view.RecoveryMaster{}}
	for _, l := range left {
		doc.Masters = append(doc.Masters, view.RecoveryMaster{Name: l.name, Stage: l.view.Stage, Index: l.view.Index, Majority: l.view.Majority, Reason: l.view.Reason})
		if l.view.Majority {
			return fault.Newf(op, fault.Conflict, "there is nothing to recover: master %s takes part in a majority. Masters that are gone are replaced by dcos-install apply", l.name)
		}
	}
	chosen, err := choose(left, master)
	if err != nil {
		return err
	}
	doc.Chosen = chosen.name
	if err := r.show(doc); err != nil {
		return err
	}
	if !approved {
		if err := r.confirm(ctx, fmt.Sprintf("Go on with what %s knows? What only %s knew is lost for good: when they come back, they join anew without it.", chosen.name, listed(gone))); err != nil {
			return err
		}
	}
	if err := recovery.GoOnAlone(ctx, chosen.host); err != nil {
		return fault.New("let "+chosen.name+" go on alone", fault.KindOf(err), err)
	}
	if err := r.waitFor(ctx, chosen.name+" to lead", chosen.host); err != nil {
		return err
	}
	for _, l := range left {
		if l.name == chosen.name {
			continue
		}
		if err := r.waitFor(ctx, l.name+" to join it", l.host); err != nil {
			return err
		}
	}
	text := fmt.Sprintf("The cluster goes on with %s.", listed(namesOf(left)))
	if len(gone) > 0 {
		text += fmt.Sprintf("\nWithout %s it stands on %d of %d masters: dcos-install apply starts or replaces them, and they join anew.", listed(gone), len(left), len(left)+len(gone))
	}
	return r.show(view.Message{What: "recover", Text: text, Fields: map[string]string{"cluster": s.cluster, "master": chosen.name, "gone": strings.Join(gone, " ")}})
}

func namesOf(left []survivor) (out []string) {
	for _, l := range left {
		out = append(out, l.name)
	}
	return out
}

func listed(names []string) string {
	if len(names) == 0 {
		return "masters that are gone"
	}
	return strings.Join(names, ", ")
}

// survivors looks at every master, and names those that cannot be reached.
func (s *session) survivors(ctx context.Context) (left []survivor, gone []string, err error) {
	st, err := s.stack.State()
	if err != nil {
		return nil, nil, err
	}
	refs, _, err := s.refs(st, isMaster)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(refs)) {
		h, err := s.run.app.Open(ctx, refs[name])
		if fault.Is(err, fault.NotFound) || fault.Is(err, fault.Unavailable) {
			gone = append(gone, name)
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		v, err := recovery.LookAtMaster(ctx, h)
		if err != nil {
			return nil, nil, fault.New("look at master "+name, fault.KindOf(err), err)
		}
		left = append(left, survivor{name, h, v})
	}
	return left, gone, nil
}

// choose picks the master with the most entries of the log.
func choose(left []survivor, wanted string) (survivor, error) {
	const op = "choose the master to go on with"
	var with []survivor
	for _, l := range left {
		if l.view.ID != "" && (wanted == "" || l.name == wanted) {
			with = append(with, l)
		}
	}
	if len(with) == 0 {
		if wanted != "" {
			return survivor{}, fault.Newf(op, fault.NotFound, "%s cannot be reached, or has no data", wanted)
		}
		return survivor{}, fault.Newf(op, fault.NotFound, "no master that can be reached has any data; the cluster can be brought back from a backup: dcos-install restore")
	}
	return slices.MaxFunc(with, func(a, b survivor) int {
		return cmp.Or(cmp.Compare(a.view.Index, b.view.Index), strings.Compare(b.name, a.name))
	}), nil
}

func (r *run) waitFor(ctx context.Context, what string, h host.Host) error {
	if err := r.show(view.Message{What: "notice", Text: "Waiting for " + what + "."}); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, recoverTime)
	defer cancel()
	tick := time.NewTicker(time.Second / 2)
	defer tick.Stop()
	last := errors.New("it has not answered")
	for {
		v, err := recovery.LookAtMaster(bounded, h)
		if err == nil && v.Majority && v.Stage == recovery.StageServing {
			return nil
		}
		if bounded.Err() == nil { // the last answer, not that the time was up
			if last = err; err == nil {
				last = errors.New(cmp.Or(v.Reason, "it is "+v.Stage))
			}
		}
		select {
		case <-bounded.Done():
			return fault.Newf("wait for "+what, fault.Unavailable, "not within %s: %w", recoverTime, last)
		case <-tick.C:
		}
	}
}
