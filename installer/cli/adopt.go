package cli

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"dcos.example/dcos/installer/cli/view"
	"dcos.example/dcos/installer/gateway"
	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/installer/program"
	"dcos.example/dcos/installer/recovery"
	"dcos.example/dcos/installer/stack"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/deposit"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/pki"
)

// via says how to ask a cluster for the installer's state.
type via struct {
	user, passwordFile, fingerprint, caFile string

	keyFile, knownHosts, sudoPasswordFile string
	agent, trustOnFirstUse                bool
}

func (v *via) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&v.user, "user", "admin", "the cluster's administrator")
	f.StringVar(&v.passwordFile, "password-file", "", "`file` with the administrator's password in its first line (default: DCOS_ADMIN_PASSWORD, or it is asked for)")
	f.StringVar(&v.fingerprint, "ca-fingerprint", "", "the SHA-256 `fingerprint` that the cluster's CA must have (default: it is shown and asked for)")
	f.StringVar(&v.caFile, "ca-file", "", "`file` with the cluster's CA certificate")
	f.StringVar(&v.keyFile, "key-file", "", "SSH: `file` with the private key (default: the SSH agent if there is one, else ~/.ssh/id_ed25519)")
	f.BoolVar(&v.agent, "agent", false, "SSH: use the keys of the SSH agent")
	f.StringVar(&v.knownHosts, "known-hosts", "~/.ssh/known_hosts", "SSH: `file` with the keys of machines")
	f.BoolVar(&v.trustOnFirstUse, "trust-on-first-use", false, "SSH: take a machine's key the first time it is seen")
	f.StringVar(&v.sudoPasswordFile, "sudo-password-file", "", "SSH: `file` with the password that sudo asks for")
}

func (r *run) adoptCommand() *cobra.Command {
	var v via
	c := &cobra.Command{
		Use:   "adopt ADDRESS",
		Short: "Fetch the state of a cluster from the cluster, when it is lost here",
		Long: `Every apply leaves a sealed copy of the installer's state in the cluster. This command fetches
it into a new state directory, and writes the cluster's file beside it.

ADDRESS is one of the masters':
  10.0.0.11              its gateway: the administrator's password is needed, and a yes to the
                         fingerprint of the cluster's certificate
  ssh://root@10.0.0.11   the machine: works also when the masters have lost their majority

If the state was encrypted with a passphrase, that is needed too (DCOS_PASSPHRASE).`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			ctx, stop := r.interruptible(c.Context())
			defer stop()
			doc, err := r.adopt(ctx, args[0], v, true)
			if err != nil {
				return err
			}
			return r.show(doc)
		},
	}
	v.flags(c)
	return c
}

// adopt fetches the state from the cluster at address into the state directory;
// with files also the cluster's file and variables into this one.
func (r *run) adopt(ctx context.Context, address string, v via, files bool) (doc view.Adopted, err error) {
	var c recovery.Copy
	switch scheme, rest, _ := strings.Cut(address, "://"); scheme {
	case "ssh", "local":
		c, doc, err = r.fetchFromHost(ctx, scheme, rest, v)
	case "https":
		c, doc, err = r.fetchFromGateway(ctx, strings.TrimSuffix(rest, "/"), v)
	default:
		if strings.Contains(address, "://") {
			return doc, usageError{fmt.Errorf("ADDRESS is HOST, https://HOST or ssh://USER@HOST, not %s", address)}
		}
		c, doc, err = r.fetchFromGateway(ctx, address, v)
	}
	if err != nil {
		return doc, err
	}
	return doc, r.settle(c, &doc, files)
}

