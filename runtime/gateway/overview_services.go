package gateway

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"dcos.example/dcos/runtime/config"
)

// serviceRow is a service that the operator runs.
type serviceRow struct {
	Name, Package, State, Why, Link string
	Rank                            rank
	Ready, Running, Count           int
}

// serviceAnswer is what the page reads of a service.
type serviceAnswer struct {
	Name    string `json:"name"`
	Package struct {
		Name    string `json:"name"`
		Version string `json:"version"`
	} `json:"package"`
	Status  string `json:"status"`
	Message string `json:"message"`
	Pods    []struct {
		Count   int `json:"count"`
		Running int `json:"running"`
		Ready   int `json:"ready"`
	} `json:"pods"`
}

func (g *Gateway) askServices(ctx context.Context) ([]serviceRow, error) {
	var list struct {
		Services []serviceAnswer `json:"services"`
	}
	if err := g.ask(ctx, config.PortMaster, "/services/", &list); err != nil {
		return nil, err
	}
	rows := make([]serviceRow, 0, len(list.Services))
	for _, s := range list.Services {
		rows = append(rows, newServiceRow(s))
	}
	slices.SortFunc(rows, func(a, b serviceRow) int { return cmp.Or(cmp.Compare(a.Rank, b.Rank), cmp.Compare(a.Name, b.Name)) })
	return rows, nil
}

// newServiceRow says how a service is, and why.
func newServiceRow(s serviceAnswer) serviceRow {
	row := serviceRow{
		Name: s.Name, Package: strings.TrimSpace(s.Package.Name + " " + s.Package.Version), State: strings.ToLower(s.Status), Why: s.Message,
		Link: "/service/" + s.Name + "/v1/plans/deploy", Rank: warn,
	}
	for _, p := range s.Pods {
		row.Count, row.Running, row.Ready = row.Count+p.Count, row.Running+p.Running, row.Ready+p.Ready
	}
	switch {
	case s.Status == "ERROR":
		row.Rank = bad
	case s.Status == "RUNNING" && row.Ready < row.Count:
		row.State, row.Rank = "recovering", warn
	case s.Status == "RUNNING":
		row.Rank = fine
	}
	return row
}
