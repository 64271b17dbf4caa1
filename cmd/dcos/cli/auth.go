package cli

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"dcos.example/dcos/cmd/dcos/client"
	"dcos.example/dcos/cmd/dcos/console"
	"dcos.example/dcos/cmd/dcos/profile"
	"dcos.example/dcos/runtime/fault"
)

func (a *app) authCmd() *cobra.Command {
	return console.Group("auth", "Log in and out", a.authLogin(), a.authLogout(), a.authProviders())
}

// login is how a user wants to log in.
type login struct{ user, password, passwordFile string }

func (l *login) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&l.user, "username", "", "user ID ($DCOS_USERNAME)")
	cmd.Flags().StringVar(&l.password, "password", "", "password; other users of this machine may see it, better use $DCOS_PASSWORD or --password-file")
	cmd.Flags().StringVar(&l.passwordFile, "password-file", "", "file with the password, - for standard input")
}

// needsNoLogin asks as the CLI of DC/OS does: by the answer to a request
// without a token.
func needsNoLogin(ctx context.Context, cl *client.Client) (bool, error) {
	const op = "ask how to log in"
	resp, err := cl.Do(ctx, client.Request{Method: http.MethodHead, Path: "/pkgpanda/active.buildinfo.full.json", Anonymous: true})
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	how := resp.Header.Get("WWW-Authenticate")
	switch {
	case resp.StatusCode == http.StatusOK:
		return true, nil
	case resp.StatusCode == http.StatusUnauthorized && (how == "oauthjwt" || how == "acsjwt"):
		return false, nil
	case resp.StatusCode == http.StatusUnauthorized:
		return false, fault.Newf(op, fault.Invalid, "%s wants %q, which this CLI does not know", cl.Cluster().URL, how)
	}
	return false, fault.Newf(op, fault.Unavailable, "%s answers %s; is this the address of a cluster?", cl.Cluster().URL, resp.Status)
}

// login returns a token for the user that flags, environment or a person name.
func (a *app) login(ctx context.Context, cl *client.Client, l login) (string, error) {
	const op = "log in"
	if l.user == "" {
		l.user = a.Getenv("DCOS_USERNAME")
	}
	if l.passwordFile != "" {
		b, err := a.Input([]string{l.passwordFile})
		if err != nil {
			return "", err
		}
		l.password = strings.TrimRight(string(b), "\r\n")
	}
	if l.password == "" {
		l.password = a.Getenv("DCOS_PASSWORD")
	}
	if _, ok := a.Terminal(); !ok && (l.user == "" || l.password == "") {
		return "", fault.Newf(op, fault.Invalid, "give --username and --password-file, or set DCOS_USERNAME and DCOS_PASSWORD")
	}
	var err error
	if l.user == "" {
		if l.user, err = a.Prompt("User ID", false); err != nil {
			return "", err
		}
	}
	if l.password == "" {
		if l.password, err = a.Prompt("Password of "+l.user, true); err != nil {
			return "", err
		}
	}
	var out struct {
		Token string `json:"token"`
	}
	err = cl.Send(ctx, op, http.MethodPost, "/acs/api/v1/auth/login", map[string]string{"uid": l.user, "password": l.password}, &out)
	if fault.Is(err, fault.Denied) {
		return "", fault.Newf(op, fault.Denied, "user ID or password is wrong (user %s at %s)", l.user, cl.Cluster().URL)
	}
	return out.Token, err
}

func (a *app) authLogin() *cobra.Command {
	var l login
	cmd := console.Command("login", "Log in to the attached cluster", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		store, c, err := a.attached()
		if err != nil {
			return err
		}
		c.Token = ""
		cl, err := client.New(c, a.Log)
		if err != nil {
			return err
		}
		if c.Token, err = a.login(ctx, cl, l); err != nil {
			return err
		}
		return store.Save(c)
	})
	l.flags(cmd)
	return cmd
}

// attached returns the stored cluster that commands talk to. What only the
// environment says is not stored.
func (a *app) attached() (*profile.Store, profile.Cluster, error) {
	store, err := profile.Open(a.Getenv)
	if err != nil {
		return nil, profile.Cluster{}, err
	}
	name := a.Getenv("DCOS_CLUSTER")
	if name == "" {
		if name = store.AttachedID(); name == "" {
			_, err := store.Current()
			if err == nil {
				err = fault.Newf("find the attached cluster", fault.Invalid, "only DCOS_URL names one; run `dcos cluster setup` first")
			}
			return nil, profile.Cluster{}, err
		}
	}
	c, err := store.Find(name)
	return store, c, err
}