func (r *run) fetchFromHost(ctx context.Context, scheme, rest string, v via) (c recovery.Copy, doc view.Adopted, err error) {
	ref := host.Ref{Kind: host.KindLocal, Dir: rest, Name: rest}
	if scheme == "ssh" {
		if ref, err = r.sshRef(rest, v); err != nil {
			return c, doc, err
		}
	}
	h, err := r.app.Open(ctx, ref)
	if err != nil {
		return c, doc, err
	}
	c, head, id, err := recovery.FromMaster(ctx, h)
	return c, view.Adopted{Cluster: c.Cluster, ID: id, Serial: head.Serial, By: head.By, At: head.At}, err
}

func (r *run) sshRef(rest string, v via) (host.Ref, error) {
	u, err := url.Parse("ssh://" + rest)
	if err != nil || u.Hostname() == "" || u.Path != "" && u.Path != "/" {
		return host.Ref{}, usageError{fmt.Errorf("ADDRESS ssh://%s is not ssh://USER@HOST[:PORT]", rest)}
	}
	s := host.SSH{Login: host.Login{Address: u.Hostname(), Port: 22, User: "root", KeyFile: v.keyFile, UseAgent: v.agent, KnownHosts: v.knownHosts, TrustOnFirstUse: v.trustOnFirstUse}, Sudo: host.SudoNone}
	if s.KeyFile == "" && !s.UseAgent { // as ssh does
		if r.env("SSH_AUTH_SOCK") != "" {
			s.UseAgent = true
		} else {
			s.KeyFile = "~/.ssh/id_ed25519"
		}
	}
	if p := u.Port(); p != "" {
		if s.Port, err = strconv.Atoi(p); err != nil {
			return host.Ref{}, usageError{err}
		}
	}
	if name := u.User.Username(); name != "" {
		s.User = name
	}
	if s.User != "root" {
		s.Sudo = host.SudoPasswordless
	}
	if v.sudoPasswordFile != "" {
		s.Sudo = host.SudoPassword
		if s.SudoPassword, err = r.firstLine(v.sudoPasswordFile); err != nil {
			return host.Ref{}, err
		}
	}
	return host.Ref{Kind: host.KindSSH, Name: s.Address, SSH: s}, nil
}

func (r *run) fetchFromGateway(ctx context.Context, address string, v via) (c recovery.Copy, doc view.Adopted, err error) {
	ca, err := r.trustedCA(ctx, address, v)
	if err != nil {
		return c, doc, err
	}
	password, err := r.password(v)
	if err != nil {
		return c, doc, err
	}
	client, err := gateway.New(gateway.Config{Masters: []string{address}, CA: string(ca), User: v.user, Password: password})
	if err != nil {
		return c, doc, err
	}
	defer client.Close()
	var d deposit.Document
	if err := client.JSON(ctx, http.MethodGet, depositPath, nil, &d); err != nil {
		switch {
		case fault.Is(err, fault.Denied) && strings.HasPrefix(err.Error(), "sign in"):
			err = fault.Newf("sign in as "+v.user, fault.Denied, "the cluster does not take this password, or has no such user")
		case fault.Is(err, fault.Denied):
			err = fault.Newf("adopt the cluster", fault.Denied, "%s may not: the state holds every secret of the cluster. Sign in as its administrator (-user), or use ssh://USER@%s", v.user, address)
		case fault.Is(err, fault.NotFound):
			err = fault.Newf("adopt the cluster", fault.NotFound, "it has no copy of the installer's state: no apply has finished since it was made")
		}
		return c, doc, err
	}
	var about struct {
		ID string `json:"CLUSTER_ID"`
	}
	if err := client.JSON(ctx, http.MethodGet, "/metadata", nil, &about); err != nil {
		return c, doc, err
	}
	c, err = recovery.Unpack(d.Content)
	return c, view.Adopted{Cluster: c.Cluster, ID: about.ID, Serial: d.Serial, By: d.By, At: d.At}, err
}

