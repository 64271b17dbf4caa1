package cli

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"

	"dcos.example/dcos/installer/cli/view"
	"dcos.example/dcos/installer/program"
	"dcos.example/dcos/installer/recovery"
	"dcos.example/dcos/installer/stack"
	"dcos.example/dcos/runtime/deposit"
	"dcos.example/dcos/runtime/fault"
)

// What is kept in the stack beside the state.
const (
	keptSource = "source"      // the cluster's file and variables
	keptKeys   = "backup-keys" // identities of backups, by recipient; they outlive the cluster
)

// depositPath is where the cluster takes the installer's state.
const depositPath = "/system/v1/installer-state"

// depositTime bounds the copy: a cluster that does not take it does not hold
// the operator up.
const depositTime = 15 * time.Second

// remember keeps what the state does not have and another machine needs: the
// file, its variables, and the key of the backups.
func (s *session) remember(in *input) error {
	if in != nil {
		vars, err := in.blueprint.AllVariables()
		if err != nil {
			return fault.New("keep the variables", fault.Internal, err)
		}
		if err := s.stack.Keep(keptSource, resource.PropertyMap{
			"name": resource.NewProperty(filepath.Base(in.path)),
			// The file may hold a password that its author wrote there.
			"text":      resource.MakeSecret(resource.NewProperty(string(in.source.Text))),
			"variables": resource.MakeSecret(resource.NewProperty(string(vars))),
		}); err != nil {
			return err
		}
	}
	return s.rememberKey()
}

// rememberKey keeps the key of the cluster's backups where it outlives the
// cluster: a backup is of most use when the cluster is gone.
func (s *session) rememberKey() error {
	st, err := s.stack.State()
	if err != nil {
		return err
	}
	res := st.Live(program.SecretsKey(s.cluster).URN(s.stack.Name()))
	if res == nil || text(res.Outputs["backupIdentity"]) == "" {
		return nil
	}
	keys, err := s.stack.Kept(keptKeys)
	if err != nil {
		return err
	}
	to := resource.PropertyKey(text(res.Outputs["backupRecipient"]))
	if keys[to].HasValue() {
		return nil
	}
	if keys == nil {
		keys = resource.PropertyMap{}
	}
	keys[to] = resource.MakeSecret(resource.NewProperty(text(res.Outputs["backupIdentity"])))
	return s.stack.Keep(keptKeys, keys)
}

// deposit gives the cluster a copy of the state, and says so when it does not
// take it: nothing of the operation itself is lost by that.
func (s *session) deposit(ctx context.Context, in *input, anyway bool) error {
	if err := s.remember(in); err != nil {
		return err
	}
	// What was done is done, also when the operator has asked to stop.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), depositTime)
	defer cancel()
	err := s.push(ctx, anyway)
	if err == nil {
		return nil
	}
	return s.run.showOn(s.run.app.Stderr, view.Message{What: "warning", Fields: map[string]string{"error": err.Error()},
		Text: fmt.Sprintf("Warning: the cluster has no copy of this state: %v\nKeep %s safe until the next apply.", err, s.stack.Dir())})
}

// tryDeposit is deposit after an operation that failed: the cluster may be whole
// enough to take it, and if it is not there is more to say than that.
func (s *session) tryDeposit(ctx context.Context, in *input) {
	if s.remember(in) != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTime)
	defer cancel()
	_ = s.push(ctx, false) // see above
}

// push replaces the cluster's copy, unless it is of an installer that knows
// more: one whose last operation is not in the history here. Anyway: it is told
// what counts from now on.
func (s *session) push(ctx context.Context, anyway bool) error {
	const op = "give the cluster a copy of the state"
	st, err := s.stack.State()
	if err != nil {
		return err
	}
	history, err := s.stack.History()
	if err != nil {
		return err
	}
	if len(history) == 0 {
		return nil
	}
	files, err := s.stack.Export(metaFile)
	if err != nil {
		return err
	}
	doc := deposit.Document{Serial: st.Serial, Operation: history[len(history)-1].ID, By: whoami()}
	if doc.Content, err = (recovery.Copy{Cluster: s.cluster, Installer: s.run.app.Version, Files: files}).Pack(); err != nil {
		return err
	}
	c, err := s.gateway()
	if err != nil {
		return err
	}
	defer c.Close()
	var there deposit.Document
	err = c.JSON(ctx, http.MethodGet, depositPath+"?content=false", nil, &there)
	switch {
	case fault.Is(err, fault.NotFound):
	case err != nil:
		return err
	case !anyway && !slices.ContainsFunc(history, func(r stack.Record) bool { return r.ID == there.Operation }):
		return fault.Newf(op, fault.Conflict, "it has the state of another installer, number %d by %s at %s. Fetch that with dcos-install adopt in an empty directory, and go on there",
			there.Serial, there.By, there.At.Local().Format(time.DateTime))
	}
	doc.Revision = there.Revision
	return c.JSON(ctx, http.MethodPut, depositPath, doc, nil)
}

func whoami() string {
	name := fmt.Sprintf("uid %d", os.Getuid())
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	return name
}
