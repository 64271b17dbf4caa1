//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dcos.example/dcos/ci/lab"
	"dcos.example/dcos/universe/images"
)

// ownImage is an image of a registry that nobody can reach.
const ownImage = "registry.example/site/hello:7"

// siteBundle adds an image to the release and signs it with a key of the
// site's own, which is trusted from then on.
func (s *site) siteBundle(t *testing.T) {
	t.Helper()
	program, archive := filepath.Join(s.dir, "hello"), filepath.Join(s.dir, "site-hello.tar")
	build := exec.Command("go", "build", "-o", program, "dcos.example/dcos/demo/hello")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build hello: %v\n%s", err, out)
	}
	must(t, images.WriteArchive(images.Spec{Name: ownImage, Program: program, Path: "/hello", User: "65534:65534", Port: "8080/tcp"}, archive))
	s.install(t, "bundle", "keygen", "site.key")
	own := filepath.Join(s.dir, "site.bundle")
	s.install(t, "bundle", "add", "-key", "site.key", "-out", own, archive)
	if _, err := s.try("dcos-install", "bundle", "verify", own); err == nil || !strings.Contains(err.Error(), "not trusted here") {
		t.Errorf("a bundle of a new key: %v", err)
	}
	s.env = append(s.env, "DCOS_TRUST_KEY="+filepath.Join(s.dir, "site.pub"), "DCOS_BUNDLE="+own)
	s.install(t, "bundle", "verify")
}

// bootstrap serves what genconf wrote until the test ends, and returns the
// server's address and the tokens by role.
func (s *site) bootstrap(t *testing.T) (at string, tokens map[string]string) {
	t.Helper()
	at = s.lab.Record.Machine().String() + ":8080"
	cmd := s.command(interrupted, "dcos-install", "genconf", "serve", "-listen", at)
	var log syncBuffer
	cmd.Stdout, cmd.Stderr = &log, &log
	must(t, cmd.Start())
	t.Cleanup(func() {
		must(t, cmd.Process.Signal(os.Interrupt))
		if err := cmd.Wait(); err != nil {
			t.Errorf("genconf serve: %v\n%s", err, log.String())
		}
	})
	tokens = map[string]string{}
	eventually(t, "the bootstrap server", func() error {
		b, err := os.ReadFile(filepath.Join(s.dir, "genconf", "tokens"))
		if err != nil {
			return fmt.Errorf("%w\n%s", err, log.String())
		}
		for l := range strings.Lines(string(b)) {
			if role, token, ok := strings.Cut(strings.TrimSpace(l), " "); ok {
				tokens[role] = token
			}
		}
		if len(tokens) != 3 {
			return fmt.Errorf("tokens %q", b)
		}
		return nil
	})
	return at, tokens
}

// fetched is a command that a host runs by itself: it fetches the script, as
// curl would, and runs it. Measurements of the disk do not count here: it is
// shared with everything that runs on this machine.
func fetched(at, token, args string) string {
	return fmt.Sprintf(`exec 3<>/dev/tcp/%[1]s
printf 'GET /dcos_install.sh HTTP/1.0\r\nHost: %[2]s\r\n\r\n' >&3
while IFS= read -r l <&3 && [ "$l" != $'\r' ]; do :; done
cat <&3 >/root/dcos_install.sh
DCOS_TOKEN=%[3]s bash -s -- --ignore fsync-slow %[4]s </root/dcos_install.sh 2>&1; code=$?
rm /root/dcos_install.sh; exit $code`, strings.Replace(at, ":", "/", 1), at, token, args)
}

// bash runs a script in bash as root on a host.
func (s *site) bash(host, script string) (string, error) {
	return s.on(host, "exec bash -c '"+strings.ReplaceAll(script, "'", `'\''`)+"'")
}

