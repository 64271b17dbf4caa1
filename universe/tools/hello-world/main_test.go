package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestNotes: notes and the number of starts outlive the server.
func TestNotes(t *testing.T) {
	dir := t.TempDir()
	ask := func(method, path, body string) (int, string) {
		t.Helper()
		s, err := open(dir) // each request meets a server that has just started
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		s.routes().ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
		b, err := io.ReadAll(w.Body)
		if err != nil {
			t.Fatal(err)
		}
		return w.Code, string(b)
	}
	for _, c := range []struct {
		method, path, body string
		code               int
		want               string
	}{
		{"PUT", "/notes/a", "first\n", http.StatusNoContent, ""},
		{"GET", "/notes/a", "", http.StatusOK, "first\n"},
		{"PUT", "/notes/a", "second\n", http.StatusNoContent, ""},
		{"GET", "/notes/a", "", http.StatusOK, "second\n"},
		{"GET", "/notes", "", http.StatusOK, "a\n"},
		{"GET", "/notes/b", "", http.StatusNotFound, "there is no note \"b\"\n"},
		{"PUT", "/notes/..%2fstarts", "x", http.StatusBadRequest, "\"../starts\" is no name of a note: no slashes, and no dot in front\n"},
		{"PUT", "/notes/.new", "x", http.StatusBadRequest, "\".new\" is no name of a note: no slashes, and no dot in front\n"},
		{"PUT", "/notes/c", strings.Repeat("x", maxNote+1), http.StatusRequestEntityTooLarge, "http: request body too large\n"},
		{"DELETE", "/notes/a", "", http.StatusNoContent, ""},
		{"GET", "/notes", "", http.StatusOK, ""},
		{"GET", "/starts", "", http.StatusOK, "12\n"},
	} {
		if code, got := ask(c.method, c.path, c.body); code != c.code || got != c.want {
			t.Errorf("%s %s: %d %q, want %d %q", c.method, c.path, code, got, c.code, c.want)
		}
	}
}
