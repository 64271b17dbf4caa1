package ssh_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dcos.example/dcos/installer/bundle"
	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/installer/host/ssh"
)

// shell runs a script as a machine would.
func shell(t *testing.T, script string, data []byte) (string, error) {
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.Stdin = bytes.NewReader(data)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if errs.Len() > 0 {
		t.Logf("stderr: %s", errs.String())
	}
	return string(out), err
}

func TestChangesAreWholeOrNotThere(t *testing.T) {
	dir := t.TempDir()
	keep := filepath.Join(dir, "keep")
	if err := os.WriteFile(keep, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	script, data := ssh.ChangeScript([]host.Change{
		host.Put(keep, host.File{Data: []byte("newer"), Mode: 0o600}),
		host.Put(filepath.Join(dir, "sub", "it's"), host.File{Data: []byte("two"), Mode: 0o644}),
	}, "")
	for n := range data { // cut off anywhere, nothing is put into place
		if _, err := shell(t, script, data[:n]); err == nil {
			t.Fatalf("%d of %d bytes are taken", n, len(data))
		}
		if b, err := os.ReadFile(keep); err != nil || string(b) != "old" {
			t.Fatalf("after %d bytes: %q, %v", n, b, err)
		}
	}
	if _, err := shell(t, script, data); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(keep); err != nil || st.Mode().Perm() != 0o600 || st.Size() != 5 {
		t.Error(st, err)
	}
	left, err := filepath.Glob(dir + "/.*")
	if err != nil || len(left) > 0 {
		t.Error("left behind:", left, err)
	}
}

func TestChangeTellsSELinuxAndInit(t *testing.T) {
	script, _ := ssh.ChangeScript([]host.Change{
		host.Put("/etc/systemd/system/a.service", host.File{Data: []byte("x"), Mode: 0o644}), host.Put("/etc/l", host.File{Link: "m"}), host.Gone("/etc/n"),
	}, "restorecon -RF")
	for _, want := range []string{"restorecon -RF -- '/etc/systemd/system/a.service'\n", "systemctl daemon-reload\n"} {
		if !strings.Contains(script, want) {
			t.Errorf("no %q in\n%s", want, script)
		}
	}
	if script, _ := ssh.ChangeScript([]host.Change{host.Gone("/etc/n")}, "restorecon -RF"); strings.Contains(script, "restorecon") || strings.Contains(script, "systemctl") {
		t.Error(script)
	}
}

func TestLook(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for name, text := range map[string]string{"plain": "a\nb", "with blank": "\x00\xff", "empty": ""} {
		if err := os.WriteFile(at(name), []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("to here", at("link")); err != nil {
		t.Fatal(err)
	}
	q := host.Query{Files: []string{at("plain"), at("link"), at("none"), dir}, Content: []string{at("with blank"), at("empty"), at("none too")}, Dirs: []string{dir, at("no dir")}}
	out, err := shell(t, ssh.LookScript(q), nil)
	if err != nil {
		t.Fatal(err)
	}
	v, err := ssh.ParseLook(out, q, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []string{at("plain"), at("with blank"), at("empty")} {
		if v.Files[e].Mode != 0o640 || len(v.Files[e].SHA256) != 64 {
			t.Errorf("%s: %+v", e, v.Files[e])
		}
	}
	if d := cmp.Diff(map[string][]string{dir: {"empty", "link", "plain", "with blank"}}, v.Dirs); d != "" {
		t.Error(d)
	}
	if len(v.Files) != 5 || v.Files[at("link")].Link != "to here" || string(v.Files[at("with blank")].Data) != "\x00\xff" || v.Files[at("plain")].Data != nil {
		t.Errorf("%+v", v.Files)
	}
}

func TestUnitsAreRead(t *testing.T) {
	now := time.Now()
	out := "== units\n100.50 3.2\n" +
		"Id=a.service\nNames=a.service\nLoadState=loaded\nActiveState=active\nSubState=running\nNRestarts=0\nExecMainCode=0\nExecMainStatus=0\nExecMainExitTimestampMonotonic=0\nActiveEnterTimestampMonotonic=90500000\n\n" +
		"Id=b.service\nNames=b.service\nLoadState=loaded\nActiveState=activating\nSubState=auto-restart\nNRestarts=7\nExecMainCode=2\nExecMainStatus=9\nExecMainExitTimestampMonotonic=17\nActiveEnterTimestampMonotonic=0\n\n" +
		"Id=c.service\nNames=c.service\nLoadState=not-found\nActiveState=inactive\n"
	v, err := ssh.ParseLook(out, host.Query{Units: []string{"a.service", "b.service", "c.service"}}, now)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]host.Unit{
		"a.service": {Active: true, State: "active", Since: now.Add(-10 * time.Second)},
		"b.service": {State: "activating (auto-restart)", Restarts: 7, LastExit: "killed by signal 9"},
	}
	if d := cmp.Diff(want, v.Units); d != "" {
		t.Error(d)
	}
	if _, err := ssh.ParseLook("== units\nnonsense", host.Query{}, now); err == nil {
		t.Error("nonsense is read")
	}
}

func TestOnlyWhatIsMissingIsSent(t *testing.T) {
	sum := func(c string) string { return strings.Repeat(c, 64) }
	rel := bundle.Manifest{Version: "2", Files: []bundle.File{
		{Path: "bin/a", Mode: 0o755, Size: 10, SHA256: sum("a")}, {Path: "bin/b", Mode: 0o755, Size: 20, SHA256: sum("b")},
		{Path: "bin/c", Mode: 0o755, Size: 30, SHA256: sum("c")}, {Path: "bin/evil", Mode: 0o755, Size: 1, SHA256: sum("e")}}}
	out := "== /opt/dcos/releases/1-x/manifest.json\n" + `{"version":"1","files":[{"path":"bin/old","sha256":"` + sum("b") + `"},{"path":"../../evil","sha256":"` + sum("e") + `"}]}` + "\n" +
		"== /opt/dcos/releases/bad/manifest.json\n{\n== part\nbin/c: OK\nbin/a: FAILED\n"
	s := ssh.PlanStage(rel.Share(true), host.ReleasePath("2"), out)
	if d := cmp.Diff(map[int]string{1: "/opt/dcos/releases/1-x/bin/old"}, s.Linked()); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]int{0, 3}, s.Sent()); d != "" {
		t.Error(d)
	}
}
