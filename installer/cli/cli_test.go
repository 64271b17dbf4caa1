package cli_test

import (
	"bytes"
	"errors"
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "rewrite golden files")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"dcos-install": runApp, "mkbackup": mkBackup})
}

// Each script is a session of somebody at a shell.
func TestScripts(t *testing.T) {
	p := params()
	p.Dir = "testdata/script"
	testscript.Run(t, p)
}

func params() testscript.Params {
	return testscript.Params{
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "nosecret": noSecret, "mkbundle": mkBundle, "mkimage": mkImage, "mklayout": mkLayout},
		Setup: func(e *testscript.Env) error {
			e.Setenv("WORLD", e.WorkDir+"/world")
			e.Setenv("HOME", e.WorkDir)
			// A day that is neither today nor, should midnight pass, tomorrow.
			e.Setenv("OTHER_DAY", time.Now().AddDate(0, 0, 3).Format("Mon"))
			return nil
		},
	}
}

// exits runs a command that must end with a code: exits 3 dcos-install plan
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND [ARG…]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("run %s: %v", args[1], err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code is %d, not %d", got, want)
	}
}

// noSecret fails if a file below a directory holds one of the texts:
// nosecret DIR TEXT…
func noSecret(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: nosecret DIR TEXT…")
	}
	files := 0
	ts.Check(filepath.WalkDir(ts.MkAbs(args[0]), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		for _, secret := range args[1:] {
			if bytes.Contains(b, []byte(secret)) {
				ts.Fatalf("%s holds %s", path, secret)
			}
		}
		return err
	}))
	if files < 3 {
		ts.Fatalf("only %d files below %s: is this the place?", files, args[0])
	}
}
