package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"testing"

	"dcos.example/dcos/runtime/api/cosmos"
	"dcos.example/dcos/runtime/catalog"
	"dcos.example/dcos/runtime/server"
	"dcos.example/dcos/runtime/state/memory"
)

const (
	serviceTemplate = `
name: {{service.name}}
pods:
  node:
    count: {{node.count}}
    volumes: {data: {path: data, size: {{node.disk}}}}
    tasks:
      server: {cmd: "sleep 1000", cpus: 0.1, memory: 32}
`
	serviceConfig = `{"type":"object","properties":{
		"service":{"type":"object","properties":{"name":{"type":"string","default":"store"}}},
		"node":{"type":"object","properties":{"count":{"type":"integer","default":3,"minimum":1},"disk":{"type":"integer","default":1024}}},
		"log":{"type":"object","additionalProperties":false,"properties":{"level":{"type":"string","default":"info"}}}}}`
)

// repository is a file with three packages: a service in two versions, an app,
// and one that runs nothing.
func repository(t *testing.T, file string) {
	release := func(n int64) *int64 { return &n }
	store := func(version string, n int64, from ...string) cosmos.Package {
		return cosmos.Package{
			PackagingVersion: "5.0", Name: "store", Version: version, ReleaseVersion: release(n), Maintainer: "m@example.com",
			Description: "Keeps things.\nReally.", Tags: []string{"data"}, UpgradesFrom: from,
			PreInstallNotes: "It needs 3 agents.", PostInstallNotes: "Try `dcos store endpoints`.", PostUninstallNotes: "It kept nothing.",
			Config: json.RawMessage(serviceConfig), Service: &cosmos.Service{Template: []byte(serviceTemplate)},
			Profiles: map[string]json.RawMessage{"small": json.RawMessage(`{"node":{"disk":16}}`)},
		}
	}
	selected := true
	all := map[string]any{"packages": []cosmos.Package{
		store("1.0", 0), store("1.1", 1, "1.0"),
		{
			PackagingVersion: "5.0", Name: "site", Version: "7", ReleaseVersion: release(0), Maintainer: "m@example.com", Description: "Shows a page", Tags: []string{"web"}, Selected: &selected,
			Marathon: &cosmos.Marathon{V2AppMustacheTemplate: []byte(`{"id":"/site","cmd":"sleep 1000","instances":1}`)},
		},
		{PackagingVersion: "5.0", Name: "words", Version: "1", ReleaseVersion: release(0), Maintainer: "m@example.com", Description: "Runs nothing", Tags: []string{"cli"}},
	}}
	b, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// newCatalog is the real one, over what the world has behind its gateway.
func (w *world) newCatalog(t *testing.T, dir string, hosts map[string]http.Handler) http.Handler {
	repository(t, dir+"/repo.json")
	endpoint := func(addr string) catalog.Endpoint {
		l := server.NewMemory()
		srv := &http.Server{Handler: hosts[addr]}
		done := make(chan struct{})
		go func() { defer close(done); _ = srv.Serve(l) }()
		w.stops = append(w.stops, func() { _ = srv.Close(); <-done })
		return catalog.Endpoint{URL: "http://" + addr, Client: l.Client()}
	}
	c, err := catalog.New(catalog.Options{
		Store: memory.New(), Dir: dir + "/catalog", Release: "0.1.0",
		Orchestrator: endpoint("198.19.50.1:8080"), Master: endpoint("198.19.50.1:5050"), Services: endpoint("198.19.50.1:5050"),
		HasImage: func(context.Context, string) (bool, error) { return true, nil },
		Log:      slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = c.Run(ctx) }()
	w.stops = append(w.stops, func() { cancel(); <-done })
	return c.Handler()
}
