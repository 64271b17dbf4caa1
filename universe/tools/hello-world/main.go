// Command hello-world is the server of the package hello-world: it says who
// answers and how often it was started, and keeps notes in its volume.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// maxNote bounds a note, in bytes.
const maxNote = 1 << 20

func main() {
	log.SetOutput(os.Stdout) // where `dcos task log` looks first
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

func run() error {
	s, err := open(env("DATA", "/data"))
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	s.hello = fmt.Sprintf("%s from %s of %s on %s, started %d times\n",
		env("GREETING", "Hello"), env("TASK_NAME", "nobody"), env("FRAMEWORK_NAME", "no service"), env("HOST", host), s.starts)
	srv := &http.Server{Addr: ":" + env("PORT", "8080"), Handler: s.routes(), ReadHeaderTimeout: 10 * time.Second}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	done := make(chan error, 1)
	go func() {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		done <- srv.Shutdown(grace)
	}()
	log.Printf("listening on %s, started %d times", srv.Addr, s.starts)
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-done
}

// server keeps its notes as files of a folder.
type server struct {
	notes  string
	starts int
	hello  string
}

// open reads the volume and counts this start in it.
func open(dir string) (*server, error) {
	s := &server{notes: filepath.Join(dir, "notes")}
	if err := os.MkdirAll(s.notes, 0o755); err != nil {
		return nil, err
	}
	count := filepath.Join(dir, "starts")
	b, err := os.ReadFile(count)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err == nil {
		if s.starts, err = strconv.Atoi(strings.TrimSpace(string(b))); err != nil {
			return nil, fmt.Errorf("%s: %w", count, err)
		}
	}
	s.starts++
	return s, write(count, []byte(strconv.Itoa(s.starts)+"\n"))
}

// write puts a file in the place of another so that either is whole, also
// after a power cut.
func write(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err := errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func (s *server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		log.Printf("%s %s %s", r.RemoteAddr, r.Method, r.URL)
		fmt.Fprint(w, s.hello)
	})
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /starts", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, s.starts) })
	mux.HandleFunc("GET /notes", s.list)
	mux.HandleFunc("GET /notes/{name}", s.note(func(w http.ResponseWriter, r *http.Request, path string) error {
		b, err := os.ReadFile(path)
		if err == nil {
			_, _ = w.Write(b) // who went away needs no answer
		}
		return err
	}))
	mux.HandleFunc("PUT /notes/{name}", s.note(func(w http.ResponseWriter, r *http.Request, path string) error {
		b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxNote))
		if err != nil {
			return err
		}
		if err := write(path, b); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}))
	mux.HandleFunc("DELETE /notes/{name}", s.note(func(w http.ResponseWriter, r *http.Request, path string) error {
		if err := os.Remove(path); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}))
	return mux
}

func (s *server) list(w http.ResponseWriter, _ *http.Request) {
	entries, err := os.ReadDir(s.notes)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			fmt.Fprintln(w, e.Name())
		}
	}
}

// note handles a request about one note, at path.
func (s *server) note(do func(w http.ResponseWriter, r *http.Request, path string) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("name")
		if strings.HasPrefix(name, ".") || strings.ContainsRune(name, '/') {
			http.Error(w, fmt.Sprintf("%q is no name of a note: no slashes, and no dot in front", name), http.StatusBadRequest)
			return
		}
		err := do(w, r, filepath.Join(s.notes, name))
		var large *http.MaxBytesError
		switch {
		case errors.Is(err, os.ErrNotExist):
			http.Error(w, fmt.Sprintf("there is no note %q", name), http.StatusNotFound)
		case errors.As(err, &large):
			http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		case err != nil:
			log.Printf("%s %s: %v", r.Method, r.URL, err)
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}
}
