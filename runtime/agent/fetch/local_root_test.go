//go:build root

package fetch_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"dcos.example/dcos/runtime/agent/fetch"

	mesos "dcos.example/dcos/runtime/api/mesos"
)

// A task's user gets no file of the host that it could not read itself, not
// even into a sandbox of its own.
func TestLocalFilesAreReadAsTheUser(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "dct5-fetch-") // TempDir is root's alone
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	nobody := fetch.Owner{UID: 65534, GID: 65534}
	file := func(name string, mode fs.FileMode, uid, gid int) string {
		p := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o700), os.WriteFile(p, []byte("x"), mode), os.Chmod(p, mode), os.Chown(p, uid, gid)); err != nil {
			t.Fatal(err)
		}
		return p
	}
	for name, tc := range map[string]struct {
		file string
		want bool
	}{
		"everyone's":                 {file("all", 0o644, 0, 0), true},
		"its own":                    {file("own", 0o400, 65534, 0), true},
		"its group's":                {file("group", 0o040, 0, 65534), true},
		"root's":                     {file("root", 0o600, 0, 0), false},
		"root's group's":             {file("rootgroup", 0o640, 0, 0), false},
		"in a directory that is not": {file("closed/all", 0o644, 0, 0), false},
	} {
		box := filepath.Join(dir, "box-"+filepath.Base(tc.file))
		if err := os.MkdirAll(box, 0o700); err != nil {
			t.Fatal(err)
		}
		var f fetch.Fetcher
		err := f.Fetch(t.Context(), []*mesos.CommandInfo_URI{uri(tc.file)}, box, nobody, io.Discard)
		if (err == nil) != tc.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Nothing of that is left on the threads of the agent.
	if _, err := os.ReadFile(filepath.Join(dir, "root")); err != nil {
		t.Error(err)
	}
}
