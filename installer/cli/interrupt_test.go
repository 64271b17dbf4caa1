package cli_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"dcos.example/dcos/installer/bundle"
	"dcos.example/dcos/installer/cli"
	"dcos.example/dcos/installer/program"
	"dcos.example/dcos/providers"
)

// told lets a test wait for a text to be written.
type told struct {
	mu   sync.Mutex
	text bytes.Buffer
	want string
	seen chan struct{}
	once sync.Once
}

func (w *told) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, err := w.text.Write(b)
	if strings.Contains(w.text.String(), w.want) {
		w.once.Do(func() { close(w.seen) })
	}
	return n, err
}

const twoHosts = `
cluster "demo" {}
provider "local" {}
node_group "master" {}
node_group "agent" {}
`

// interrupted applies twoHosts in dir and presses Ctrl-C so many times while
// the network is made. It returns the exit code and what was said.
func interrupted(t *testing.T, dir string, times int, abort func()) (int, string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "cluster.hcl"), []byte(twoHosts), 0o600); err != nil {
		t.Fatal(err)
	}
	presses := make(chan os.Signal)
	stderr := &told{want: "Stopping", seen: make(chan struct{})}
	var stdout bytes.Buffer
	app := &cli.App{
		Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: stderr, Dir: dir, Interrupts: presses, Abort: abort,
		Allowed: func(string) error { return nil },
		Bundle: func(string, bundle.Trust) (string, bundle.Manifest, error) {
			return "/b", bundle.Manifest{Version: "0.1.0"}, nil
		},
		Providers: func(cli.ProviderOptions) (providers.Set, error) {
			w, err := newWorld(filepath.Join(dir, "world"), "")
			if err != nil {
				return nil, err
			}
			w.kinds[program.TypeNetwork].Hook = func(point string) {
				if point != "create demo half" {
					return
				}
				for range times {
					presses <- os.Interrupt
				}
				if times > 0 {
					<-stderr.seen
				}
			}
			return w.set(), nil
		},
	}
	code := app.Run(t.Context(), []string{"apply", "-auto-approve"})
	return code, stdout.String()
}

// The first Ctrl-C lets finish what has begun and starts nothing more; the
// next apply does the rest.
func TestInterrupt(t *testing.T) {
	dir := t.TempDir()
	code, out := interrupted(t, dir, 1, func() { t.Error("aborted") })
	if code != 1 || !strings.Contains(out, "Network demo: created") || strings.Contains(out, "Host master-1: creating") ||
		!strings.Contains(out, "Apply stopped") || !strings.Contains(out, "Go on with: dcos-install apply") {
		t.Fatalf("exit %d\n%s", code, out)
	}
	code, out = interrupted(t, dir, 0, nil)
	if code != 0 || strings.Contains(out, "Network demo: creat") || !strings.Contains(out, "Host master-1: created") || !strings.Contains(out, "Apply complete") {
		t.Fatalf("exit %d\n%s", code, out)
	}
}

// The second one does not wait.
func TestSecondInterrupt(t *testing.T) {
	aborted := make(chan struct{})
	interrupted(t, t.TempDir(), 2, func() { close(aborted) })
	select {
	case <-aborted:
	default:
		t.Error("the second interrupt was ignored")
	}
}
