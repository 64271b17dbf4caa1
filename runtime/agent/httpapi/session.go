package httpapi

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	mesos "dcos.example/dcos/runtime/api/mesos"
	agentapi "dcos.example/dcos/runtime/api/mesos/agent"

	"dcos.example/dcos/runtime/agent/container"
	"dcos.example/dcos/runtime/api/wire"
	"dcos.example/dcos/runtime/fault"
)

// forget is how long the exit status of an ended session is kept for a client
// that asks after the stream has ended.
const forget = time.Minute

// maxRecord bounds a record of input.
const maxRecord = 4 << 20

// sessions are commands that clients run in containers. A session lives as
// long as the connection that began it.
type sessions struct {
	src Source
	mu  sync.Mutex
	all map[string]*session
}

type session struct {
	id     *mesos.ContainerID
	tty    bool
	proc   container.Process // set when ready is closed
	ready  chan struct{}
	in     *io.PipeWriter
	inUse  bool
	outs   map[chan *agentapi.ProcessIO]bool
	exited chan struct{}
	code   int
	err    error
	mu     sync.Mutex
}

func newSessions(src Source) *sessions { return &sessions{src: src, all: make(map[string]*session)} }

// key is a nested container's full name.
func key(id *mesos.ContainerID) string {
	if p := id.GetParent(); p != nil {
		return key(p) + "." + id.GetValue()
	}
	return id.GetValue()
}

func (s *sessions) get(id *mesos.ContainerID) (*session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.all[key(id)]; x != nil {
		return x, nil
	}
	return nil, fault.Newf("find container", fault.NotFound, "container %s cannot be found", key(id))
}

func (s *sessions) live() (ids []*mesos.ContainerID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.all {
		select {
		case <-x.exited:
		default:
			ids = append(ids, x.id)
		}
	}
	return ids
}

func (s *sessions) add(x *session) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all[key(x.id)] != nil {
		return fault.Newf("launch container", fault.Conflict, "container %s exists", key(x.id))
	}
	s.all[key(x.id)] = x
	return nil
}

func (s *sessions) drop(x *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all[key(x.id)] == x {
		delete(s.all, key(x.id))
	}
}

// Write makes a session's output stream; it goes to every attached client, and
// one that does not read holds the program up, as a terminal would.
func (x *session) writer(kind agentapi.ProcessIO_Data_Type) io.Writer { return &output{x, kind} }

type output struct {
	x    *session
	kind agentapi.ProcessIO_Data_Type
}

func (o *output) Write(b []byte) (int, error) {
	rec := &agentapi.ProcessIO{
		Type: agentapi.ProcessIO_DATA.Enum(),
		Data: &agentapi.ProcessIO_Data{Type: o.kind.Enum(), Data: append([]byte(nil), b...)},
	}
	o.x.mu.Lock()
	outs := make([]chan *agentapi.ProcessIO, 0, len(o.x.outs))
	for c := range o.x.outs {
		outs = append(outs, c)
	}
	o.x.mu.Unlock()
	for _, c := range outs {
		select {
		case c <- rec:
		case <-o.x.exited:
		}
	}
	return len(b), nil
}

func (x *session) attach() chan *agentapi.ProcessIO {
	c := make(chan *agentapi.ProcessIO, 64)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.outs[c] = true
	return c
}

// detach stops a client's output. What waits for it is let go.
func (x *session) detach(c chan *agentapi.ProcessIO) {
	x.mu.Lock()
	delete(x.outs, c)
	x.mu.Unlock()
	for {
		select {
		case <-c:
		case <-time.After(10 * time.Millisecond):
			return
		}
	}
}

// command translates what the client asks to run.
func command(c *mesos.CommandInfo, ci *mesos.ContainerInfo) (container.Command, error) {
	out := container.Command{User: c.GetUser()}
	switch {
	case c.GetShell() && c.GetValue() != "":
		out.Args = []string{"/bin/sh", "-c", c.GetValue()}
	case len(c.GetArguments()) > 0:
		out.Args = append([]string(nil), c.GetArguments()...)
		if c.GetValue() != "" { // arguments[0] is only the program's name for itself
			out.Args[0] = c.GetValue()
		}
	case c.GetValue() != "":
		out.Args = []string{c.GetValue()}
	default:
		return out, fault.Newf("launch container", fault.Invalid, "the command is empty")
	}
	for _, v := range c.GetEnvironment().GetVariables() {
		out.Env = append(out.Env, v.GetName()+"="+v.GetValue())
	}
	if t := ci.GetTtyInfo(); t != nil {
		out.TTY = true
		out.Rows, out.Cols = t.GetWindowSize().GetRows(), t.GetWindowSize().GetColumns()
	}
	return out, nil
}

