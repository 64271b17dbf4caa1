package lab

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"dcos.example/dcos/providers/local/network"
	"dcos.example/dcos/runtime/fault"
)

const (
	keyFile        = "key"
	knownHostsFile = "known_hosts"
	hostKeyFile    = "ssh_host_ed25519_key"
)

// KeyFile is the private key that root, admin and ops of every host accept.
func (l *Lab) KeyFile() string { return filepath.Join(l.Dir, keyFile) }

// KnownHosts is a known_hosts file with the hosts' real keys.
func (l *Lab) KnownHosts() string { return filepath.Join(l.Dir, knownHostsFile) }

func hardwareAddr(a netip.Addr) net.HardwareAddr { return network.MAC(a) }

func (l *Lab) makeKey() error { return makeKey(l.KeyFile(), "lab "+l.Name) }

// makeHostKey makes the host's own key, unless it has one.
func (l *Lab) makeHostKey(h Host) error {
	dir := l.hostDir(h.Name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(dir, hostKeyFile)
	if _, err := os.Stat(path + ".pub"); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return makeKey(path, h.Name)
}

func makeKey(path, comment string) error {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(private, comment)
	if err != nil {
		return err
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		return err
	}
	line := append(bytes.TrimSpace(ssh.MarshalAuthorizedKey(key)), " "+comment+"\n"...)
	return os.WriteFile(path+".pub", line, 0o644)
}

func (l *Lab) writeKnownHosts() error {
	var b bytes.Buffer
	for _, h := range l.hosts() {
		key, err := l.HostKey(h.Name)
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s,%s %s\n", h.Address, h.Name, key)
	}
	tmp := l.KnownHosts() + ".new"
	if err := os.WriteFile(tmp, b.Bytes(), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, l.KnownHosts())
}

// HostKey returns the host's public key: type and base64.
func (l *Lab) HostKey(name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(l.hostDir(name), hostKeyFile+".pub"))
	if err != nil {
		return "", err
	}
	f := strings.Fields(string(b))
	return f[0] + " " + f[1], nil
}

// Run runs a shell script on a host as a user and returns what it wrote to
// standard output. The error of a script that fails has what it wrote to
// standard error.
func (l *Lab) Run(ctx context.Context, name, user, script string) (string, error) {
	h, err := l.host(name)
	if err != nil {
		return "", err
	}
	return l.run(ctx, h, user, script)
}

// Stream is Run for scripts that go on: what they write to standard output goes
// to w as it comes. It ends with the script, with the host or with ctx.
func (l *Lab) Stream(ctx context.Context, name, user, script string, w io.Writer) error {
	h, err := l.host(name)
	if err != nil {
		return err
	}
	return l.stream(ctx, h, user, script, w)
}

func (l *Lab) run(ctx context.Context, h Host, user, script string) (string, error) {
	var stdout bytes.Buffer
	err := l.stream(ctx, h, user, script, &stdout)
	return stdout.String(), err
}

func (l *Lab) stream(ctx context.Context, h Host, user, script string, w io.Writer) error {
	op := "run on host " + h.Name
	client, err := l.dial(ctx, h, user)
	if err != nil {
		return fault.New(op, fault.Unavailable, err)
	}
	defer client.Close()
	stop := context.AfterFunc(ctx, func() { client.Close() })
	defer stop()
	session, err := client.NewSession()
	if err != nil {
		return fault.New(op, fault.Unavailable, err)
	}
	defer session.Close()
	var stderr bytes.Buffer
	session.Stdout, session.Stderr = w, &stderr
	if err := session.Run(script); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fault.Newf(op, fault.Unavailable, "%w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	return nil
}

func (l *Lab) dial(ctx context.Context, h Host, user string) (*ssh.Client, error) {
	b, err := os.ReadFile(l.KeyFile())
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(b)
	if err != nil {
		return nil, err
	}
	line, err := l.HostKey(h.Name)
	if err != nil {
		return nil, err
	}
	hostKey, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return nil, err
	}
	// A host that boots loses the first packets; the kernel would try again
	// after a second only.
	dialer := net.Dialer{Timeout: 250 * time.Millisecond}
	address := netip.AddrPortFrom(h.Address, 22).String()
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	c, chans, reqs, err := ssh.NewClientConn(conn, address, &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.FixedHostKey(hostKey),
	})
	if err != nil {
		conn.Close()
		return nil, err
	}
	return ssh.NewClient(c, chans, reqs), nil
}
