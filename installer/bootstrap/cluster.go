package bootstrap

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"

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
	defer watch.client.CloseIdleConnections()
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
	client *http.Client
	token  string
}

func (p *Provider) newWatch(c cluster) (*watch, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(c.ca)) {
		return nil, fault.Newf("read the cluster's CA", fault.Invalid, "caCert holds no certificate")
	}
	return &watch{c: c, client: &http.Client{
		Transport: &http.Transport{DialContext: p.dialCluster(c.hosts), TLSClientConfig: &tls.Config{RootCAs: pool}, ResponseHeaderTimeout: 5 * time.Second},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // an answer that leads elsewhere is not the one asked for
		},
	}}, nil
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

// answer is the part of a response that look needs.
type answer struct {
	status int
	body   []byte
}

func (w *watch) ask(ctx context.Context, method, master, path string, body []byte) (answer, error) {
	url := "https://" + net.JoinHostPort(master, strconv.Itoa(config.PortGateway)) + path
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	if w.token != "" {
		req.Header.Set("Authorization", "token="+w.token)
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	return answer{resp.StatusCode, b}, err
}

// look returns what the cluster lacks, "" when it is healthy. An error says
// that waiting does not help.
func (w *watch) look(ctx context.Context) (lacks string, err error) {
	for _, m := range w.c.masters {
		// Any answer will do: what it says is looked at below. This path costs
		// the master next to nothing.
		if _, err := w.ask(ctx, http.MethodGet, m, "/acs/api/v1/auth/jwks", nil); err != nil {
			return "the gateway of master " + m + " (" + reason(err) + ")", nil
		}
	}
	if w.c.password == "" {
		return "", nil // nothing more can be asked
	}
	master := w.c.masters[0]
	if w.token == "" {
		lacks, err := w.login(ctx, master)
		if lacks != "" || err != nil {
			return lacks, err
		}
	}
	a, err := w.ask(ctx, http.MethodGet, master, "/mesos/slaves", nil)
	if err != nil || a.status != http.StatusOK {
		if a.status == http.StatusUnauthorized {
			w.token = ""
		}
		return "a leading master (" + told(a, err) + ")", nil
	}
	if lacks, err := w.members(ctx, master); lacks != "" || err != nil {
		return lacks, err
	}
	var list struct {
		Slaves []struct {
			Active      bool `json:"active"`
			Deactivated bool `json:"deactivated"` // by an operator, who may be us
		} `json:"slaves"`
	}
	if err := json.Unmarshal(a.body, &list); err != nil {
		return "a list of agents that can be read (" + err.Error() + ")", nil
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
	if a, err := w.ask(ctx, http.MethodGet, master, "/service/marathon/v2/info", nil); err != nil || a.status != http.StatusOK {
		return "the orchestrator (" + told(a, err) + ")", nil
	}
	return "", nil
}

// members returns what keeps the masters from deciding together: one that has
// come must have received the cluster's state and its vote.
func (w *watch) members(ctx context.Context, master string) (lacks string, err error) {
	a, err := w.ask(ctx, http.MethodGet, master, "/system/v1/members", nil)
	if err != nil {
		return "the list of masters (" + told(a, err) + ")", nil
	}
	switch a.status {
	case http.StatusOK:
	case http.StatusNotFound, http.StatusForbidden: // an earlier release, or not for this user
		return "", nil
	default:
		return "the list of masters (" + told(a, nil) + ")", nil
	}
	var list struct {
		Members []struct {
			Name    string `json:"name"`
			Addr    string `json:"addr"`
			Role    string `json:"role"`
			Healthy bool   `json:"healthy"`
			Reason  string `json:"reason"`
		} `json:"members"`
	}
	if err := json.Unmarshal(a.body, &list); err != nil {
		return "a list of masters that can be read (" + err.Error() + ")", nil
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
				return "master " + m.Name + ", which joins the others", nil
			case !m.Healthy:
				return "master " + m.Name + ", which " + m.Reason, nil
			}
		}
		if !found {
			return "master " + addr + ", which has not joined the others yet", nil
		}
	}
	return "", nil
}

func (w *watch) login(ctx context.Context, master string) (lacks string, err error) {
	body, err := json.Marshal(map[string]string{"uid": w.c.user, "password": w.c.password})
	if err != nil {
		return "", err
	}
	a, err := w.ask(ctx, http.MethodPost, master, "/acs/api/v1/auth/login", body)
	if err != nil || a.status != http.StatusOK && a.status != http.StatusUnauthorized {
		return "sign-in (" + told(a, err) + ")", nil
	}
	if a.status == http.StatusUnauthorized {
		return "", fault.Newf("sign in as "+w.c.user, fault.Denied, "the cluster does not take the installer's password; "+
			"if it was changed there, set admin_password in the cluster block to the new one")
	}
	var t struct {
		Token string `json:"token"`
	}
	if err := json.Unmarshal(a.body, &t); err != nil || t.Token == "" {
		return "sign-in (no token in the answer)", nil
	}
	w.token = t.Token
	return "", nil
}

func told(a answer, err error) string {
	if err != nil {
		return reason(err)
	}
	return fmt.Sprintf("status %d", a.status)
}

// reason is the innermost cause, without the URL that the caller names anyway,
// and without port numbers of this side, which differ every time.
func reason(err error) string {
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return "no answer"
	}
	for u := errors.Unwrap(err); u != nil; u = errors.Unwrap(u) {
		err = u
	}
	return err.Error()
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
