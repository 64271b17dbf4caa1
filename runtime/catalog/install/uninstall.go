package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"

	"dcos.example/dcos/runtime/api/cosmos"
	"dcos.example/dcos/runtime/catalog/failure"
	"dcos.example/dcos/runtime/catalog/render"
)

// What services made with the SDK of DC/OS say of themselves.
const (
	labelSDK        = "DCOS_COMMONS_UNINSTALL"
	labelSDKVersion = "DCOS_COMMONS_API_VERSION"
	envUninstall    = "SDK_UNINSTALL"
)

// Uninstall removes installations of a package.
func (i *Installer) Uninstall(ctx context.Context, req cosmos.UninstallRequest) (*cosmos.UninstallResponse, error) {
	if req.ManagerID != "" {
		return nil, failure.NotImplemented("Managers of packages are not supported")
	}
	list, err := i.all(ctx, req.PackageName, req.AppID)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		if req.AppID != "" {
			return nil, failure.NoSuchApp(req.PackageName, rooted(req.AppID))
		}
		return nil, failure.NotInstalled(req.PackageName)
	}
	if len(list) > 1 && !req.All {
		var ids []string
		for _, in := range list {
			ids = append(ids, in.id)
		}
		return nil, failure.AmbiguousAppID(req.PackageName, ids)
	}
	answer := &cosmos.UninstallResponse{Results: []cosmos.Uninstalled{}}
	for _, in := range list {
		done := cosmos.Uninstalled{PackageName: in.name, AppID: in.id, PackageVersion: in.version, PostUninstallNotes: i.notes(in)}
		if err := i.remove(ctx, in); err != nil {
			return nil, err
		}
		i.log.Info("uninstalled", "package", in.name, "version", in.version, "app", in.id)
		answer.Results = append(answer.Results, done)
	}
	return answer, nil
}

func (i *Installer) notes(in installation) string {
	packed, err := i.packed(in)
	if err != nil {
		return ""
	}
	p, err := packed.Package()
	if err != nil {
		return ""
	}
	return p.PostUninstallNotes
}

func (i *Installer) remove(ctx context.Context, in installation) error {
	if in.isService {
		return i.operator.remove(ctx, in.id)
	}
	if _, ok := in.labels[labelSDK]; ok {
		return i.startSDK(ctx, in)
	}
	if err := i.marathon.remove(ctx, in.id); err != nil {
		return err
	}
	framework := in.labels[render.LabelFrameworkName]
	if framework == "" {
		return nil
	}
	ids, err := i.mesos.frameworks(ctx, framework)
	if err == nil && len(ids) > 1 {
		return failure.MultipleFrameworkIDs(in.name, in.version, framework, ids)
	}
	if err == nil && len(ids) == 1 {
		err = i.mesos.teardown(ctx, ids[0])
	}
	if err != nil {
		i.log.Warn("tear down framework", "framework", framework, "err", err)
		return failure.IncompleteUninstall(in.name)
	}
	return nil
}

// startSDK tells a service to give everything back. Its app is removed when it
// says that it has: see Run.
func (i *Installer) startSDK(ctx context.Context, in installation) error {
	env := maps.Clone(in.app.Env)
	if env == nil {
		env = map[string]any{}
	}
	env[envUninstall] = "true"
	body, err := json.Marshal(map[string]any{"env": env})
	if err != nil {
		return failure.Unhandled(err)
	}
	if _, err := i.marathon.put(ctx, in.id, true, body); err != nil {
		var f *failure.Error
		if errors.As(err, &f) && f.Status == http.StatusBadRequest {
			return failure.FailedToStartUninstall(in.id, f.Message)
		}
		return err
	}
	select {
	case i.wake <- struct{}{}:
	default:
	}
	return nil
}

// How often services that uninstall themselves are asked whether they have, and
// how often it is looked for those that another master told to.
const (
	often  = 10 * time.Second
	seldom = 2 * time.Minute
)

// Run removes the apps of services that have uninstalled themselves, until ctx
// ends. Every master does, whoever was asked to uninstall: what is to be done is
// seen from the apps alone.
func (i *Installer) Run(ctx context.Context) {
	wait := often
	for {
		select {
		case <-ctx.Done():
			return
		case <-i.wake:
			wait = often
			continue
		case <-time.After(wait):
		}
		waiting, err := i.Finish(ctx)
		if err != nil && ctx.Err() == nil {
			i.log.Debug("look for services that uninstall themselves", "err", err)
		}
		if wait = seldom; waiting > 0 {
			wait = often
		}
	}
}

// Finish looks once, and returns how many services are not through yet.
func (i *Installer) Finish(ctx context.Context) (waiting int, err error) {
	apps, err := i.marathon.apps(ctx, labelSDK)
	if err != nil {
		return 0, err
	}
	for _, a := range apps {
		if a.Env[envUninstall] != "true" {
			continue
		}
		waiting++
		if err := i.through(ctx, a.ID); err != nil {
			i.log.Debug("a service is not uninstalled yet", "app", a.ID, "err", err)
			continue
		}
		if err := i.marathon.remove(ctx, a.ID); err != nil {
			return waiting, err
		}
		waiting--
		i.log.Info("a service has uninstalled itself", "app", a.ID)
	}
	return waiting, nil
}

// through reports why a service has not uninstalled itself yet: its plan to is
// complete when asking for it is answered with 200.
func (i *Installer) through(ctx context.Context, id string) error {
	a, there, err := i.marathon.find(ctx, id)
	if err != nil || !there {
		return err
	}
	if len(a.Deployments) > 0 {
		return errors.New("it is being deployed")
	}
	if len(a.Tasks) != 1 {
		return fmt.Errorf("it has %d tasks", len(a.Tasks))
	}
	port := 0
	if label, ok := a.Labels["DCOS_SERVICE_PORT_INDEX"]; ok {
		if port, err = strconv.Atoi(label); err != nil {
			return fmt.Errorf("read DCOS_SERVICE_PORT_INDEX: %w", err)
		}
	}
	task := a.Tasks[0]
	if port < 0 || port >= len(task.Ports) {
		return fmt.Errorf("it has no port of index %d", port)
	}
	version := strings.Trim(a.Labels[labelSDKVersion], "/")
	if version == "" {
		version = "v1"
	}
	url := fmt.Sprintf("http://%s:%d/%s/plans/deploy", task.Host, task.Ports[port], version)
	status, _, err := Endpoint{URL: url, Client: i.plans}.call(ctx, http.MethodGet, "", nil, nil)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("its plan is answered with status %d", status)
	}
	return err
}
