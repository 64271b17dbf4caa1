package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// section returns the rows of one table of the page, as text without markup.
func section(t *testing.T, body, id string) []string {
	t.Helper()
	_, rest, ok := strings.Cut(body, `<h2 id="`+id+`">`)
	if !ok {
		t.Fatalf("the page has no section %s", id)
	}
	rest, _, _ = strings.Cut(rest, "<h2")
	_, rest, _ = strings.Cut(rest, "<tbody>")
	var rows []string
	for row := range strings.SplitSeq(rest, "</tr>") {
		row = strings.Join(strings.Fields(tag.ReplaceAllString(row, " ")), " ")
		if row != "" {
			rows = append(rows, row)
		}
	}
	return rows
}

var tag = regexp.MustCompile(`<[^>]*>`)

// The page says first what is worst, and why.
func TestOverviewWorstFirst(t *testing.T) {
	f := newFront(t)
	ago := func(d time.Duration) string { return time.Now().Add(-d).UTC().Format(time.RFC3339Nano) }
	failure := func(d time.Duration) string {
		return fmt.Sprintf(`"lastTaskFailure":{"host":"a1","message":"exit 3","state":"TASK_FAILED","timestamp":%q}`, ago(d))
	}
	f.net["198.19.50.1:8080"] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := `{"apps":[
			{"id":"/a-fine","instances":2,"tasksRunning":2,"tasksHealthy":2,"healthChecks":[{}],"cpus":0.5,"mem":2048},
			{"id":"/b-deploying","instances":2,"tasksRunning":1,"deployments":[{}]},
			{"id":"/c-big","instances":1,"tasksRunning":0,"deployments":[{}]},
			{"id":"/d-sick","instances":2,"tasksRunning":2,"tasksUnhealthy":1,"healthChecks":[{}]},
			{"id":"/e-failing","instances":1,"tasksRunning":0,` + failure(5*time.Second) + `},
			{"id":"/f-back","instances":1,"tasksRunning":1,` + failure(5*time.Second) + `},
			{"id":"/g-long-back","instances":1,"tasksRunning":1,` + failure(5*time.Minute) + `},
			{"id":"/h-off","instances":0}]}`
		if r.URL.Path == "/v2/queue" {
			answer = `{"queue":[
				{"app":{"id":"/c-big"},"count":1,"processedOffersSummary":{"rejectSummaryLastOffers":[{"reason":"UnfulfilledRole","declined":1},{"reason":"InsufficientCpus","declined":2}]}},
				{"app":{"id":"/e-failing"},"count":1,"delay":{"timeLeftSeconds":12}}]}`
		}
		_, _ = io.WriteString(w, answer)
	})
	f.net["198.19.50.1:5050"] = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"slaves":[{"id":"agent-1","resources":{"cpus":4,"mem":4096,"disk":1024},"used_resources":{"cpus":0.30000000000000004,"mem":512}}]}`)
	})
	body := text(t, f.ask(t, "GET", "/", nil, f.auth()...))
	if !strings.Contains(body, "2 apps are in trouble, 3 apps are not where they should be yet.") {
		t.Error("no verdict")
	}
	rows := section(t, body, "apps")
	for i, want := range []string{
		"/d-sick 1 of 2 instances fail their health checks unhealthy 2 of 2",
		"/e-failing failed 5s ago on a1: exit 3; next try in 12 s failing 0 of 1",
		"/b-deploying deploying 1 of 2",
		"/c-big no agent fits: too few CPUs free on 2, reserved for another role on 1 waiting 0 of 1",
		"/f-back failed 5s ago on a1: exit 3 recovering 1 of 1",
		"/a-fine healthy 2 of 2 2 of 2 0.5 2 GiB",
		"/g-long-back failed 5m0s ago on a1: exit 3 running 1 of 1 no check",
		"/h-off suspended 0 of 0",
	} {
		if i >= len(rows) || !strings.HasPrefix(rows[i], want) {
			t.Errorf("row %d of %q should be %q", i, rows, want)
		}
	}
	if rows := section(t, body, "agents"); !strings.Contains(rows[0], "0.3 of 4") || !strings.Contains(rows[0], "512 MiB of 4 GiB") {
		t.Errorf("agents: %q", rows)
	}
	if !strings.Contains(body, `href="/agent/agent-1/files/download?path=%2Fframeworks%2Ffw%2Fexecutors%2Fweb.1%2Fruns%2Flatest%2Fstdout"`) {
		t.Error("no link to a task's output")
	}
}

// Nothing of the pages comes from elsewhere or runs, but for the one script
// on the answer to who is not logged in.
func TestPagesLoadNothing(t *testing.T) {
	f := newFront(t)
	outside := regexp.MustCompile(`(?i)\s(src|srcset|action|style|on[a-z]+)\s*=\s*"(?:[^/"]|//)`)
	for path, header := range map[string][]string{
		"/":      f.auth(),
		"/login": nil,
		"/nope":  append(f.auth(), "Accept", "text/html"),
	} {
		resp := f.ask(t, "GET", path, nil, header...)
		body := text(t, resp)
		csp := resp.Header.Get("Content-Security-Policy")
		if strings.Contains(csp, "script-src") || strings.Contains(csp, "unsafe") || !strings.HasPrefix(csp, "default-src 'none'; ") {
			t.Errorf("%s: CSP %q", path, csp)
		}
		if found := outside.FindString(body); found != "" || strings.Contains(body, "<script") || !strings.Contains(body, `<html lang="en">`) {
			t.Errorf("%s: %q in %s", path, found, body)
		}
	}
	if csp := f.ask(t, "GET", "/mesos/", nil).Header.Get("Content-Security-Policy"); !strings.Contains(csp, "script-src 'sha256-") {
		t.Errorf("401: CSP %q", csp)
	}
}

// Services that the operator runs have a table of their own, when there are
// any.
func TestOverviewServices(t *testing.T) {
	f := newFront(t)
	services := ""
	f.net["198.19.50.1:8080"] = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"apps":[],"queue":[]}`)
	})
	f.net["198.19.50.1:5050"] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/services/" {
			_, _ = io.WriteString(w, `{"services":[`+services+`]}`)
			return
		}
		_, _ = io.WriteString(w, `{"slaves":[]}`)
	})
	if body := text(t, f.ask(t, "GET", "/", nil, f.auth()...)); strings.Contains(body, `id="services"`) {
		t.Error("there are no services, and the page has a table of them")
	}
	services = `{"name":"kafka","package":{"name":"kafka","version":"4.1"},"status":"RUNNING","pods":[{"count":3,"running":3,"ready":3}]},
		{"name":"prod/db","status":"ERROR","message":"no <agent> fits","pods":[{"count":3}]},
		{"name":"search","status":"RUNNING","pods":[{"count":2,"running":1,"ready":1},{"count":1,"running":1,"ready":1}]}`
	body := text(t, f.ask(t, "GET", "/", nil, f.auth()...))
	want := []string{
		"prod/db no &lt;agent&gt; fits error none 0 of 3 0 of 3 JSON", "search recovering none 2 of 3 2 of 3 JSON", "kafka running kafka 4.1 3 of 3 3 of 3 JSON",
	}
	if d := cmp.Diff(want, section(t, body, "services")); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if !strings.Contains(body, "1 service is in trouble, 1 service is not where it should be yet.") {
		t.Error("the verdict does not speak of services")
	}
}
