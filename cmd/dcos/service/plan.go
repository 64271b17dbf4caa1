package service

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"dcos.example/dcos/cmd/dcos/console"
	api "dcos.example/dcos/runtime/api/service"
	"dcos.example/dcos/runtime/fault"
)

func (s *service) plan() *cobra.Command {
	const (
		pause   = "Hold a plan, or a phase of it, before its next step"
		resume  = "Let a plan, or a phase of it, go on"
		restart = "Do a plan, a phase or a step again"
	)
	return console.Group("plan", "Show and steer what the service does",
		s.planList(), s.planStatus(), s.planStart(),
		s.planCommand("stop PLAN", "End a plan where it is", "stop", cobra.ExactArgs(1)),
		s.planCommand("pause PLAN [PHASE]", pause, "interrupt", cobra.RangeArgs(1, 2)),
		s.planCommand("resume PLAN [PHASE]", resume, "continue", cobra.RangeArgs(1, 2)),
		s.planCommand("force-restart PLAN [PHASE [STEP]]", restart, "restart", cobra.RangeArgs(1, 3)),
		s.planCommand("force-complete PLAN PHASE STEP", "Take a step as done", "forceComplete", cobra.ExactArgs(3)),
	)
}

func (s *service) planList() *cobra.Command {
	return console.Command("list", "List the plans", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		return s.raw(ctx, "list plans of "+s.name, "/v1/plans")
	})
}

func planPath(plan, rest string) string { return "/v1/plans/" + url.PathEscape(plan) + rest }

func (s *service) planStatus() *cobra.Command {
	var asJSON bool
	cmd := console.Command("status [PLAN]", "Show a plan with its phases and steps", cobra.MaximumNArgs(1), func(ctx context.Context, args []string) error {
		plan := "deploy"
		if len(args) == 1 {
			plan = args[0]
		}
		return s.showPlan(ctx, plan, asJSON)
	})
	cmd.Aliases = []string{"show"}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.ValidArgsFunction = s.words("/v1/plans")
	return cmd
}

func (s *service) showPlan(ctx context.Context, plan string, asJSON bool) error {
	op := "show plan " + plan + " of " + s.name
	if asJSON {
		return s.raw(ctx, op, planPath(plan, ""))
	}
	var info api.PlanInfo
	if err := s.call(ctx, op, http.MethodGet, planPath(plan, ""), nil, &info); err != nil {
		return err
	}
	info.Name = plan
	printPlan(s.Stdout, info)
	return nil
}

// branch is how a tree shows an element of a list, and what is below it.
func branch(i, of int) (at, below string) {
	if i == of-1 {
		return "└─ ", "   "
	}
	return "├─ ", "│  "
}

// printPlan shows a plan as the SDK's CLI does.
func printPlan(w io.Writer, p api.PlanInfo) {
	fmt.Fprintf(w, "%s (%s strategy) (%s)\n", p.Name, p.Strategy, p.Status)
	for i, phase := range p.Phases {
		at, below := branch(i, len(p.Phases))
		fmt.Fprintf(w, "%s%s (%s strategy) (%s)\n", at, phase.Name, phase.Strategy, phase.Status)
		for j, step := range phase.Steps {
			at, _ := branch(j, len(phase.Steps))
			fmt.Fprintf(w, "%s%s%s (%s)%s\n", below, at, step.Name, step.Status, note(step))
		}
	}
	if len(p.Errors) > 0 {
		fmt.Fprintln(w, "\nErrors:")
		for _, e := range p.Errors {
			fmt.Fprintln(w, "-", e)
		}
	}
}

// note is why a step is where it is, if that is not obvious.
func note(step api.StepInfo) string {
	if step.Message == "" || step.Status == api.Complete {
		return ""
	}
	return ": " + step.Message
}

func (s *service) planStart() *cobra.Command {
	var params []string
	var asJSON bool
	cmd := console.Command("start PLAN", "Start a plan, with parameters that its tasks get", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		env := map[string]string{}
		for _, p := range params {
			name, value, ok := strings.Cut(p, "=")
			if !ok || name == "" {
				return fault.Newf("read parameters", fault.Invalid, "%q is not of the form NAME=VALUE", p)
			}
			env[name] = value
		}
		return s.told(ctx, "start plan "+args[0]+" of "+s.name, planPath(args[0], "/start"), env, asJSON)
	})
	// One value each: it may hold commas.
	cmd.Flags().StringArrayVarP(&params, "params", "p", nil, "a parameter: NAME=VALUE; may be given often")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.ValidArgsFunction = s.words("/v1/plans")
	return cmd
}

// planCommand tells a plan, a phase or a step something.
func (s *service) planCommand(use, short, verb string, args cobra.PositionalArgs) *cobra.Command {
	var asJSON bool
	name, _, _ := strings.Cut(use, " ")
	cmd := console.Command(use, short, args, func(ctx context.Context, args []string) error {
		return s.tellPlan(ctx, name, verb, args, asJSON)
	})
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.ValidArgsFunction = s.planWords
	return cmd
}

