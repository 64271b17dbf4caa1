package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"dcos.example/dcos/cmd/dcos/console"
	"dcos.example/dcos/cmd/dcos/profile"
	"dcos.example/dcos/runtime/api/marathon"
)

// complete teaches commands the words that the cluster knows: what a shell
// offers for their first argument.
func (a *app) complete(root *cobra.Command) {
	words := map[string]func(context.Context) []string{
		"task list": a.taskIDs, "task log": a.taskIDs, "task exec": a.taskIDs,
		"marathon app show": a.appIDs, "marathon app update": a.appIDs, "marathon app scale": a.appIDs, "marathon app start": a.appIDs,
		"marathon app stop": a.appIDs, "marathon app restart": a.appIDs, "marathon app remove": a.appIDs, "marathon app version list": a.appIDs,
		"marathon task list": a.appIDs, "marathon deployment list": a.appIDs,
		"marathon deployment watch": a.deploymentIDs, "marathon deployment rollback": a.deploymentIDs,
		"cluster attach": a.clusterNames, "cluster remove": a.clusterNames,
		"config show": settingWords, "config set": settingWords,
	}
	root.ValidArgsFunction = first(a.serviceNames)
	if cmd, _, err := root.Find([]string{"service"}); err == nil {
		cmd.ValidArgsFunction = first(a.serviceNames)
	}
	for path, list := range words {
		cmd, _, err := root.Find(strings.Fields(path))
		if err != nil || cmd.CommandPath() != root.Name()+" "+path {
			panic("complete " + path + ": there is no such command")
		}
		cmd.ValidArgsFunction = first(list)
	}
}

// first completes the first argument.
func first(list func(context.Context) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), console.Patience)
		defer cancel()
		return console.Fitting(list(ctx), start), cobra.ShellCompDirectiveNoFileComp
	}
}

// The lists below are empty when the cluster does not answer: a shell has
// nowhere to say so.

func (a *app) taskIDs(ctx context.Context) (ids []string) {
	cl, err := a.Connect()
	if err != nil {
		return nil
	}
	all, err := listTasks(ctx, cl)
	if err != nil {
		return nil
	}
	for _, t := range all {
		if !t.done {
			ids = append(ids, t.ID)
		}
	}
	return ids
}

func (a *app) appIDs(ctx context.Context) (ids []string) {
	cl, err := a.Connect()
	if err != nil {
		return nil
	}
	var list struct {
		Apps []marathon.AppInfo `json:"apps"`
	}
	if err := cl.Get(ctx, "list apps", marathonPath+"/apps", &list); err != nil {
		return nil
	}
	for _, app := range list.Apps {
		ids = append(ids, app.ID)
	}
	return ids
}

func (a *app) deploymentIDs(ctx context.Context) (ids []string) {
	cl, err := a.Connect()
	if err != nil {
		return nil
	}
	list, err := deployments(ctx, cl)
	if err != nil {
		return nil
	}
	for _, d := range list {
		ids = append(ids, d.ID)
	}
	return ids
}

func (a *app) clusterNames(context.Context) (names []string) {
	store, err := profile.Open(a.Getenv)
	if err != nil {
		return nil
	}
	all, err := store.List()
	if err != nil {
		return nil
	}
	for _, c := range all {
		names = append(names, c.Name)
	}
	return names
}

func settingWords(context.Context) []string { return settingNames }
