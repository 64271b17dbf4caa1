// Package catalog has the commands of packages: `dcos package …`, with the
// flags and words of the CLI of DC/OS.
package catalog

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
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

// packages is the run of a command.
type packages struct{ *console.Console }

// Command is `package` with all below it.
func Command(con *console.Console) *cobra.Command {
	p := &packages{con}
	return console.Group("package", "Find, install and remove packages",
		p.search(), p.list(), p.describe(), p.install(), p.update(), p.uninstall(),
		console.Group("repo", "Manage where packages come from", p.repoList(), p.repoAdd(), p.repoRemove()))
}

// maxDescription is what a line of a table has of a description.
const maxDescription = 70

func short(description string) string {
	line := strings.Join(strings.Fields(description), " ")
	if r := []rune(line); len(r) > maxDescription {
		return strings.TrimRight(string(r[:maxDescription-3]), " ") + "..."
	}
	return line
}

func (p *packages) search() *cobra.Command {
	var asJSON bool
	cmd := console.Command("search [QUERY]", "Find packages by name, description or tag", cobra.MaximumNArgs(1), func(ctx context.Context, args []string) error {
		cl, err := p.Connect()
		if err != nil {
			return err
		}
		found, err := find(ctx, cl, strings.Join(args, ""))
		if err != nil {
			return err
		}
		if asJSON {
			return p.JSON(found)
		}
		if len(found.Packages) == 0 {
			return p.nothing(ctx, cl, args)
		}
		var rows [][]string
		for _, f := range found.Packages {
			rows = append(rows, []string{f.Name, f.CurrentVersion, yesNo(f.Selected), yesNo(&f.Framework), short(f.Description)})
		}
		p.Table([]string{"NAME", "VERSION", "CERTIFIED", "FRAMEWORK", "DESCRIPTION"}, rows)
		return nil
	})
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// nothing explains an empty search: a word that is nearly a package's name, or
// a catalog that has nothing.
func (p *packages) nothing(ctx context.Context, cl *client.Client, args []string) error {
	if len(args) == 0 {
		return fault.Newf("search packages", fault.NotFound, "the catalog is empty; `dcos package repo list` shows how its repositories fare")
	}
	return fault.Newf("search packages", fault.NotFound, "nothing fits %q.%s", args[0], p.meant(ctx, cl, args[0]))
}

func find(ctx context.Context, cl *client.Client, query string) (found cosmos.SearchResponse, err error) {
	err = cl.Cosmos(ctx, "search packages", cosmos.Search, cosmos.SearchRequest{Query: query}, &found)
	if found.Packages == nil {
		found.Packages = []cosmos.SearchResult{}
	}
	return found, err
}

// meant proposes the package that was meant by a name that is none.
func (p *packages) meant(ctx context.Context, cl *client.Client, name string) string {
	all, err := find(ctx, cl, "")
	if err != nil {
		return "" // what went wrong before is what is told
	}
	var names, like []string
	for _, f := range all.Packages {
		names = append(names, f.Name)
		if len(name) > 2 && strings.Contains(f.Name, strings.ToLower(name)) {
			like = append(like, f.Name)
		}
	}
	if text := console.Similar(name, names); text != "" {
		return text
	}
	if len(like) > 0 {
		return " There are: " + strings.Join(like[:min(len(like), 5)], ", ")
	}
	return ""
}

// explain adds to a refusal of the catalog what can be done about it.
func (p *packages) explain(ctx context.Context, cl *client.Client, name string, err error) error {
	refusal, ok := errors.AsType[*client.Refusal](err)
	if !ok || strings.HasSuffix(refusal.Text, "?") { // it asks what was meant
		return err
	}
	switch refusal.Type {
	case "PackageNotFound":

		return fmt.Errorf("%w.%s", err, p.meant(ctx, cl, name))
	case "VersionNotFound":
		versions, listErr := listVersions(ctx, cl, name)
		if listErr != nil || len(versions) == 0 {
			return err
		}
		return fmt.Errorf("%w. There are: %s", err, strings.Join(versions, ", "))
	case "PackageAlreadyInstalled", "ServiceAlreadyStarted":
		return fmt.Errorf("%w. `dcos package update %s` changes it; --app-id=/NAME installs another beside it", err, name)
	case "PackageNotInstalled":
		return fmt.Errorf("%w.%s", err, p.installedLike(ctx, cl, name))
	case "AmbiguousAppId":
		return fmt.Errorf("%w. Give --app-id, or --all", err)
	}
	return err
}

func (p *packages) installedLike(ctx context.Context, cl *client.Client, name string) string {
	all, err := installed(ctx, cl, cosmos.ListRequest{})
	if err != nil {
		return ""
	}
	var names []string
	for _, in := range all {
		names = append(names, in.def.Name)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	switch {
	case len(names) == 0:
		return " No package is installed"
	case console.Similar(name, names) != "":
		return console.Similar(name, names)
	}
	return " Installed are: " + strings.Join(names, ", ")
}

// listVersions returns the versions of a package, the newest first.
func listVersions(ctx context.Context, cl *client.Client, name string) ([]string, error) {
	var out cosmos.ListVersionsResponse
	if err := cl.Cosmos(ctx, "list versions of package "+name, cosmos.ListVersions, cosmos.ListVersionsRequest{PackageName: name, IncludePackageVersions: true}, &out); err != nil {
		return nil, err
	}
	return slices.SortedFunc(maps.Keys(out.Results), func(a, b string) int {
		ra, rb := out.Results[a], out.Results[b]
		return cmp.Or(-cmp.Compare(len(ra), len(rb)), -cmp.Compare(ra, rb), cmp.Compare(a, b)) // numbers, as texts
	}), nil
}

// installation is one that the cluster lists.
type installation struct {
	app string
	def cosmos.Package
	raw json.RawMessage
}

func installed(ctx context.Context, cl *client.Client, r cosmos.ListRequest) ([]installation, error) {
	const op = "list packages"
	var out cosmos.ListResponse
	if err := cl.Cosmos(ctx, op, cosmos.List, r, &out); err != nil {
		return nil, err
	}
	all := []installation{}
	for _, in := range out.Packages {
		x := installation{app: in.AppID, raw: in.PackageInformation.PackageDefinition}
		if err := json.Unmarshal(x.raw, &x.def); err != nil {
			return nil, fault.New(op, fault.Internal, err)
		}
		all = append(all, x)
	}
	return all, nil
}

func (p *packages) list() *cobra.Command {
	var asJSON, onlyCLI bool
	var appID string
	cmd := console.Command("list [NAME]", "List the packages that are installed", cobra.MaximumNArgs(1), func(ctx context.Context, args []string) error {
		cl, err := p.Connect()
		if err != nil {
			return err
		}
		all, err := installed(ctx, cl, cosmos.ListRequest{PackageName: strings.Join(args, ""), AppID: appID})
		if err != nil {
			return err
		}
		operated, err := services(ctx, cl)
		if err != nil {
			return err
		}
		if onlyCLI {
			all = slices.DeleteFunc(all, func(in installation) bool { return !operated[in.app] })
		}
		if asJSON {
			return p.listJSON(all, operated)
		}
		var rows [][]string
		for _, in := range all {
			command := ""
			if operated[in.app] {
				command = service.Name(in.app)
			}
			rows = append(rows, []string{in.def.Name, in.def.Version, yesNo(in.def.Selected), in.app, console.OrDash(command), short(in.def.Description)})
		}
		if len(rows) == 0 {
			return fault.Newf("list packages", fault.NotFound, "there are no installed packages; `dcos package search` shows what there is to install")
		}
		p.Table([]string{"NAME", "VERSION", "CERTIFIED", "APP", "COMMAND", "DESCRIPTION"}, rows)
		return nil
	})
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&onlyCLI, "cli", false, "only those with commands of their own")
	cmd.Flags().StringVar(&appID, "app-id", "", "only what has this ID")
	cmd.ValidArgsFunction = p.installedNames
	return cmd
}

// listJSON prints a package once with all its apps, as DC/OS does.
func (p *packages) listJSON(all []installation, operated map[string]bool) error {
	list := []map[string]any{}
	at := map[string]map[string]any{}
	for _, in := range all {
		key := in.def.Name + "\x00" + in.def.Version
		entry := at[key]
		if entry == nil {
			if err := json.Unmarshal(in.raw, &entry); err != nil {
				return fault.New("list packages", fault.Internal, err)
			}
			for _, big := range []string{"config", "resource", "marathon", "service"} {
				delete(entry, big)
			}
			if operated[in.app] {
				entry["command"] = map[string]string{"name": in.def.Name}
			}
			entry["apps"] = []string{}
			at[key], list = entry, append(list, entry)
		}
		entry["apps"] = append(entry["apps"].([]string), in.app)
	}
	return p.JSON(list)
}

// services are what the operator runs, by id: they have commands of their own.
func services(ctx context.Context, cl *client.Client) (map[string]bool, error) {
	list, err := service.List(ctx, cl)
	if err != nil && !fault.Is(err, fault.NotFound) { // that would be a cluster without them
		return nil, err
	}
	m := map[string]bool{}
	for _, s := range list {
		m[s.ID] = true
	}
	return m, nil
}

func yesNo(b *bool) string {
	if b != nil && *b {
		return "True"
	}
	return "False"
}

// names completes the first argument with what names returns.
func names(list func(ctx context.Context) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), console.Patience)
		defer cancel()
		return console.Fitting(list(ctx), start), cobra.ShellCompDirectiveNoFileComp
	}
}

// packageNames and installedNames are empty when the cluster does not answer:
// a shell has nowhere to say so.
func (p *packages) packageNames(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
	return names(func(ctx context.Context) (out []string) {
		cl, err := p.Connect()
		if err != nil {
			return nil
		}
		all, err := find(ctx, cl, "")
		if err != nil {
			return nil
		}
		for _, f := range all.Packages {
			out = append(out, f.Name)
		}
		return out
	})(cmd, args, start)
}

func (p *packages) installedNames(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
	return names(func(ctx context.Context) (out []string) {
		cl, err := p.Connect()
		if err != nil {
			return nil
		}
		all, err := installed(ctx, cl, cosmos.ListRequest{})
		if err != nil {
			return nil
		}
		for _, in := range all {
			out = append(out, in.def.Name)
		}
		slices.Sort(out)
		return slices.Compact(out)
	})(cmd, args, start)
}
