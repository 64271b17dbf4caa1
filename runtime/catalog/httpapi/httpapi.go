// Package httpapi speaks the package API of DC/OS (Cosmos) over HTTP: its paths,
// exact media types, errors and statuses.
package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strconv"

	"dcos.example/dcos/runtime/api/cosmos"
	"dcos.example/dcos/runtime/catalog/failure"
	"dcos.example/dcos/runtime/catalog/index"
	"dcos.example/dcos/runtime/catalog/render"
)

// repositories is the list of repositories. Errors are *failure.Error.
type repositories interface {
	Statuses() []cosmos.RepositoryStatus
	Add(ctx context.Context, req cosmos.RepositoryAddRequest) error
	Delete(ctx context.Context, req cosmos.RepositoryDeleteRequest) error
}

// installer installs packages.
type installer interface {
	Render(req cosmos.RenderRequest) (*render.Result, error)
	Install(ctx context.Context, req cosmos.InstallRequest) (*cosmos.InstallResponse, error)
	Uninstall(ctx context.Context, req cosmos.UninstallRequest) (*cosmos.UninstallResponse, error)
	List(ctx context.Context, req cosmos.ListRequest) (*cosmos.ListResponse, error)
	services
}

// services changes what is installed.
type services interface {
	Describe(ctx context.Context, req cosmos.ServiceDescribeRequest) (*cosmos.ServiceDescribeResponse, error)
	Update(ctx context.Context, req cosmos.ServiceUpdateRequest) (*cosmos.ServiceUpdateResponse, error)
}

// Config is what the API stands on; all is required.
type Config struct {
	Index        func() *index.Index // nil: not known yet
	Repositories repositories
	Installer    installer
	Resources    http.RoundTripper // to what packages name by URL
	Log          *slog.Logger
}

type api struct {
	Config
	mux *http.ServeMux
}

// New returns the handler of all paths.
func New(c Config) http.Handler {
	a := &api{Config: c, mux: http.NewServeMux()}
	handle(a, cosmos.Search, a.search)
	handle(a, cosmos.ListVersions, a.listVersions)
	handle(a, cosmos.Describe, a.describe)
	handle(a, cosmos.Render, a.render)
	handle(a, cosmos.List, plain(c.Installer.List))
	handle(a, cosmos.Install, a.install)
	handle(a, cosmos.Uninstall, func(ctx context.Context, req *cosmos.UninstallRequest, _ string) (any, error) {
		if err := required("packageName", req.PackageName); err != nil {
			return nil, err
		}
		return c.Installer.Uninstall(ctx, *req)
	})
	handle(a, cosmos.RepositoryList, func(context.Context, *struct{}, string) (any, error) { return a.list(), nil })
	handle(a, cosmos.RepositoryAdd, a.add)
	handle(a, cosmos.RepositoryDelete, func(ctx context.Context, req *cosmos.RepositoryDeleteRequest, _ string) (any, error) {
		if err := c.Repositories.Delete(ctx, *req); err != nil {
			return nil, err
		}
		return a.list(), nil
	})
	handle(a, cosmos.ServiceDescribe, func(ctx context.Context, req *cosmos.ServiceDescribeRequest, _ string) (any, error) {
		if err := required("appId", req.AppID); err != nil {
			return nil, err
		}
		return c.Installer.Describe(ctx, *req)
	})
	handle(a, cosmos.ServiceUpdate, func(ctx context.Context, req *cosmos.ServiceUpdateRequest, _ string) (any, error) {
		if err := required("appId", req.AppID); err != nil {
			return nil, err
		}
		return c.Installer.Update(ctx, *req)
	})
	a.mux.HandleFunc("GET /package/resource", a.resource)
	a.mux.HandleFunc("GET /capabilities", a.capabilities)
	return a.mux
}

// handle serves a call: do is given the request and the type to answer in. What
// is below /service is below /cosmos/service too, where the gateway leads to it.
func handle[T any](a *api, c cosmos.Call, do func(ctx context.Context, req *T, answer string) (any, error)) {
	h := func(w http.ResponseWriter, r *http.Request) {
		answer, body, err := serve(a, c, w, r, do)
		if err != nil {
			a.fail(w, r, err)
			return
		}
		w.Header().Set("Content-Type", answer)
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.Write(body) // a client that is gone is none of ours
	}
	a.mux.HandleFunc("POST "+c.Path, h)
	if c.Path == cosmos.ServiceDescribe.Path || c.Path == cosmos.ServiceUpdate.Path {
		a.mux.HandleFunc("POST /cosmos"+c.Path, h)
	}
}

