package server_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/server"
)

var quiet = slog.New(slog.DiscardHandler)

// At the end a short request finishes, a stream is told, and Run returns.
func TestStopDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mux := http.NewServeMux()
		mux.HandleFunc("/short", func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(500 * time.Millisecond)
			_, _ = io.WriteString(w, "done")
		})
		mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "event\n")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			_, _ = io.WriteString(w, "bye\n")
		})
		mem := server.NewMemory()
		client := mem.Client()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- server.Run(ctx, quiet, server.Endpoint{Name: "test", Listener: mem, Handler: mux})
		}()
		stream, err := client.Get("http://x/stream")
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(stream.Body)
		if s, err := lines.ReadString('\n'); s != "event\n" {
			t.Fatalf("stream = %q, %v", s, err)
		}
		short := make(chan string, 1)
		go func() {
			resp, err := client.Get("http://x/short")
			if err != nil {
				short <- err.Error()
				return
			}
			b, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			short <- string(b)
		}()
		synctest.Wait()
		cancel()
		if got := <-short; got != "done" {
			t.Errorf("short request at shutdown = %q", got)
		}
		if s, err := lines.ReadString('\n'); s != "bye\n" {
			t.Errorf("stream at shutdown = %q, %v", s, err)
		}
		_ = stream.Body.Close()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
		if _, err := client.Get("http://x/short"); err == nil {
			t.Error("connected after the end")
		}
		client.CloseIdleConnections()
	})
}

// A handler that never returns is cut.
func TestStopCuts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		mem := server.NewMemory()
		client := mem.Client()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- server.Run(ctx, quiet, server.Endpoint{Name: "test", Listener: mem, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release })})
		}()
		failed := make(chan error, 1)
		go func() {
			_, err := client.Get("http://x/")
			failed <- err
		}()
		synctest.Wait()
		start := time.Now()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
		if d := time.Since(start); d > 10*time.Second {
			t.Errorf("stopping took %v", d)
		}
		if err := <-failed; err == nil {
			t.Error("request of a stuck handler succeeded")
		}
		close(release)
		client.CloseIdleConnections()
	})
}

// A handler that gives up because the server stops has not done what it was
// asked, and 200 would say so.
func TestStoppedIsNot200(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := server.NewMemory()
		client := mem.Client()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- server.Run(ctx, quiet, server.Endpoint{Name: "test", Listener: mem, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })})
		}()
		status := make(chan int, 1)
		go func() {
			resp, err := client.Post("http://x/", "", nil)
			if err != nil {
				t.Error(err)
				status <- 0
				return
			}
			_ = resp.Body.Close()
			status <- resp.StatusCode
		}()
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
		if got := <-status; got != http.StatusServiceUnavailable {
			t.Errorf("a request that was given up got %d", got)
		}
		client.CloseIdleConnections()
	})
}

func TestPanicIs500(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	srv := httptest.NewServer(server.Logged(log, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("lost invariant") })))
	defer srv.Close()
	resp, err := http.Get(srv.URL + "/x")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if resp.StatusCode != 500 || strings.Contains(string(body), "invariant") {
		t.Errorf("%s %q; want a bare 500", resp.Status, body)
	}
	for _, want := range []string{"lost invariant", "status=500", "path=/x"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("log lacks %q: %s", want, out.String())
		}
	}
}

func TestRunReportsFailure(t *testing.T) {
	mem := server.NewMemory()
	_ = mem.Close()
	err := server.Run(t.Context(), quiet, server.Endpoint{Name: "test", Listener: mem, Handler: http.NotFoundHandler()})
	if !fault.Is(err, fault.Unavailable) {
		t.Errorf("Run with a closed listener = %v; want Unavailable", err)
	}
}
