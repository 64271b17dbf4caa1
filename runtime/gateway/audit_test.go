package gateway_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
)

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

// Who changes something is in the log, with what came of it.
func TestAudit(t *testing.T) {
	f := newFront(t)
	var log syncBuffer
	f.SetLog(slog.New(slog.NewTextHandler(&log, nil)))
	f.net["198.19.50.1:8080"] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodDelete {
			w.WriteHeader(http.StatusNotFound)
		}
	})
	for _, ask := range []struct{ method, path string }{{"GET", "/marathon/v2/apps"}, {"POST", "/marathon/v2/apps"}, {"DELETE", "/marathon/v2/apps/x"}} {
		text(t, f.ask(t, ask.method, ask.path, nil, f.auth()...))
	}
	text(t, f.ask(t, "POST", "/acs/api/v1/auth/login", strings.NewReader(`{"uid":"admin","password":"nope"}`), "Content-Type", "application/json"))
	text(t, f.ask(t, "PUT", "/marathon/v2/apps/x", nil, "Cookie", "dcos-acs-auth-cookie="+f.token, "Sec-Fetch-Site", "cross-site"))
	log.mu.Lock()
	defer log.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(log.b.String()), "\n")
	for i, want := range []string{
		"user=admin method=POST path=/marathon/v2/apps remote=",
		"user=admin method=DELETE path=/marathon/v2/apps/x remote=",
		`user="" method=POST path=/acs/api/v1/auth/login remote=`,
		"user=admin method=PUT path=/marathon/v2/apps/x remote=",
	} {
		status := []string{"status=200", "status=404", "status=401", "status=403"}[i]
		if i >= len(lines) || !strings.Contains(lines[i], "msg=audit") || !strings.Contains(lines[i], want) || !strings.HasSuffix(lines[i], status) {
			t.Errorf("line %d should have %q and %q: %q", i, want, status, lines)
		}
	}
	if len(lines) != 4 {
		t.Errorf("%d lines: %q", len(lines), lines)
	}
}
