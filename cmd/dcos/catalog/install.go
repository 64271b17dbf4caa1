package catalog

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"dcos.example/dcos/cmd/dcos/client"
	"dcos.example/dcos/cmd/dcos/console"
	"dcos.example/dcos/cmd/dcos/service"
	"dcos.example/dcos/runtime/api/cosmos"
	"dcos.example/dcos/runtime/fault"
)

func (p *packages) install() *cobra.Command {
	var c choice
	var yes, app, cli bool
	var wait service.Wait
	cmd := console.Command("install NAME", "Install a package", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		cl, err := p.Connect()
		if err != nil {
			return err
		}
		return p.doInstall(ctx, cl, args[0], c, installMode{yes: yes, cliOnly: cli && !app, wait: &wait})
	})
	c.flags(cmd)
	wait.Flags(cmd)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&app, "app", false, "only what it runs")
	cmd.Flags().BoolVar(&cli, "cli", false, "only its commands")
	cmd.ValidArgsFunction = p.packageNames
	return cmd
}

type installMode struct {
	yes, cliOnly bool
	wait         *service.Wait
}

func (p *packages) doInstall(ctx context.Context, cl *client.Client, name string, c choice, mode installMode) error {
	// What a person wrote is looked at first: nothing is asked for a file that
	// cannot be.
	options, written, err := c.read()
	if err != nil {
		return err
	}
	pkg, _, err := fetch(ctx, cl, name, c.version)
	if err != nil {
		return p.explain(ctx, cl, name, err)
	}
	if _, ok := pkg.Profiles[c.profile]; c.profile != "" && !ok {
		known := slices.Sorted(maps.Keys(pkg.Profiles))
		if len(known) == 0 {
			return fault.Newf("install package "+name, fault.Invalid, "it has no profiles")
		}
		return fault.Newf("install package "+name, fault.Invalid, "it has no profile %q; there are: %s", c.profile, strings.Join(known, ", "))
	}
	if mode.cliOnly {
		return p.installCLI(pkg)
	}
	if err := p.known(pkg, written); err != nil {
		return err
	}
	if pkg.PreInstallNotes != "" {
		fmt.Fprintln(p.Stdout, strings.TrimRight(pkg.PreInstallNotes, "\n"))
	}
	if !mode.yes {
		if err := p.Confirm(fmt.Sprintf("Install %s %s? [yes/no]", pkg.Name, pkg.Version), "yes"); err != nil {
			return err
		}
	}
	fmt.Fprintf(p.Stdout, "Installing package [%s] version [%s]%s\n", pkg.Name, pkg.Version, under(c.app))
	var out cosmos.InstallResponse
	r := cosmos.InstallRequest{PackageName: name, PackageVersion: pkg.Version, Options: options, AppID: c.app, Profile: c.profile}
	if err := cl.Cosmos(ctx, "install package "+name, cosmos.Install, r, &out); err != nil {
		return p.explain(ctx, cl, name, err)
	}
	if pkg.Service != nil {
		fmt.Fprintf(p.Stdout, "New commands are available: dcos %s\n", service.Name(out.AppID))
	}
	if out.AppID != "" && mode.wait.Wanted(p.Console) {
		if err := p.follow(ctx, cl, pkg, out.AppID, mode.wait); err != nil {
			return err
		}
	}
	if notes := strings.TrimRight(out.PostInstallNotes, "\n"); notes != "" {
		fmt.Fprintln(p.Stdout, notes)
	}
	return nil
}

func under(app string) string {
	if app == "" {
		return ""
	}
	return " with app id [" + app + "]"
}

func (p *packages) follow(ctx context.Context, cl *client.Client, pkg cosmos.Package, app string, wait *service.Wait) error {
	name := service.Name(app)
	if pkg.Service == nil {
		return wait.App(ctx, p.Console, cl, app)
	}
	if err := wait.Deployed(ctx, p.Console, cl, name); err != nil {
		return err
	}
	fmt.Fprintf(p.Stdout, "Service %s is running.\n", name)
	return nil
}