// launchSession runs a command in a task's container and streams its output
// until it ends or the client leaves, which ends it.
func (a *api) launchSession(w http.ResponseWriter, r *http.Request, f formats, c *agentapi.Call_LaunchNestedContainerSession) {
	id := c.GetContainerId()
	if id.GetParent() == nil {
		http.Error(w, "Failed to validate agent::Call: expecting 'container_id.parent' to be present", http.StatusBadRequest)
		return
	}
	cmd, err := command(c.GetCommand(), c.GetContainer())
	if err != nil {
		fail(w, err)
		return
	}
	stdin, in := io.Pipe()
	x := &session{
		id: id, tty: cmd.TTY, in: in, ready: make(chan struct{}), exited: make(chan struct{}), outs: make(map[chan *agentapi.ProcessIO]bool),
	}
	cmd.Stdin, cmd.Stdout = stdin, x.writer(agentapi.ProcessIO_Data_STDOUT)
	if !cmd.TTY {
		cmd.Stderr = x.writer(agentapi.ProcessIO_Data_STDERR)
	}
	if err := a.sessions.add(x); err != nil {
		fail(w, err)
		return
	}
	outs := x.attach()
	x.proc, err = a.src.Exec(r.Context(), root(id), cmd)
	if err != nil {
		a.sessions.drop(x)
		fail(w, errors.Join(err, stdin.Close()))
		return
	}
	close(x.ready)
	go func() { // ends with the process, which this handler ends
		x.code, x.err = x.proc.Wait(context.WithoutCancel(r.Context()))
		close(x.exited)
	}()
	stream(w, r, f, x, outs)
	a.close(x, stdin)
}

// close ends a session's process and keeps its status for a while.
func (a *api) close(x *session, stdin *io.PipeReader) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := stdin.Close(); err != nil {
		a.log.Debug("close session input", "error", err)
	}
	select {
	case <-x.exited:
	default:
		if err := x.proc.Signal(ctx, syscall.SIGKILL); err != nil {
			a.log.Debug("end session", "container", key(x.id), "error", err)
		}
		select {
		case <-x.exited:
		case <-ctx.Done():
		}
	}
	if err := x.proc.Close(ctx); err != nil {
		a.log.Debug("end session", "container", key(x.id), "error", err)
	}
	time.AfterFunc(forget, func() { a.sessions.drop(x) })
}

// root is the task's container.
func root(id *mesos.ContainerID) string {
	for id.GetParent() != nil {
		id = id.GetParent()
	}
	return id.GetValue()
}

// stream sends output until the process has ended or the client has left.
func stream(w http.ResponseWriter, r *http.Request, f formats, x *session, outs chan *agentapi.ProcessIO) {
	defer x.detach(outs)
	kind := f.out.ContentType()
	if f.recordOut {
		w.Header().Set("Message-Content-Type", kind)
		kind = typeRecordIO
	}
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(http.StatusOK)
	if err := http.NewResponseController(w).Flush(); err != nil {
		return
	}
	records := wire.NewRecordWriter(w)
	send := func(p *agentapi.ProcessIO) bool {
		b, err := f.out.Marshal(p)
		return err == nil && records.Write(b) == nil
	}
	for {
		select {
		case p := <-outs:
			if !send(p) {
				return
			}
		case <-r.Context().Done():
			return
		case <-x.exited:
			for {
				select {
				case p := <-outs:
					if !send(p) {
						return
					}
				default:
					return
				}
			}
		}
	}
}

// attachOutput streams a session's output to a further client.
func (a *api) attachOutput(w http.ResponseWriter, r *http.Request, f formats, id *mesos.ContainerID) {
	x, err := a.sessions.get(id)
	if err != nil {
		if id.GetParent() == nil {
			if _, uerr := a.src.Usage(r.Context(), id.GetValue()); uerr == nil {
				err = fault.Newf("attach to container", fault.Conflict, "task containers write to stdout and stderr in their sandbox; read those")
			}
		}
		fail(w, err)
		return
	}
	stream(w, r, f, x, x.attach())
}

