package config_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
)

const cluster = `"cluster":{"id":"c","name":"n","release":"1"}`

func write(t *testing.T, text string) string {
	file := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestLoadKeepsDefaults(t *testing.T) {
	m, err := config.Load(write(t, `{`+cluster+`,"host":{"name":"m1","addr":"198.18.0.11"},"agent_ping":"3s"}`), config.DefaultMaster())
	if err != nil {
		t.Fatal(err)
	}
	if m.AgentPing != config.Duration(3*time.Second) || m.AgentMissedPings != 5 || m.Host.Addr != netip.MustParseAddr("198.18.0.11") {
		t.Errorf("got %+v", m)
	}
}

func TestLoadRefuses(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"an unknown key":        {`{"agent_pong":"1s"}`, "agent_pong"},
		"a newer format":        {`{"format":99,"agent_pong":"1s"}`, "newer release"},
		"text after the end":    {`{}{}`, "text after"},
		"the list of masters":   {`{"cluster":{"id":"c","name":"n","masters":[]}}`, "masters"},
		"everything at once":    {`{}`, "cluster.name"},
		"a short election time": {`{` + cluster + `,"host":{"name":"m1","addr":"198.18.0.11"},"election_timeout":"100ms"}`, "election_timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := config.Load(write(t, test.text), config.DefaultMaster())
			if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want invalid with %q", err, test.want)
			}
		})
	}
}

func TestLoadRelease(t *testing.T) {
	file := filepath.Join(t.TempDir(), "manifest.json")
	if err := os.WriteFile(file, []byte(`{"version":"0.1.0","components":{"runc":"1.5.2"},"files":[{"path":"bin/dcosd"}]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := config.LoadRelease(file)
	if err != nil || r.Version != "0.1.0" || r.Components["runc"] != "1.5.2" {
		t.Errorf("%+v %v", r, err)
	}
	if _, err := config.LoadRelease(file + ".none"); !fault.Is(err, fault.NotFound) {
		t.Errorf("without a manifest: %v", err)
	}
}

func TestBackup(t *testing.T) {
	base := config.DefaultMaster()
	base.Cluster = config.Cluster{ID: "x", Name: "c"}
	base.Host = config.Host{Name: "m1", Addr: netip.MustParseAddr("198.18.0.11")}
	if err := base.Validate(); err != nil {
		t.Fatal(err)
	}
	for want, edit := range map[string]func(*config.Backup){
		"backup.every":       func(b *config.Backup) { b.Every = config.Duration(time.Second) },
		"backup.recipients":  func(b *config.Backup) { b.Every = config.Duration(time.Hour) },
		"backup.keep":        func(b *config.Backup) { b.Keep = 0 },
		"backup.dir":         func(b *config.Backup) { b.Dir = "backups" },
		"backup.s3.endpoint": func(b *config.Backup) { b.S3 = &config.S3{Endpoint: "store:9000", Bucket: "b"} },
		"backup.s3.bucket":   func(b *config.Backup) { b.S3 = &config.S3{Endpoint: "https://store:9000"} },
	} {
		m := base
		edit(&m.Backup)
		if err := m.Validate(); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
}