// TestSelfInstall: machines that nobody logs in to become a cluster by a script
// alone, with a bundle that the site made; the installer takes them over and
// touches nothing; and nobody ever asked for anything outside.
func TestSelfInstall(t *testing.T) {
	s := newSite(t, "dcose2eself", "198.19.138.0/24", 4, lab.Roles{Masters: 1, Public: 1, Spare: 1})
	before := s.each(t, everything)
	s.siteBundle(t)
	s.install(t, "genconf")
	at, tokens := s.bootstrap(t)

	roles := map[string]string{"h1": "master", "h2": "slave", "h3": "slave_public", "h4": "slave"} // h4 is not in the file
	if out, err := s.bash("h2", fetched(at, tokens["slave"], "-p slave")); err != nil || !strings.Contains(out, "Preflight:") {
		t.Errorf("preflight only: %v\n%s", err, out)
	}
	if diff := cmp.Diff(before["h2"], s.each(t, everything)["h2"]); diff != "" {
		t.Errorf("preflight only leaves (-before +after):\n%s", diff)
	}
	for want, line := range map[string]string{
		"is to be slave, not slave_public":    fetched(at, tokens["slave_public"], "slave_public"),
		"The token is not that of role slave": fetched(at, tokens["master"], "slave"),
		"there is no token":                   fetched(at, "", "slave"),
	} {
		if out, err := s.bash("h2", line); err == nil || !strings.Contains(out, want) {
			t.Errorf("got %v, want %q in\n%s", err, want, out)
		}
	}
	var wg sync.WaitGroup
	for host, role := range roles {
		wg.Go(func() {
			if out, err := s.bash(host, fetched(at, tokens[role], role)); err != nil || !strings.Contains(out, "Installed:") {
				t.Errorf("install %s: %v\n%s", host, err, out)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}

	// Again it changes nothing, and neither does the installer.
	touched := s.each(t, marks)
	if out, err := s.bash("h2", fetched(at, tokens["slave"], "slave")); err != nil || !strings.Contains(out, "Installed:") {
		t.Errorf("again: %v\n%s", err, out)
	}
	s.timed(t, "take over", "apply", "-auto-approve", "-ignore", "fsync-slow")
	if diff := cmp.Diff(touched, s.each(t, marks)); diff != "" {
		t.Errorf("hosts were touched (-before +after):\n%s", diff)
	}
	s.setup(t)
	eventually(t, "the agent that the file does not name", func() error {
		var slaves struct{ Slaves []struct{ Hostname string } }
		if err := s.call("GET", "/mesos/slaves", nil, &slaves); err != nil {
			return err
		}
		if len(slaves.Slaves) != 3 {
			return fmt.Errorf("agents %v", slaves.Slaves)
		}
		return nil
	})

	// The image is of the bundle: there is no registry.
	def := hello(t, nil)
	def["container"].(object)["docker"] = object{"image": ownImage}
	s.dcos(t, "marathon", "app", "add", s.write(t, "hello.json", text(def)))
	s.reached(t, "h1", "h2")

	asked, err := s.lab.Asked()
	must(t, err)
	if len(asked) > 0 {
		t.Errorf("hosts tried to reach %q", asked)
	}

	// Gone by itself, and gone by the installer.
	if out, err := s.bash("h4", fetched(at, "", "--uninstall")); err != nil {
		t.Errorf("uninstall: %v\n%s", err, out)
	}
	s.timed(t, "destroy", "destroy", "-auto-approve")
	if diff := cmp.Diff(before, s.each(t, everything)); diff != "" {
		t.Errorf("left behind (-before +after):\n%s", diff)
	}

	// The counter of packets does count.
	_, _ = s.bash("h2", "exec 3<>/dev/udp/203.0.113.7/53; echo hello >&3") // whether it is refused says nothing
	eventually(t, "a packet is counted", func() error {
		asked, err := s.lab.Asked()
		if err == nil && !strings.Contains(strings.Join(asked, " "), "203.0.113.7:53") {
			err = fmt.Errorf("hosts tried to reach %q", asked)
		}
		return err
	})
}

// syncBuffer is a buffer that may be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
