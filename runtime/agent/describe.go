package agent

import (
	"errors"
	"fmt"
	"math"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	mesos "dcos.example/dcos/runtime/api/mesos"

	"dcos.example/dcos/runtime/agent/check"
	"dcos.example/dcos/runtime/agent/container"
	"dcos.example/dcos/runtime/agent/network"
	"dcos.example/dcos/runtime/agent/volume"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/resource"
)

// sandboxMount is where a container of an image finds its sandbox.
const sandboxMount = "/mnt/mesos/sandbox"

// minMemory is what a container gets at least, in bytes, as on Mesos agents.
const minMemory = 32 << 20

// maxPids keeps one task from using up the host's processes.
const maxPids = 32768

// described is a task translated to what the agent's parts understand.
type described struct {
	spec    container.Spec
	network *network.Request // nil: the host's network
	shell   bool
	// secrets are mounted like everything else, once they are in files.
	secrets []secretFile
	volumes []volume.Volume
}

// secretFile is a secret that the task finds in a file.
type secretFile struct {
	data     []byte
	target   string
	readOnly bool
}

// describe translates a task. All problems of the task are returned at once;
// nothing is looked up or made.
func describe(ti *mesos.TaskInfo, containerID, sandbox string, layout volume.Layout) (described, error) {
	b := &builder{ti: ti, sandbox: sandbox, layout: layout}
	b.d.spec.ID = containerID
	b.d.spec.Stdout, b.d.spec.Stderr = filepath.Join(sandbox, "stdout"), filepath.Join(sandbox, "stderr")
	if ti.GetExecutor() != nil {
		b.bad("runs under an executor; this agent runs commands and images itself and has no executor API yet")
	}
	if ti.GetCheck() != nil {
		b.bad("has a general check; use a health check, general checks are not supported yet")
	}
	b.image()
	b.command()
	b.limits()
	b.networks()
	b.persistent()
	b.volumes()
	b.linux()
	b.targets()
	if err := check.Validate(checksOf(ti)); err != nil {
		b.errs = append(b.errs, err)
	}
	if len(b.errs) > 0 {
		return described{}, fault.New("read task "+ti.GetTaskId().GetValue(), fault.Invalid, errors.Join(b.errs...))
	}
	return b.d, nil
}

func checksOf(ti *mesos.TaskInfo) []*mesos.HealthCheck {
	var all []*mesos.HealthCheck
	if h := ti.GetHealthCheck(); h != nil {
		all = append(all, h)
	}
	return append(all, ti.GetMoreHealthChecks()...)
}

// isDocker reports whether a task follows Docker's rules rather than those of
// Mesos' own containers. An absent type reads as DOCKER and is not.
func isDocker(ti *mesos.TaskInfo) bool {
	c := ti.GetContainer()
	return c != nil && c.Type != nil && c.GetType() == mesos.ContainerInfo_DOCKER
}

type builder struct {
	ti      *mesos.TaskInfo
	sandbox string
	layout  volume.Layout
	d       described
	errs    []error
}

func (b *builder) bad(format string, args ...any) {
	b.errs = append(b.errs, fmt.Errorf(format, args...))
}

func (b *builder) image() {
	c := b.ti.GetContainer()
	switch {
	case isDocker(b.ti):
		b.d.spec.Image = c.GetDocker().GetImage()
		b.d.spec.ForcePull = c.GetDocker().GetForcePullImage()
		b.d.spec.Privileged = c.GetDocker().GetPrivileged()
		if b.d.spec.Image == "" {
			b.bad("is a DOCKER container without an image")
		}
	default:
		img := c.GetMesos().GetImage()
		if img == nil {
			break
		}
		if img.GetType() != mesos.Image_DOCKER {
			b.bad("has an image of type %s; only DOCKER images are supported", img.GetType())
			break
		}
		b.d.spec.Image = img.GetDocker().GetName()
		b.d.spec.ForcePull = !img.GetCached()
	}
	if b.d.spec.Image != "" {
		if _, err := container.Normalize(b.d.spec.Image); err != nil {
			b.errs = append(b.errs, err)
		}
	}
	b.d.spec.Hostname = c.GetHostname()
}