// trustedCA returns the cluster's CA certificate after it was compared with what
// the operator knows, or shown to him.
func (r *run) trustedCA(ctx context.Context, address string, v via) ([]byte, error) {
	const op = "trust the cluster"
	if v.caFile != "" {
		b, err := os.ReadFile(r.abs(v.caFile))
		if err != nil {
			return nil, fault.New(op, fault.Invalid, err)
		}
		return b, nil
	}
	ca, err := fetchCA(ctx, address)
	if err != nil {
		return nil, err
	}
	print, err := pki.Fingerprint(ca)
	if err != nil {
		return nil, fault.New(op, fault.Invalid, err)
	}
	if v.fingerprint != "" {
		if !strings.EqualFold(plainHex(v.fingerprint), plainHex(print)) {
			return nil, fault.Newf(op, fault.Denied, "the CA at %s has the fingerprint %s, not the one given: it is another cluster, or somebody is in between", address, print)
		}
		return ca, nil
	}
	if err := r.showOn(r.app.Stderr, view.Message{What: "fingerprint", Text: fmt.Sprintf("The cluster at %s has a CA with the SHA-256 fingerprint\n  %s\n"+
		"Compare it with what a master says: openssl x509 -noout -fingerprint -sha256 -in %s", address, print, config.CACertFile), Fields: map[string]string{"address": address, "sha256": print}}); err != nil {
		return nil, err
	}
	if r.json || !r.app.Interactive {
		return nil, usageError{fmt.Errorf("a person at a terminal has to compare the fingerprint; give -ca-fingerprint %s if it is right, or -ca-file", plainHex(print))}
	}
	return ca, r.confirm(ctx, "Is this the cluster?")
}

func plainHex(s string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune("0123456789abcdefABCDEF", r) {
			return r
		}
		return -1
	}, strings.TrimPrefix(strings.TrimPrefix(s, "SHA256:"), "sha256:"))
}

// fetchCA gets the certificate from whoever answers at address. It is of no
// worth before it was compared.
func fetchCA(ctx context.Context, address string) ([]byte, error) {
	const op = "fetch the cluster's CA certificate"
	client := &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}, //nolint:gosec // what comes is compared by a person
	}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+net.JoinHostPort(address, strconv.Itoa(config.PortGateway))+"/ca/dcos-ca.crt", nil)
	if err != nil {
		return nil, usageError{err}
	}
	resp, err := client.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return nil, fault.Newf(op, fault.Unavailable, "%w\nIs %s a master? If the masters have lost their majority, use ssh://USER@%s", err, address, address)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	if err != nil {
		return nil, fault.Newf(op, fault.Unavailable, "%s answers: %w; if the masters have lost their majority, use ssh://USER@%s", address, err, address)
	}
	return b, nil
}

// password is the administrator's: from a file, the environment, or asked for.
func (r *run) password(v via) (string, error) {
	if v.passwordFile != "" {
		return r.firstLine(v.passwordFile)
	}
	if p := r.env("DCOS_ADMIN_PASSWORD"); p != "" {
		return p, nil
	}
	in, ok := r.app.Stdin.(*os.File)
	if !r.app.Interactive || r.json || !ok || !term.IsTerminal(int(in.Fd())) {
		return "", usageError{errors.New("the administrator's password is needed: set DCOS_ADMIN_PASSWORD, or give -password-file")}
	}
	if _, err := fmt.Fprintf(r.app.Stdout, "Password of %s: ", v.user); err != nil {
		return "", err
	}
	b, err := term.ReadPassword(int(in.Fd()))
	_, werr := fmt.Fprintln(r.app.Stdout)
	if err := errors.Join(err, werr); err != nil {
		return "", fault.New("read the password", fault.Unavailable, err)
	}
	return string(b), nil
}