// installCLI has nothing to do: the commands of services are in this program.
func (p *packages) installCLI(pkg cosmos.Package) error {
	if pkg.Service == nil {
		return fault.Newf("install commands of "+pkg.Name, fault.Invalid, "it has none that this program could run")
	}
	fmt.Fprintf(p.Stdout, "The commands of services are part of this program: dcos %s\n", pkg.Name)
	return nil
}

func (p *packages) update() *cobra.Command {
	var u service.Update
	var app string
	cmd := console.Command("update NAME", "Change the options or the version of what is installed", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		cl, err := p.Connect()
		if err != nil {
			return err
		}
		id, err := p.appOf(ctx, cl, args[0], app)
		if err != nil {
			return err
		}
		u.Name = service.Name(id)
		return u.Start(ctx, p.Console)
	})
	u.Flags(cmd)
	cmd.Flags().StringVar(&app, "app-id", "", "ID that it is installed under, if there are several")
	cmd.ValidArgsFunction = p.installedNames
	return cmd
}

// appOf finds the one installation of a package.
func (p *packages) appOf(ctx context.Context, cl *client.Client, name, app string) (string, error) {
	op := "find package " + name
	all, err := installed(ctx, cl, cosmos.ListRequest{PackageName: name, AppID: app})
	if err != nil {
		return "", err
	}
	switch len(all) {
	case 0:
		return "", fault.Newf(op, fault.NotFound, "it is not installed%s.%s", under(app), p.installedLike(ctx, cl, name))
	case 1:
		return all[0].app, nil
	}
	var ids []string
	for _, in := range all {
		ids = append(ids, in.app)
	}
	return "", fault.Newf(op, fault.Conflict, "it is installed as %s; give --app-id", strings.Join(ids, " and "))
}

const cannotBeUndone = `This cannot be undone. It will uninstall [%s] and delete all of its persistent data: logs, configurations, databases, everything.
Type the name of the service to confirm`

func (p *packages) uninstall() *cobra.Command {
	var app string
	var all, yes, onlyApp, cli bool
	var wait service.Wait
	cmd := console.Command("uninstall NAME", "Stop what a package runs and remove it with its data", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		cl, err := p.Connect()
		if err != nil {
			return err
		}
		name := args[0]
		if cli && !onlyApp {
			return fault.Newf("uninstall commands of "+name, fault.Invalid, "the commands of services are part of this program")
		}
		if !yes {
			if err := p.confirmUninstall(ctx, cl, name, app, all); err != nil {
				return err
			}
		}
		r := cosmos.UninstallRequest{PackageName: name, AppID: app, All: all}
		return p.doUninstall(ctx, cl, r, &wait)
	})
	wait.Flags(cmd)
	cmd.Flags().StringVar(&app, "app-id", "", "ID that it is installed under, if there are several")
	cmd.Flags().BoolVar(&all, "all", false, "all that is installed from the package")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&onlyApp, "app", false, "only what it runs")
	cmd.Flags().BoolVar(&cli, "cli", false, "only its commands")
	cmd.ValidArgsFunction = p.installedNames
	return cmd
}

// confirmUninstall asks for the name of what goes: the hand that types it has
// read it.
func (p *packages) confirmUninstall(ctx context.Context, cl *client.Client, name, app string, all bool) error {
	if all {
		return p.Confirm(fmt.Sprintf(cannotBeUndone, "everything of package "+name), name)
	}
	id, err := p.appOf(ctx, cl, name, app)
	if err != nil {
		return err
	}
	return p.Confirm(fmt.Sprintf(cannotBeUndone, id), service.Name(id))
}

