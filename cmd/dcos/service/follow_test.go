package service_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"dcos.example/dcos/cmd/dcos/console"
	"dcos.example/dcos/cmd/dcos/service"
	api "dcos.example/dcos/runtime/api/service"
	"dcos.example/dcos/runtime/fault"
)

func plan(steps ...api.StepInfo) api.PlanInfo {
	return api.PlanInfo{Phases: []api.PhaseInfo{{Name: "kafka", Steps: steps}}}
}

// Only what changes is news; a reason is, when a step stays where it is.
func TestFollower(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		see := service.NewFollower(&out)
		step := func(name string, s api.PlanStatus, message string) api.StepInfo {
			return api.StepInfo{Name: name, Status: s, Message: message}
		}
		look := func(first, second api.StepInfo) { see(plan(first, second), time.Now()) }
		wait := func() { time.Sleep(2 * time.Second) }
		look(step("kafka-0:[broker]", api.Complete, "old"), step("kafka-1:[broker]", api.Pending, ""))
		wait()
		look(step("kafka-0:[broker]", api.Complete, ""), step("kafka-1:[broker]", api.Prepared, "waits for offers"))
		wait()
		look(step("kafka-0:[broker]", api.Complete, ""), step("kafka-1:[broker]", api.Prepared, "waits for offers"))
		wait()
		for range 3 {
			look(step("kafka-0:[broker]", api.Complete, ""), step("kafka-1:[broker]", api.Prepared, "too few cpus"))
			wait()
		}
		look(step("kafka-0:[broker]", api.Complete, ""), step("kafka-1:[broker]", api.Complete, "too few cpus"))
		want := "  2.0s  kafka-1:[broker] PREPARED\n  6.0s  kafka-1:[broker] PREPARED: too few cpus\n 12.0s  kafka-1:[broker] COMPLETE\n"
		if d := cmp.Diff(want, out.String()); d != "" {
			t.Errorf("-want +got:\n%s", d)
		}
	})
}

// A cluster that changes leaders is waited for, one that stays away is not,
// and time that is up ends the waiting, not the work.
func TestUntil(t *testing.T) {
	away := fault.Newf("ask", fault.Unavailable, "no leader")
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		con := &console.Console{Env: console.Env{Stdout: &out, Stderr: &out}}
		begin := time.Now()
		err := service.Until(t.Context(), con, 0, func(context.Context) (bool, error) {
			switch d := time.Since(begin); {
			case d < 30*time.Second:
				return false, away
			case d < 40*time.Second:
				return false, nil
			}
			return true, nil
		})
		if err != nil || time.Since(begin) < 40*time.Second {
			t.Errorf("%v after %s", err, time.Since(begin))
		}

		begin = time.Now()
		err = service.Until(t.Context(), con, 0, func(context.Context) (bool, error) { return false, away })
		if !errors.Is(err, away) || time.Since(begin) < time.Minute || time.Since(begin) > 62*time.Second {
			t.Errorf("%v after %s", err, time.Since(begin))
		}

		err = service.Until(t.Context(), con, 5*time.Second, func(context.Context) (bool, error) { return false, nil })
		if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "it is not done after 5s, and goes on; `dcos x plan status`") {
			t.Error(err)
		}

		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if err = service.Until(ctx, con, 0, func(context.Context) (bool, error) { return false, nil }); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if !strings.Contains(out.String(), "It goes on in the cluster") {
			t.Errorf("who stops to watch reads %q", out.String())
		}

		refused := fault.Newf("ask", fault.NotFound, "gone")
		if err = service.Until(t.Context(), con, 0, func(context.Context) (bool, error) { return false, refused }); !errors.Is(err, refused) {
			t.Error(err)
		}
	})
}
