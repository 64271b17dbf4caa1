package stack

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"time"

	"golang.org/x/sys/unix"

	"dcos.example/dcos/runtime/fault"
)

// Holder says who holds the lock of a stack.
type Holder struct {
	PID     int       `json:"pid"`
	Host    string    `json:"host"`
	User    string    `json:"user"`
	Command string    `json:"command"`
	Since   time.Time `json:"since"`
}

// LockedError is the cause of the Conflict that a second operation meets.
type LockedError struct {
	Dir    string
	Holder Holder // zero when the lock file could not be read
}

func (e *LockedError) Error() string {
	if e.Holder.PID == 0 {
		return fmt.Sprintf("%s is locked by another process", e.Dir)
	}
	h := e.Holder
	return fmt.Sprintf("%s is locked by %q of %s on %s, pid %d, since %s",
		e.Dir, h.Command, h.User, h.Host, h.PID, h.Since.Local().Format(time.DateTime))
}

// lock takes the stack's lock for command. It is a flock, which ends with the
// process: a crash leaves nothing to clean up. The file's content is for the
// message only.
func (s *Stack) lock(command string) (unlock func() error, err error) {
	const op = "lock stack"
	f, err := os.OpenFile(s.path(lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fault.New(op, fault.Denied, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fault.New(op, fault.Internal, err)
		}
		locked := &LockedError{Dir: s.dir}
		// Unreadable content costs the name of the holder, not the refusal.
		_ = json.NewDecoder(io.LimitReader(f, 1<<16)).Decode(&locked.Holder)
		return nil, fault.New(op, fault.Conflict, locked)
	}
	b, err := json.Marshal(whoami(command))
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt(append(b, '\n'), 0)
	}
	if err != nil {
		return nil, fault.New(op, fault.Internal, errors.Join(err, f.Close()))
	}
	return func() error { return errors.Join(f.Truncate(0), f.Close()) }, nil
}

func whoami(command string) Holder {
	h := Holder{PID: os.Getpid(), Command: command, Since: time.Now().UTC(), User: fmt.Sprintf("uid %d", os.Getuid())}
	h.Host, _ = os.Hostname()
	if u, err := user.Current(); err == nil {
		h.User = u.Username
	}
	return h
}
