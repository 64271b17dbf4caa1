//go:build root

package container_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"dcos.example/dcos/runtime/agent/container"
	"dcos.example/dcos/runtime/agent/container/containerdtest"
)

// parent is the shim of a container's process.
func parent(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	return f[1]
}

func TestContainersShareShims(t *testing.T) {
	e := containerdtest.Start(t)
	d := e.Driver(t)
	shims := map[string]int{}
	for range 4 {
		r, err := d.Start(t.Context(), container.Spec{ID: uuid.NewString(), Image: containerdtest.Image, Cmd: []string{"serve", "0"}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := d.Remove(context.WithoutCancel(t.Context()), r.ID); err != nil {
				t.Error(err)
			}
		})
		shims[parent(t, r.PID)]++
	}
	if len(shims) != 1 {
		t.Errorf("4 containers have %d shims", len(shims))
	}
}

// Shims end while containers come: none may start under one that is ending.
func TestShimsComeAndGo(t *testing.T) {
	e := containerdtest.Start(t)
	d := e.Driver(t)
	var g errgroup.Group
	for worker := range 6 {
		g.Go(func() error {
			for round := range 6 {
				s := container.Spec{ID: uuid.NewString(), Image: containerdtest.Image, Cmd: []string{"print", "x"}}
				broken := (worker+round)%3 == 0
				if broken {
					s.Cmd = []string{"print"}
					s.Entrypoint = []string{"/no/such/program"}
				}
				if _, err := d.Start(t.Context(), s); (err != nil) != broken {
					return fmt.Errorf("start (broken: %t): %w", broken, err)
				}
				if broken {
					continue
				}
				exit, err := d.Wait(t.Context(), s.ID)
				if err != nil || exit.Code != 0 || exit.Lost {
					return fmt.Errorf("exit %+v: %w", exit, err)
				}
				if err := d.Remove(t.Context(), s.ID); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}
