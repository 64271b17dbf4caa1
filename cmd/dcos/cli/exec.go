package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"golang.org/x/term"
	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/cmd/dcos/client"
	"dcos.example/dcos/cmd/dcos/console"
	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/agent"
	"dcos.example/dcos/runtime/api/wire"
	"dcos.example/dcos/runtime/fault"
)

// notStarted is how shells say that there is no such program.
const notStarted exitStatus = 127

const (
	recordIO = "application/recordio"
	// heartbeat keeps proxies between here and the agent from dropping an
	// idle input.
	heartbeat = 30 * time.Second
	maxRecord = 4 << 20
)

func (a *app) taskExec() *cobra.Command {
	var interactive, tty bool
	var user string
	cmd := console.Command("exec TASK CMD [ARG…]", "Run a command in the container of a task", cobra.MinimumNArgs(2), func(ctx context.Context, args []string) error {
		cl, err := a.Connect()
		if err != nil {
			return err
		}
		task, err := runningTask(ctx, cl, args[0])
		if err != nil {
			return err
		}
		s := &session{app: a, cl: cl, agent: task.AgentID, tty: tty, input: interactive || tty, id: &mesos.ContainerID{
			Value: proto.String(uuid.NewString()), Parent: &mesos.ContainerID{Value: proto.String(task.Container)},
		}}
		s.command = &mesos.CommandInfo{Shell: proto.Bool(false), Value: proto.String(args[1]), Arguments: args[1:]}
		if user != "" {
			s.command.User = proto.String(user)
		}
		return s.run(ctx)
	})
	cmd.Flags().SetInterspersed(false)
	cmd.Flags().BoolVarP(&interactive, "interactive", "i", false, "send standard input to the command")
	cmd.Flags().BoolVarP(&tty, "tty", "t", false, "give the command a terminal")
	cmd.Flags().StringVarP(&user, "user", "u", "", "run as this user")
	return cmd
}

func runningTask(ctx context.Context, cl *client.Client, text string) (taskInfo, error) {
	op := "find task " + text
	all, err := listTasks(ctx, cl)
	if err != nil {
		return taskInfo{}, err
	}
	found := pick(all, text, false)
	switch len(found) {
	case 0:
		return taskInfo{}, fault.Newf(op, fault.NotFound, "no running task has this in its ID or name; `dcos task list` shows what runs")
	case 1:
	default:
		ids := make([]string, len(found))
		for i, t := range found {
			ids[i] = "  " + t.ID
		}
		return taskInfo{}, fault.Newf(op, fault.Invalid, "%d tasks fit, name one of\n%s", len(found), strings.Join(ids, "\n"))
	}
	if found[0].Container == "" {
		return taskInfo{}, fault.Newf(op, fault.Unavailable, "%s has no container yet; its state is %s", found[0].ID, found[0].State)
	}
	return found[0], nil
}

// session is one command in one container: a stream of its output, a stream
// of input if wanted, and its exit status. The command ends with the session.
type session struct {
	app        *app
	cl         *client.Client
	agent      string
	id         *mesos.ContainerID
	command    *mesos.CommandInfo
	tty, input bool
}

func (s *session) path() string { return "/agent/" + url.PathEscape(s.agent) + "/api/v1" }

