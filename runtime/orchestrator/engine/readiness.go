package engine

import (
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"dcos.example/dcos/runtime/api/marathon"
	"dcos.example/dcos/runtime/orchestrator/spec"
	"dcos.example/dcos/runtime/task"
)

// maxReadinessBody is how much of a readiness answer is kept and shown.
const maxReadinessBody = 8 << 10

// probe starts the readiness probes that are due: an instance of the current
// configuration is asked, from this leader, until it is ready once.
func (e *Engine) probe(a *app) {
	if a.active == nil || len(a.active.ReadinessChecks) == 0 || e.ctx == nil {
		return
	}
	check := a.active.ReadinessChecks[0]
	for _, i := range a.instances {
		if i.st.Ready || i.probing || i.stopping() || i.state() != task.Running ||
			i.rec.Config != a.active.VersionInfo.LastConfigChangeAt {
			continue
		}
		url, ok := readinessURL(i, a.active, check)
		if !ok {
			continue
		}
		i.probing = true
		e.probes.Go(func() { e.probeUntilReady(e.ctx, i, check, url) })
	}
}

// readinessURL is where i answers a check.
func readinessURL(i *instance, a *marathon.App, c marathon.ReadinessCheck) (string, bool) {
	n := slices.Index(spec.PortNames(a), c.PortName)
	if n < 0 || n >= len(i.rec.Ports) || i.rec.Ports[n] == 0 {
		return "", false
	}
	host := i.rec.Place.Host
	if i.rec.HostPorts[n] == 0 {
		if len(i.st.Addresses) == 0 {
			return "", false
		}
		host = i.st.Addresses[0].IPAddress
	}
	return strings.ToLower(c.Protocol) + "://" + net.JoinHostPort(host, strconv.FormatInt(i.rec.Ports[n], 10)) + c.Path, true
}

// probeUntilReady is a session with one instance.
func (e *Engine) probeUntilReady(ctx context.Context, i *instance, c marathon.ReadinessCheck, url string) {
	tick := time.NewTicker(time.Duration(c.IntervalSeconds) * time.Second)
	defer tick.Stop()
	for {
		result := e.ask(ctx, c, url)
		result.Name, result.TaskID = c.Name, i.rec.Task
		e.mu.Lock()
		over := !e.alive(i) || i.state() != task.Running
		if !over {
			i.probed = &result
			if result.Ready {
				i.st.Ready = true
				e.count(i)
				e.put(kindInstanceStatus, i.rec.ID, i.st)
				e.markDirty(i.rec.App)
				e.nudge()
				over = true
			}
		}
		if over {
			i.probing = false
		}
		e.mu.Unlock()
		if over {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (e *Engine) ask(ctx context.Context, c marathon.ReadinessCheck, url string) marathon.ReadinessResult {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(c.TimeoutSeconds)*time.Second)
	defer cancel()
	var r marathon.ReadinessResult
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return r
	}
	resp, err := e.cfg.Probe.Do(req)
	if err != nil {
		return r
	}
	defer resp.Body.Close()
	r.Ready = slices.Contains(c.HTTPStatusCodesForReady, int64(resp.StatusCode))
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxReadinessBody))
	if c.PreserveLastResponse {
		r.LastResponse = &marathon.ReadinessResponse{
			Status: resp.StatusCode, ContentType: resp.Header.Get("Content-Type"), Body: string(body),
		}
	}
	return r
}
