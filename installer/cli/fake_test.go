package cli_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"

	"dcos.example/dcos/installer/bundle"
	"dcos.example/dcos/installer/cli"
	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/installer/program"
	"dcos.example/dcos/providers"
	"dcos.example/dcos/providers/providertest"
	"dcos.example/dcos/runtime/fault"
)

// generated is the password that the fake cluster makes up.
const generated = "gen-3rated-Passw0rd"

// world serves every type of a cluster out of providertest, each type in a
// directory of its own, and adds the outputs that the real providers have.
type world struct {
	dir   string
	stack string // directory of the state
	kinds map[tokens.Type]*providertest.Provider
}

func newWorld(dir, fail string) (*world, error) {
	w := &world{dir: dir, kinds: map[tokens.Type]*providertest.Provider{}}
	for _, t := range []tokens.Type{program.TypeSecrets, program.TypeNetwork, program.TypeHost, program.TypeOnPremHost, program.TypeNode, program.TypeCluster} {
		w.kinds[t] = providertest.New(filepath.Join(dir, string(t.Name())))
	}
	for _, f := range strings.Fields(fail) { // create/Node/agent-2 or create/Node/agent-2/partial
		part := strings.Split(f, "/")
		if len(part) < 3 {
			return nil, fmt.Errorf("bad fault %q", f)
		}
		for t, p := range w.kinds {
			if string(t.Name()) == part[1] {
				p.Fail(providertest.Op(part[0]), part[2], providertest.Fault{
					Err: fault.Newf("reach "+part[2], fault.Unavailable, "connection refused"), Partial: len(part) == 4})
			}
		}
	}
	return w, nil
}

func (w *world) set() providers.Set { return providers.Set{"local": w, "onprem": w, "dcos": w} }

// decorate adds what only the real thing knows.
func (w *world) decorate(t tokens.Type, name string, in, out resource.PropertyMap, known bool) resource.PropertyMap {
	o := out.Copy()
	secret := func(s string) resource.PropertyValue { return resource.MakeSecret(resource.NewProperty(s)) }
	switch t {
	case program.TypeSecrets:
		if !known {
			for _, k := range []resource.PropertyKey{"clusterId", "caCert", "caKey", "joinToken", "sealKey", "adminPassword", "adminHash", "founders", "backupRecipient"} {
				o[k] = providers.Unknown()
			}
			return o
		}
		o["clusterId"], o["caCert"] = resource.NewProperty("id-of-the-cluster"), resource.NewProperty(fakeCluster{filepath.Dir(w.dir)}.ca())
		o["caKey"], o["joinToken"], o["sealKey"] = secret("s3cret-ca-key"), secret("s3cret-join-token"), secret("s3cret-seal-key")
		o["adminHash"], o["backupRecipient"] = secret("s3cret-admin-hash"), resource.NewProperty("age1cluster")
		o["generatedPassword"] = resource.NewProperty(!in.HasValue("adminPassword"))
		if !in.HasValue("adminPassword") {
			o["adminPassword"] = secret(generated)
		}
	case program.TypeNetwork:
		o["bridge"] = resource.NewProperty("br-test")
	case program.TypeHost:
		o["dir"] = resource.NewProperty("/hosts/" + name)
		o["connection"] = resource.NewProperty(resource.PropertyMap{"kind": resource.NewProperty("local"), "dir": o["dir"]})
		o["bootId"] = resource.NewProperty("boot-1")
	case program.TypeOnPremHost:
		if !known {
			o["machineId"], o["bootId"], o["facts"] = providers.Unknown(), providers.Unknown(), providers.Unknown()
			break
		}
		o["machineId"], o["bootId"] = resource.NewProperty("machine of "+name), resource.NewProperty("boot-1")
		o["facts"] = resource.NewProperty(resource.PropertyMap{"resolver": resource.NewProperty("resolved"), "resolvers": resource.NewProperty([]resource.PropertyValue{})})
	case program.TypeCluster:
		if known {
			o["url"] = resource.NewProperty("https://" + in["masters"].ArrayValue()[0].StringValue())
		} else {
			o["url"] = providers.Unknown()
		}
	}
	return o
}

func (w *world) Check(_ context.Context, r plugin.CheckRequest) (plugin.CheckResponse, error) {
	return plugin.CheckResponse{Properties: r.News}, nil
}

func (w *world) Diff(_ context.Context, r plugin.DiffRequest) (plugin.DiffResponse, error) {
	d := providers.DiffInputs(r, "address", "diskMiB")
	d.DeleteBeforeReplace = true
	return d, nil
}

func (w *world) Create(ctx context.Context, r plugin.CreateRequest) (plugin.CreateResponse, error) {
	t, in := r.Type, r.Properties
	r.Type = providertest.Slot
	if !r.Preview {
		defer providers.Step(ctx, "make it")(nil)
	}
	res, err := w.kinds[t].Create(ctx, r)
	if res.Properties != nil {
		res.Properties = w.decorate(t, r.URN.Name(), in, res.Properties, !r.Preview)
	}
	if t == program.TypeNetwork && !r.Preview && err == nil {
		err = os.WriteFile(filepath.Join(w.dir, "origin"), []byte(w.stack), 0o600)
	}
	return res, err
}