// attachInput feeds a session from a stream of calls, the first of which names
// it.
func (a *api) attachInput(w http.ResponseWriter, r *http.Request, f formats) {
	if err := http.NewResponseController(w).EnableFullDuplex(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		fail(w, fault.New("attach input", fault.Internal, err))
		return
	}
	records := wire.NewRecordReader(r.Body, maxRecord)
	first, err := nextInput(records, f)
	if err != nil || first.GetType() != agentapi.Call_AttachContainerInput_CONTAINER_ID {
		http.Error(w, "Failed to validate agent::Call: expecting 'attach_container_input.type' to be CONTAINER_ID", http.StatusBadRequest)
		return
	}
	x, err := a.sessions.get(first.GetContainerId())
	if err == nil {
		err = x.claimInput()
	}
	if err != nil {
		fail(w, err)
		return
	}
	defer x.releaseInput()
	select {
	case <-x.ready:
	case <-r.Context().Done():
		return
	}
	if err := x.feed(r.Context(), records, f); err != nil {
		fail(w, err)
		return
	}
	w.WriteHeader(http.StatusOK)
}

func nextInput(records *wire.RecordReader, f formats) (*agentapi.Call_AttachContainerInput, error) {
	b, err := records.Read()
	if err != nil {
		return nil, err
	}
	c := &agentapi.Call{}
	if err := f.in.Unmarshal(b, c); err != nil {
		return nil, err
	}
	if c.GetType() != agentapi.Call_ATTACH_CONTAINER_INPUT || c.AttachContainerInput == nil {
		return nil, fault.Newf("attach input", fault.Invalid, "a record is not an ATTACH_CONTAINER_INPUT call")
	}
	return c.GetAttachContainerInput(), nil
}

func (x *session) claimInput() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.inUse {
		return fault.Newf("attach input", fault.Conflict, "container %s has an input attached", key(x.id))
	}
	x.inUse = true
	return nil
}

func (x *session) releaseInput() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.inUse = false
}

// feed passes input on until the client or the process ends. The client's end
// of the stream without an end of input leaves the process's input open.
func (x *session) feed(ctx context.Context, records *wire.RecordReader, f formats) error {
	for {
		c, err := nextInput(records, f)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		p := c.GetProcessIo()
		switch {
		case p.GetData().GetType() == agentapi.ProcessIO_Data_STDIN:
			data := p.GetData().GetData()
			if len(data) == 0 {
				if err := x.in.Close(); err != nil {
					return fault.New("attach input", fault.Internal, err)
				}
				continue
			}
			if _, err := x.in.Write(data); err != nil {
				if errors.Is(err, io.ErrClosedPipe) {
					return nil // the process has ended
				}
				return fault.New("attach input", fault.Internal, err)
			}
		case p.GetControl().GetType() == agentapi.ProcessIO_Control_TTY_INFO && x.tty:
			size := p.GetControl().GetTtyInfo().GetWindowSize()
			if err := x.proc.Resize(ctx, size.GetRows(), size.GetColumns()); err != nil {
				return err
			}
		}
	}
}

type result struct {
	status  *int32
	state   *mesos.TaskState
	reason  *mesos.TaskStatus_Reason
	message *string
}

// wait returns how a session or a task's container ended.
func (a *api) wait(ctx context.Context, id *mesos.ContainerID) (result, error) {
	x, err := a.sessions.get(id)
	if err != nil {
		if id.GetParent() != nil {
			return result{}, err
		}
		s, err := a.src.Ended(ctx, id.GetValue())
		if err != nil {
			return result{}, err
		}
		return result{state: s.State, reason: s.Reason, message: s.Message}, nil
	}
	select {
	case <-x.exited:
	case <-ctx.Done():
		return result{}, fault.New("wait for container", fault.Unavailable, context.Cause(ctx))
	}
	if x.err != nil {
		return result{message: proto.String(x.err.Error())}, nil
	}
	// As wait(2) has it: a signal in the low bits, or the exit code above.
	st := int32(x.code << 8)
	if x.code > 128 && x.code <= 128+64 {
		st = int32(x.code - 128)
	}
	return result{status: &st}, nil
}

// kill signals a session's process or a task's container.
func (a *api) kill(w http.ResponseWriter, r *http.Request, id *mesos.ContainerID, sig *int32) {
	s := syscall.SIGKILL
	if sig != nil {
		s = syscall.Signal(*sig)
	}
	x, err := a.sessions.get(id)
	switch {
	case err == nil:
		select {
		case <-x.ready:
			err = x.proc.Signal(r.Context(), s)
		case <-r.Context().Done():
			return
		}
	case id.GetParent() == nil:
		err = a.src.Signal(r.Context(), id.GetValue(), s)
	}
	if err != nil {
		fail(w, err)
		return
	}
	w.WriteHeader(http.StatusOK)
}
