package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dcos.example/dcos/cmd/dcos/client"
	"dcos.example/dcos/cmd/dcos/console"
	"dcos.example/dcos/cmd/dcos/profile"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/pki"
)

func (a *app) clusterCmd() *cobra.Command {
	return console.Group("cluster", "Set up and choose clusters", a.clusterSetup(), a.clusterList(), a.clusterAttach(), a.clusterRemove())
}

type setup struct {
	login
	caFile            string
	noCheck, insecure bool
	name              string
}

func (a *app) clusterSetup() *cobra.Command {
	var s setup
	cmd := console.Command("setup URL", "Set up access to a cluster and log in", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		return a.setup(ctx, args[0], s)
	})
	s.login.flags(cmd)
	cmd.Flags().StringVar(&s.caFile, "ca-certs", "", "file with the CA certificate to trust")
	cmd.Flags().BoolVar(&s.noCheck, "no-check", false, "trust the CA certificate that the cluster shows without asking")
	cmd.Flags().BoolVar(&s.insecure, "insecure", false, "do not verify certificates at all")
	cmd.Flags().StringVar(&s.name, "name", "", "name to remember the cluster by, instead of its own")
	return cmd
}

func (a *app) setup(ctx context.Context, address string, s setup) error {
	const op = "set up cluster"
	store, err := profile.Open(a.Getenv)
	if err != nil {
		return err
	}
	c := profile.Cluster{Insecure: s.insecure}
	if c.URL, err = clusterURL(address); err != nil {
		return err
	}
	if s.caFile == "" && !s.insecure {
		if err := c.SetVerify(a.Getenv("DCOS_SSL_VERIFY")); err != nil {
			return err
		}
	}
	if s.caFile != "" {
		if c.CAPEM, err = os.ReadFile(s.caFile); err != nil {
			return fault.New("read CA certificate", fault.Invalid, err)
		}
	}
	if strings.HasPrefix(c.URL, "https:") && !c.Insecure && len(c.CAPEM) == 0 {
		if c.CAPEM, err = a.fetchCA(ctx, c, s.noCheck); err != nil {
			return err
		}
	}
	cl, err := client.New(c, a.Log)
	if err != nil {
		return err
	}
	open, err := needsNoLogin(ctx, cl)
	if fault.Is(err, fault.Denied) && s.caFile != "" {
		return fault.Newf(op, fault.Denied, "%s does not show a certificate signed by the one in %s. Is it that cluster's CA certificate? It prints its own by `dcos-install output -raw ca_certificate`", c.URL, s.caFile)
	}
	if err != nil {
		return err
	}
	c.Token = a.Getenv("DCOS_CLUSTER_SETUP_ACS_TOKEN") // whether it is good shows below
	if !open && c.Token == "" {
		if c.Token, err = a.login(ctx, cl, s.login); err != nil {
			return err
		}
	}
	if cl, err = client.New(c, a.Log); err != nil {
		return err
	}
	var meta struct {
		ID string `json:"CLUSTER_ID"`
	}
	if err := cl.Get(ctx, op, "/metadata", &meta); err != nil {
		return err
	}
	c.ID = meta.ID
	var summary struct {
		Cluster string `json:"cluster"`
	}
	c.Name = s.name
	if c.Name == "" {
		// A cluster between two leaders can still be set up.
		if err := cl.Get(ctx, op, "/mesos/state-summary", &summary); err != nil && !fault.Is(err, fault.Unavailable) {
			return err
		}
		c.Name = summary.Cluster
	}
	if c.Name == "" {
		c.Name = c.ID
	}
	if err := store.Save(c); err != nil {
		return err
	}
	if err := store.Attach(c.ID); err != nil {
		return err
	}
	fmt.Fprintf(a.Stdout, "%s is your cluster now (%s, %s).\n", c.Name, c.ID, c.URL)
	return nil
}

func clusterURL(address string) (string, error) {
	if !strings.Contains(address, "://") {
		address = "https://" + address
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return "", fault.Newf("read cluster address", fault.Invalid, "%q is no address; it looks like https://198.51.100.7", address)
	}
	if u.Scheme == "http" && u.Port() == "" {
		u.Scheme = "https" // port 80 of a cluster only leads there
	}
	return strings.TrimSuffix(u.Scheme+"://"+u.Host+u.Path, "/"), nil
}

