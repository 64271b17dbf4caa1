package main

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"dcos": func() { os.Exit(run()) }})
}

// TestScripts runs transcripts against a real gateway and identity service, on
// loopback, with a small orchestrator, master and agent behind them.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			w := newWorld(t, "test", env.WorkDir)
			env.Defer(w.close)
			env.Setenv("URL", w.url)
			env.Setenv("CA", w.caFile)
			env.Setenv("HOME", env.WorkDir+"/home")
			return os.Mkdir(env.WorkDir+"/home", 0o700)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// exits CODE PROGRAM ARG…
			"exits": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) < 2 {
					ts.Fatalf("usage: exits code program [arg…]")
				}
				err := ts.Exec(args[1], args[2:]...)
				code := 0
				if exit, ok := errors.AsType[*exec.ExitError](err); ok {
					code = exit.ExitCode()
				} else if err != nil {
					ts.Fatalf("%v", err)
				}
				if strconv.Itoa(code) != args[0] {
					ts.Fatalf("exit code %d, want %s", code, args[0])
				}
			},
			// await PACKAGE: repositories are read in the background.
			"await": func(ts *testscript.TestScript, _ bool, args []string) {
				deadline := time.Now().Add(10 * time.Second)
				for ts.Exec("dcos", "package", "describe", args[0]) != nil {
					if time.Now().After(deadline) {
						ts.Fatalf("the catalog has no %s", args[0])
					}
					time.Sleep(10 * time.Millisecond)
				}
			},
			// mode OCTAL FILE…
			"mode": func(ts *testscript.TestScript, neg bool, args []string) {
				for _, f := range args[1:] {
					fi, err := os.Stat(ts.MkAbs(f))
					ts.Check(err)
					if got := strconv.FormatInt(int64(fi.Mode().Perm()), 8); got != args[0] {
						ts.Fatalf("%s has mode %s, want %s", f, got, args[0])
					}
				}
			},
		},
	})
}