func (p *packages) doUninstall(ctx context.Context, cl *client.Client, r cosmos.UninstallRequest, wait *service.Wait) error {
	operated, err := services(ctx, cl)
	if err != nil {
		return err
	}
	var out cosmos.UninstallResponse
	if err := cl.Cosmos(ctx, "uninstall package "+r.PackageName, cosmos.Uninstall, r, &out); err != nil {
		return p.explain(ctx, cl, r.PackageName, err)
	}
	for _, x := range out.Results {
		verb := "Uninstalled"
		if operated[x.AppID] {
			verb = "Uninstalling" // volumes and reservations are given back one by one
		}
		fmt.Fprintf(p.Stdout, "%s package [%s] version [%s]%s\n", verb, x.PackageName, x.PackageVersion, under(x.AppID))
	}
	for _, x := range out.Results {
		if operated[x.AppID] && wait.Wanted(p.Console) {
			if err := wait.Gone(ctx, p.Console, cl, service.Name(x.AppID)); err != nil {
				return err
			}
			fmt.Fprintf(p.Stdout, "Service %s is gone.\n", service.Name(x.AppID))
		}
		if notes := strings.TrimRight(x.PostUninstallNotes, "\n"); notes != "" {
			fmt.Fprintln(p.Stdout, notes)
		}
	}
	return nil
}

func (p *packages) repoList() *cobra.Command {
	var asJSON bool
	cmd := console.Command("list", "List the repositories, the first that is asked first", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		cl, err := p.Connect()
		if err != nil {
			return err
		}
		var raw json.RawMessage
		const op = "list repositories"
		if err := cl.Cosmos(ctx, op, cosmos.RepositoryList, struct{}{}, &raw); err != nil {
			return err
		}
		if asJSON {
			return p.JSON(raw)
		}
		var out cosmos.RepositoryResponse
		if err := json.Unmarshal(raw, &out); err != nil {
			return fault.New(op, fault.Internal, err)
		}
		for _, r := range out.Repositories {
			fmt.Fprintf(p.Stdout, "%s: %s\n", r.Name, r.URI)
			if r.Error != "" {
				fmt.Fprintf(p.Stderr, "Warning: %s: %s\n", r.Name, r.Error)
			}
		}
		if len(out.Repositories) == 0 {
			return fault.Newf(op, fault.NotFound, "there are no repos configured; `dcos package repo add` adds one")
		}
		return nil
	})
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (p *packages) repoAdd() *cobra.Command {
	var index int
	cmd := console.Command("add NAME URL", "Add a repository, after those there are", cobra.ExactArgs(2), nil)
	cmd.Flags().IntVar(&index, "index", 0, "place in the list, from 0: the first is asked first")
	cmd.RunE = console.Run(func(ctx context.Context, args []string) error {
		r := cosmos.RepositoryAddRequest{Name: args[0], URI: args[1]}
		if cmd.Flags().Changed("index") {
			r.Index = &index
		}
		cl, err := p.Connect()
		if err != nil {
			return err
		}
		return cl.Cosmos(ctx, "add repository "+r.Name, cosmos.RepositoryAdd, r, nil)
	})
	return cmd
}

func (p *packages) repoRemove() *cobra.Command {
	cmd := console.Command("remove NAME…", "Remove repositories; what is installed stays", cobra.MinimumNArgs(1), func(ctx context.Context, args []string) error {
		cl, err := p.Connect()
		if err != nil {
			return err
		}
		for _, name := range args {
			if err := cl.Cosmos(ctx, "remove repository "+name, cosmos.RepositoryDelete, cosmos.RepositoryDeleteRequest{Name: name}, nil); err != nil {
				return err
			}
		}
		return nil
	})
	cmd.ValidArgsFunction = names(func(ctx context.Context) (list []string) {
		cl, err := p.Connect()
		if err != nil {
			return nil
		}
		var out cosmos.RepositoryResponse
		if cl.Cosmos(ctx, "list repositories", cosmos.RepositoryList, struct{}{}, &out) != nil {
			return nil
		}
		for _, r := range out.Repositories {
			list = append(list, r.Name)
		}
		return list
	})
	return cmd
}