func serve[T any](a *api, c cosmos.Call, w http.ResponseWriter, r *http.Request, do func(context.Context, *T, string) (any, error)) (string, []byte, error) {
	var wrong []*failure.Error
	answer, no := accepted(r, c)
	if no != nil {
		wrong = append(wrong, no)
	}
	if no := sent(r, c); no != nil {
		wrong = append(wrong, no)
	}
	switch len(wrong) {
	case 0:
	case 1:
		return "", nil, wrong[0]
	default:
		return "", nil, failure.Multiple(wrong)
	}
	var req T
	if err := read(w, r, &req); err != nil {
		return "", nil, err
	}
	if a.Index() == nil {
		w.Header().Set("Retry-After", "1")
		return "", nil, failure.ServiceUnavailable("catalog", errors.New("it is being loaded"))
	}
	v, err := do(r.Context(), &req, answer)
	if err != nil {
		return "", nil, err
	}
	if text, ok := v.(json.RawMessage); ok {
		return answer, text, nil
	}
	body, err := encode(v)
	return answer, body, err
}

func plain[T, U any](f func(context.Context, T) (*U, error)) func(context.Context, *T, string) (any, error) {
	return func(ctx context.Context, req *T, _ string) (any, error) { return f(ctx, *req) }
}

func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return b.Bytes(), err
}

// fail answers with an error. Whatever is not made to be answered is reported,
// because nobody thought of it.
func (a *api) fail(w http.ResponseWriter, r *http.Request, err error) {
	var f *failure.Error
	if !errors.As(err, &f) {
		f = failure.Unhandled(err)
	}
	if f.Status == http.StatusInternalServerError {
		a.Log.Error("answer a request", "path", r.URL.Path, "err", err)
	}
	body := cosmos.Error{Type: f.Type, Message: f.Message}
	if f.Data != nil {
		body.Data = f.Data
	}
	text, err := encode(body)
	if err != nil {
		a.Log.Error("answer a request", "path", r.URL.Path, "err", err)
	}
	w.Header().Set("Content-Type", cosmos.TypeError)
	w.WriteHeader(f.Status)
	w.Write(text)
}

func (a *api) search(_ context.Context, req *cosmos.SearchRequest, _ string) (any, error) {
	return json.RawMessage(a.Index().Search(req.Query)), nil
}

func (a *api) listVersions(_ context.Context, req *cosmos.ListVersionsRequest, _ string) (any, error) {
	if err := required("packageName", req.PackageName); err != nil {
		return nil, err
	}
	if !req.IncludePackageVersions {
		return nil, failure.NotImplemented("Requests for package versions must set includePackageVersions to true")
	}
	versions, err := a.Index().Versions(req.PackageName)
	return cosmos.ListVersionsResponse{Results: versions}, err
}

func (a *api) render(_ context.Context, req *cosmos.RenderRequest, _ string) (any, error) {
	if err := required("packageName", req.PackageName); err != nil {
		return nil, err
	}
	out, err := a.Installer.Render(*req)
	if err != nil {
		return nil, err
	}
	if out.Service != nil {
		spec, err := encode(out.Service)
		return cosmos.RenderResponse{ServiceJSON: spec}, err
	}
	return cosmos.RenderResponse{MarathonJSON: out.App}, nil
}

func (a *api) install(ctx context.Context, req *cosmos.InstallRequest, answer string) (any, error) {
	if err := required("packageName", req.PackageName); err != nil {
		return nil, err
	}
	done, err := a.Installer.Install(ctx, *req)
	if err != nil || answer == cosmos.Install.Accept[0] {
		return done, err
	}
	if done.AppID == "" {
		return nil, failure.TemplateNotFound(done.PackageName, done.PackageVersion)
	}
	return cosmos.InstallResponse{PackageName: done.PackageName, PackageVersion: done.PackageVersion, AppID: done.AppID}, nil
}

func (a *api) list() cosmos.RepositoryResponse {
	return cosmos.RepositoryResponse{Repositories: a.Repositories.Statuses()}
}

func (a *api) add(ctx context.Context, req *cosmos.RepositoryAddRequest, _ string) (any, error) {
	if err := errors.Join(required("name", req.Name), required("uri", req.URI)); err != nil {
		return nil, err
	}
	if err := a.Repositories.Add(ctx, *req); err != nil {
		return nil, err
	}
	return a.list(), nil
}

// capabilities are what this cluster has of those that clients ask about.
func (a *api) capabilities(w http.ResponseWriter, r *http.Request) {
	text, err := encode(cosmos.Capabilities{Capabilities: []cosmos.Capability{{Name: "PACKAGE_MANAGEMENT"}}})
	if err != nil {
		a.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", cosmos.TypeCapabilities)
	w.Write(text)
}