func (b *builder) command() {
	c, s := b.ti.GetCommand(), &b.d.spec
	b.d.shell = c.GetShell() && c.GetValue() != ""
	docker := isDocker(b.ti)
	switch {
	case b.d.shell:
		s.Entrypoint, s.Cmd = []string{"/bin/sh", "-c"}, []string{c.GetValue()}
	case c.GetValue() == "": // the image's entrypoint
		s.Cmd = c.GetArguments()
	case docker:
		s.Cmd = append([]string{c.GetValue()}, c.GetArguments()...)
	default: // arguments[0] is the program's own name
		s.Entrypoint = []string{c.GetValue()}
		if a := c.GetArguments(); len(a) > 0 {
			s.Cmd = a[1:]
		}
	}
	if s.Image == "" && c.GetValue() == "" {
		b.bad("has neither an image nor a command")
	}
	s.User = c.GetUser()
	for _, v := range c.GetEnvironment().GetVariables() {
		value := v.GetValue()
		if v.GetType() == mesos.Environment_Variable_SECRET {
			data, ok := b.secret("environment variable "+v.GetName(), v.GetSecret())
			if !ok {
				continue
			}
			value = string(data)
			if strings.ContainsRune(value, 0) {
				b.bad("environment variable %s is a secret with a zero byte in it; use a volume", v.GetName())
				continue
			}
		}
		s.Env = append(s.Env, v.GetName()+"="+value)
	}
	if s.Image != "" {
		s.Mounts = append(s.Mounts, container.Mount{Source: b.sandbox, Target: sandboxMount, Give: container.GiveAll})
		if !docker {
			s.Cwd = sandboxMount
		}
		return
	}
	s.Mounts = append(s.Mounts, container.Mount{Source: b.sandbox, Target: b.sandbox})
	s.Cwd = b.sandbox
}

func (b *builder) limits() {
	l := &b.d.spec.Limits
	l.Pids = maxPids
	for _, r := range b.ti.GetResources() {
		switch r.GetName() {
		case "cpus":
			l.CPUs += r.GetScalar().GetValue()
		case "mem":
			l.Memory += int64(r.GetScalar().GetValue() * (1 << 20))
		}
	}
	l.CPUQuota = l.CPUs
	for name, v := range b.ti.GetLimits() {
		unbounded := math.IsInf(v.GetValue(), 1)
		switch {
		case name == "cpus" && unbounded:
			l.CPUQuota = 0
		case name == "cpus":
			l.CPUQuota = v.GetValue()
		case name == "mem" && unbounded:
			l.Memory = 0
		case name == "mem":
			l.Memory = int64(v.GetValue() * (1 << 20))
		default:
			b.bad("has a limit of %s; only cpus and mem have limits", name)
		}
	}
	if l.Memory > 0 {
		l.Memory = max(l.Memory, minMemory)
	}
}

func (b *builder) networks() {
	c := b.ti.GetContainer()
	infos := c.GetNetworkInfos()
	if len(infos) > 1 {
		b.bad("joins %d networks; a container has at most one", len(infos))
		return
	}
	docker := c.GetDocker() // nil unless the task follows Docker's rules
	req := &network.Request{ID: b.d.spec.ID}
	switch {
	case docker != nil && docker.GetNetwork() == mesos.ContainerInfo_DockerInfo_NONE:
		b.bad("has docker network NONE, which is not supported")
		return
	case docker != nil && docker.GetNetwork() == mesos.ContainerInfo_DockerInfo_USER:
		if len(infos) == 0 || infos[0].GetName() == "" {
			b.bad("has docker network USER without the name of the network")
			return
		}
		req.Network = infos[0].GetName()
	case docker != nil && docker.GetNetwork() == mesos.ContainerInfo_DockerInfo_BRIDGE:
	case len(infos) == 0:
		return
	default:
		// A NetworkInfo without a name and without ports asks for nothing but
		// the host's network.
		if infos[0].GetName() == "" && len(infos[0].GetPortMappings()) == 0 {
			return
		}
		req.Network = infos[0].GetName()
	}
	for _, p := range docker.GetPortMappings() {
		b.port(req, p.GetHostPort(), p.GetContainerPort(), p.GetProtocol())
	}
	if len(infos) > 0 {
		for _, p := range infos[0].GetPortMappings() {
			b.port(req, p.GetHostPort(), p.GetContainerPort(), p.GetProtocol())
		}
	}
	b.d.network = req
}

// port adds a mapping; "udp,tcp" asks for both.
func (b *builder) port(req *network.Request, host, inside uint32, protocols string) {
	if protocols == "" {
		protocols = "tcp"
	}
	for p := range strings.SplitSeq(protocols, ",") {
		p = strings.ToLower(strings.TrimSpace(p))
		if host == 0 || host > math.MaxUint16 || inside == 0 || inside > math.MaxUint16 || (p != "tcp" && p != "udp") {
			b.bad("maps host port %d to container port %d/%s, which is not a port mapping", host, inside, p)
			continue
		}
		m := network.Port{Host: uint16(host), Container: uint16(inside), Protocol: p}
		if !slices.Contains(req.Ports, m) {
			req.Ports = append(req.Ports, m)
		}
	}
}

