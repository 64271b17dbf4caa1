package service

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dcos.example/dcos/cmd/dcos/console"
	"dcos.example/dcos/runtime/api/cosmos"
	"dcos.example/dcos/runtime/fault"
)

func (s *service) describe() *cobra.Command {
	return console.Command("describe", "Show the options that the service runs with", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		d, err := s.described(ctx)
		if err != nil {
			return err
		}
		return s.JSON(d.ResolvedOptions)
	})
}

func (s *service) described(ctx context.Context) (d cosmos.ServiceDescribeResponse, err error) {
	cl, err := s.Connect()
	if err != nil {
		return d, err
	}
	err = cl.Cosmos(ctx, "describe service "+s.name, cosmos.ServiceDescribe, cosmos.ServiceDescribeRequest{AppID: "/" + s.name}, &d)
	return d, err
}

func (s *service) update() *cobra.Command {
	var asJSON bool
	status := console.Command("status", "Show how far the last update is", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		plan, err := s.deployment(ctx)
		if err != nil {
			return err
		}
		return s.showPlan(ctx, plan, asJSON)
	})
	status.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	versions := console.Command("package-versions", "Show to which versions of its package the service may go", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		return s.packageVersions(ctx)
	})
	return console.Group("update", "Change the service's options or version", s.updateStart(), status,
		s.updateCommand("pause", "Hold the update before its next step", "interrupt", cobra.NoArgs),
		s.updateCommand("resume", "Let the update go on", "continue", cobra.NoArgs),
		s.updateCommand("force-complete PHASE STEP", "Take a step of the update as done", "forceComplete", cobra.ExactArgs(2)),
		s.updateCommand("force-restart [PHASE [STEP]]", "Do the update, a phase or a step of it again", "restart", cobra.MaximumNArgs(2)),
		versions)
}

// deployment is the plan of an update: a service may have one of its own.
func (s *service) deployment(ctx context.Context) (string, error) {
	var plans []string
	if err := s.call(ctx, "list plans of "+s.name, http.MethodGet, "/v1/plans", nil, &plans); err != nil {
		return "", err
	}
	for _, p := range plans {
		if p == "update" {
			return p, nil
		}
	}
	return "deploy", nil
}

func (s *service) updateCommand(use, short, verb string, args cobra.PositionalArgs) *cobra.Command {
	name, _, _ := strings.Cut(use, " ")
	return console.Command(use, short, args, func(ctx context.Context, args []string) error {
		plan, err := s.deployment(ctx)
		if err != nil {
			return err
		}
		return s.tellPlan(ctx, name, verb, append([]string{plan}, args...), false)
	})
}

func (s *service) packageVersions(ctx context.Context) error {
	d, err := s.described(ctx)
	if err != nil {
		return err
	}
	var p cosmos.Package
	if err := json.Unmarshal(d.Package, &p); err != nil {
		return fault.New("read package of "+s.name, fault.Internal, err)
	}
	fmt.Fprintf(s.Stdout, "Current package version is: %q\n", p.Version)
	list := func(verb string, versions []string) {
		if len(versions) == 0 {
			fmt.Fprintf(s.Stdout, "No valid package %s versions.\n", verb)
			return
		}
		fmt.Fprintf(s.Stdout, "Package can be %sd to: %q\n", verb, versions)
	}
	list("upgrade", d.UpgradesTo)
	list("downgrade", d.DowngradesTo)
	return nil
}

func (s *service) updateStart() *cobra.Command {
	var u Update
	cmd := console.Command("start", "Change options, the version, or both, one instance after another", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		u.Name = s.name
		return u.Start(ctx, s.Console)
	})
	u.Flags(cmd)
	return cmd
}

// Update is a change of a service that was installed from a package.
type Update struct {
	Name, Options, Version, Profile string
	Replace                         bool
	Wait                            Wait
}

// Flags adds the flags of an update to cmd.
func (u *Update) Flags(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&u.Options, "options", "o", "", "file with options as JSON")
	cmd.Flags().StringVar(&u.Version, "package-version", "", "version of the package to go to")
	cmd.Flags().StringVar(&u.Profile, "profile", "", "options that the package has under this name")
	cmd.Flags().BoolVar(&u.Replace, "replace", false, "forget the options that are set now, instead of changing some")
	u.Wait.Flags(cmd)
}

// Start begins the update and, if that is wanted, waits for its end.
func (u *Update) Start(ctx context.Context, con *console.Console) error {
	op := "update service " + u.Name
	r := cosmos.ServiceUpdateRequest{AppID: "/" + u.Name, PackageVersion: u.Version, Profile: u.Profile, Replace: u.Replace}
	if u.Options == "" && u.Version == "" && u.Profile == "" {
		return fault.Newf(op, fault.Invalid, "nothing is to change: give --options, --profile or --package-version")
	}
	if u.Options != "" {
		options, err := console.JSONObject(u.Options)
		if err != nil {
			return err
		}
		if r.Options, err = json.Marshal(options); err != nil {
			return fault.New(op, fault.Internal, err)
		}
	}
	cl, err := con.Connect()
	if err != nil {
		return err
	}
	var out cosmos.ServiceUpdateResponse
	if err := cl.Cosmos(ctx, op, cosmos.ServiceUpdate, r, &out); err != nil {
		return err
	}
	if out.MarathonDeploymentID != "" {
		fmt.Fprintln(con.Stdout, "Created deployment", out.MarathonDeploymentID)
		return nil
	}
	if !u.Wait.Wanted(con) {
		fmt.Fprintf(con.Stdout, "The update has begun; `dcos %s update status` shows how far it is.\n", u.Name)
		return nil
	}
	if err := u.Wait.Deployed(ctx, con, cl, u.Name); err != nil {
		return err
	}
	fmt.Fprintf(con.Stdout, "Service %s is as it is wanted.\n", u.Name)
	return nil
}

// Wait is whether a command waits for what it started.
type Wait struct {
	cmd     *cobra.Command
	wait    bool
	timeout time.Duration
}

// Flags adds --wait and --timeout.
func (w *Wait) Flags(cmd *cobra.Command) {
	w.cmd = cmd
	cmd.Flags().BoolVar(&w.wait, "wait", false, "wait until it is done, and show the way there (default on a terminal)")
	cmd.Flags().DurationVar(&w.timeout, "timeout", 0, "how long to wait at most, for example 10m")
}

// Wanted reports whether to wait.
func (w *Wait) Wanted(con *console.Console) bool {
	if w.cmd.Flags().Changed("wait") {
		return w.wait
	}
	return w.timeout > 0 || con.Interactive()
}
