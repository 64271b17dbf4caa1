package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"text/tabwriter"
	"time"

	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/membership"
	"dcos.example/dcos/runtime/membership/seat"
	"dcos.example/dcos/runtime/pki"
	"dcos.example/dcos/runtime/server"
)

const membersUsage = `usage: dcosd members list [-json]
       dcosd members view
       dcosd members leave [-force]
       dcosd members remove [-force] NAME
       dcosd members recover -force

list     shows the masters and how they are
view     shows what this master says of itself, as JSON, also while it waits
leave    takes this master out of the ensemble, before it is taken down
remove   takes another out, which may be dead
recover  makes this master go on alone after the majority of masters was lost;
         what it does not hold is lost. The others come back by themselves, empty.
`

// membersTime bounds a command: leadership may have to be handed over first,
// and the store wants five seconds of calm between two changes.
const membersTime = time.Minute

// members runs `dcosd members` on a host of the cluster: on a master by its
// loopback, on an agent, which may only look, by any master.
func members(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("dcosd members", flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprint(flags.Output(), membersUsage) }
	force := flags.Bool("force", false, "do it although it may cost the majority, or data")
	asJSON := flags.Bool("json", false, "print JSON")
	if len(args) == 0 {
		flags.Usage()
		return fault.Newf("dcosd members", fault.Invalid, "what shall be done?")
	}
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	// A flag may also stand after the name.
	name := flags.Arg(0)
	if flags.NArg() > 1 {
		if err := flags.Parse(flags.Args()[1:]); err != nil {
			return err
		}
		if flags.NArg() > 0 {
			return fault.Newf("dcosd members", fault.Invalid, "%q is one argument too many", flags.Arg(0))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, membersTime)
	defer cancel()
	if (name != "") != (args[0] == "remove") {
		flags.Usage()
		return fault.Newf("dcosd members", fault.Invalid, "remove needs the name of a master, and nothing else does")
	}
	switch args[0] {
	case "list":
		s, err := status(ctx)
		if err != nil {
			return err
		}
		return printStatus(out, s, *asJSON)
	case "view":
		v, err := loopback().View(ctx, loopbackAddr)
		if err != nil {
			return err
		}
		return printJSON(out, v)
	case "leave":
		cfg, err := masterConfig()
		if err != nil {
			return err
		}
		_, err = loopback().Leave(ctx, loopbackAddr, membership.LeaveRequest{Name: cfg.Host.Name, Force: *force})
		if fault.Is(err, fault.NotFound) { // it has left before
			err = nil
		}
		return err
	case "remove":
		_, err := loopback().Leave(ctx, loopbackAddr, membership.LeaveRequest{Name: name, Force: *force})
		return err
	case "recover":
		return recoverAlone(ctx, *force)
	}
	flags.Usage()
	return fault.Newf("dcosd members", fault.Invalid, "there is no %q", args[0])
}

var loopbackAddr = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// loopback asks the master on this host, in clear.
func loopback() membership.Client {
	return membership.Client{
		HTTP: &http.Client{Transport: server.Transport(nil)},
		Base: func(a netip.Addr) string { return "http://" + at(a, config.PortMaster) },
	}
}

func masterConfig() (config.Master, error) {
	return config.Load(config.MasterFile, config.DefaultMaster())
}

// status asks the master on this host, or on an agent any.
func status(ctx context.Context) (s membership.Status, err error) {
	if _, err := os.Stat(config.MasterFile); err == nil {
		return loopback().Status(ctx, loopbackAddr)
	}
	agent, err := config.Load(config.AgentFile, config.DefaultAgent())
	if err != nil {
		return s, err
	}
	quiet := slog.New(slog.DiscardHandler)
	ca, err := os.ReadFile(config.CACertFile)
	if err != nil {
		return s, fault.New("read cluster CA", fault.NotFound, err)
	}
	var client membership.Client
	masters, err := newSource(agent.Cluster.ID, netip.Addr{}, &client, quiet)
	if err != nil {
		return s, err
	}
	// The certificate that the agent has; none is asked for here.
	creds, err := pki.Join(ctx, pki.JoinConfig{
		CAPEM: ca, Name: agent.Host.Name, Addr: agent.Host.Addr, Masters: func() []string { return nil }, File: config.VarDir + "/pki/host.pem",
	}, quiet)
	if err != nil {
		return s, err
	}
	client.HTTP = masterClient(creds)
	err = fault.Newf("list the masters", fault.Unavailable, "no master is known")
	for _, a := range masters.Addrs() {
		if s, err = client.Status(ctx, a); err == nil {
			return s, nil
		}
	}
	return s, err
}

func printStatus(out io.Writer, s membership.Status, asJSON bool) error {
	if asJSON {
		return printJSON(out, s)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tADDRESS\tROLE\tHEALTHY\tENTRY\tRELEASE\t")
	for _, m := range s.Members {
		role, healthy := string(m.Role), "yes"
		if m.Name == s.Leader {
			role += ", leads"
		}
		if !m.Healthy {
			healthy = "no: " + m.Reason
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t\n", m.Name, m.Addr, role, healthy, m.Index, m.Version)
	}
	return w.Flush()
}

func printJSON(out io.Writer, v any) error {
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// recoverAlone asks the master on this host; one that does not run finds the
// wish when it starts.
func recoverAlone(ctx context.Context, force bool) error {
	cfg, err := masterConfig()
	if err != nil {
		return err
	}
	err = loopback().Recover(ctx, loopbackAddr, membership.RecoverRequest{Force: force})
	if !fault.Is(err, fault.Unavailable) {
		return err
	}
	if !force {
		return fault.Newf("go on without the other masters", fault.Invalid, "what the others hold and this one does not is lost; say -force to do it")
	}
	if err := seat.AskRecover(cfg.DataDir); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "%s does not run; it goes on alone when it is started.\n", config.UnitMaster)
	return nil
}