func (s *session) run(ctx context.Context) error {
	const op = "run command in task"
	ctx, cancel := context.WithCancel(ctx)
	call := &agent.Call{Type: agent.Call_LAUNCH_NESTED_CONTAINER_SESSION.Enum(), LaunchNestedContainerSession: &agent.Call_LaunchNestedContainerSession{
		ContainerId: s.id, Command: s.command,
	}}
	if s.tty {
		call.LaunchNestedContainerSession.Container = &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum(), TtyInfo: &mesos.TTYInfo{WindowSize: s.windowSize()}}
	}
	b, err := wire.Protobuf.Marshal(call)
	if err != nil {
		cancel()
		return fault.New(op, fault.Internal, err)
	}
	resp, err := s.cl.Do(ctx, client.Request{Method: http.MethodPost, Path: s.path(), Body: bytes.NewReader(b), Stream: true, Header: map[string]string{
		"Content-Type": wire.Protobuf.ContentType(), "Accept": recordIO, "Message-Accept": wire.Protobuf.ContentType(),
	}})
	if err != nil {
		cancel()
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		err := s.cl.Refused(op, resp)
		cancel() // not before the answer was read
		if fault.Is(err, fault.Invalid) {
			fmt.Fprintln(s.app.Stderr, "dcos:", err)
			return notStarted
		}
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel() // before waiting
	restore, err := s.rawTerminal()
	if err != nil {
		return err
	}
	defer restore()

	status := make(chan error, 1)
	wg.Go(func() { status <- s.wait(ctx) })
	inputFailed := make(chan error, 1)
	if s.input {
		s.attachInput(ctx, &wg, inputFailed)
	}
	if err := s.copyOutput(resp.Body); err != nil {
		return fault.New(op, fault.Unavailable, err)
	}
	select {
	case err := <-status:
		return err
	case err := <-inputFailed:
		return err
	case <-time.After(10 * time.Second):
		return fault.Newf(op, fault.Unavailable, "the output has ended, but the agent does not say how the command ended")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// copyOutput prints records until the stream ends.
func (s *session) copyOutput(body io.Reader) error {
	records := wire.NewRecordReader(body, maxRecord)
	for {
		b, err := records.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("the connection broke: %w", err)
		}
		var piece agent.ProcessIO
		if err := wire.Protobuf.Unmarshal(b, &piece); err != nil {
			return err
		}
		to := s.app.Stdout
		switch piece.GetData().GetType() {
		case agent.ProcessIO_Data_STDERR:
			to = s.app.Stderr
		case agent.ProcessIO_Data_STDOUT:
		default:
			continue
		}
		if _, err := to.Write(piece.GetData().GetData()); err != nil {
			return err
		}
	}
}

// wait returns how the command ended: nil, exitStatus, or why that is unknown.
func (s *session) wait(ctx context.Context) error {
	const op = "wait for command in task"
	resp, err := s.cl.Agent(ctx, op, s.agent, &agent.Call{
		Type: agent.Call_WAIT_CONTAINER.Enum(), WaitContainer: &agent.Call_WaitContainer{ContainerId: s.id},
	}, true)
	if err != nil {
		return err
	}
	w := resp.GetWaitContainer()
	if w.ExitStatus == nil {
		return fault.Newf(op, fault.Unavailable, "the agent does not know how the command ended: %s", w.GetMessage())
	}
	// exit_status is what waitpid(2) gave.
	switch ws := syscall.WaitStatus(w.GetExitStatus()); {
	case ws.Signaled():
		return exitStatus(128 + int(ws.Signal()))
	case ws.ExitStatus() != 0:
		return exitStatus(ws.ExitStatus())
	}
	return nil
}

// attachInput sends standard input, window sizes and heartbeats.
func (s *session) attachInput(ctx context.Context, wg *sync.WaitGroup, failed chan<- error) {
	pr, pw := io.Pipe()
	out := &inputWriter{w: wire.NewRecordWriter(pw)}
	wg.Go(func() {
		resp, err := s.cl.Do(ctx, client.Request{Method: http.MethodPost, Path: s.path(), Body: pr, Stream: true, Header: map[string]string{
			"Content-Type": recordIO, "Message-Content-Type": wire.Protobuf.ContentType(),
		}})
		_ = pr.Close() // ends the writers below
		if err == nil {
			defer resp.Body.Close()
			if resp.StatusCode/100 != 2 {
				err = s.cl.Refused("send input to command in task", resp)
			}
		}
		if err != nil && ctx.Err() == nil {
			fmt.Fprint(s.app.Stderr, "dcos: ", err, "\r\n")
			failed <- err
		}
	})
	first := &agent.Call{Type: agent.Call_ATTACH_CONTAINER_INPUT.Enum(), AttachContainerInput: &agent.Call_AttachContainerInput{
		Type: agent.Call_AttachContainerInput_CONTAINER_ID.Enum(), ContainerId: s.id,
	}}
	wg.Go(func() {
		defer pw.Close()
		if out.send(first) != nil || s.tty && out.send(resized(s.windowSize())) != nil {
			return
		}
		// Standard input cannot be interrupted, so the goroutine that reads
		// it is the one that is not waited for; it ends with the program.
		done := make(chan struct{})
		go func() { defer close(done); s.copyInput(out) }()
		tick := time.NewTicker(heartbeat)
		defer tick.Stop()
		sizes := make(chan os.Signal, 1)
		if s.tty {
			signal.Notify(sizes, syscall.SIGWINCH)
			defer signal.Stop(sizes)
		}
		for {
			var err error
			select {
			case <-ctx.Done():
				return
			case <-done:
				done = nil // the end was sent; the request stays open until the command ends
			case <-sizes:
				err = out.send(resized(s.windowSize()))
			case <-tick.C:
				err = out.send(processIO(&agent.ProcessIO{Type: agent.ProcessIO_CONTROL.Enum(), Control: &agent.ProcessIO_Control{
					Type:      agent.ProcessIO_Control_HEARTBEAT.Enum(),
					Heartbeat: &agent.ProcessIO_Control_Heartbeat{Interval: &mesos.DurationInfo{Nanoseconds: proto.Int64(int64(heartbeat))}},
				}}))
			}
			if err != nil {
				return
			}
		}
	})
}

// copyInput sends standard input; an empty piece tells that it has ended.
func (s *session) copyInput(out *inputWriter) {
	buf := make([]byte, 32<<10)
	for {
		n, err := s.app.Stdin.Read(buf)
		if n > 0 && out.send(stdin(buf[:n])) != nil {
			return
		}
		if err != nil {
			_ = out.send(stdin(nil)) // the session is over if that fails
			return
		}
	}
}

// inputWriter writes records from several goroutines.
type inputWriter struct {
	mu sync.Mutex
	w  *wire.RecordWriter
}

func (o *inputWriter) send(call *agent.Call) error {
	b, err := wire.Protobuf.Marshal(call)
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.w.Write(b)
}

func processIO(io *agent.ProcessIO) *agent.Call {
	return &agent.Call{Type: agent.Call_ATTACH_CONTAINER_INPUT.Enum(), AttachContainerInput: &agent.Call_AttachContainerInput{
		Type: agent.Call_AttachContainerInput_PROCESS_IO.Enum(), ProcessIo: io,
	}}
}

func stdin(b []byte) *agent.Call {
	if b == nil {
		b = []byte{}
	}
	return processIO(&agent.ProcessIO{Type: agent.ProcessIO_DATA.Enum(), Data: &agent.ProcessIO_Data{Type: agent.ProcessIO_Data_STDIN.Enum(), Data: b}})
}

func resized(size *mesos.TTYInfo_WindowSize) *agent.Call {
	return processIO(&agent.ProcessIO{Type: agent.ProcessIO_CONTROL.Enum(), Control: &agent.ProcessIO_Control{
		Type: agent.ProcessIO_Control_TTY_INFO.Enum(), TtyInfo: &mesos.TTYInfo{WindowSize: size},
	}})
}

// windowSize is the terminal's, or a usual one.
func (s *session) windowSize() *mesos.TTYInfo_WindowSize {
	columns, rows := 80, 24
	if fd, ok := s.app.Terminal(); ok {
		if c, r, err := term.GetSize(fd); err == nil {
			columns, rows = c, r
		}
	}
	return &mesos.TTYInfo_WindowSize{Rows: proto.Uint32(uint32(rows)), Columns: proto.Uint32(uint32(columns))}
}

// rawTerminal hands keys like Ctrl-C to the command, and returns how to undo it.
func (s *session) rawTerminal() (func(), error) {
	fd, ok := s.app.Terminal()
	if !s.tty || !ok {
		return func() {}, nil
	}
	old, err := term.MakeRaw(fd)
	if err != nil {
		return nil, fault.New("prepare terminal", fault.Internal, err)
	}
	return func() { _ = term.Restore(fd, old) }, nil // the terminal is gone if that fails
}
