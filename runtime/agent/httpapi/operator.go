package httpapi

import (
	"errors"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"google.golang.org/protobuf/proto"

	mesos "dcos.example/dcos/runtime/api/mesos"
	agentapi "dcos.example/dcos/runtime/api/mesos/agent"

	"dcos.example/dcos/runtime/agent/container"
	"dcos.example/dcos/runtime/api/wire"
	"dcos.example/dcos/runtime/fault"
)

//lint:file-ignore SA1019 The nested-container calls are what older clients send.

const (
	typeRecordIO = "application/recordio"
	maxBody      = 16 << 20
)

// formats are how one request speaks.
type formats struct {
	in, out   wire.Format
	recordIn  bool // the body is a stream of records
	recordOut bool
}

// negotiate reads the headers as Mesos does and answers what it refuses.
func negotiate(w http.ResponseWriter, r *http.Request) (f formats, ok bool) {
	refuse := func(status int, text string) (formats, bool) {
		http.Error(w, text, status)
		return f, false
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return refuse(http.StatusMethodNotAllowed, "Expecting one of { 'POST' }, but received '"+r.Method+"'")
	}
	kind := r.Header.Get("Content-Type")
	if kind == "" {
		return refuse(http.StatusBadRequest, "Expecting 'Content-Type' to be present")
	}
	inner := r.Header.Get("Message-Content-Type")
	if media, _, err := mime.ParseMediaType(kind); err == nil && media == typeRecordIO {
		f.recordIn, kind = true, inner
		if inner == "" {
			return refuse(http.StatusBadRequest, "Expecting 'Message-Content-Type' to be set for streaming requests")
		}
	} else if inner != "" {
		return refuse(http.StatusUnsupportedMediaType, "Expecting 'Message-Content-Type' to be not set for non-streaming requests")
	}
	if f.in, ok = wire.ParseFormat(kind); !ok {
		return refuse(http.StatusUnsupportedMediaType, "Expecting 'Content-Type' of application/json or application/x-protobuf")
	}
	accept := strings.Join(r.Header.Values("Accept"), ",")
	if strings.Contains(accept, typeRecordIO) {
		f.recordOut = true
		if f.out, ok = wire.Accept(strings.Join(r.Header.Values("Message-Accept"), ",")); !ok {
			return refuse(http.StatusNotAcceptable, "Expecting 'Message-Accept' to allow application/json or application/x-protobuf")
		}
		return f, true
	}
	if r.Header.Get("Message-Accept") != "" && !f.recordIn {
		return refuse(http.StatusBadRequest, "Expecting 'Message-Accept' to be not set for non-streaming responses")
	}
	if f.out, ok = wire.Accept(accept); !ok {
		return refuse(http.StatusNotAcceptable, "Expecting 'Accept' to allow application/json or application/x-protobuf")
	}
	return f, true
}

// operator serves POST /api/v1.
func (a *api) operator(w http.ResponseWriter, r *http.Request) {
	f, ok := negotiate(w, r)
	if !ok {
		return
	}
	if f.recordIn {
		a.attachInput(w, r, f)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, "Failed to read body: "+err.Error(), http.StatusBadRequest)
		return
	}
	call := &agentapi.Call{}
	if err := f.in.Unmarshal(body, call); err != nil {
		http.Error(w, "Failed to parse body into Call protobuf: "+err.Error(), http.StatusBadRequest)
		return
	}
	if err := validate(call); err != nil {
		http.Error(w, "Failed to validate agent::Call: "+err.Error(), http.StatusBadRequest)
		return
	}
	a.dispatch(w, r, f, call)
}

// validate refuses calls that miss their part.
func validate(c *agentapi.Call) error {
	missing := map[agentapi.Call_Type]bool{
		agentapi.Call_LIST_FILES:                      c.ListFiles == nil,
		agentapi.Call_READ_FILE:                       c.ReadFile == nil,
		agentapi.Call_LAUNCH_NESTED_CONTAINER_SESSION: c.LaunchNestedContainerSession == nil,
		agentapi.Call_ATTACH_CONTAINER_OUTPUT:         c.AttachContainerOutput == nil,
		agentapi.Call_WAIT_NESTED_CONTAINER:           c.WaitNestedContainer == nil,
		agentapi.Call_WAIT_CONTAINER:                  c.WaitContainer == nil,
		agentapi.Call_KILL_NESTED_CONTAINER:           c.KillNestedContainer == nil,
		agentapi.Call_KILL_CONTAINER:                  c.KillContainer == nil,
	}
	if c.Type == nil {
		return errors.New("expecting 'type' to be present")
	}
	if missing[c.GetType()] {
		return errors.New("expecting '" + strings.ToLower(c.GetType().String()) + "' to be present")
	}
	return nil
}

