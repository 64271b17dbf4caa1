//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// prober asks a URL from a host of the cluster, again and again, ten times a
// second, as a client that never tries twice.
type prober struct {
	c          *cluster
	host, name string
	done       chan error
	out        string
}

func (c *cluster) probe(t *testing.T, host, name, url string) *prober {
	t.Helper()
	p := &prober{c: c, host: host, name: name, done: make(chan error, 1)}
	// The count goes to a file, so that its growth can be awaited from outside.
	script := fmt.Sprintf(`cd /tmp; rm -f %[1]s.stop; n=0; trap '' INT
while [ ! -e %[1]s.stop ]; do
  out=$(curl -sS -f -m 5 -o /dev/null %[2]s 2>&1) || echo "$(date +%%T.%%N) $out"
  n=$((n+1)); echo $n > %[1]s.count; sleep 0.1
done; echo "asked $n times"`, name, url)
	go func() {
		var err error
		p.out, err = c.on(host, script)
		p.done <- err
	}()
	t.Cleanup(func() {
		if p.done != nil {
			p.end(t)
		}
	})
	p.more(t)
	return p
}

// more waits for a few more answers.
func (p *prober) more(t *testing.T) {
	t.Helper()
	count := func() (n int, err error) {
		out, err := p.c.on(p.host, "cat /tmp/"+p.name+".count")
		if err != nil {
			return 0, err
		}
		_, err = fmt.Sscan(out, &n)
		return n, err
	}
	first := -1
	eventually(t, "prober "+p.name+" asks", func() error {
		n, err := count()
		if err != nil {
			return err
		}
		if first < 0 {
			first = n
		}
		if n < first+5 {
			return fmt.Errorf("%d times since it was at %d", n-first, first)
		}
		return nil
	})
}

// end stops the prober and returns the failures it saw.
func (p *prober) end(t *testing.T) []string {
	t.Helper()
	_, err := p.c.on(p.host, "touch /tmp/"+p.name+".stop")
	must(t, err)
	must(t, <-p.done)
	p.done = nil
	lines := strings.Split(strings.TrimSpace(p.out), "\n")
	t.Logf("prober %s %s", p.name, lines[len(lines)-1])
	return lines[:len(lines)-1]
}

// unbroken ends the prober and fails if it saw any failure.
func (p *prober) unbroken(t *testing.T) {
	t.Helper()
	if failures := p.end(t); len(failures) > 0 {
		t.Errorf("a client saw %d failures:\n%s", len(failures), strings.Join(failures, "\n"))
	}
}
