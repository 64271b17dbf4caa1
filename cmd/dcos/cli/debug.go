package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"dcos.example/dcos/cmd/dcos/client"
	"dcos.example/dcos/cmd/dcos/console"
	"dcos.example/dcos/runtime/api/marathon"
	"dcos.example/dcos/runtime/fault"
)

// queued is an app that waits for resources or for its backoff, as /v2/queue
// tells it.
type queued struct {
	App   marathon.App `json:"app"`
	Count int          `json:"count"`
	Since string       `json:"since"`
	Delay struct {
		TimeLeftSeconds int  `json:"timeLeftSeconds"`
		Overdue         bool `json:"overdue"`
	} `json:"delay"`
	Offers struct {
		Processed  int      `json:"processedOffersCount"`
		Unused     int      `json:"unusedOffersCount"`
		LastUnused string   `json:"lastUnusedOfferAt"`
		LastUsed   string   `json:"lastUsedOfferAt"`
		Last       []reject `json:"rejectSummaryLastOffers"`
	} `json:"processedOffersSummary"`
	LastUnused []unused `json:"lastUnusedOffers"`
}

// reject counts offers at one step of the matching: how many came to it, and
// how many it turned away.
type reject struct {
	Reason    string `json:"reason"`
	Declined  int    `json:"declined"`
	Processed int    `json:"processed"`
}

type unused struct {
	Offer struct {
		Hostname  string `json:"hostname"`
		Resources []struct {
			Name   string  `json:"name"`
			Role   string  `json:"role"`
			Scalar float64 `json:"scalar"`
		} `json:"resources"`
	} `json:"offer"`
	Reason    []string `json:"reason"`
	Timestamp string   `json:"timestamp"`
}

// waits reports whether no offer fits, rather than that a backoff is on.
func (q queued) waits() bool { return q.Delay.Overdue && q.Count > 0 }

func readQueue(ctx context.Context, cl *client.Client) ([]queued, error) {
	var out struct {
		Queue []queued `json:"queue"`
	}
	err := cl.Get(ctx, "read the queue", marathonPath+"/queue?embed=lastUnusedOffers", &out)
	slices.SortFunc(out.Queue, func(a, b queued) int { return cmp.Compare(a.App.ID, b.App.ID) })
	return out.Queue, err
}

// criterion is one step of the matching of offers, in the order of the steps.
type criterion struct {
	reason, name string
	resource     string // in offers, of a scalar
	want         func(marathon.App) string
	lacks        string // of an offer: "2 have fewer than 1000 CPUs"
}

var criteria = []criterion{
	{"UnfulfilledRole", "ROLE", "", func(a marathon.App) string {
		if len(a.AcceptedResourceRoles) == 0 {
			return "[*]"
		}
		return "[" + strings.Join(a.AcceptedResourceRoles, ", ") + "]"
	}, "of other roles than %s"},
	{"UnfulfilledConstraint", "CONSTRAINTS", "", func(a marathon.App) string {
		var all []string
		for _, c := range a.Constraints {
			all = append(all, strings.Join(c, " "))
		}
		return "[" + strings.Join(all, "; ") + "]"
	}, "against its constraints %s"},
	{"NoCorrespondingReservationFound", "RESERVATION", "", func(marathon.App) string { return "-" }, "without its reservation"},
	{"AgentMaintenance", "MAINTENANCE", "", func(marathon.App) string { return "-" }, "from agents under maintenance"},
	{"InsufficientCpus", "CPUS", "cpus", func(a marathon.App) string { return number(a.CPUs) }, "with fewer than %s CPUs"},
	{"InsufficientMemory", "MEM", "mem", func(a marathon.App) string { return number(a.Mem) }, "with less than %s MiB of memory"},
	{"InsufficientDisk", "DISK", "disk", func(a marathon.App) string { return number(a.Disk) }, "with less than %s MiB of disk"},
	{"InsufficientGpus", "GPUS", "gpus", func(a marathon.App) string { return strconv.FormatInt(a.GPUs, 10) }, "with fewer than %s GPUs"},
	{"InsufficientPorts", "PORTS", "", wantedPorts, "without the ports %s"},
}