func (w *world) Read(ctx context.Context, r plugin.ReadRequest) (plugin.ReadResponse, error) {
	t := r.Type
	if t == program.TypeSecrets && r.ID != "" { // they exist in the record only
		return plugin.ReadResponse{ReadResult: plugin.ReadResult{ID: r.ID, Inputs: r.Inputs, Outputs: r.State}}, nil
	}
	r.Type = providertest.Slot
	res, err := w.kinds[t].Read(ctx, r)
	if res.ID != "" {
		res.Outputs = w.decorate(t, r.URN.Name(), res.Inputs, res.Outputs, true)
	}
	return res, err
}

func (w *world) Update(ctx context.Context, r plugin.UpdateRequest) (plugin.UpdateResponse, error) {
	t := r.Type
	r.Type = providertest.Slot
	res, err := w.kinds[t].Update(ctx, r)
	if res.Properties != nil {
		res.Properties = w.decorate(t, r.URN.Name(), r.NewInputs, res.Properties, true)
	}
	return res, err
}

func (w *world) Delete(ctx context.Context, r plugin.DeleteRequest) (plugin.DeleteResponse, error) {
	t := r.Type
	r.Type = providertest.Slot
	return w.kinds[t].Delete(ctx, r)
}

// app is dcos-install on a fake world, steered by the environment: WORLD is
// its directory, FAIL what goes wrong in it, TERMINAL=1 says that a person
// sits there, NOT_ROOT=1 that it is not root, BUNDLE_VERSION which release the
// bundle is.
func app() *cli.App {
	env := os.Getenv
	terminal := env("TERMINAL") == "1"
	dir, err := os.Getwd()
	if err != nil {
		panic(err)
	}
	return &cli.App{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Terminal: terminal, Interactive: terminal, Columns: 100,
		Env: os.Environ(), Dir: dir, Version: "0.1.0-test",
		Providers: func(o cli.ProviderOptions) (providers.Set, error) {
			w, err := newWorld(filepath.Join(env("WORLD"), filepath.Base(o.StateDir)), env("FAIL"))
			if err != nil {
				return nil, err
			}
			w.stack = o.StateDir
			return w.set(), nil
		},
		Leftovers: func(cli.ProviderOptions) (cli.Leftovers, error) { return leftovers{env("WORLD")}, nil },
		Bundle: func(path string, _ bundle.Trust) (string, bundle.Manifest, error) {
			v := env("BUNDLE_VERSION")
			if v == "" {
				v = "0.1.0"
			}
			if path == "" {
				path = "/bundles/dcos.bundle"
			}
			return path, bundle.Manifest{Version: v}, nil
		},
		Allowed: func(string) error {
			if env("NOT_ROOT") == "1" {
				return fault.New("use provider local", fault.Denied, errors.New("it needs root"))
			}
			return nil
		},
		Dial:      fakeCluster{env("WORLD")}.dial,
		Hosts:     func(cli.ProviderOptions) (cli.HostControl, error) { return power{env("WORLD") + "/power.log"}, nil },
		Open:      open,
		Preflight: looks(env("FACTS")),
		Abort:     func() { os.Exit(130) },
	}
}

// power writes down what it is told to do.
type power struct{ log string }

func (p power) note(format string, args ...any) error {
	f, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, format+"\n", args...)
	return errors.Join(err, f.Close())
}

func (p power) Stop(_ context.Context, cluster, name string, now bool) error {
	return p.note("stop %s %s now=%t", cluster, name, now)
}

func (p power) Start(_ context.Context, cluster, name string) error {
	return p.note("start %s %s", cluster, name)
}

func open(_ context.Context, ref host.Ref) (host.Host, error) {
	return machine{dir: ref.Dir, name: ref.Name}, nil
}

// machine runs commands by saying them.
type machine struct {
	host.Host
	dir, name string
}

// StopUnit and ReadFile are what a restore asks of a host that is there.
func (machine) StopUnit(context.Context, string) error { return nil }

func (m machine) ReadFile(_ context.Context, path string) (host.File, error) {
	return host.File{}, fault.Newf("read "+path, fault.NotFound, "there is no such file")
}

func (m machine) Run(_ context.Context, argv ...string) (host.Output, error) {
	if argv[0] == "/bin/sh" {
		return host.Output{}, nil
	}
	return host.Output{Code: 7, Stdout: fmt.Sprintf("%s %s: %s\n", m.dir, m.name, strings.Join(argv, " "))}, nil
}

// runApp is the program that scripts run.
func runApp() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	os.Exit(app().Run(ctx, os.Args[1:]))
}

// leftovers are the worlds of other states.
type leftovers struct{ dir string }

func (l leftovers) Origin(cluster string) (string, []string, bool, error) {
	origin, err := os.ReadFile(filepath.Join(l.dir, cluster, "origin"))
	if err != nil {
		return "", nil, false, nil
	}
	files, err := filepath.Glob(filepath.Join(l.dir, cluster, "Host", "*.json"))
	var hosts []string
	for _, f := range files {
		hosts = append(hosts, strings.TrimSuffix(filepath.Base(f), ".json"))
	}
	return string(origin), hosts, len(hosts) > 0, err
}

func (l leftovers) Destroy(_ context.Context, cluster string) error {
	return os.RemoveAll(filepath.Join(l.dir, cluster))
}