func (a *app) authLogout() *cobra.Command {
	return console.Command("logout", "Forget the session at the attached cluster", cobra.NoArgs, func(context.Context, []string) error {
		store, c, err := a.attached()
		if err != nil {
			return err
		}
		c.Token = ""
		return store.Save(c)
	})
}

func (a *app) authProviders() *cobra.Command {
	var asJSON bool
	cmd := console.Command("list-providers [URL]", "List the ways to log in", cobra.MaximumNArgs(1), func(ctx context.Context, args []string) error {
		cl, err := a.Connect()
		if len(args) == 1 {
			var c profile.Cluster
			if c.URL, err = clusterURL(args[0]); err != nil {
				return err
			}
			if err := c.SetVerify(a.Getenv("DCOS_SSL_VERIFY")); err != nil {
				return err
			}
			cl, err = client.New(c, a.Log)
		}
		if err != nil {
			return err
		}
		var all map[string]struct {
			Type        string `json:"authentication-type"`
			Description string `json:"description"`
		}
		const op = "list login providers"
		if asJSON {
			var raw map[string]any
			if err := cl.Get(ctx, op, "/acs/api/v1/auth/providers", &raw); err != nil {
				return err
			}
			return a.JSON(raw)
		}
		if err := cl.Get(ctx, op, "/acs/api/v1/auth/providers", &all); err != nil {
			return err
		}
		var rows [][]string
		for _, id := range slices.Sorted(maps.Keys(all)) {
			rows = append(rows, []string{id, all[id].Type, all[id].Description})
		}
		a.Table([]string{"PROVIDER ID", "AUTHENTICATION TYPE", "DESCRIPTION"}, rows)
		return nil
	})
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// configCmd reads and changes the attached cluster's settings, by the names
// that DC/OS gives them.
func (a *app) configCmd() *cobra.Command {
	show := console.Command("show [NAME]", "Show settings of the attached cluster", cobra.MaximumNArgs(1), func(_ context.Context, args []string) error {
		_, c, err := a.attached()
		if err != nil {
			return err
		}
		values := settings(c)
		if len(args) == 1 {
			v, ok := values[args[0]]
			if !ok {
				return fault.Newf("show setting "+args[0], fault.NotFound, "it is not set; settings are %s", strings.Join(settingNames, ", "))
			}
			fmt.Fprintln(a.Stdout, v)
			return nil
		}
		for _, name := range slices.Sorted(maps.Keys(values)) {
			v := values[name]
			if name == "core.dcos_acs_token" {
				v = "********"
			}
			fmt.Fprintf(a.Stdout, "%s %s\n", name, v)
		}
		return nil
	})
	set := console.Command("set NAME VALUE", "Change a setting of the attached cluster", cobra.ExactArgs(2), func(_ context.Context, args []string) error {
		store, c, err := a.attached()
		if err != nil {
			return err
		}
		if err := change(&c, args[0], args[1]); err != nil {
			return err
		}
		return store.Save(c)
	})
	return console.Group("config", "Show and change settings", show, set)
}

var settingNames = []string{"cluster.name", "core.dcos_acs_token", "core.dcos_url", "core.ssl_verify", "core.timeout"}

func settings(c profile.Cluster) map[string]string {
	m := map[string]string{"core.dcos_url": c.URL, "cluster.name": c.Name, "core.ssl_verify": fmt.Sprint(!c.Insecure)}
	if len(c.CAPEM) > 0 && !c.Insecure {
		m["core.ssl_verify"] = "pinned certificate"
	}
	if c.Token != "" {
		m["core.dcos_acs_token"] = c.Token
	}
	if c.Timeout > 0 {
		m["core.timeout"] = fmt.Sprint(c.Timeout)
	}
	return m
}

func change(c *profile.Cluster, name, value string) (err error) {
	op := "change setting " + name
	switch name {
	case "core.dcos_url":
		c.URL, err = clusterURL(value)
	case "core.dcos_acs_token":
		c.Token = value
	case "cluster.name":
		c.Name = value
	case "core.ssl_verify":
		err = c.SetVerify(value)
	case "core.timeout":
		err = c.SetTimeout(value)
	default:
		return fault.Newf(op, fault.Invalid, "there is no such setting; settings are %s", strings.Join(settingNames, ", "))
	}
	return err
}
