package bootstrap

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"

	"dcos.example/dcos/installer/gateway"
	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/providers"
	"dcos.example/dcos/providers/input"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
)

// clusters is TypeCluster: nothing of its own, it exists when the cluster
// answers as a whole.
type clusters struct{ p *Provider }

type cluster struct {
	masters  []string // addresses
	agents   int      // of both kinds
	ca       string
	user     string
	password string
	hosts    []host.Ref // to look at when it does not come up
}

func readCluster(m resource.PropertyMap) (cluster, *input.Reader) {
	r := input.Read(m)
	c := cluster{
		agents: int(r.Number("agents")) + int(r.Number("publicAgents")), ca: r.Text("caCert"),
		user: r.OptionalText("adminUser"), password: r.OptionalText("adminPassword"),
	}
	r.OptionalText("release") // another release is a reason to look again
	for _, v := range r.List("masters") {
		v, known := input.Plain(v)
		if known && !v.IsString() {
			r.Fail("masters", "%v is not an address", v)
		} else if known {
			c.masters = append(c.masters, v.StringValue())
		}
	}
	if len(c.masters) == 0 && !r.Unknown("masters") {
		r.Fail("masters", "is empty")
	}
	hosts := r.Object("hosts") // by name
	for _, name := range hosts.Keys() {
		h := hosts.Object(name)
		ref := host.ReadConnection(name, h)
		h.OptionalText("machineId")
		h.OptionalText("bootId")
		if h.Close(); !h.Unknown() {
			c.hosts = append(c.hosts, ref)
		}
	}
	return c, r
}

func (clusters) check(req plugin.CheckRequest) plugin.CheckResponse {
	_, r := readCluster(req.News)
	return plugin.CheckResponse{Properties: req.News, Failures: r.Failures()}
}

func (clusters) diff(req plugin.DiffRequest) plugin.DiffResponse { return providers.DiffInputs(req) }

func (k clusters) create(ctx context.Context, req plugin.CreateRequest) (res plugin.CreateResponse, err error) {
	c, r := readCluster(req.Properties)
	if req.Preview && r.Unknown("masters") {
		return plugin.CreateResponse{Properties: resource.PropertyMap{"url": providers.Unknown(), "masters": providers.Unknown()}}, nil
	}
	res.Properties = resource.PropertyMap{"url": resource.NewProperty("https://" + c.masters[0]), "masters": req.Properties["masters"]}
	if req.Preview {
		return res, nil
	}
	res.ID = resource.ID("cluster:" + c.masters[0])
	if err := k.p.wait(ctx, c); err != nil {
		return res, providers.Partial(err)
	}
	return res, nil
}

// wait returns when the cluster is healthy.
func (p *Provider) wait(ctx context.Context, c cluster) error {
	const step = "wait for the cluster"
	done := providers.Step(ctx, step)
	watch, err := p.newWatch(c)
	if err != nil {
		return done(err)
	}
	defer watch.client.Close()
	bounded, cancel := context.WithTimeoutCause(ctx, p.o.Patience, errTime)
	defer cancel()
	bounded, stop := context.WithCancelCause(bounded)
	defer stop(nil)
	waited := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-providers.Stopping(ctx):
			stop(errStopped)
		case <-waited:
		}
	})
	said := ""
	err = p.poll(bounded, func() (bool, error) {
		// One slow answer must not use up the time of the others.
		one, stop := context.WithTimeout(bounded, 5*time.Second)
		defer stop()
		lacks, err := watch.look(one)
		if bounded.Err() != nil {
			return false, nil // what it found is that the time is up
		}
		if lacks != said && lacks != "" {
			said = lacks
			providers.Note(ctx, step, "waiting for "+lacks)
		}
		return lacks == "", err
	})
	close(waited)
	wg.Wait()
	switch {
	case err == nil:
		return done(nil)
	case errors.Is(err, errTime):
		// The time is up, not the caller's patience with the diagnosis.
		return done(fault.Newf(step, fault.Unavailable, "after %s it still waits for %s\n%s", p.o.Patience, said, p.diagnose(ctx, c)))
	case errors.Is(err, errStopped):
		return done(fault.Newf(step, fault.Unavailable, "not waited for any longer, because you asked to stop: it still lacks %s. All hosts are installed, and go on without the installer; apply again to see the cluster complete", cmp.Or(said, "an answer")))
	case ctx.Err() != nil:
		return done(fault.Newf(step, fault.Unavailable, "given up while it waited for %s: %w", said, err))
	default:
		return done(fault.New(step, fault.KindOf(err), err))
	}
}

// watch asks one cluster how it is.
type watch struct {
	c      cluster
	client *gateway.Client
}

func (p *Provider) newWatch(c cluster) (*watch, error) {
	client, err := gateway.New(gateway.Config{Masters: c.masters, CA: c.ca, User: c.user, Password: c.password, Dial: p.dialCluster(c.hosts)})
	if err != nil {
		return nil, err
	}
	return &watch{c: c, client: client}, nil
}

