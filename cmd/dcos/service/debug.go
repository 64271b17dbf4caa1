package service

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"dcos.example/dcos/cmd/dcos/console"
	api "dcos.example/dcos/runtime/api/service"
)

func (s *service) debug() *cobra.Command {
	show := func(use, short, op, rest string) *cobra.Command {
		return console.Command(use, short, cobra.NoArgs, func(ctx context.Context, _ []string) error {
			return s.raw(ctx, op+" of "+s.name, rest)
		})
	}
	showOne := func(use, short, op, rest, words string) *cobra.Command {
		cmd := console.Command(use, short, cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
			return s.raw(ctx, op+" "+args[0]+" of "+s.name, rest+url.PathEscape(args[0]))
		})
		cmd.ValidArgsFunction = s.words(words)
		return cmd
	}
	config := console.Group("config", "Show the configurations of the service",
		show("list", "List the IDs of all configurations", "list configurations", "/v1/configurations"),
		showOne("show ID", "Show a configuration", "show configuration", "/v1/configurations/", "/v1/configurations"),
		show("target", "Show the configuration that is wanted", "show target configuration", "/v1/configurations/target"),
		show("target_id", "Show the ID of the configuration that is wanted", "show ID of the target configuration", "/v1/configurations/targetId"))
	refresh := console.Command("refresh_cache", "Read the service's state anew from the store", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		var out json.RawMessage
		if err := s.call(ctx, "refresh state of "+s.name, http.MethodPut, "/v1/state/refresh", nil, &out); err != nil {
			return err
		}
		return s.JSON(out)
	})
	state := console.Group("state", "Show what the service remembers",
		show("framework_id", "Show the ID of its framework", "show framework ID", "/v1/state/frameworkId"),
		show("properties", "List its properties", "list properties", "/v1/state/properties"),
		showOne("property NAME", "Show a property", "show property", "/v1/state/properties/", "/v1/state/properties"),
		refresh)
	pod := console.Group("pod", "Stop an instance to look inside",
		s.podDebug("pause POD", "Let the tasks of an instance do nothing, where they are", "pause"),
		s.podDebug("resume POD", "Let the tasks of an instance do their work again", "resume"))
	return console.Group("debug", "Look into the service", config, state, pod, s.offers(), s.reservations(), s.doing())
}

func (s *service) podDebug(use, short, verb string) *cobra.Command {
	var tasks []string
	cmd := console.Command(use, short, cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		return s.tellPod(ctx, args[0], verb, tasks)
	})
	cmd.Flags().StringArrayVarP(&tasks, "tasks", "t", nil, "only this task; may be given often")
	cmd.ValidArgsFunction = s.words("/v1/pod")
	return cmd
}

func (s *service) offers() *cobra.Command {
	var asJSON bool
	cmd := console.Command("offers", "Show which offers were taken or not, and why", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		op := "show offers of " + s.name
		if asJSON {
			return s.raw(ctx, op, "/v1/debug/offers")
		}
		var o api.DebugOffers
		if err := s.call(ctx, op, http.MethodGet, "/v1/debug/offers", nil, &o); err != nil {
			return err
		}
		var rows [][]string
		for _, x := range o.Outcomes {
			var why []string
			for _, r := range x.Reasons {
				if !r.Passes {
					why = append(why, r.Name+": "+r.Reason)
				}
			}
			rows = append(rows, []string{x.Time, console.OrDash(x.Pod), x.Host, x.Outcome, console.OrDash(strings.Join(why, "; "))})
		}
		s.Table([]string{"TIME", "POD", "HOST", "OUTCOME", "WHY"}, rows)
		for _, name := range slices.Sorted(maps.Keys(o.Rejections)) {
			fmt.Fprintf(s.Stdout, "%d refused for %s\n", o.Rejections[name], name)
		}
		return nil
	})
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (s *service) reservations() *cobra.Command {
	var asJSON bool
	cmd := console.Command("reservations", "Show what is reserved for the service, and where", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		op := "show reservations of " + s.name
		if asJSON {
			return s.raw(ctx, op, "/v1/debug/reservations")
		}
		var list []api.DebugReservation
		if err := s.call(ctx, op, http.MethodGet, "/v1/debug/reservations", nil, &list); err != nil {
			return err
		}
		var rows [][]string
		for _, r := range list {
			rows = append(rows, []string{console.OrDash(r.Pod), r.Host, r.Resources, console.OrDash(strings.Join(r.Volumes, " ")), console.OrDash(r.Note)})
		}
		s.Table([]string{"POD", "HOST", "RESOURCES", "VOLUMES", "NOTE"}, rows)
		return nil
	})
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (s *service) doing() *cobra.Command {
	var asJSON bool
	cmd := console.Command("plans", "Show which steps are under way, and what each waits for", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		op := "show steps of " + s.name
		if asJSON {
			return s.raw(ctx, op, "/v1/debug/plans")
		}
		var list []api.DebugPlan
		if err := s.call(ctx, op, http.MethodGet, "/v1/debug/plans", nil, &list); err != nil {
			return err
		}
		var rows [][]string
		for _, p := range list {
			rows = append(rows, []string{p.Plan, p.Phase, p.Step, string(p.Status), console.OrDash(p.Message)})
		}
		s.Table([]string{"PLAN", "PHASE", "STEP", "STATUS", "WAITS FOR"}, rows)
		return nil
	})
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