// number writes a quantity as people do: 1000000, 0.1.
func number(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

func wantedPorts(a marathon.App) string {
	var ports []string
	for _, p := range a.PortDefinitions {
		if a.RequirePorts {
			ports = append(ports, strconv.FormatInt(p.Port, 10))
		} else {
			ports = append(ports, "any")
		}
	}
	if a.Container != nil {
		for _, p := range a.Container.PortMappings {
			switch {
			case p.HostPort == nil:
			case *p.HostPort == 0:
				ports = append(ports, "any")
			default:
				ports = append(ports, strconv.FormatInt(*p.HostPort, 10))
			}
		}
	}
	return "[" + strings.Join(ports, ", ") + "]"
}

// why says in a sentence why an app waits, by the last round of offers.
func (q queued) why() string {
	if !q.waits() {
		return fmt.Sprintf("%s is started again in %ds: its last task ended too soon (see lastTaskFailure in `dcos marathon app show %s`)", q.App.ID, q.Delay.TimeLeftSeconds, q.App.ID)
	}
	total := 0
	var parts []string
	for _, c := range criteria {
		for _, r := range q.Offers.Last {
			if r.Reason != c.reason {
				continue
			}
			total = max(total, r.Processed)
			if r.Declined == 0 {
				continue
			}
			text := c.lacks
			if strings.Contains(text, "%s") {
				text = fmt.Sprintf(text, c.want(q.App))
			}
			if c.resource != "" {
				text += fmt.Sprintf(" (the most is %s)", number(q.most(c)))
			}
			parts = append(parts, fmt.Sprintf("%d %s", r.Declined, text))
		}
	}
	if len(parts) == 0 {
		return fmt.Sprintf("%s waits: no agent has offered anything; `dcos node list` shows the agents", q.App.ID)
	}
	return fmt.Sprintf("%s waits: of the last %d offers, %s", q.App.ID, total, strings.Join(parts, ", "))
}

// most is the largest amount of a resource in the offers that came as far as
// being measured: those turned away for it alone or among others, but for
// roles that the app does not take.
func (q queued) most(c criterion) float64 {
	most := 0.0
	for _, u := range q.LastUnused {
		if slices.Contains(u.Reason, "UnfulfilledRole") {
			continue
		}
		sum := 0.0
		for _, r := range u.Offer.Resources {
			if r.Name == c.resource {
				sum += r.Scalar
			}
		}
		most = max(most, sum)
	}
	return most
}

func (a *app) debugCmd() *cobra.Command {
	return console.Group("debug", "Show why apps wait", a.debugList(), a.debugSummary(), a.debugDetails())
}

func (a *app) debugList() *cobra.Command {
	var asJSON bool
	cmd := console.Command("list", "List the apps that wait for resources or for their backoff", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		cl, err := a.Connect()
		if err != nil {
			return err
		}
		queue, err := readQueue(ctx, cl)
		if err != nil {
			return err
		}
		if asJSON {
			return a.JSON(queue)
		}
		var rows [][]string
		for _, q := range queue {
			wait := "False"
			if q.waits() {
				wait = "True"
			}
			rows = append(rows, []string{q.App.ID, console.OrDash(q.Since), strconv.Itoa(q.Count), wait, strconv.Itoa(q.Offers.Processed),
				strconv.Itoa(q.Offers.Unused), console.OrDash(q.Offers.LastUnused), console.OrDash(q.Offers.LastUsed)})
		}
		a.Table([]string{"ID", "SINCE", "INSTANCES TO LAUNCH", "WAITING", "PROCESSED OFFERS", "UNUSED OFFERS", "LAST UNUSED OFFER", "LAST USED OFFER"}, rows)
		return nil
	})
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// inQueue finds an app's entry.
func (a *app) inQueue(ctx context.Context, op, id string) (queued, error) {
	cl, err := a.Connect()
	if err != nil {
		return queued{}, err
	}
	queue, err := readQueue(ctx, cl)
	if err != nil {
		return queued{}, err
	}
	id = "/" + strings.Trim(id, "/")
	i := slices.IndexFunc(queue, func(q queued) bool { return q.App.ID == id })
	if i < 0 {
		return queued{}, fault.Newf(op, fault.NotFound, "%s does not wait; `dcos marathon debug list` shows what does", id)
	}
	return queue[i], nil
}

func (a *app) debugSummary() *cobra.Command {
	return console.Command("summary ID", "Show what keeps an app from starting, resource by resource", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		q, err := a.inQueue(ctx, "look at "+args[0], args[0])
		if err != nil {
			return err
		}
		var rows [][]string
		for _, c := range criteria {
			for _, r := range q.Offers.Last {
				if r.Reason != c.reason || c.name == "RESERVATION" || c.name == "MAINTENANCE" && r.Declined == 0 {
					continue
				}
				share := "-"
				if r.Processed > 0 {
					share = fmt.Sprintf("%.2f%%", 100*float64(r.Processed-r.Declined)/float64(r.Processed))
				}
				rows = append(rows, []string{c.name, c.want(q.App), fmt.Sprintf("%d / %d", r.Processed-r.Declined, r.Processed), share})
			}
		}
		a.Table([]string{"RESOURCE", "REQUESTED", "MATCHED", "PERCENTAGE"}, rows)
		fmt.Fprintf(a.Stdout, "\n%s.\n", q.why())
		return nil
	})
}