// secret returns a secret that is given by value.
func (b *builder) secret(of string, s *mesos.Secret) ([]byte, bool) {
	if s.GetValue() == nil || s.Type != nil && s.GetType() != mesos.Secret_VALUE {
		b.bad("%s is a secret by reference; there is no store of secrets, give it by value", of)
		return nil, false
	}
	return s.GetValue().GetData(), true
}

// persistent mounts the persistent volumes among the task's resources.
func (b *builder) persistent() {
	for _, r := range b.ti.GetResources() {
		if r.GetDisk().GetPersistence() == nil {
			if r.GetDisk().GetVolume() != nil {
				b.bad("has a disk with a volume and no persistence")
			}
			continue
		}
		rs, err := resource.FromProto([]*mesos.Resource{r})
		if err != nil {
			b.errs = append(b.errs, err)
			continue
		}
		for it := range rs.All() {
			v, _, err := b.layout.Of(it)
			if err != nil {
				b.errs = append(b.errs, err)
				continue
			}
			target, ok := b.inside(r.GetDisk().GetVolume().GetContainerPath(), true)
			if !ok {
				continue
			}
			b.d.volumes = append(b.d.volumes, v)
			b.d.spec.Mounts = append(b.d.spec.Mounts, container.Mount{
				Source: v.Path, Target: target, ReadOnly: r.GetDisk().GetVolume().GetMode() == mesos.Volume_RO, Give: container.GiveEmpty,
			})
		}
	}
}

func (b *builder) volumes() {
	for _, v := range b.ti.GetContainer().GetVolumes() {
		if v.GetImage() != nil {
			b.bad("volume %s is an image, which is not supported", v.GetContainerPath())
			continue
		}
		src := v.GetHostPath()
		follow, readOnly := false, v.GetMode() == mesos.Volume_RO
		switch s := v.GetSource(); s.GetType() {
		case mesos.Volume_Source_UNKNOWN:
		case mesos.Volume_Source_HOST_PATH:
			src = s.GetHostPath().GetPath()
			switch s.GetHostPath().GetMountPropagation().GetMode() {
			case mesos.MountPropagation_BIDIRECTIONAL:
				b.bad("volume %s: mounts of a container do not reach the host; mount propagation BIDIRECTIONAL is not supported", v.GetContainerPath())
				continue
			case mesos.MountPropagation_HOST_TO_CONTAINER:
				follow = true
			}
		case mesos.Volume_Source_SECRET:
			data, ok := b.secret("volume "+v.GetContainerPath(), s.GetSecret())
			target, fits := b.inside(v.GetContainerPath(), true)
			if ok && fits {
				b.d.secrets = append(b.d.secrets, secretFile{data, target, readOnly})
			}
			continue
		case mesos.Volume_Source_SANDBOX_PATH:
			src = s.GetSandboxPath().GetPath()
			if s.GetSandboxPath().GetType() == mesos.Volume_Source_SandboxPath_PARENT {
				b.bad("volume %s is of the parent's sandbox; this task has no parent", v.GetContainerPath())
				continue
			}
			if !filepath.IsLocal(src) {
				b.bad("volume %s: sandbox path %q leaves the sandbox", v.GetContainerPath(), src)
				continue
			}
		default:
			b.bad("volume %s is of type %s, which is not supported yet", v.GetContainerPath(), s.GetType())
			continue
		}
		if src == "" {
			b.bad("volume %s has no source", v.GetContainerPath())
			continue
		}
		b.mount(src, v.GetContainerPath(), readOnly, follow)
	}
}

// inside is a path in the container as an absolute one: what is relative is
// below the sandbox. A task on the host's own root gets nothing of its own
// mounted outside of its sandbox.
func (b *builder) inside(target string, own bool) (string, bool) {
	switch {
	case target == "":
		b.bad("has a volume without a path in the container")
		return "", false
	case !path.IsAbs(target):
		if !filepath.IsLocal(target) {
			b.bad("volume path %q leaves the sandbox", target)
			return "", false
		}
		base := sandboxMount
		if b.d.spec.Image == "" {
			base = b.sandbox
		}
		target = path.Join(base, target)
	case own && b.d.spec.Image == "":
		b.bad("volume path %q is on the host itself, as the task has no image; use a relative path", target)
		return "", false
	}
	if target = path.Clean(target); target == "/" {
		b.bad("has a volume in place of all its files")
		return "", false
	}
	return target, true
}