// fetchCA gets the cluster's CA certificate over a connection that nothing
// vouches for yet, so a person compares its fingerprint. When the system
// trusts the cluster anyway there is nothing to pin.
func (a *app) fetchCA(ctx context.Context, c profile.Cluster, noCheck bool) ([]byte, error) {
	op := "get the CA certificate of " + c.URL
	u, err := url.Parse(c.URL)
	if err != nil {
		return nil, fault.New(op, fault.Invalid, err)
	}
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), "443")
	}
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: &tls.Config{MinVersion: tls.VersionTLS12, ServerName: u.Hostname()}}
	conn, err := d.DialContext(ctx, "tcp", host)
	if err == nil {
		return nil, conn.Close()
	}
	if _, untrusted := errors.AsType[*tls.CertificateVerificationError](err); !untrusted {
		return nil, fault.Newf("reach the cluster at "+c.URL, fault.Unavailable, "%w; is the address right, and are its masters up?", err)
	}
	blind, err := client.New(profile.Cluster{URL: c.URL, Insecure: true}, a.Log)
	if err != nil {
		return nil, err
	}
	resp, err := blind.Do(ctx, client.Request{Method: http.MethodGet, Path: "/ca/dcos-ca.crt", Anonymous: true})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fault.Newf(op, fault.NotFound, "it answers %s; is this the address of a cluster? Else give the certificate by --ca-certs", resp.Status)
	}
	pem, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, fault.New(op, fault.Unavailable, err)
	}
	fp, err := pki.Fingerprint(pem)
	if err != nil {
		return nil, fault.Newf(op, fault.Invalid, "what it shows is no certificate: %w", err)
	}
	cert, err := pki.ParseCert(pem)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(a.Stderr, "The cluster shows this CA certificate:\n  Subject      %s\n  Valid until  %s\n  SHA-256      %s\n",
		cert.Subject, cert.NotAfter.UTC().Format("2006-01-02"), fp)
	if noCheck {
		return pem, nil
	}
	if _, ok := a.Terminal(); !ok {
		return nil, fault.Newf("trust the cluster's certificate", fault.Invalid,
			"nobody can be asked, because standard input is no terminal. Give the certificate by --ca-certs, or trust this one by --no-check")
	}
	answer, err := a.Prompt("Is this the certificate of your cluster? [yes/no]", false)
	if err != nil {
		return nil, err
	}
	if answer = strings.ToLower(strings.TrimSpace(answer)); answer != "yes" && answer != "y" {
		return nil, fault.Newf("trust the cluster's certificate", fault.Denied, "you said no; nothing was set up")
	}
	return pem, nil
}

func (a *app) clusterList() *cobra.Command {
	var asJSON, attached, quiet bool
	cmd := console.Command("list", "List the clusters that are set up", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		store, err := profile.Open(a.Getenv)
		if err != nil {
			return err
		}
		all, err := store.List()
		if err != nil {
			return err
		}
		type row struct {
			Attached bool   `json:"attached"`
			ID       string `json:"cluster_id"`
			Name     string `json:"name"`
			Status   string `json:"status"`
			URL      string `json:"url"`
			Version  string `json:"version"`
		}
		rows := []row{}
		for _, c := range all {
			r := row{Attached: c.ID == store.AttachedID(), ID: c.ID, Name: c.Name, URL: c.URL}
			if attached && !r.Attached {
				continue
			}
			r.Status, r.Version = a.status(ctx, c)
			rows = append(rows, r)
		}
		switch {
		case asJSON:
			return a.JSON(rows)
		case quiet:
			for _, r := range rows {
				fmt.Fprintln(a.Stdout, r.ID)
			}
			return nil
		}
		var cells [][]string
		for _, r := range rows {
			name := "  " + r.Name
			if r.Attached {
				name = "* " + r.Name
			}
			cells = append(cells, []string{name, r.ID, r.Status, r.Version, r.URL})
		}
		a.Table([]string{"  NAME", "ID", "STATUS", "VERSION", "URL"}, cells)
		return nil
	})
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&attached, "attached", false, "only the attached cluster")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print IDs only")
	return cmd
}

// status asks one cluster, shortly: a list must not wait for what is gone.
func (a *app) status(ctx context.Context, c profile.Cluster) (status, version string) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	cl, err := client.New(c, a.Log)
	if err != nil {
		return "UNUSABLE", "UNKNOWN"
	}
	var v struct {
		Version string `json:"version"`
	}
	if err := cl.Get(ctx, "read version", "/dcos-metadata/dcos-version.json", &v); err != nil {
		return "UNAVAILABLE", "UNKNOWN"
	}
	return "AVAILABLE", v.Version
}

func (a *app) clusterAttach() *cobra.Command {
	return console.Command("attach CLUSTER", "Choose the cluster that commands talk to, by name or ID", cobra.ExactArgs(1), func(_ context.Context, args []string) error {
		store, err := profile.Open(a.Getenv)
		if err != nil {
			return err
		}
		c, err := store.Find(args[0])
		if err != nil {
			return err
		}
		return store.Attach(c.ID)
	})
}

func (a *app) clusterRemove() *cobra.Command {
	var all bool
	cmd := console.Command("remove [CLUSTER]", "Forget a cluster; the cluster itself stays", cobra.MaximumNArgs(1), func(_ context.Context, args []string) error {
		store, err := profile.Open(a.Getenv)
		if err != nil {
			return err
		}
		if all == (len(args) == 1) {
			return fault.Newf("remove cluster", fault.Invalid, "name one cluster, or give --all")
		}
		list, err := store.List()
		if err != nil {
			return err
		}
		if !all {
			c, err := store.Find(args[0])
			if err != nil {
				return err
			}
			list = []profile.Cluster{c}
		}
		for _, c := range list {
			if err := store.Remove(c.ID); err != nil {
				return err
			}
		}
		return nil
	})
	cmd.Flags().BoolVar(&all, "all", false, "forget all clusters")
	return cmd
}