func (a *app) debugDetails() *cobra.Command {
	return console.Command("details ID", "Show the last offer of each agent, and what of it did not fit", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		q, err := a.inQueue(ctx, "look at "+args[0], args[0])
		if err != nil {
			return err
		}
		header := []string{"HOSTNAME"}
		for _, c := range criteria {
			header = append(header, c.name)
		}
		header = append(header, "RECEIVED")
		var rows [][]string
		for _, u := range q.LastUnused {
			row := []string{u.Offer.Hostname}
			for _, c := range criteria {
				fits := "ok"
				if slices.Contains(u.Reason, c.reason) {
					fits = "-"
				}
				row = append(row, fits)
			}
			rows = append(rows, append(row, u.Timestamp))
		}
		slices.SortFunc(rows, func(a, b []string) int { return cmp.Compare(a[0], b[0]) })
		a.Table(header, rows)
		return nil
	})
}

// explainWaiting tells a person why apps wait, on standard error: tables stay
// as scripts know them.
func (a *app) explainWaiting(queue []queued, only func(id string) bool) {
	for _, q := range queue {
		if q.waits() && q.Offers.Processed > 0 && (only == nil || only(q.App.ID)) {
			fmt.Fprintf(a.Stderr, "%s.\n", q.why())
		}
	}
}

// unknownFields warns of fields that apps do not have: the cluster ignores
// them, and a typo would go unseen.
func unknownFields(w io.Writer, body []byte) {
	var m map[string]json.RawMessage
	if json.Unmarshal(body, &m) != nil {
		return // the cluster says what is wrong
	}
	known := fieldNames(reflect.TypeFor[marathon.AppInfo]())
	var wrong []string
	for name := range m {
		if !slices.Contains(known, name) {
			wrong = append(wrong, name)
		}
	}
	slices.Sort(wrong)
	for _, name := range wrong {
		fmt.Fprintf(w, "Warning: apps have no field %q; the cluster ignores it.%s\n", name, console.Similar(name, known))
	}
}

func fieldNames(t reflect.Type) []string {
	var out []string
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			out = append(out, fieldNames(f.Type)...)
		case name != "" && name != "-":
			out = append(out, name)
		}
	}
	return out
}

// mustExist fails when there is no such app: a PUT would make one.
func mustExist(ctx context.Context, cl *client.Client, op, id string) error {
	return cl.Call(ctx, op, client.Request{Method: http.MethodGet, Path: appPath(id, "", false)}, nil)
}
