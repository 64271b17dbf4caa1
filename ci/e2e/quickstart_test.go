//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the answers in docs/quickstart.md")

const quickstart = "../../docs/quickstart.md"

// The page's cluster and ours: ours does not meet one that a user made.
const (
	pageName, ourName   = "local-ha", "e2equick"
	pageRange, ourRange = "198.19.0.", "198.19.129."
)

// TestQuickstart runs the commands of docs/quickstart.md and compares what
// they answer with what the page says. In a block marked console, a line that
// begins with "$ " is a command for one shell, and what follows its answer. A
// comment "<!-- wait: CONDITION -->" before a block holds it until that
// command succeeds.
func TestQuickstart(t *testing.T) {
	page, err := os.ReadFile(quickstart)
	must(t, err)
	hcl, err := os.ReadFile("../../blueprints/local-ha/cluster.hcl")
	must(t, err)
	c := newCluster(t, ourName, ourRange+"0/24", ours(string(hcl)))
	// Where the page says it is; destroy works from anywhere by the same file.
	must(t, os.MkdirAll(filepath.Join(c.dir, "blueprints"), 0o700))
	must(t, os.Symlink("..", filepath.Join(c.dir, "blueprints", pageName)))
	demo, err := filepath.Abs("../../demo")
	must(t, err)
	must(t, os.Symlink(demo, filepath.Join(c.dir, "demo")))

	sh := newShell(t, c)
	var out strings.Builder
	inBlock := false
	for line := range strings.Lines(string(page)) {
		text := strings.TrimSuffix(line, "\n")
		condition, waits := strings.CutPrefix(text, "<!-- wait: ")
		command, runs := strings.CutPrefix(text, "$ ")
		switch {
		case text == "```console" && !inBlock, text == "```" && inBlock:
			inBlock = !inBlock
			out.WriteString(line)
		case inBlock && runs:
			out.WriteString(line)
			answer, code := sh.run(t, ours(command))
			if code != 0 {
				t.Fatalf("$ %s\n%s\nexit code %d", command, answer, code)
			}
			out.WriteString(theirs(answer))
		case inBlock:
			// an answer as it was
		case waits:
			out.WriteString(line)
			condition = ours(strings.TrimSuffix(condition, " -->"))
			eventually(t, condition, func() error {
				if answer, code := sh.run(t, condition); code != 0 {
					return fmt.Errorf("exit code %d: %s", code, answer)
				}
				return nil
			})
		default:
			out.WriteString(line)
		}
	}
	c.print.gone(t)
	if *update {
		must(t, os.WriteFile(quickstart, []byte(out.String()), 0o644))
		return
	}
	if diff := cmp.Diff(normal(string(page)), normal(out.String())); diff != "" {
		t.Errorf("the page is not what happens; if that is meant, run this test with -update (-page +now):\n%s", diff)
	}
}

func ours(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, `"`+pageName+`"`, `"`+ourName+`"`), pageRange, ourRange)
}

func theirs(s string) string {
	// Columns stay where they are: the page's addresses are shorter.
	s = regexp.MustCompile(regexp.QuoteMeta(ourRange)+`(\d+)(  +)`).ReplaceAllString(s, pageRange+"${1}${2}"+strings.Repeat(" ", len(ourRange)-len(pageRange)))
	return strings.ReplaceAll(strings.ReplaceAll(s, ourName, pageName), ourRange, pageRange)
}

// chances are what differs from run to run, in the order of replacement.
var chances = []struct {
	from *regexp.Regexp
	to   string
}{
	{regexp.MustCompile(`(?m)^(master-\d +[\d.]+ +)\S+ +master( \(leader\))?`), "$1 ID master"},
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(-S\d+)?`), "ID"},
	{regexp.MustCompile(`on [0-9a-f]{8}-[0-9a-f]{3}`), "on ID"},
	{regexp.MustCompile(`\d{4}/\d\d/\d\d \d\d:\d\d:\d\d .*`), "LOGGED"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d`), "TIME"},
	{regexp.MustCompile(`198\.19\.0\.\d+`), "ADDRESS"},
	{regexp.MustCompile(`\((\d+(\.\d+)?(ms|s|m))+\)`), "(TIME)"},
	{regexp.MustCompile(`(Password +)\S+`), "$1 PASSWORD"},
	{regexp.MustCompile(`\b(agent|master)-\d (is (stopped|up))`), "$1 $2"},
	{regexp.MustCompile(`\d+\.\d+\.\d+(-[0-9a-f]{12})?`), "VERSION"},
	{regexp.MustCompile(` +`), " "}, // columns follow what is in them
	{regexp.MustCompile(`(?m) $`), ""},
}

// normal is a page without what differs from run to run. Lines that become
// the same are one, as several instances may or may not be on one host.
func normal(page string) []string {
	for _, c := range chances {
		page = c.from.ReplaceAllString(page, c.to)
	}
	return slices.Compact(strings.Split(page, "\n"))
}

// shell is a bash that runs one command after the other.
type shell struct {
	in  io.Writer
	out *bufio.Reader
}

// endMark ends a command's output, followed by its exit code.
const endMark = "\x1e"

func newShell(t *testing.T, c *cluster) *shell {
	t.Helper()
	ctx, cancel := context.WithTimeout(interrupted, 5*time.Minute)
	cmd := c.command(ctx, "dcos")
	bash := "/bin/bash"
	cmd.Path, cmd.Args = bash, []string{bash, "--norc", "-o", "pipefail"}
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = cmd.Stdout
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
		cancel()
	})
	return &shell{in: in, out: bufio.NewReader(out)}
}

// run returns what a command prints, on both outputs, and its exit code.
func (s *shell) run(t *testing.T, command string) (string, int) {
	t.Helper()
	_, err := fmt.Fprintf(s.in, "{ %s\n} </dev/null; printf '%s%%d\\n' $?\n", command, endMark)
	must(t, err)
	answer, err := s.out.ReadString(endMark[0])
	if err != nil {
		t.Fatalf("$ %s\n%s\n%v (%v)", command, answer, err, interrupted.Err())
	}
	code, err := s.out.ReadString('\n')
	must(t, err)
	n, err := strconv.Atoi(strings.TrimSpace(code))
	must(t, err)
	answer = strings.TrimSuffix(answer, endMark)
	if answer != "" && !strings.HasSuffix(answer, "\n") {
		answer += "\n"
	}
	return answer, n
}
