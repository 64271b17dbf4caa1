// Command dcos-init is the first process of a local host: it makes the host
// out of fresh namespaces, runs its units, adopts and reaps its orphans, and
// obeys the installer over a socket.
//
// The installer starts "dcos-init launch DIR", which enters the host's cgroup
// and clones "dcos-init init DIR" into new namespaces; services start as
// "dcos-init enter SPEC". Nobody else calls it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"dcos.example/dcos/providers/local/boot"
	"dcos.example/dcos/providers/local/cgroup"
	"dcos.example/dcos/providers/local/control"
	"dcos.example/dcos/providers/local/supervise"
	"dcos.example/dcos/runtime/fault"
)

const (
	unitDir   = "/etc/systemd/system"
	logDir    = "/var/log/dcos"
	notifyDir = "/run/dcos-init/notify"
	logLimit  = 32 << 20

	// shutdownTime is how long units may take to stop before they are killed.
	shutdownTime = 20 * time.Second
)

// Descriptors that the installer passes down: it writes a byte to goFD when
// the network is ready, and reads from reportFD what became of the boot.
const (
	goFD     = 3
	reportFD = 4
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "dcos-init is started by dcos-install; it is of no use by itself")
		os.Exit(2)
	}
	var err error
	code := 1
	switch os.Args[1] {
	case "launch":
		err = launch(os.Args[2])
	case "init":
		err = run(os.Args[2])
	case supervise.EnterArg:
		code = 203 // what systemd says of a program that cannot be executed
		var layout cgroup.Layout
		if layout, err = cgroup.Detect(); err == nil {
			err = supervise.Enter(layout, os.Args[2])
		}
	default:
		err = fmt.Errorf("unknown mode %q", os.Args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "dcos-init:", err)
		os.Exit(code)
	}
}

// launch clones the init into its namespaces and prints its process id. It
// enters the cgroup first, which so becomes the root that the host sees. The
// init is orphaned on purpose: it outlives the installer, and whoever adopts
// it reaps it.
func launch(dir string) error {
	spec, err := boot.Load(dir)
	if err != nil {
		return err
	}
	if err := spec.Layout.Group(spec.Cgroup).Join(os.Getpid()); err != nil {
		return err
	}
	cmd := exec.Command("/proc/self/exe", "init", dir)
	cmd.Args[0] = "dcos-init"
	cmd.Env = []string{} // nothing of the installer's
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{os.NewFile(goFD, "go"), os.NewFile(reportFD, "report")}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true,
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
			unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP,
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("make namespaces: %w", err)
	}
	_, err = fmt.Println(cmd.Process.Pid)
	return err
}

// run is the life of the host.
func run(dir string) error {
	unix.CloseOnExec(goFD)
	unix.CloseOnExec(reportFD)
	report := os.NewFile(reportFD, "report")
	l, spec, err := start(dir)
	if err != nil {
		fmt.Fprint(report, err)
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	sys := supervise.NewSystem(spec.Layout, logDir, notifyDir, logLimit)
	sup := supervise.New(supervise.Options{
		UnitDir: unitDir, LogDir: logDir, Log: log,
		Env: []string{
			"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "USER=root",
		},
	}, sys, children)

	ctx, cancel := context.WithCancel(context.Background())
	supervised := make(chan struct{})
	go func() { defer close(supervised); sup.Run(ctx) }()
	h := handler{boot: spec.Boot, sup: sup, down: make(chan struct{}, 1)}
	served := make(chan struct{})
	serving, stopServing := context.WithCancel(ctx)
	go func() { defer close(served); control.Serve(serving, l, h.handle) }()
	report.Close() // an empty report: the host is up

	stop, unhook := signal.NotifyContext(ctx, unix.SIGTERM, unix.SIGINT)
	defer unhook()
	booted := make(chan struct{})
	go func() { defer close(booted); sup.Boot(stop) }()
	select {
	case <-stop.Done():
	case <-h.down:
	}
	unhook()
	stopServing()
	bounded, done := context.WithTimeout(ctx, shutdownTime)
	defer done()
	sup.Shutdown(bounded)
	<-served
	<-booted
	unix.Sync()
	cancel()
	<-supervised
	return nil // and the kernel kills what is left
}

// start waits for the installer's word and makes the host.
func start(dir string) (*net.UnixListener, boot.Spec, error) {
	spec, err := boot.Load(dir)
	if err != nil {
		return nil, spec, err
	}
	goPipe := os.NewFile(goFD, "go")
	if _, err := io.ReadFull(goPipe, make([]byte, 1)); err != nil {
		return nil, spec, errors.New("the installer went away before the host was complete")
	}
	goPipe.Close()
	l, err := control.Listen(dir)
	if err != nil {
		return nil, spec, fmt.Errorf("open control socket: %w", err)
	}
	if err := boot.Enter(spec); err != nil {
		return nil, spec, err
	}
	if err := spec.Layout.HandDown("init"); err != nil {
		return nil, spec, fmt.Errorf("hand down cgroup controllers: %w", err)
	}
	return l, spec, nil
}

type handler struct {
	boot string
	sup  *supervise.Supervisor
	down chan struct{}
}

func (h handler) handle(ctx context.Context, req control.Request) (resp control.Response, err error) {
	switch req.Op {
	case control.OpPing:
		resp.Boot = h.boot
	case control.OpStatus:
		resp.Units, err = h.sup.Status(req.Unit, req.Tail)
	case control.OpStart:
		err = h.sup.Start(ctx, req.Unit)
	case control.OpStop:
		err = h.sup.Stop(ctx, req.Unit)
	case control.OpRestart:
		if err = h.sup.Stop(ctx, req.Unit); err == nil {
			err = h.sup.Start(ctx, req.Unit)
		}
	case control.OpEnable:
		err = h.sup.Enable(req.Unit, true)
	case control.OpDisable:
		err = h.sup.Enable(req.Unit, false)
	case control.OpExec:
		resp.Exec, err = h.sup.Exec(ctx, req)
	case control.OpShutdown:
		select {
		case h.down <- struct{}{}:
		default: // already on its way
		}
	default:
		b, _ := json.Marshal(req.Op)
		err = fault.Newf("answer", fault.Invalid, "unknown operation %s", b)
	}
	return resp, err
}
