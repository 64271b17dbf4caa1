// Package control is the wire between the installer and dcos-init, the PID 1
// of a local host: one JSON request and one JSON response per connection on
// the unix socket "control.sock" in the host's directory on the machine. Only
// root can open it.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"dcos.example/dcos/runtime/fault"
)

// Socket is the socket's name in the host's directory.
const Socket = "control.sock"

// maxMessage bounds a message; the largest are outputs of commands.
const maxMessage = 16 << 20

// Op names what is asked.
type Op string

const (
	OpPing     Op = "ping"     // the host's boot id
	OpStatus   Op = "status"   // of Unit, or of every unit that was ever loaded
	OpStart    Op = "start"    // Unit and what it requires; answers when started
	OpStop     Op = "stop"     // Unit; answers when stopped
	OpRestart  Op = "restart"  // Unit
	OpEnable   Op = "enable"   // start Unit at every boot
	OpDisable  Op = "disable"  // no longer
	OpExec     Op = "exec"     // run Argv to its end
	OpShutdown Op = "shutdown" // stop every unit, then end the host
)

// Request is one question.
type Request struct {
	Op   Op     `json:"op"`
	Unit string `json:"unit,omitempty"`
	Tail int    `json:"tail,omitempty"` // status: bytes of the log to return

	Argv    []string      `json:"argv,omitempty"`
	Env     []string      `json:"env,omitempty"` // over the host's default
	Stdin   []byte        `json:"stdin,omitempty"`
	Timeout time.Duration `json:"timeout,omitempty"` // exec: kill after; 0: never
}

// Response is its answer. Error is empty when the request was carried out.
type Response struct {
	Error string       `json:"error,omitempty"`
	Kind  fault.Kind   `json:"kind,omitempty"`
	Boot  string       `json:"boot,omitempty"`
	Units []UnitStatus `json:"units,omitempty"`
	Exec  *ExecResult  `json:"exec,omitempty"`
}

// UnitStatus is what dcos-init knows of a unit.
type UnitStatus struct {
	Name     string    `json:"name"`
	State    string    `json:"state"` // inactive, starting, active, stopping, backoff, failed
	Enabled  bool      `json:"enabled"`
	PID      int       `json:"pid,omitempty"` // as seen inside the host
	Since    time.Time `json:"since"`
	Restarts int       `json:"restarts"`            // by the Restart= rule since loaded
	LastExit string    `json:"last_exit,omitempty"` // how the main process ended last
	Log      string    `json:"log,omitempty"`
}

// ExecResult is how a command ended. Output beyond 1 MiB per stream is cut.
type ExecResult struct {
	Code   int    `json:"code"` // 128 + signal when killed
	Stdout []byte `json:"stdout,omitempty"`
	Stderr []byte `json:"stderr,omitempty"`
}

// Client talks to the dcos-init whose host directory is Dir.
type Client struct{ Dir string }

// Do sends req and waits for the answer, as long as ctx lasts. An error that
// dcos-init reported keeps its kind; fault.Unavailable means that no dcos-init
// listens.
func (c Client) Do(ctx context.Context, req Request) (Response, error) {
	op := "ask host " + filepath.Base(c.Dir) + " to " + string(req.Op)
	if req.Unit != "" {
		op += " " + req.Unit
	}
	// A socket's path is limited to 107 bytes, a directory's is not: reach the
	// socket through an open directory.
	dir, err := unix.Open(c.Dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return Response{}, fault.New(op, fault.Unavailable, fmt.Errorf("open %s: %w", c.Dir, err))
	}
	defer unix.Close(dir)
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", dir, Socket))
	if err != nil {
		return Response{}, fault.New(op, fault.Unavailable, fmt.Errorf("the host is down: %w", errors.Unwrap(err)))
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := json.NewEncoder(conn).Encode(req); err != nil {
		return Response{}, fault.New(op, fault.Unavailable, err)
	}
	var resp Response
	if err := json.NewDecoder(io.LimitReader(conn, maxMessage)).Decode(&resp); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		} else if errors.Is(err, io.EOF) {
			err = errors.New("the host went down before it answered")
		}
		return Response{}, fault.New(op, fault.Unavailable, err)
	}
	if resp.Error != "" {
		return resp, fault.New(op, resp.Kind, errors.New(resp.Error))
	}
	return resp, nil
}

// Handler answers one request.
type Handler func(context.Context, Request) (Response, error)

// Listen opens the socket in dir, which becomes the working directory of the
// calling process: see Do for why.
func Listen(dir string) (*net.UnixListener, error) {
	if err := os.Chdir(dir); err != nil {
		return nil, err
	}
	if err := os.Remove(Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: Socket, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // the path is out of sight by then
	return l, os.Chmod(Socket, 0o600)
}

// Serve answers connections with h until ctx ends or l is closed, then waits
// for the requests under way.
func Serve(ctx context.Context, l *net.UnixListener, h Handler) {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	done := make(chan struct{})
	open := 0
	for {
		conn, err := l.Accept()
		if err != nil {
			break
		}
		open++
		go func() {
			defer func() { done <- struct{}{} }()
			serveOne(ctx, conn, h)
		}()
		for drained := false; !drained; {
			select {
			case <-done:
				open--
			default:
				drained = true
			}
		}
	}
	for ; open > 0; open-- {
		<-done
	}
}

func serveOne(ctx context.Context, conn net.Conn, h Handler) {
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var req Request
	dec := json.NewDecoder(io.LimitReader(conn, maxMessage))
	if err := dec.Decode(&req); err != nil {
		return
	}
	// The peer sends nothing more: a read that returns means it hung up.
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		io.Copy(io.Discard, conn)
		cancel()
	}()
	resp, err := h(ctx, req)
	if err != nil {
		resp.Error, resp.Kind = err.Error(), fault.KindOf(err)
	}
	json.NewEncoder(conn).Encode(resp)
	conn.Close()
	<-gone
}