func (a *api) dispatch(w http.ResponseWriter, r *http.Request, f formats, c *agentapi.Call) {
	switch c.GetType() {
	case agentapi.Call_LAUNCH_NESTED_CONTAINER_SESSION:
		a.launchSession(w, r, f, c.GetLaunchNestedContainerSession())
		return
	case agentapi.Call_ATTACH_CONTAINER_OUTPUT:
		a.attachOutput(w, r, f, c.GetAttachContainerOutput().GetContainerId())
		return
	case agentapi.Call_ATTACH_CONTAINER_INPUT:
		http.Error(w, "Expecting 'Content-Type' to be application/recordio for ATTACH_CONTAINER_INPUT call", http.StatusUnsupportedMediaType)
		return
	case agentapi.Call_KILL_NESTED_CONTAINER:
		a.kill(w, r, c.GetKillNestedContainer().GetContainerId(), c.GetKillNestedContainer().Signal)
		return
	case agentapi.Call_PRUNE_IMAGES:
		a.prune(w, r, c.GetPruneImages().GetExcludedImages())
		return
	case agentapi.Call_KILL_CONTAINER:
		a.kill(w, r, c.GetKillContainer().GetContainerId(), c.GetKillContainer().Signal)
		return
	}
	resp, err := a.answer(r, c)
	if err != nil {
		fail(w, err)
		return
	}
	b, err := f.out.Marshal(resp)
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", f.out.ContentType())
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	_, _ = w.Write(b) // the client went away: nothing to do
}

// prune removes the images that nobody uses.
func (a *api) prune(w http.ResponseWriter, r *http.Request, excluded []*mesos.Image) {
	var keep []string
	for _, i := range excluded {
		name, err := container.Normalize(i.GetDocker().GetName())
		if err != nil {
			fail(w, err)
			return
		}
		keep = append(keep, name)
	}
	if err := a.src.PruneImages(r.Context(), keep); err != nil {
		fail(w, err)
		return
	}
	w.WriteHeader(http.StatusOK)
}

// answer computes the response of a call that has one.
func (a *api) answer(r *http.Request, c *agentapi.Call) (*agentapi.Response, error) {
	v := a.src.View()
	resp := &agentapi.Response{}
	kind := func(t agentapi.Response_Type) { resp.Type = t.Enum() }
	switch c.GetType() {
	case agentapi.Call_GET_HEALTH:
		kind(agentapi.Response_GET_HEALTH)
		resp.GetHealth = &agentapi.Response_GetHealth{Healthy: proto.Bool(true)}
	case agentapi.Call_GET_FLAGS:
		kind(agentapi.Response_GET_FLAGS)
		resp.GetFlags = &agentapi.Response_GetFlags{}
		for _, name := range sorted(v.Flags) {
			resp.GetFlags.Flags = append(resp.GetFlags.Flags, &mesos.Flag{Name: proto.String(name), Value: proto.String(v.Flags[name])})
		}
	case agentapi.Call_GET_VERSION:
		kind(agentapi.Response_GET_VERSION)
		resp.GetVersion = &agentapi.Response_GetVersion{VersionInfo: &mesos.VersionInfo{Version: proto.String(v.Version)}}
	case agentapi.Call_GET_METRICS:
		kind(agentapi.Response_GET_METRICS)
		m := metrics(v)
		resp.GetMetrics = &agentapi.Response_GetMetrics{}
		for _, name := range sorted(m) {
			resp.GetMetrics.Metrics = append(resp.GetMetrics.Metrics, &mesos.Metric{Name: proto.String(name), Value: proto.Float64(m[name])})
		}
	case agentapi.Call_LIST_FILES:
		kind(agentapi.Response_LIST_FILES)
		return resp, a.listFiles(resp, c.GetListFiles().GetPath())
	case agentapi.Call_READ_FILE:
		kind(agentapi.Response_READ_FILE)
		return resp, a.readFile(resp, c.GetReadFile())
	case agentapi.Call_GET_STATE:
		kind(agentapi.Response_GET_STATE)
		resp.GetState = &agentapi.Response_GetState{GetTasks: tasksOf(v), GetFrameworks: frameworksOf(v), GetExecutors: &agentapi.Response_GetExecutors{}}
	case agentapi.Call_GET_TASKS:
		kind(agentapi.Response_GET_TASKS)
		resp.GetTasks = tasksOf(v)
	case agentapi.Call_GET_FRAMEWORKS:
		kind(agentapi.Response_GET_FRAMEWORKS)
		resp.GetFrameworks = frameworksOf(v)
	case agentapi.Call_GET_EXECUTORS:
		kind(agentapi.Response_GET_EXECUTORS)
		resp.GetExecutors = &agentapi.Response_GetExecutors{}
	case agentapi.Call_GET_OPERATIONS:
		kind(agentapi.Response_GET_OPERATIONS)
		resp.GetOperations = &agentapi.Response_GetOperations{Operations: v.Operations}
	case agentapi.Call_GET_RESOURCE_PROVIDERS:
		kind(agentapi.Response_GET_RESOURCE_PROVIDERS)
		resp.GetResourceProviders = &agentapi.Response_GetResourceProviders{}
	case agentapi.Call_GET_AGENT:
		kind(agentapi.Response_GET_AGENT)
		resp.GetAgent = &agentapi.Response_GetAgent{AgentInfo: v.Agent}
	case agentapi.Call_GET_CONTAINERS:
		kind(agentapi.Response_GET_CONTAINERS)
		resp.GetContainers = a.containersOf(r, v, c.GetGetContainers().GetShowNested())
	case agentapi.Call_WAIT_CONTAINER:
		kind(agentapi.Response_WAIT_CONTAINER)
		res, err := a.wait(r.Context(), c.GetWaitContainer().GetContainerId())
		if err != nil {
			return nil, err
		}
		resp.WaitContainer = &agentapi.Response_WaitContainer{ExitStatus: res.status, State: res.state, Reason: res.reason, Message: res.message}
	case agentapi.Call_WAIT_NESTED_CONTAINER:
		kind(agentapi.Response_WAIT_NESTED_CONTAINER)
		res, err := a.wait(r.Context(), c.GetWaitNestedContainer().GetContainerId())
		if err != nil {
			return nil, err
		}
		resp.WaitNestedContainer = &agentapi.Response_WaitNestedContainer{ExitStatus: res.status, State: res.state, Reason: res.reason, Message: res.message}
	default:
		return nil, fault.Newf("serve operator call", fault.Invalid, "this agent does not support calls of type %s", c.GetType())
	}
	return resp, nil
}

