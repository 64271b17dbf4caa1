//go:build root

package container_test

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"dcos.example/dcos/runtime/agent/container"
	"dcos.example/dcos/runtime/agent/container/containerdtest"
)

// Commands on the host start while others mount and unmount all the time.
func TestVanishingMounts(t *testing.T) {
	e := containerdtest.Start(t)
	d := e.Driver(t)
	dir := t.TempDir() // which, unlike the engine's directory, is not hidden
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := comeAndGo(filepath.Join(dir, uuid.NewString())); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 10 {
		id := uuid.NewString()
		if _, err := d.Start(t.Context(), container.Spec{ID: id, Entrypoint: []string{"/bin/true"}}); err != nil {
			t.Error(err)
			continue
		}
		if err := d.Remove(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
}

// comeAndGo mounts something, leaves it for about as long as a start takes to
// use a list of mounts, and takes it away.
func comeAndGo(point string) error {
	if err := os.Mkdir(point, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("dct3", point, "tmpfs", 0, "size=4k"); err != nil {
		return err
	}
	if err := unix.Nanosleep(&unix.Timespec{Nsec: 5e6}, nil); err != nil && err != unix.EINTR {
		return err
	}
	if err := unix.Unmount(point, unix.MNT_DETACH); err != nil {
		return err
	}
	return os.Remove(point)
}
