package agenttest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Subnet reserves 198.19.third.0/24, and the kernel objects that tests name
// after it, for this test. Another run of the same tests on the machine waits
// until the test and all clean-up registered after this call are done.
func Subnet(t testing.TB, third int) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(os.TempDir(), fmt.Sprintf("dcos-test-subnet-%d.lock", third)), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	// The lock ends with the process, however it ends.
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err == nil {
			return
		}
		if err != unix.EINTR {
			t.Fatal(err)
		}
	}
}