// targets refuses to mount two things in one place, as one would be hidden.
func (b *builder) targets() {
	seen := map[string]bool{}
	check := func(target string) {
		if seen[target] {
			b.bad("has two volumes at %s", target)
		}
		seen[target] = true
	}
	for _, m := range b.d.spec.Mounts {
		check(m.Target)
	}
	for _, s := range b.d.secrets {
		check(s.target)
	}
}

// mount adds a volume. Relative paths are below the sandbox.
func (b *builder) mount(src, target string, readOnly, follow bool) {
	if !path.IsAbs(src) {
		if !filepath.IsLocal(src) {
			b.bad("volume source %q leaves the sandbox", src)
			return
		}
		src = filepath.Join(b.sandbox, src)
	}
	if target, ok := b.inside(target, false); ok {
		b.d.spec.Mounts = append(b.d.spec.Mounts, container.Mount{Source: src, Target: target, ReadOnly: readOnly, Follow: follow})
	}
}

func (b *builder) linux() {
	c, s := b.ti.GetContainer(), &b.d.spec
	for _, r := range c.GetRlimitInfo().GetRlimits() {
		name := "RLIMIT_" + strings.TrimPrefix(r.GetType().String(), "RLMT_")
		l := container.Rlimit{Type: name, Soft: r.GetSoft(), Hard: r.GetHard()}
		if r.Soft == nil || r.Hard == nil {
			l.Soft, l.Hard = math.MaxUint64, math.MaxUint64
		}
		s.Rlimits = append(s.Rlimits, l)
	}
	li := c.GetLinuxInfo()
	//lint:ignore SA1019 frameworks still set the older field
	older := li.GetCapabilityInfo()
	for _, c := range slices.Concat(li.GetEffectiveCapabilities().GetCapabilities(), older.GetCapabilities()) {
		s.CapAdd = append(s.CapAdd, c.String())
	}
	if n := li.GetShmSize(); n > 0 {
		s.ShmSize = int64(n) << 20
	}
	if sc := li.GetSeccomp(); sc.GetProfileName() != "" {
		b.bad("names seccomp profile %q; profiles are not supported yet", sc.GetProfileName())
	}
	if c.GetTtyInfo() != nil {
		b.bad("asks for a terminal; run one beside the task with a container session")
	}
	for _, p := range c.GetDocker().GetParameters() {
		b.parameter(p.GetKey(), p.GetValue())
	}
}

// parameter takes an option of `docker run` that apps carry through. One that
// changes nothing about how the task runs here may be ignored; any other that
// is not understood is refused, as the task would run otherwise than asked.
func (b *builder) parameter(key, value string) {
	s := &b.d.spec
	switch key {
	case "env":
		s.Env = append(s.Env, value)
	case "hostname":
		s.Hostname = value
	case "user":
		s.User = value
	case "workdir":
		s.Cwd = value
	case "privileged":
		s.Privileged = value == "true"
	case "cap-add":
		s.CapAdd = append(s.CapAdd, value)
	case "cap-drop":
		s.CapDrop = append(s.CapDrop, value)
	case "entrypoint":
		if s.Entrypoint == nil {
			s.Entrypoint = []string{value}
		}
	case "volume":
		f := strings.Split(value, ":")
		if len(f) < 2 || len(f) > 3 {
			b.bad("docker parameter volume=%s is not source:path or source:path:mode", value)
			return
		}
		b.mount(f[0], f[1], len(f) == 3 && slices.Contains(strings.Split(f[2], ","), "ro"), false)
	case "ulimit":
		name, v, _ := strings.Cut(value, "=")
		soft, hard, both := strings.Cut(v, ":")
		if !both {
			hard = soft
		}
		lo, err1 := strconv.ParseUint(soft, 10, 64)
		hi, err2 := strconv.ParseUint(hard, 10, 64)
		if err1 != nil || err2 != nil {
			b.bad("docker parameter ulimit=%s is not name=soft:hard", value)
			return
		}
		s.Rlimits = append(s.Rlimits, container.Rlimit{Type: "RLIMIT_" + strings.ToUpper(name), Soft: lo, Hard: hi})
	case "add-host": // it is in the container's hosts file
		if b.d.spec.Image == "" || !strings.Contains(value, ":") {
			b.bad("docker parameter add-host=%s is not name:address of a container of an image", value)
		}
	case "label", "name", "rm", "init", "log-driver", "log-opt", "oom-kill-disable", "restart":
	default:
		b.bad("docker parameter %s is not supported", key)
	}
}
