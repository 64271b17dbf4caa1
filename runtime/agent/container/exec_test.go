package container_test

import (
	"errors"
	"testing"

	"dcos.example/dcos/runtime/agent/container"
)

func TestNotRunnable(t *testing.T) {
	const runc = "OCI runtime exec failed: exec failed: unable to start container process: "
	for text, want := range map[string]string{
		runc + `exec: "nosuch": executable file not found in $PATH`:       "executable file not found",
		runc + `exec: "/x/y": stat /x/y: no such file or directory`:       "no such file or directory",
		runc + `exec: "/etc/passwd": permission denied`:                   "permission denied",
		runc + `error adding pid 7 to cgroups: no such file or directory`: "",
		`task 7 not found`: "",
	} {
		if got, ok := container.NotRunnable(errors.New(text)); got != want || ok != (want != "") {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

func TestTasksAreNotProtected(t *testing.T) {
	if score := container.OOMScore(false); score == nil || *score != 0 {
		t.Errorf("a task has the score %v", score)
	}
	if score := container.OOMScore(true); score != nil {
		t.Errorf("where a score cannot be lowered, it is set to %d", *score)
	}
}
