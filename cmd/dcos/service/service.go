// Package service has the commands of one service: `dcos <name> …`, and
// `dcos service <name> …`. They are those of the SDK of DC/OS and speak its
// API, so that they also drive a service whose scheduler is an app.
package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"dcos.example/dcos/cmd/dcos/client"
	"dcos.example/dcos/cmd/dcos/console"
	api "dcos.example/dcos/runtime/api/service"
	"dcos.example/dcos/runtime/fault"
)

// Verbs are the commands that a service has.
var verbs = []string{"debug", "describe", "endpoints", "plan", "pod", "update"}

// IsVerb reports whether a service has a command called word.
func IsVerb(word string) bool { return slices.Contains(verbs, word) }

// service is the one that a command line names.
type service struct {
	*console.Console
	name string
}

// Command is `<name>` with all that can be done with that service.
func Command(con *console.Console, name string) *cobra.Command {
	s := &service{con, Name(name)}
	cmd := console.Group(name, "Manage the service "+s.name, s.describe(), s.update(), s.plan(), s.pod(), s.endpoints(), s.debug())
	// An instance of a package under another name than the package's.
	cmd.PersistentFlags().Func("name", "name of the service, if it is not "+name, func(v string) error {
		s.name = Name(v)
		return nil
	})
	return cmd
}

// Name is the name of the service with that id: "/prod/kafka" is "prod/kafka".
func Name(id string) string { return strings.Trim(id, "/") }

// Path is where the API of a service is.
func Path(name, rest string) string {
	segments := strings.Split(name, "/")
	for i, seg := range segments {
		segments[i] = url.PathEscape(seg)
	}
	return "/service/" + strings.Join(segments, "/") + rest
}

// List returns the services that the operator runs.
func List(ctx context.Context, cl *client.Client) ([]api.Summary, error) {
	var list api.List
	err := cl.Get(ctx, "list services", "/services/", &list)
	return list.Services, err
}

// call sends a request to the service. A plan with errors answers 417, which
// is an answer as any other.
func (s *service) call(ctx context.Context, op, method, rest string, in, out any) error {
	cl, err := s.Connect()
	if err != nil {
		return err
	}
	return s.callBy(ctx, cl, op, method, rest, in, out)
}

func (s *service) callBy(ctx context.Context, cl *client.Client, op, method, rest string, in, out any) error {
	r := client.Request{Method: method, Path: Path(s.name, rest)}
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fault.New(op, fault.Internal, err)
		}
		r.Body, r.Header = strings.NewReader(string(b)), map[string]string{"Content-Type": "application/json"}
	}
	resp, err := cl.Do(ctx, r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 && resp.StatusCode != http.StatusExpectationFailed {
		return s.explain(ctx, cl, cl.Refused(op, resp))
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return fault.New(op, fault.Unavailable, err)
	}
	switch o := out.(type) {
	case nil:
		return nil
	case *string:
		*o = string(b)
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fault.Newf(op, fault.Unavailable, "the answer cannot be read: %w", err)
	}
	return nil
}

// explain says of what was not found whether it was the service.
func (s *service) explain(ctx context.Context, cl *client.Client, err error) error {
	refusal, ok := errors.AsType[*client.Refusal](err)
	if !ok || refusal.Status != http.StatusNotFound {
		return err
	}
	all, listErr := List(ctx, cl)
	if listErr != nil {
		return err
	}
	var names []string
	for _, x := range all {
		if x.Name == s.name {
			return err
		}
		names = append(names, x.Name)
	}
	for _, x := range all { // under another name than its package's
		if x.Package.Name == s.name {
			return fault.Newf("find service "+s.name, fault.NotFound, "the package %s is installed as %s; add --name=%s", s.name, x.Name, x.Name)
		}
	}
	if len(names) == 0 {
		return fault.Newf("find service "+s.name, fault.NotFound, "no service is installed; `dcos package install` does that")
	}
	return fault.Newf("find service "+s.name, fault.NotFound, "it is not installed.%s There are: %s", console.Similar(s.name, names), strings.Join(names, ", "))
}

// raw prints the service's own JSON.
func (s *service) raw(ctx context.Context, op, rest string) error {
	var v json.RawMessage
	if err := s.call(ctx, op, http.MethodGet, rest, nil, &v); err != nil {
		return err
	}
	return s.JSON(v)
}

// told sends a command and prints what the service says to it.
func (s *service) told(ctx context.Context, op, rest string, in any, asJSON bool) error {
	var out json.RawMessage
	if err := s.call(ctx, op, http.MethodPost, rest, in, &out); err != nil {
		return err
	}
	var result api.CommandResult
	if asJSON || json.Unmarshal(out, &result) != nil || result.Message == "" {
		return s.JSON(out)
	}
	fmt.Fprintln(s.Stdout, result.Message)
	return nil
}

func (s *service) endpoints() *cobra.Command {
	cmd := console.Command("endpoints [NAME]", "Show how clients reach the service", cobra.MaximumNArgs(1), func(ctx context.Context, args []string) error {
		if len(args) == 0 {
			return s.raw(ctx, "list endpoints of "+s.name, "/v1/endpoints")
		}
		var text string
		op := "show endpoint " + args[0] + " of " + s.name
		if err := s.call(ctx, op, http.MethodGet, "/v1/endpoints/"+url.PathEscape(args[0]), nil, &text); err != nil {
			return err
		}
		if json.Valid([]byte(text)) {
			return s.JSON(json.RawMessage(text))
		}
		fmt.Fprintln(s.Stdout, strings.TrimRight(text, "\n")) // a file, as HDFS has
		return nil
	})
	cmd.ValidArgsFunction = s.words("/v1/endpoints")
	return cmd
}

// words completes the first argument with a list that the service answers.
func (s *service) words(rest string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), console.Patience)
		defer cancel()
		var list []string
		if s.call(ctx, "complete", http.MethodGet, rest, nil, &list) != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp // a shell has nowhere to say so
		}
		return console.Fitting(list, start), cobra.ShellCompDirectiveNoFileComp
	}
}