func (s *service) tellPlan(ctx context.Context, name, verb string, args []string, asJSON bool) error {
	q := url.Values{}
	if len(args) > 1 {
		q.Set("phase", args[1])
	}
	if len(args) > 2 {
		q.Set("step", args[2])
	}
	rest := planPath(args[0], "/"+verb)
	if len(q) > 0 {
		rest += "?" + q.Encode()
	}
	return s.told(ctx, name+" plan "+args[0]+" of "+s.name, rest, nil, asJSON)
}

// planWords completes plan, phase and step.
func (s *service) planWords(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
	const none = cobra.ShellCompDirectiveNoFileComp
	if len(args) == 0 {
		return s.words("/v1/plans")(cmd, args, start)
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), console.Patience)
	defer cancel()
	var info api.PlanInfo
	if s.call(ctx, "complete", http.MethodGet, planPath(args[0], ""), nil, &info) != nil {
		return nil, none
	}
	var list []string
	for _, phase := range info.Phases {
		if len(args) == 1 {
			list = append(list, phase.Name)
			continue
		}
		for _, step := range phase.Steps {
			if len(args) == 2 && (phase.Name == args[1] || phase.ID == args[1]) {
				list = append(list, step.Name)
			}
		}
	}
	return console.Fitting(list, start), none
}

func (s *service) pod() *cobra.Command {
	list := console.Command("list", "List the instances of pods", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		return s.raw(ctx, "list pods of "+s.name, "/v1/pod")
	})
	var asJSON bool
	status := console.Command("status [POD]", "Show the tasks of all instances, or of one", cobra.MaximumNArgs(1), func(ctx context.Context, args []string) error {
		return s.podStatus(ctx, args, asJSON)
	})
	status.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	status.ValidArgsFunction = s.words("/v1/pod")
	info := console.Command("info POD", "Show the tasks of an instance as they were launched", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		return s.raw(ctx, "show pod "+args[0]+" of "+s.name, podPath(args[0], "/info"))
	})
	info.ValidArgsFunction = s.words("/v1/pod")
	return console.Group("pod", "Show and manage the instances of the service", list, status, info,
		s.podCommand("restart POD", "Start the tasks of an instance anew, where they are and with their data", "restart"),
		s.podCommand("replace POD", "Make an instance anew on any agent; its data is destroyed", "replace"))
}

func podPath(pod, rest string) string { return "/v1/pod/" + url.PathEscape(pod) + rest }

func (s *service) podStatus(ctx context.Context, args []string, asJSON bool) error {
	op, rest := "show pods of "+s.name, "/v1/pod/status"
	if len(args) == 1 {
		op, rest = "show pod "+args[0]+" of "+s.name, podPath(args[0], "/status")
	}
	if asJSON {
		return s.raw(ctx, op, rest)
	}
	if len(args) == 1 {
		var in api.InstanceStatus
		if err := s.call(ctx, op, http.MethodGet, rest, nil, &in); err != nil {
			return err
		}
		printInstance(s.Stdout, "", "", in)
		return nil
	}
	var all api.PodsStatus
	if err := s.call(ctx, op, http.MethodGet, rest, nil, &all); err != nil {
		return err
	}
	fmt.Fprintln(s.Stdout, all.Service)
	for i, p := range all.Pods {
		at, below := branch(i, len(all.Pods))
		fmt.Fprintln(s.Stdout, at+p.Name)
		for j, in := range p.Instances {
			inAt, inBelow := branch(j, len(p.Instances))
			printInstance(s.Stdout, below+inAt, below+inBelow, in)
		}
	}
	return nil
}

func printInstance(w io.Writer, at, below string, in api.InstanceStatus) {
	host := ""
	if in.Host != "" {
		host = " on " + in.Host
	}
	fmt.Fprintln(w, at+in.Name+host)
	for i, t := range in.Tasks {
		mark, _ := branch(i, len(in.Tasks))
		ready := ""
		if t.Status == "RUNNING" && !t.Ready {
			ready = ", not ready"
		}
		why := ""
		if t.Message != "" && (t.Status != "RUNNING" || !t.Ready) {
			why = ": " + t.Message
		}
		fmt.Fprintf(w, "%s%s%s (%s%s)%s\n", below, mark, t.Name, t.Status, ready, why)
	}
}

// podCommand tells an instance something, and some of its tasks or all.
func (s *service) podCommand(use, short, verb string) *cobra.Command {
	cmd := console.Command(use, short, cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		return s.tellPod(ctx, args[0], verb, nil)
	})
	cmd.ValidArgsFunction = s.words("/v1/pod")
	return cmd
}

func (s *service) tellPod(ctx context.Context, pod, verb string, tasks []string) error {
	var in any
	if len(tasks) > 0 {
		in = tasks
	}
	var out json.RawMessage
	if err := s.call(ctx, verb+" pod "+pod+" of "+s.name, http.MethodPost, podPath(pod, "/"+verb), in, &out); err != nil {
		return err
	}
	return s.JSON(out)
}
