package install

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"dcos.example/dcos/runtime/api/service"
	"dcos.example/dcos/runtime/catalog/failure"
)

// Endpoint is the HTTP API of a component, usually in this process.
type Endpoint struct {
	URL    string // scheme and host, without a path
	Client *http.Client
}

// maxAnswer bounds what is read of an answer: thousands of apps, each with the
// package that it was installed from.
const maxAnswer = 256 << 20

// call sends body, if there is any, as JSON and returns status and answer.
func (e Endpoint) call(ctx context.Context, method, path string, header http.Header, body []byte) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, e.URL+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	if body != nil && req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Accept", "application/json")
	resp, err := e.Client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err == nil && len(answer) > maxAnswer {
		err = fmt.Errorf("the answer is longer than %d bytes", maxAnswer)
	}
	return resp.StatusCode, answer, err
}

// app is what matters of an app.
type app struct {
	ID          string            `json:"id"`
	Labels      map[string]string `json:"labels"`
	Env         map[string]any    `json:"env"`
	Deployments []json.RawMessage `json:"deployments"`
	Tasks       []struct {
		Host  string `json:"host"`
		Ports []int  `json:"ports"`
	} `json:"tasks"`
}

// marathon is the API of the orchestrator.
type marathon struct{ Endpoint }

func (m marathon) do(ctx context.Context, method, path string, body []byte) (int, []byte, error) {
	status, answer, err := m.call(ctx, method, path, nil, body)
	if err != nil {
		return 0, nil, failure.ServiceUnavailable("marathon", err)
	}
	if status >= 500 {
		return status, answer, failure.MarathonFailed(status)
	}
	return status, answer, nil
}

// refusedBy is an answer that is no success.
func refusedBy(status int, answer []byte) error {
	var v any
	if err := json.Unmarshal(answer, &v); err != nil {
		v = strings.TrimSpace(string(answer))
	}
	return failure.MarathonBadResponse(status, v)
}

func decode(part string, answer []byte, v any) error {
	if err := json.Unmarshal(answer, v); err != nil {
		return failure.ServiceUnavailable(part, fmt.Errorf("its answer cannot be read: %w", err))
	}
	return nil
}

// apps are those with a label, or all with "".
func (m marathon) apps(ctx context.Context, label string) ([]app, error) {
	path := "/v2/apps"
	if label != "" {
		path += "?label=" + url.QueryEscape(label)
	}
	status, answer, err := m.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, refusedBy(status, answer)
	}
	var list struct {
		Apps []app `json:"apps"`
	}
	return list.Apps, decode("marathon", answer, &list)
}

// find returns an app, and whether it is there.
func (m marathon) find(ctx context.Context, id string) (app, bool, error) {
	status, answer, err := m.do(ctx, http.MethodGet, "/v2/apps/"+escape(id), nil)
	if err != nil || status == http.StatusNotFound {
		return app{}, false, err
	}
	if status != http.StatusOK {
		return app{}, false, refusedBy(status, answer)
	}
	var one struct {
		App app `json:"app"`
	}
	return one.App, true, decode("marathon", answer, &one)
}

// create starts an app and returns its id.
func (m marathon) create(ctx context.Context, body []byte) (string, error) {
	status, answer, err := m.do(ctx, http.MethodPost, "/v2/apps", body)
	if err != nil {
		return "", err
	}
	var created app
	switch status {
	case http.StatusOK, http.StatusCreated:
		err := decode("marathon", answer, &created)
		return created.ID, err
	case http.StatusConflict:
		var wanted app
		if err := json.Unmarshal(body, &wanted); err != nil {
			return "", failure.Unhandled(err)
		}
		return "", failure.AlreadyInstalled(rooted(wanted.ID))
	}
	return "", refusedBy(status, answer)
}

// put changes an app, wholly or what body has of it, and returns the
// deployment.
func (m marathon) put(ctx context.Context, id string, partial bool, body []byte) (string, error) {
	status, answer, err := m.do(ctx, http.MethodPut, fmt.Sprintf("/v2/apps/%s?force=true&partialUpdate=%t", escape(id), partial), body)
	if err != nil {
		return "", err
	}
	if status != http.StatusOK && status != http.StatusCreated {
		return "", refusedBy(status, answer)
	}
	var done struct {
		DeploymentID string `json:"deploymentId"`
	}
	return done.DeploymentID, decode("marathon", answer, &done)
}

// remove ends an app. One that is gone is removed.
func (m marathon) remove(ctx context.Context, id string) error {
	status, answer, err := m.do(ctx, http.MethodDelete, "/v2/apps/"+escape(id)+"?force=true", nil)
	if err != nil {
		return err
	}
	if status != http.StatusOK && status != http.StatusNotFound {
		return refusedBy(status, answer)
	}
	return nil
}

