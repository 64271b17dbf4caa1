package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"dcos.example/dcos/installer/cli/view"
	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/installer/recovery"
	"dcos.example/dcos/installer/stack"
	"dcos.example/dcos/runtime/fault"
)

// looks is at how many hosts a support bundle looks at once: each sends up to a
// few MiB.
const looks = 10

func (r *run) supportCommand() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:   "support-bundle",
		Short: "Collect logs, versions, status and facts of all hosts in one file",
		Long: `Collect what somebody needs who is to help: logs of the units, versions, configuration without
secrets, facts of the kernel and the network of every host, and how the cluster says it is.
Hosts that cannot be reached are noted. Keys, tokens and passwords are taken out.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := r.interruptible(c.Context())
			defer stop()
			return r.supportBundle(ctx, out)
		},
	}
	c.Flags().StringVar(&out, "out", "", "`file` to write (default dcos-support-CLUSTER-TIME.tar.gz)")
	return r.withCluster(c)
}

func (r *run) supportBundle(ctx context.Context, out string) error {
	s, err := r.openExisting(nil, "support-bundle")
	if err != nil {
		return err
	}
	st, err := s.stack.State()
	if err != nil {
		return err
	}
	if err := r.app.Allowed(s.meta.Provider); err != nil {
		return err
	}
	now := time.Now()
	name := "dcos-support-" + s.cluster + "-" + now.UTC().Format("20060102T150405Z")
	if out == "" {
		out = name + ".tar.gz"
	}
	f, err := os.OpenFile(r.abs(out), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fault.New("write "+out, fault.Denied, err)
	}
	c := &collection{files: map[string][]byte{}, doc: view.SupportBundle{File: out, Hosts: []string{}, Unreachable: map[string]string{}}}
	c.installer(ctx, s, st)
	c.cluster(ctx, s)
	if err := c.hosts(ctx, s, st); err != nil {
		return errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	redact := recovery.NewRedactor(s.secretTexts(st))
	for p, b := range c.files {
		c.files[p] = redact.Redact(b)
	}
	if err := errors.Join(recovery.WriteBundle(f, name, now, c.files), f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	slices.Sort(c.doc.Hosts)
	return r.show(c.doc)
}

// secretTexts are all secrets of the state.
func (s *session) secretTexts(st *stack.State) []string {
	var out []string
	for _, res := range append(st.Resources(), st.Doomed()...) {
		out = append(append(out, recovery.SecretsIn(res.Inputs)...), recovery.SecretsIn(res.Outputs)...)
	}
	if kept, err := s.stack.Kept(keptKeys); err == nil { // those that cannot be read show nothing either
		out = append(out, recovery.SecretsIn(kept)...)
	}
	return out
}

// collection is what a support bundle is filled with.
type collection struct {
	mu    sync.Mutex
	files map[string][]byte
	doc   view.SupportBundle
}

func (c *collection) missing(what string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.doc.Missing = append(c.doc.Missing, what+": "+err.Error())
}

func (c *collection) put(p string, b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.files[p] = b
}

func (c *collection) putJSON(p string, v any) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		c.missing(p, err)
		return
	}
	c.put(p, append(b, '\n'))
}

// installer adds what is known here.
func (c *collection) installer(ctx context.Context, s *session, st *stack.State) {
	c.put("installer/version.txt", fmt.Appendf(nil, "dcos-install %s\n", s.run.app.Version))
	history, err := s.stack.History()
	if err != nil {
		c.missing("the history", err)
	}
	c.putJSON("installer/history.json", history)
	bounded, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if status, err := s.status(bounded, true); err != nil {
		c.missing("the status", err)
	} else {
		c.putJSON("installer/status.json", status)
	}
	type object struct {
		URN, ID    string
		InitErrors []string `json:",omitempty"`
		Modified   time.Time
	}
	objects := []object{}
	for _, r := range append(st.Resources(), st.Doomed()...) {
		objects = append(objects, object{string(r.URN), string(r.ID), r.InitErrors, r.Modified})
	}
	c.putJSON("installer/resources.json", objects)
	if kept, err := s.stack.Kept(keptSource); err == nil && text(kept["text"]) != "" {
		c.put("installer/"+path.Base(text(kept["name"])), []byte(text(kept["text"])))
	}
}

// views are what the cluster is asked for.
var views = map[string]string{
	"cluster/members.json":      "/system/v1/members",
	"cluster/backups.json":      "/system/v1/backups",
	"cluster/agents.json":       "/mesos/slaves",
	"cluster/frameworks.json":   "/mesos/frameworks",
	"cluster/metrics.json":      "/mesos/metrics/snapshot",
	"cluster/flags.json":        "/mesos/flags",
	"cluster/marathon.json":     "/service/marathon/v2/info",
	"cluster/deployments.json":  "/service/marathon/v2/deployments",
	"cluster/queue.json":        "/service/marathon/v2/queue",
	"cluster/components.json":   "/pkgpanda/active.buildinfo.full.json",
	"cluster/dcos-version.json": "/dcos-metadata/dcos-version.json",
	"cluster/vips.json":         "/net/v1/vips",
}

func (c *collection) cluster(ctx context.Context, s *session) {
	client, err := s.gateway()
	if err != nil {
		c.missing("what the cluster says", err)
		return
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, p := range slices.Sorted(maps.Keys(views)) {
		resp, err := client.Do(ctx, http.MethodGet, views[p], nil)
		if err != nil {
			c.missing(views[p], err)
			if fault.Is(err, fault.Denied) || fault.Is(err, fault.Unavailable) {
				return // so would be the others
			}
			continue
		}
		b, err := io.ReadAll(io.LimitReader(resp.Body, 32<<20))
		if err = errors.Join(err, resp.Body.Close()); err != nil {
			c.missing(views[p], err)
			continue
		}
		c.put(p, b)
	}
}

func (c *collection) hosts(ctx context.Context, s *session, st *stack.State) error {
	refs, _, err := s.refs(st, func(string) bool { return true })
	if err != nil {
		return err
	}
	slots := make(chan struct{}, looks)
	var all sync.WaitGroup
	for name, ref := range refs {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			c.host(ctx, s.run.app.Open, name, ref)
		})
	}
	all.Wait()
	return nil
}

func (c *collection) host(ctx context.Context, open host.Opener, name string, ref host.Ref) {
	h, err := open(ctx, ref)
	if err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.doc.Unreachable[name] = err.Error()
		c.files[filepath.Join("hosts", name, "unreachable.txt")] = []byte(err.Error() + "\n")
		return
	}
	files := recovery.LookAt(ctx, h)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.doc.Hosts = append(c.doc.Hosts, name)
	for f, b := range files {
		c.files[path.Join("hosts", name, f)] = b
	}
}
