// Package console is what every command of dcos has: the streams of its run,
// the cluster that it talks to, and ways to print, to ask, and to read what a
// person wrote.
package console

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/agext/levenshtein"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"dcos.example/dcos/cmd/dcos/client"
	"dcos.example/dcos/cmd/dcos/profile"
	"dcos.example/dcos/runtime/fault"
)

// Env is what a run of the program sees of the world.
type Env struct {
	Args           []string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) string
}

// Console is one run of the program.
type Console struct {
	Env
	Log *slog.Logger
}

// failure marks an error of a command that ran, to tell it from cobra's own
// errors, which are all about usage.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }

// Ran reports whether err is of a command that ran, and not of its usage.
func Ran(err error) bool {
	_, ok := errors.AsType[failure](err)
	return ok
}

// Group is a command that only has subcommands.
func Group(use, short string, subs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.ArbitraryArgs, RunE: func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			var known []string
			for _, c := range cmd.Commands() {
				known = append(known, c.Name())
			}
			return fmt.Errorf("`%s` has no subcommand %q; see `%s --help`.%s", cmd.CommandPath(), args[0], cmd.CommandPath(), Similar(args[0], known))
		}
		return cmd.Help()
	}}
	cmd.AddCommand(subs...)
	return cmd
}

// Command is one that does something.
func Command(use, short string, args cobra.PositionalArgs, run func(ctx context.Context, args []string) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: args, RunE: Run(run)}
}

// Run marks the errors of run as those of a command that ran.
func Run(run func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := run(cmd.Context(), args); err != nil {
			return failure{err}
		}
		return nil
	}
}

// Connect returns a client of the cluster that commands talk to.
func (c *Console) Connect() (*client.Client, error) {
	store, err := profile.Open(c.Getenv)
	if err != nil {
		return nil, err
	}
	cluster, err := store.Current()
	if err != nil {
		return nil, err
	}
	return client.New(cluster, c.Log)
}

// Table prints rows in columns.
func (c *Console) Table(header []string, rows [][]string) {
	tw := tabwriter.NewWriter(c.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, strings.Join(header, "\t"))
	for _, r := range rows {
		fmt.Fprintln(tw, strings.Join(r, "\t"))
	}
	_ = tw.Flush() // standard output is gone: nobody to tell
}

// plainJSON writes as themselves the characters that JSON for web pages hides;
// a pair of backslashes is one character, and what follows it is not hidden.
var plainJSON = strings.NewReplacer(`\\`, `\\`, `\u003c`, "<", `\u003e`, ">", `\u0026`, "&")

// JSON prints v for programs, and for people who read it.
func (c *Console) JSON(v any) error {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := plainJSON.WriteString(c.Stdout, b.String())
	return err
}

// Terminal returns the file descriptor of standard input if it is a terminal.
func (c *Console) Terminal() (int, bool) {
	f, ok := c.Stdin.(*os.File)
	if !ok {
		return 0, false
	}
	return int(f.Fd()), term.IsTerminal(int(f.Fd()))
}

// Prompt asks a person; secret input is not shown.
func (c *Console) Prompt(question string, secret bool) (string, error) {
	fd, ok := c.Terminal()
	if !ok {
		return "", fault.Newf("ask for "+strings.ToLower(question), fault.Invalid, "standard input is no terminal")
	}
	fmt.Fprint(c.Stderr, question+": ")
	if secret {
		b, err := term.ReadPassword(fd)
		fmt.Fprintln(c.Stderr)
		return string(b), err
	}
	// One byte at a time: what follows the line belongs to whoever reads next.
	var line []byte
	for b := make([]byte, 1); ; {
		n, err := c.Stdin.Read(b)
		if n == 1 && b[0] == '\n' {
			return strings.TrimRight(string(line), "\r"), nil
		}
		if err != nil {
			return "", fault.New("read answer", fault.Invalid, err)
		}
		line = append(line, b[:n]...)
	}
}

// Interactive reports whether a person watches: standard output is a terminal.
func (c *Console) Interactive() bool {
	f, ok := c.Stdout.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Confirm asks a person for want and is an error for anything else. Without a
// terminal nobody can be asked: --yes says it all.
func (c *Console) Confirm(question, want string) error {
	const op = "ask for confirmation"
	if _, ok := c.Terminal(); !ok {
		return fault.Newf(op, fault.Invalid, "standard input is no terminal; --yes goes on without asking")
	}
	answer, err := c.Prompt(question, false)
	if err != nil {
		return err
	}
	if answer = strings.TrimSpace(answer); answer != want && !(want == "yes" && strings.EqualFold(answer, "y")) {
		return fault.Newf(op, fault.Denied, "%q is not %q: nothing was done", answer, want)
	}
	return nil
}

// Input reads a file, or standard input when there is none or it is "-".
func (c *Console) Input(args []string) ([]byte, error) {
	if len(args) == 0 || args[0] == "-" {
		b, err := io.ReadAll(c.Stdin)
		if err != nil {
			return nil, fault.New("read standard input", fault.Invalid, err)
		}
		return b, nil
	}
	b, err := os.ReadFile(args[0])
	if err != nil {
		return nil, fault.New("read file", fault.Invalid, err)
	}
	return b, nil
}

// CheckJSON says where a JSON text is broken before it is sent.
func CheckJSON(name string, b []byte) error {
	var v any
	err := json.Unmarshal(b, &v)
	if err == nil {
		return nil
	}
	op := "read " + name
	if len(b) == 0 {
		return fault.Newf(op, fault.Invalid, "it is empty")
	}
	if se, ok := errors.AsType[*json.SyntaxError](err); ok {
		before := string(b[:min(int(se.Offset), len(b))])
		line := strings.Count(before, "\n") + 1
		column := len(before) - strings.LastIndex(before, "\n") - 1
		return fault.Newf(op, fault.Invalid, "line %d, column %d: %w", line, column, err)
	}
	return fault.New(op, fault.Invalid, err)
}

// Pause waits for d, or for the end of ctx.
func Pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Similar proposes the known name that differs least, if any is near.
func Similar(name string, known []string) string {
	best, least := "", 3
	for _, k := range known {
		if d := levenshtein.Distance(strings.ToLower(name), strings.ToLower(k), nil); d < least {
			best, least = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" Did you mean %q?", best)
}

// OrDash shows that there is nothing.
func OrDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// JSONObject reads a file that holds one JSON object, or says where it does
// not.
func JSONObject(name string) (map[string]any, error) {
	op := "read " + name
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, fault.New(op, fault.Invalid, err)
	}
	if err := CheckJSON(name, b); err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber() // as they were written
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, fault.New(op, fault.Invalid, err)
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, fault.Newf(op, fault.Invalid, "line 1, column 1: it must be an object: { … }")
	}
	return m, nil
}

// Patience bounds how long a shell waits for words that a key asked for.
const Patience = 2 * time.Second

// Fitting returns the words that begin with start.
func Fitting(words []string, start string) []string {
	var fit []string
	for _, w := range words {
		if strings.HasPrefix(w, start) {
			fit = append(fit, w)
		}
	}
	return fit
}
