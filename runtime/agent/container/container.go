// Package container runs processes in containers that outlive this program.
// Driver is the contract that the agent needs, with a conformance suite of its
// own; Containerd is the driver that hosts use.
package container

import (
	"context"
	"io"
	"syscall"
	"time"
)

// Driver runs containers. Errors carry fault kinds: Invalid for a container
// that can never start as described, Unavailable when the engine does not
// answer, NotFound for an unknown container.
type Driver interface {
	// Start makes a container and starts its process. After an error nothing
	// of it is left.
	Start(context.Context, Spec) (Running, error)
	// Wait returns when the container's process has ended, at once if it has
	// already. It may be called again and by several callers.
	Wait(ctx context.Context, id string) (Exit, error)
	// Signal sends sig to the container's first process, or to every process
	// of it. A process that has ended is no error.
	Signal(ctx context.Context, id string, sig syscall.Signal, all bool) error
	// Remove kills whatever still runs in the container and removes all of
	// it; an unknown container is no error.
	Remove(ctx context.Context, id string) error
	// List returns the containers that this driver made and has not removed,
	// also in former runs of the program.
	List(context.Context) ([]Running, error)
}

// Spec describes a container.
type Spec struct {
	ID     string            // [A-Za-z0-9_.-], at most 76 characters, never used again
	Labels map[string]string // kept with the container

	Image     string // empty: the host's own root file system
	ForcePull bool   // ask the registry even if the image is here

	// Entrypoint replaces the image's; the image's Cmd is then not used. Cmd
	// are the arguments after it, by default the image's.
	Entrypoint []string
	Cmd        []string
	Env        []string // NAME=value; wins over the image's
	Cwd        string   // by default the image's, or /
	User       string   // name, uid, or either with :group; by default the image's, or root
	Hostname   string   // by default the host's
	Netns      string   // path of a network namespace; empty: the host's

	Mounts []Mount
	Stdout string // path of an existing file that is appended to
	Stderr string

	Limits     Limits
	Rlimits    []Rlimit
	Privileged bool
	CapAdd     []string // CAP_NET_ADMIN or NET_ADMIN, or ALL
	CapDrop    []string
	ShmSize    int64 // bytes of /dev/shm; 0: 64 MiB
}

// Mount puts a file or directory of the host into the container. Mounts are
// made from the outside in, whatever their order.
type Mount struct {
	Source   string
	Target   string
	ReadOnly bool
	Follow   bool // what the host mounts below Source later appears in the container
	Give     Give
}

// Give says what of a mount's source is made the container's user's before the
// start. Images have users that the host knows nothing of.
type Give uint8

// What can be given.
const (
	GiveNothing Give = iota
	GiveEmpty        // the directory, as long as nothing is in it
	GiveAll          // the file, or the directory with all in it
)

// Limits bound what a container uses. Zero fields do not.
type Limits struct {
	CPUs     float64 // weight against others, in CPUs
	CPUQuota float64 // most CPUs it ever gets
	Memory   int64   // bytes; more is an OOM kill
	Pids     int64
}

// Rlimit is a POSIX resource limit.
type Rlimit struct {
	Type       string // RLIMIT_NOFILE and so on
	Soft, Hard uint64
}

// Running is a container that has been started.
type Running struct {
	ID      string
	Labels  map[string]string
	PID     int // of its first process as the host sees it; 0 when it has ended
	Started time.Time
}

// Exit is how a container's process ended.
type Exit struct {
	Code   int            // exit status; 128+n for signal n
	Signal syscall.Signal // 0 when it ended by itself
	OOM    bool           // the kernel killed a process of it for lack of memory
	Lost   bool           // it ended and nobody saw how, as after a reboot
	At     time.Time
}

// WaitStatus is the exit as wait(2) reports it.
func (e Exit) WaitStatus() int {
	if e.Signal != 0 {
		return int(e.Signal)
	}
	return e.Code << 8
}

// Command is a further process in a running container.
type Command struct {
	Args   []string
	Env    []string // added to the container's
	Cwd    string   // by default the container's
	User   string   // a numeric uid or uid:gid; by default the container's
	TTY    bool
	Rows   uint32
	Cols   uint32
	Stdin  io.Reader // nil: empty
	Stdout io.Writer // nil: dropped
	Stderr io.Writer // nil: dropped; a TTY has none
}

// Process is a further process in a container.
type Process interface {
	// Wait returns the exit status once the process has ended and all its
	// output was written.
	Wait(context.Context) (int, error)
	Signal(context.Context, syscall.Signal) error
	Resize(ctx context.Context, rows, cols uint32) error
	// Close kills the process if it runs and lets go of it.
	Close(context.Context) error
}

// Stats is what a container uses.
type Stats struct {
	CPUUser, CPUSystem time.Duration
	Throttled          time.Duration
	Periods            uint64
	ThrottledPeriods   uint64
	MemoryTotal        uint64 // bytes
	MemoryRSS          uint64
	MemoryCache        uint64
	MemoryLimit        uint64
	Pids               uint64
}