// settle makes the stack, and the files beside it, from the copy.
func (r *run) settle(c recovery.Copy, doc *view.Adopted, files bool) error {
	const op = "adopt the cluster"
	dir := filepath.Join(r.stateRoot(defaultFile), c.Cluster)
	if es, err := os.ReadDir(dir); err == nil && len(es) > 0 {
		return fault.Newf(op, fault.Exists, "%s holds a state of cluster %s already; go on with that, or adopt in another directory", dir, c.Cluster)
	}
	src, err := r.sourceOf(c)
	if err != nil {
		return err
	}
	// Nothing of what is here is overwritten, and that is found out first.
	if files {
		for path, text := range src.files {
			have, err := os.ReadFile(r.abs(path))
			if err == nil && !bytes.Equal(have, text) {
				return fault.Newf(op, fault.Exists, "%s is here and is another one than the cluster was made from; move it away, or adopt in another directory", path)
			} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fault.New(op, fault.Denied, err)
			}
		}
	}
	if err := stack.Import(dir, c.Files, metaFile); err != nil {
		return err
	}
	doc.StateDir, doc.Next = dir, "dcos-install plan"
	if r.state != "" {
		doc.Next += " -state " + quoted(r.state)
	}
	if !files {
		return nil
	}
	for path, text := range src.files {
		if err := os.WriteFile(r.abs(path), text, 0o600); err != nil {
			return fault.New(op, fault.Denied, err)
		}
	}
	doc.File, doc.Variables = src.file, src.variables
	if src.file != defaultFile {
		doc.Next += " " + quoted(src.file)
	}
	if src.variables != "" {
		doc.Next += " -var-file " + quoted(src.variables)
	}
	return nil
}

// source is the cluster's file and its variables.
type source struct {
	file, variables string // names
	files           map[string][]byte
}

// sourceOf reads the file and the variables out of a copy, which a passphrase
// may lock.
func (r *run) sourceOf(c recovery.Copy) (src source, err error) {
	const op = "read the state"
	tmp, err := os.MkdirTemp("", "dcos-adopt-")
	if err != nil {
		return src, fault.New(op, fault.Internal, err)
	}
	defer os.RemoveAll(tmp)
	dir := filepath.Join(tmp, c.Cluster)
	if err := stack.Import(dir, c.Files, metaFile); err != nil {
		return src, err
	}
	phrase, err := stack.PassphraseFromEnv()
	if err != nil {
		return src, err
	}
	st, err := stack.Open(dir, stack.Options{Passphrase: phrase})
	if err != nil {
		return src, err
	}
	kept, err := st.Kept(keptSource)
	if err != nil {
		return src, err
	}
	src.files = map[string][]byte{}
	if name := text(kept["name"]); name != "" && name == filepath.Base(name) {
		src.file = name
		src.files[name] = []byte(text(kept["text"]))
		if vars := text(kept["variables"]); vars != "" && vars != "{}" {
			src.variables = strings.TrimSuffix(name, ".hcl") + ".vars.json"
			src.files[src.variables] = []byte(vars + "\n")
		}
	}
	return src, nil
}

// destroyVia destroys a cluster of which nothing is known here but an address:
// it adopts it first.
func (r *run) destroyVia(ctx context.Context, id, address string, v via, approved bool) error {
	if id == "" {
		return usageError{errors.New("-via needs -cluster-id, the id of the cluster that is to be destroyed")}
	}
	doc, err := r.adopt(ctx, address, v, false)
	if err != nil {
		return err
	}
	if doc.ID != id {
		return errors.Join(fault.Newf("destroy cluster "+id, fault.Conflict, "the cluster at %s is %s, with the id %s; nothing was changed", address, doc.Cluster, doc.ID), os.RemoveAll(doc.StateDir))
	}
	s, err := r.open(doc.Cluster, doc.StateDir, meta{}, "", "destroy")
	if err != nil {
		return err
	}
	st, err := s.stack.State()
	if err != nil {
		return err
	}
	if res := st.Live(program.SecretsKey(doc.Cluster).URN(s.stack.Name())); res == nil || text(res.Outputs["clusterId"]) != id {
		return fault.Newf("destroy cluster "+id, fault.Conflict, "the state that the cluster keeps is not its own; nothing was changed")
	}
	r.cluster = doc.Cluster
	return r.destroy(ctx, nil, approved)
}
