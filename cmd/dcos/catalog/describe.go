package catalog

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"dcos.example/dcos/cmd/dcos/client"
	"dcos.example/dcos/cmd/dcos/console"
	"dcos.example/dcos/runtime/api/cosmos"
	"dcos.example/dcos/runtime/fault"
)

// choice is which package, and how it is to be.
type choice struct {
	version, options, profile, app string
}

func (c *choice) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.version, "package-version", "", "this version instead of the current one")
	cmd.Flags().StringVarP(&c.options, "options", "o", "", "file with options as JSON")
	cmd.Flags().StringVar(&c.profile, "profile", "", "options that the package has under this name, for example small")
	cmd.Flags().StringVar(&c.app, "app-id", "", "ID to install it under, instead of the package's own")
}

// read returns the options as the API wants them, and as they were written.
func (c *choice) read() (json.RawMessage, map[string]any, error) {
	if c.options == "" {
		return nil, nil, nil
	}
	options, err := console.JSONObject(c.options)
	if err != nil {
		return nil, nil, err
	}
	b, err := json.Marshal(options)
	return b, options, err
}

// fetch returns a revision of a package, and its JSON.
func fetch(ctx context.Context, cl *client.Client, name, version string) (pkg cosmos.Package, raw json.RawMessage, err error) {
	op := "describe package " + name
	var out cosmos.DescribeResponse
	if err := cl.Cosmos(ctx, op, cosmos.Describe, cosmos.DescribeRequest{PackageName: name, PackageVersion: version}, &out); err != nil {
		return pkg, nil, err
	}
	if err := json.Unmarshal(out.Package, &pkg); err != nil {
		return pkg, nil, fault.New(op, fault.Internal, err)
	}
	return pkg, out.Package, nil
}

func (p *packages) describe() *cobra.Command {
	var c choice
	var app, cli, config, render, versions bool
	cmd := console.Command("describe NAME", "Show a package, its options, or what it would run", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		cl, err := p.Connect()
		if err != nil {
			return err
		}
		name := args[0]
		switch {
		case versions:
			list, err := listVersions(ctx, cl, name)
			if err != nil {
				return p.explain(ctx, cl, name, err)
			}
			return p.JSON(list)
		case render || app && (c.options != "" || c.profile != ""):
			return p.render(ctx, cl, name, c)
		}
		pkg, raw, err := fetch(ctx, cl, name, c.version)
		if err != nil {
			return p.explain(ctx, cl, name, err)
		}
		switch {
		case config && len(pkg.Config) == 0:
			return p.JSON(map[string]any{}) // a package without options
		case config:
			return p.JSON(pkg.Config)
		case app:
			return p.template(pkg)
		case cli:
			return p.cli(pkg)
		}
		return p.JSON(map[string]any{"package": raw})
	})
	c.flags(cmd)
	cmd.Flags().BoolVar(&app, "app", false, "show the template of what it runs")
	cmd.Flags().BoolVar(&cli, "cli", false, "show its commands")
	cmd.Flags().BoolVar(&config, "config", false, "show its options as a JSON schema")
	cmd.Flags().BoolVar(&render, "render", false, "show what it would run, with --options and --profile")
	cmd.Flags().BoolVar(&versions, "package-versions", false, "list its versions")
	cmd.ValidArgsFunction = p.packageNames
	return cmd
}

func (p *packages) render(ctx context.Context, cl *client.Client, name string, c choice) error {
	options, _, err := c.read()
	if err != nil {
		return err
	}
	var out cosmos.RenderResponse
	r := cosmos.RenderRequest{PackageName: name, PackageVersion: c.version, Options: options, AppID: c.app, Profile: c.profile}
	if err := cl.Cosmos(ctx, "render package "+name, cosmos.Render, r, &out); err != nil {
		return p.explain(ctx, cl, name, err)
	}
	if len(out.ServiceJSON) > 0 {
		return p.JSON(out.ServiceJSON)
	}
	return p.JSON(out.MarathonJSON)
}

func (p *packages) template(pkg cosmos.Package) error {
	text := []byte(nil)
	switch {
	case pkg.Service != nil:
		text = pkg.Service.Template
	case pkg.Marathon != nil:
		text = pkg.Marathon.V2AppMustacheTemplate
	default:
		return fault.Newf("describe package "+pkg.Name, fault.NotFound, "it runs nothing: it has no template")
	}
	fmt.Fprintf(p.Stdout, "%s\n", bytes.TrimRight(text, "\n"))
	return nil
}

func (p *packages) cli(pkg cosmos.Package) error {
	var r cosmos.Resource
	if len(pkg.Resource) > 0 {
		if err := json.Unmarshal(pkg.Resource, &r); err != nil {
			return fault.New("describe package "+pkg.Name, fault.Internal, err)
		}
	}
	switch {
	case r.CLI != nil:
		return p.JSON(r.CLI)
	case pkg.Command != nil:
		return p.JSON(pkg.Command)
	}
	return p.JSON(map[string]any{}) // the commands of services are part of this program
}

// known looks for options that the package's schema does not have. They are an
// error where the schema says that there are no others, and else a warning: the
// cluster takes them, and nothing comes of it.
func (p *packages) known(pkg cosmos.Package, options map[string]any) error {
	var s schema
	if len(pkg.Config) == 0 || json.Unmarshal(pkg.Config, &s) != nil {
		return nil // the cluster says what is wrong
	}
	var wrong []string
	for _, u := range s.unknown("", options) {
		text := fmt.Sprintf("the package %s has no option %q.%s", pkg.Name, u.path, console.Similar(u.name, u.known))
		if u.refused {
			wrong = append(wrong, text)
		} else {
			fmt.Fprintln(p.Stderr, "Warning:", text)
		}
	}
	if len(wrong) > 0 {
		return fault.Newf("read options", fault.Invalid, "%s", strings.Join(wrong, "\n  "))
	}
	return nil
}

// schema is what of a JSON schema tells names of options.
type schema struct {
	Properties map[string]schema `json:"properties"`
	// false: there are no others. Anything else says that there may be.
	Additional json.RawMessage `json:"additionalProperties"`
	Patterns   json.RawMessage `json:"patternProperties"`
}

// unknown is an option that a schema does not have.
type unknown struct {
	path, name string
	known      []string // those beside it
	refused    bool
}

func (s schema) unknown(path string, options map[string]any) (wrong []unknown) {
	refused := string(s.Additional) == "false"
	if s.Properties == nil || s.Additional != nil && !refused || s.Patterns != nil {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(options)) {
		at := strings.TrimPrefix(path+"."+name, ".")
		below, ok := s.Properties[name]
		if !ok {
			wrong = append(wrong, unknown{at, name, slices.Sorted(maps.Keys(s.Properties)), refused})
			continue
		}
		if m, ok := options[name].(map[string]any); ok {
			wrong = append(wrong, below.unknown(at, m)...)
		}
	}
	return wrong
}
