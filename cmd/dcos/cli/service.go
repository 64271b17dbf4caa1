package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"dcos.example/dcos/cmd/dcos/console"
	"dcos.example/dcos/cmd/dcos/service"
	"dcos.example/dcos/runtime/api/mesos/master"
	api "dcos.example/dcos/runtime/api/service"
	"dcos.example/dcos/runtime/fault"
)

// addService gives root the commands of the service that the command line
// names, as `dcos NAME …` and `dcos service NAME …`: which services there are
// only the cluster knows.
func (a *app) addService(ctx context.Context, root *cobra.Command) {
	words := a.Args
	for len(words) > 0 && (strings.HasPrefix(words[0], "-") || slices.Contains([]string{"help", cobra.ShellCompRequestCmd, cobra.ShellCompNoDescRequestCmd}, words[0])) {
		words = words[1:]
	}
	parent := root
	if len(words) > 1 && words[0] == "service" {
		parent, _, _ = root.Find(words[:1]) // it is there
		words = words[1:]
	}
	if len(words) == 0 || words[0] == "" || strings.HasPrefix(words[0], "-") || isCommand(parent, words[0]) {
		return
	}
	name := words[0]
	if len(words) == 1 || !service.IsVerb(words[1]) && words[1] != "" && !strings.HasPrefix(words[1], "--name") {
		// Perhaps a word that is nothing at all.
		if !slices.Contains(a.serviceNames(ctx), service.Name(name)) {
			return
		}
	}
	cmd := service.Command(&a.Console, name)
	cmd.Hidden = true
	parent.AddCommand(cmd)
}

func isCommand(parent *cobra.Command, word string) bool {
	return slices.ContainsFunc(parent.Commands(), func(c *cobra.Command) bool { return c.Name() == word || c.HasAlias(word) }) ||
		word == "completion" || word == "help"
}

// serviceNames is empty when the cluster does not answer soon.
func (a *app) serviceNames(ctx context.Context) (names []string) {
	ctx, cancel := context.WithTimeout(ctx, console.Patience)
	defer cancel()
	cl, err := a.Connect()
	if err != nil {
		return nil
	}
	all, err := service.List(ctx, cl)
	if err != nil {
		return nil
	}
	for _, s := range all {
		names = append(names, s.Name)
	}
	return names
}

func (a *app) serviceCmd() *cobra.Command {
	var asJSON, inactive bool
	list := console.Command("list", "List frameworks and the services among them", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		cl, err := a.Connect()
		if err != nil {
			return err
		}
		const op = "list services"
		fws, err := cl.Master(ctx, op, &master.Call{Type: master.Call_GET_FRAMEWORKS.Enum()})
		if err != nil {
			return err
		}
		tasks, err := cl.Master(ctx, op, &master.Call{Type: master.Call_GET_TASKS.Enum()})
		if err != nil {
			return err
		}
		count := map[string]int{}
		used := map[string]map[string]float64{}
		for _, t := range tasks.GetGetTasks().GetTasks() {
			id := t.GetFrameworkId().GetValue()
			count[id]++
			if used[id] == nil {
				used[id] = map[string]float64{}
			}
			for _, r := range t.GetResources() {
				used[id][r.GetName()] += r.GetScalar().GetValue()
			}
		}
		type row struct {
			Name   string  `json:"name"`
			Host   string  `json:"hostname"`
			Active bool    `json:"active"`
			Tasks  int     `json:"tasks"`
			CPU    float64 `json:"cpus"`
			Mem    float64 `json:"mem"`
			Disk   float64 `json:"disk"`
			ID     string  `json:"id"`
			WebUI  string  `json:"webui_url,omitempty"`
			// Of those that the operator runs.
			Status  string `json:"status,omitempty"`
			Package string `json:"package,omitempty"`
		}
		operated, err := service.List(ctx, cl)
		if err != nil && !fault.Is(err, fault.NotFound) { // that would be a cluster without them
			fmt.Fprintln(a.Stderr, "Warning: only frameworks are shown:", err)
		}
		of := map[string]api.Summary{}
		for _, s := range operated {
			of[s.Name] = s
		}
		all := []row{}
		for _, f := range fws.GetGetFrameworks().GetFrameworks() {
			if !f.GetActive() && !inactive {
				continue
			}
			info := f.GetFrameworkInfo()
			id := info.GetId().GetValue()
			s := of[info.GetName()]
			delete(of, s.Name)
			all = append(all, row{
				Name: info.GetName(), Host: info.GetHostname(), Active: f.GetActive(), Tasks: count[id],
				CPU: used[id]["cpus"], Mem: used[id]["mem"], Disk: used[id]["disk"], ID: id, WebUI: info.GetWebuiUrl(),
				Status: string(s.Status), Package: strings.TrimSpace(s.Package.Name + " " + s.Package.Version),
			})
		}
		for _, s := range of { // their framework is not there yet, or away
			all = append(all, row{Name: s.Name, Status: string(s.Status), Package: strings.TrimSpace(s.Package.Name + " " + s.Package.Version)})
		}
		slices.SortFunc(all, func(a, b row) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
		if asJSON {
			return a.JSON(all)
		}
		header := []string{"NAME", "HOST", "ACTIVE", "TASKS", "CPU", "MEM", "DISK", "ID"}
		if len(operated) > 0 {
			header = append(header, "STATUS", "PACKAGE")
		}
		var rows [][]string
		for _, s := range all {
			active := "False"
			if s.Active {
				active = "True"
			}
			cells := []string{s.Name, console.OrDash(s.Host), active, fmt.Sprint(s.Tasks), fmt.Sprint(s.CPU), fmt.Sprint(s.Mem), fmt.Sprint(s.Disk), console.OrDash(s.ID), console.OrDash(s.Status), console.OrDash(s.Package)}
			rows = append(rows, cells[:len(header)])
		}
		a.Table(header, rows)
		return nil
	})
	list.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	list.Flags().BoolVar(&inactive, "inactive", false, "also frameworks that are disconnected")
	return console.Group("service", "Show frameworks; manage a service: dcos service NAME …", list)
}
