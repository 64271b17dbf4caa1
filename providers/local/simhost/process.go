package simhost

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// pidFile records the host's first process in the host's directory.
const pidFile = "pid.json"

// process names one process for ever: ids are reused, the pair of id and start
// time is not while the machine runs, and Machine tells boots of it apart.
type process struct {
	PID     int    `json:"pid"`
	Start   uint64 `json:"start"` // clock ticks since the machine's boot
	Machine string `json:"machine_boot"`
	Boot    string `json:"boot"` // the host's boot id
}

// identify returns the process that has the id pid now.
func identify(pid int, boot string) (process, error) {
	start, dead, err := stat(pid)
	if err == nil && dead {
		err = fs.ErrNotExist
	}
	return process{PID: pid, Start: start, Machine: machineBoot(), Boot: boot}, err
}

// stat returns the start time of pid, and whether only its exit status is
// left.
func stat(pid int) (start uint64, dead bool, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, false, err
	}
	// The name, in parentheses, may hold anything; fields follow its end.
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 20 {
		return 0, false, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(f))
	}
	start, err = strconv.ParseUint(f[19], 10, 64)
	return start, f[0] == "Z" || f[0] == "X", err
}

func machineBoot() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // without /proc nothing here works
	return strings.TrimSpace(string(b))
}

func (p process) alive() bool {
	if p.PID == 0 || p.Machine != machineBoot() {
		return false
	}
	start, dead, err := stat(p.PID)
	return err == nil && !dead && start == p.Start
}

// signal sends sig to the process, and to none other: the descriptor names the
// process, whoever has the id by now.
func (p process) signal(sig unix.Signal) error {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if !p.alive() {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}

// wait returns when the process is gone or ctx ends.
func (p process) wait(ctx context.Context) error {
	return poll(ctx, func() (bool, error) { return !p.alive(), nil })
}

// poll calls f until it reports true or an error, or ctx ends.
func poll(ctx context.Context, f func() (bool, error)) error {
	for {
		if done, err := f(); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// lock serialises what is done to one host, across processes, until the
// returned function is called. The directory is made if need be.
func lock(ctx context.Context, dir string) (unlock func(), err error) {
	for {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the directory was just removed by whoever held the lock
		}
		if err != nil {
			return nil, err
		}
		err = poll(ctx, func() (bool, error) {
			err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
			if errors.Is(err, unix.EWOULDBLOCK) {
				return false, nil
			}
			return err == nil, err
		})
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", dir, err)
		}
		have, err1 := f.Stat()
		want, err2 := os.Stat(f.Name())
		if err1 == nil && err2 == nil && os.SameFile(have, want) {
			return func() { f.Close() }, nil
		}
		f.Close() // it belongs to a host that was removed meanwhile
	}
}
