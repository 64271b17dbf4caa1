package supervise

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"syscall"
	"time"

	"dcos.example/dcos/providers/local/control"
	"dcos.example/dcos/runtime/fault"
)

// maxOutput is how much of a command's output is kept, per stream.
const maxOutput = 1 << 20

// Exec runs a command to its end. With ctx its whole session is killed.
func (s *Supervisor) Exec(ctx context.Context, req control.Request) (*control.ExecResult, error) {
	if len(req.Argv) == 0 {
		return nil, fault.New("run command", fault.Invalid, errors.New("it is empty"))
	}
	if req.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, req.Timeout)
		defer cancel()
	}
	op := "run " + req.Argv[0]
	var ours, theirs [3]*os.File
	defer func() {
		for _, f := range slices.Concat(ours[:], theirs[:]) {
			if f != nil {
				f.Close()
			}
		}
	}()
	for i := range ours {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, fault.New(op, fault.Internal, err)
		}
		ours[i], theirs[i] = r, w
		if i == 0 {
			ours[i], theirs[i] = w, r
		}
	}
	var pid int
	var err error
	ended := make(chan syscall.WaitStatus, 1)
	if cerr := s.call(func() {
		pid, err = s.l.Start(Process{Argv: req.Argv, Env: slices.Concat(s.opts.Env, req.Env), Files: theirs})
		if err == nil {
			s.pids[pid] = func(st syscall.WaitStatus) { ended <- st }
		}
	}); cerr != nil {
		return nil, cerr
	}
	if err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	for i, f := range theirs {
		f.Close()
		theirs[i] = nil
	}
	stdin := make(chan struct{})
	go func() {
		defer close(stdin)
		ours[0].Write(req.Stdin) // a command need not read it all
		ours[0].Close()
	}()
	var out [2][]byte
	read := make(chan struct{}, 2)
	for i := range out {
		go func() {
			out[i] = readSome(ours[i+1])
			read <- struct{}{}
		}()
	}
	var st syscall.WaitStatus
	select {
	case st = <-ended:
	case <-ctx.Done():
		syscall.Kill(-pid, syscall.SIGKILL)
		st = <-ended
	}
	// Something it left in the background may hold the pipes: do not wait long.
	deadline := time.Now().Add(time.Second)
	if ctx.Err() != nil {
		deadline = time.Now()
	}
	for _, f := range ours {
		f.SetDeadline(deadline)
	}
	<-read
	<-read
	<-stdin
	ours[0] = nil
	if ctx.Err() != nil {
		return nil, fault.Newf(op, fault.Unavailable, "killed: %w", context.Cause(ctx))
	}
	res := &control.ExecResult{Code: st.ExitStatus(), Stdout: out[0], Stderr: out[1]}
	if st.Signaled() {
		res.Code = 128 + int(st.Signal())
	}
	return res, nil
}

// readSome returns what comes from r until its end, and drops what is beyond
// maxOutput so that the writer never blocks.
func readSome(r io.Reader) []byte {
	b, _ := io.ReadAll(io.LimitReader(r, maxOutput)) // cut short at the deadline
	io.Copy(io.Discard, r)
	return b
}