// escape makes an app's id part of a path.
func escape(id string) string {
	parts := strings.Split(strings.Trim(id, "/"), "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return strings.Join(parts, "/")
}

// rooted is an id from the root.
func rooted(id string) string {
	if id == "" {
		return ""
	}
	return "/" + strings.Trim(id, "/")
}

// mesos is the API of the leading master.
type mesos struct{ Endpoint }

// frameworks returns the ids of the active frameworks of that name.
func (m mesos) frameworks(ctx context.Context, name string) ([]string, error) {
	status, answer, err := m.call(ctx, http.MethodGet, "/master/frameworks", nil, nil)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("it answers with status %d", status)
	}
	var list struct {
		Frameworks []struct {
			ID   string `json:"id"`
			Name string `json:"name"`
		} `json:"frameworks"`
	}
	if err := json.Unmarshal(answer, &list); err != nil {
		return nil, err
	}
	var ids []string
	for _, f := range list.Frameworks {
		if f.Name == name {
			ids = append(ids, f.ID)
		}
	}
	return ids, nil
}

func (m mesos) teardown(ctx context.Context, id string) error {
	header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	status, answer, err := m.call(ctx, http.MethodPost, "/master/teardown", header, []byte(url.Values{"frameworkId": {id}}.Encode()))
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("it answers with status %d: %s", status, bytes.TrimSpace(answer))
	}
	return nil
}

// operator is the API for services of ours.
type operator struct{ Endpoint }

func (o operator) do(ctx context.Context, method, path string, header http.Header, body []byte) (int, []byte, error) {
	status, answer, err := o.call(ctx, method, path, header, body)
	if err != nil {
		return 0, nil, failure.ServiceUnavailable("services", err)
	}
	if status >= 500 {
		return status, answer, failure.ServiceUnavailable("services", fmt.Errorf("it answers with status %d: %.200s", status, answer))
	}
	return status, answer, nil
}

// said is what the operator answers to what it does not do.
func said(status int, answer []byte) error {
	var body struct {
		Message string          `json:"message"`
		Errors  json.RawMessage `json:"errors"`
	}
	if err := json.Unmarshal(answer, &body); err != nil || body.Message == "" {
		body.Message = fmt.Sprintf("The operator answers with status %d: %.200s", status, answer)
	}
	return failure.ServiceRefused(status, body.Message, body.Errors)
}

func (o operator) path(name string) string {
	return "/services/" + url.PathEscape(strings.Trim(name, "/"))
}

func (o operator) list(ctx context.Context) ([]service.Summary, error) {
	status, answer, err := o.do(ctx, http.MethodGet, "/services/", nil, nil)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, said(status, answer)
	}
	var list service.List
	return list.Services, decode("services", answer, &list)
}

// record is what the operator keeps of a service.
type record struct {
	Name    string          `json:"name"`
	Status  service.Status  `json:"status"`
	Package service.Package `json:"package"`
}

// find returns a service, and whether it is there.
func (o operator) find(ctx context.Context, name string) (record, bool, error) {
	var r record
	status, answer, err := o.do(ctx, http.MethodGet, o.path(name), nil, nil)
	if err != nil || status == http.StatusNotFound {
		return r, false, err
	}
	if status != http.StatusOK {
		return r, false, said(status, answer)
	}
	return r, true, decode("services", answer, &r)
}

func (o operator) check(ctx context.Context, body []byte) error {
	status, answer, err := o.do(ctx, http.MethodPost, "/services/check", nil, body)
	if err == nil && status != http.StatusOK {
		err = said(status, answer)
	}
	return err
}

// put makes a service, or changes it unless it must be new.
func (o operator) put(ctx context.Context, name string, isNew bool, body []byte) error {
	header := http.Header{}
	if isNew {
		header.Set("If-None-Match", "*")
	}
	status, answer, err := o.do(ctx, http.MethodPut, o.path(name), header, body)
	switch {
	case err != nil:
		return err
	case isNew && status == http.StatusConflict:
		return failure.AlreadyInstalled(rooted(name))
	case status != http.StatusOK && status != http.StatusCreated:
		return said(status, answer)
	}
	return nil
}

// remove uninstalls a service. One that is gone is removed.
func (o operator) remove(ctx context.Context, name string) error {
	status, answer, err := o.do(ctx, http.MethodDelete, o.path(name), nil, nil)
	if err == nil && status/100 != 2 && status != http.StatusNotFound {
		err = said(status, answer)
	}
	return err
}