// dialCluster reaches the masters: directly, or from one of the hosts where
// they are behind a bastion.
func (p *Provider) dialCluster(hosts []host.Ref) dialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		var errs []error
		for _, ref := range hosts {
			if ref.SSH.Bastion == nil {
				continue
			}
			h, err := p.o.Open(ctx, ref)
			if err == nil {
				return p.dialer(ref, h)(ctx, network, addr)
			}
			errs = append(errs, err)
		}
		if len(errs) > 0 {
			return nil, errors.Join(errs...)
		}
		return p.o.Dial(ctx, network, addr)
	}
}

// look returns what the cluster lacks, "" when it is healthy. An error says
// that waiting does not help.
func (w *watch) look(ctx context.Context) (lacks string, err error) {
	if master, err := w.client.Reach(ctx); err != nil {
		return "the gateway of master " + master + " (" + reason(err) + ")", nil
	}
	if w.c.password == "" {
		return "", nil // nothing more can be asked
	}
	if err := w.client.Login(ctx); fault.Is(err, fault.Denied) {
		return "", err
	} else if err != nil {
		return "sign-in (" + reason(err) + ")", nil
	}
	var list struct {
		Slaves []struct {
			Active      bool `json:"active"`
			Deactivated bool `json:"deactivated"` // by an operator, who may be us
		} `json:"slaves"`
	}
	if err := w.client.JSON(ctx, http.MethodGet, "/mesos/slaves", nil, &list); err != nil {
		return "a leading master (" + reason(err) + ")", nil
	}
	if lacks := w.members(ctx); lacks != "" {
		return lacks, nil
	}
	active := 0
	for _, s := range list.Slaves {
		if s.Active || s.Deactivated {
			active++
		}
	}
	if active < w.c.agents {
		return fmt.Sprintf("agents: %d of %d are registered", active, w.c.agents), nil
	}
	if err := w.client.JSON(ctx, http.MethodGet, "/service/marathon/v2/info", nil, nil); err != nil {
		return "the orchestrator (" + reason(err) + ")", nil
	}
	return "", nil
}

// members returns what keeps the masters from deciding together: one that has
// come must have received the cluster's state and its vote.
func (w *watch) members(ctx context.Context) (lacks string) {
	var list struct {
		Members []struct {
			Name    string `json:"name"`
			Addr    string `json:"addr"`
			Role    string `json:"role"`
			Healthy bool   `json:"healthy"`
			Reason  string `json:"reason"`
		} `json:"members"`
	}
	err := w.client.JSON(ctx, http.MethodGet, "/system/v1/members", nil, &list)
	switch {
	case fault.Is(err, fault.NotFound), fault.Is(err, fault.Denied): // an earlier release, or not for this user
		return ""
	case err != nil:
		return "the list of masters (" + reason(err) + ")"
	}
	for _, addr := range w.c.masters {
		found := false
		for _, m := range list.Members {
			if m.Addr != addr {
				continue
			}
			found = true
			switch {
			case m.Role != "voter":
				return "master " + m.Name + ", which joins the others"
			case !m.Healthy:
				return "master " + m.Name + ", which " + m.Reason
			}
		}
		if !found {
			return "master " + addr + ", which has not joined the others yet"
		}
	}
	return ""
}

// reason is the innermost cause, on one line: what was asked for is named
// anyway.
func reason(err error) string {
	for u := errors.Unwrap(err); u != nil; u = errors.Unwrap(u) {
		err = u
	}
	return strings.ReplaceAll(err.Error(), "\n", "; ")
}

// diagnose tells which hosts and units are down and quotes their logs, or
// those of the masters when everything seems to run.
func (p *Provider) diagnose(ctx context.Context, c cluster) string {
	if len(c.hosts) == 0 {
		return "look at the logs in " + config.LogDir + " on the masters"
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var down, up []string
	for _, ref := range c.hosts {
		h, err := p.o.Open(ctx, ref)
		if err != nil {
			down = append(down, err.Error())
			continue
		}
		r, err := loadRecord(ctx, h)
		if err != nil {
			down = append(down, err.Error())
			continue
		}
		for _, u := range r.Order {
			st, err := h.UnitStatus(ctx, u, logTail)
			if err != nil {
				down = append(down, err.Error())
				continue
			}
			text := fmt.Sprintf("host %s: %s is %s", ref.Name, u, st.State)
			if st.LastExit != "" {
				text += ", " + st.LastExit
			}
			if st.Restarts > 0 {
				text += fmt.Sprintf(", restarted %d times", st.Restarts)
			}
			text += indent(st.Log)
			if !st.Active || st.Restarts > 0 {
				down = append(down, text)
			} else if u == config.UnitMaster {
				up = append(up, text)
			}
		}
	}
	if len(down) > 0 {
		return strings.Join(down, "\n")
	}
	return strings.Join(slices.Concat([]string{"every unit runs; the masters say:"}, up), "\n")
}

func indent(log string) string {
	log = strings.TrimSpace(log)
	if log == "" {
		return ""
	}
	return ":\n    " + strings.ReplaceAll(log, "\n", "\n    ")
}
