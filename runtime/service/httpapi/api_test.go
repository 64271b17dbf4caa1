package httpapi_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	api "dcos.example/dcos/runtime/api/service"
	"dcos.example/dcos/runtime/server"
	"dcos.example/dcos/runtime/service"
	"dcos.example/dcos/runtime/service/httpapi"
)

func idle(t *testing.T) *service.Service {
	t.Helper()
	s, err := service.New(service.Options{
		Master: "http://master", Client: server.NewMemory().Client(), SealKey: make([]byte, 32), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A master that does not lead asks the one that does, with the path as it was
// written: a name may hold slashes.
func TestFollower(t *testing.T) {
	leader := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		w.WriteHeader(http.StatusAlreadyReported)
		fmt.Fprintf(w, "%s %s via %s %s", r.Method, r.URL.RequestURI(), r.Header.Get("X-Dcos-Services-Via"), b)
	}))
	defer leader.Close()
	base := leader.URL
	h := httpapi.New(httpapi.Config{
		Service: idle(t), Self: "198.19.70.1:5050", Transport: http.DefaultTransport, Log: slog.New(slog.DiscardHandler),
		Leader: func() (string, bool) { return base, true },
	})
	ask := func(header string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), "POST", "/services/prod%2Fkafka/v1/plans/deploy/interrupt?phase=a", strings.NewReader("x"))
		if header != "" {
			r.Header.Set("X-Dcos-Services-Via", header)
		}
		h.ServeHTTP(w, r)
		return w
	}
	const want = "POST /services/prod%2Fkafka/v1/plans/deploy/interrupt?phase=a via 198.19.70.1:5050 x"
	if w := ask(""); w.Code != http.StatusAlreadyReported || w.Body.String() != want {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	for _, tc := range []struct {
		via, base string
		want      int
	}{
		{"198.19.70.1:5050", leader.URL, http.StatusBadGateway}, // it went through here before
		{"", "http://127.0.0.1:1", http.StatusBadGateway},       // nobody listens
	} {
		base = tc.base
		w := ask(tc.via)
		var body api.ErrorBody
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || w.Code != tc.want || body.Message == "" {
			t.Errorf("%+v: %d %s", tc, w.Code, w.Body)
		}
	}
}