func sorted[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

func tasksOf(v View) *agentapi.Response_GetTasks {
	out := &agentapi.Response_GetTasks{}
	for _, t := range v.Tasks {
		switch {
		case t.Done:
			out.CompletedTasks = append(out.CompletedTasks, t.Task)
		case t.Running:
			out.LaunchedTasks = append(out.LaunchedTasks, t.Task)
		default:
			out.QueuedTasks = append(out.QueuedTasks, t.Task)
		}
	}
	return out
}

func frameworksOf(v View) *agentapi.Response_GetFrameworks {
	out := &agentapi.Response_GetFrameworks{}
	for _, f := range byFramework(v.Tasks, func(t Task) bool { return !t.Done }) {
		out.Frameworks = append(out.Frameworks, &agentapi.Response_GetFrameworks_Framework{FrameworkInfo: f.info})
	}
	for _, f := range byFramework(v.Tasks, func(t Task) bool { return t.Done && !alive(v, t) }) {
		out.CompletedFrameworks = append(out.CompletedFrameworks, &agentapi.Response_GetFrameworks_Framework{FrameworkInfo: f.info})
	}
	return out
}

func (a *api) containersOf(r *http.Request, v View, nested bool) *agentapi.Response_GetContainers {
	out := &agentapi.Response_GetContainers{}
	for _, t := range v.Tasks {
		if !t.Running {
			continue
		}
		id := t.Info.GetTaskId().GetValue()
		c := &agentapi.Response_GetContainers_Container{
			FrameworkId: t.Framework.GetId(), ExecutorId: &mesos.ExecutorID{Value: proto.String(id)},
			ExecutorName: proto.String("Command Executor (Task: " + id + ")"),
			ContainerId:  &mesos.ContainerID{Value: proto.String(t.ContainerID)}, ContainerStatus: t.Status,
		}
		if s, err := a.src.Usage(r.Context(), t.ContainerID); err == nil {
			c.ResourceStatistics = s
		}
		out.Containers = append(out.Containers, c)
	}
	if nested {
		for _, id := range a.sessions.live() {
			out.Containers = append(out.Containers, &agentapi.Response_GetContainers_Container{ContainerId: id})
		}
	}
	return out
}

func (a *api) listFiles(resp *agentapi.Response, path string) error {
	list, err := a.files.List(path)
	if err != nil {
		return err
	}
	resp.ListFiles = &agentapi.Response_ListFiles{}
	for _, i := range list {
		resp.ListFiles.FileInfos = append(resp.ListFiles.FileInfos, &mesos.FileInfo{
			Path: proto.String(i.Path), Nlink: proto.Int32(int32(i.Nlink)), Size: proto.Uint64(uint64(i.Size)),
			Mtime: &mesos.TimeInfo{Nanoseconds: proto.Int64(i.Mtime.UnixNano())},
			Mode:  proto.Uint32(unixMode(i.Mode)), Uid: proto.String(i.UID), Gid: proto.String(i.GID),
		})
	}
	return nil
}

func unixMode(m fs.FileMode) uint32 {
	n := uint32(m.Perm())
	switch {
	case m.IsDir():
		n |= syscall.S_IFDIR
	case m&fs.ModeSymlink != 0:
		n |= syscall.S_IFLNK
	default:
		n |= syscall.S_IFREG
	}
	return n
}

func (a *api) readFile(resp *agentapi.Response, c *agentapi.Call_ReadFile) error {
	length := int64(-1)
	if c.Length != nil {
		length = int64(min(c.GetLength(), 1<<40))
	}
	data, size, err := a.files.Read(c.GetPath(), int64(min(c.GetOffset(), 1<<60)), length)
	if err != nil {
		return err
	}
	resp.ReadFile = &agentapi.Response_ReadFile{Size: proto.Uint64(uint64(size)), Data: data}
	return nil
}
