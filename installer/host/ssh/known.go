package ssh

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/runtime/fault"
)

// identity checks the key that a machine shows.
type identity struct {
	check gossh.HostKeyCallback
	algos []string // to ask for; nil: any
}

// identity returns the check of the machine at l.
func (p *Pool) identity(l host.Login) (identity, error) {
	if l.HostKey != "" {
		return pinned(l)
	}
	path := p.expand(l.KnownHosts)
	if path == "" {
		path = p.expand("~/.ssh/known_hosts")
	}
	known, err := readKnown(path)
	if err != nil {
		return identity{}, err
	}
	id := identity{algos: algorithms(known, l)}
	if len(id.algos) == 0 && !certified(path) { // a certificate may do instead of a key
		id.algos = preferred
	}
	id.check = func(name string, remote net.Addr, key gossh.PublicKey) error {
		err := known(name, remote, key)
		ke, ok := errors.AsType[*knownhosts.KeyError](err)
		switch {
		case err == nil:
			return nil
		case !ok: // revoked, or a certificate that does not fit
			return fault.Newf("check the machine's key", fault.Denied, "%s shows %s, which %s forbids: %w", l.Endpoint(), print(key), path, err)
		case len(ke.Want) > 0:
			return changed(l, key, ke.Want[0])
		case l.TrustOnFirstUse:
			return p.trust(path, l, key)
		default:
			return unknown(path, l, key)
		}
	}
	return id, nil
}

func readKnown(path string) (gossh.HostKeyCallback, error) {
	known, err := knownhosts.New(path)
	if errors.Is(err, fs.ErrNotExist) {
		known, err = knownhosts.New()
	}
	if err != nil {
		return nil, fault.New("read known hosts "+path, fault.Invalid, err)
	}
	return known, nil
}

// algorithms returns those of the keys that are known for l, so that a machine
// with several keys shows one of these.
func algorithms(known gossh.HostKeyCallback, l host.Login) []string {
	err := known(l.Endpoint(), address{}, nobody{})
	ke, ok := errors.AsType[*knownhosts.KeyError](err)
	if !ok {
		return nil
	}
	var out []string
	for _, w := range ke.Want {
		for _, a := range forKey(w.Key.Type()) {
			if !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
	}
	return out
}

// preferred is what a machine is asked to show of which nothing is known: as
// OpenSSH asks, so that both remember the same key.
var preferred = []string{gossh.KeyAlgoED25519, gossh.KeyAlgoECDSA256, gossh.KeyAlgoECDSA384, gossh.KeyAlgoECDSA521, gossh.KeyAlgoRSASHA512, gossh.KeyAlgoRSASHA256}

// certified reports whether a file of known hosts names an authority.
func certified(path string) bool {
	b, err := os.ReadFile(path)
	return err == nil && bytes.Contains(b, []byte("@cert-authority"))
}

// forKey lists the signatures that a key of a type can make.
func forKey(typ string) []string {
	if typ == gossh.KeyAlgoRSA {
		return []string{gossh.KeyAlgoRSASHA512, gossh.KeyAlgoRSASHA256}
	}
	return []string{typ}
}

// nobody is a key that no file knows.
type nobody struct{}

func (nobody) Type() string                          { return "none" }
func (nobody) Marshal() []byte                       { return []byte("none") }
func (nobody) Verify([]byte, *gossh.Signature) error { return errors.New("no key") }

// address stands for one that does not matter: names are looked up.
type address struct{}

func (address) Network() string { return "tcp" }
func (address) String() string  { return "0.0.0.0:0" }

func pinned(l host.Login) (identity, error) {
	want, _, _, _, err := gossh.ParseAuthorizedKey([]byte(l.HostKey))
	if err != nil {
		return identity{}, fault.Newf("read host_key of "+l.Address, fault.Invalid, "%w; it must look like: ssh-ed25519 AAAA…", err)
	}
	return identity{algos: forKey(want.Type()), check: func(_ string, _ net.Addr, key gossh.PublicKey) error {
		if bytes.Equal(key.Marshal(), want.Marshal()) {
			return nil
		}
		// The machine that was meant is not there, whoever else is.
		return fault.Newf("check the machine's key", fault.NotFound,
			"REFUSED: %w: %s is not the machine that it was.\n  it shows: %s\n  it had:   %s\nEither it was installed anew, or something else answers at this address.",
			host.ErrOther, l.Endpoint(), print(key), print(want))
	}}, nil
}

func print(key gossh.PublicKey) string { return key.Type() + " " + gossh.FingerprintSHA256(key) }

func unknown(path string, l host.Login, key gossh.PublicKey) error {
	return fault.Newf("check the machine's key", fault.Denied,
		"%s is not known yet: %s has no key for it. It shows\n  %s\nCompare that with what the machine itself says:\n  ssh-keygen -lf %s\nIf they are the same, tell the installer so by one of:\n  echo '%s' >> %s\n  trust_on_first_use = true   in the provider block: takes and remembers any key that is not known yet",
		l.Endpoint(), path, print(key), keyFileOf(key), knownhosts.Line([]string{l.Endpoint()}, key), path)
}

// keyFileOf is where sshd keeps the public half of such a key.
func keyFileOf(key gossh.PublicKey) string {
	kind := "ed25519"
	switch {
	case strings.HasPrefix(key.Type(), "ecdsa"):
		kind = "ecdsa"
	case key.Type() == gossh.KeyAlgoRSA:
		kind = "rsa"
	}
	return "/etc/ssh/ssh_host_" + kind + "_key.pub"
}

func changed(l host.Login, key gossh.PublicKey, want knownhosts.KnownKey) error {
	return fault.Newf("check the machine's key", fault.Denied,
		"REFUSED: %s shows another key than the one that is known.\n  it shows: %s\n  known:    %s (%s:%d)\nSomebody may be listening in between. If the machine was installed anew, and its console shows that fingerprint (ssh-keygen -lf %s), remove the old key and try again:\n  ssh-keygen -R '%s' -f %s",
		l.Endpoint(), print(key), print(want.Key), want.Filename, want.Line, keyFileOf(key), knownhosts.Normalize(l.Endpoint()), want.Filename)
}

// trust writes a key into the file of known hosts. Another process, or host
// with the same address, may have done so since it was read.
func (p *Pool) trust(path string, l host.Login, key gossh.PublicKey) error {
	op := "remember the key of " + l.Endpoint()
	p.file.Lock()
	defer p.file.Unlock()
	known, err := readKnown(path)
	if err != nil {
		return err
	}
	err = known(l.Endpoint(), address{}, key)
	if ke, ok := errors.AsType[*knownhosts.KeyError](err); err == nil {
		return nil
	} else if ok && len(ke.Want) > 0 {
		return changed(l, key, ke.Want[0])
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fault.New(op, fault.Denied, err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return fault.New(op, fault.Denied, err)
	}
	line := knownhosts.Line([]string{l.Endpoint()}, key) + "\n"
	if !endsLine(f) {
		line = "\n" + line
	}
	_, err = io.WriteString(f, line)
	if err = errors.Join(err, f.Close()); err != nil {
		return fault.New(op, fault.Denied, err)
	}
	p.o.Notice(fmt.Sprintf("trusted on first use: %s shows %s; written to %s", l.Endpoint(), print(key), path))
	return nil
}

// endsLine reports whether f is empty or ends with a newline.
func endsLine(f *os.File) bool {
	st, err := f.Stat()
	if err != nil || st.Size() == 0 {
		return true
	}
	last := make([]byte, 1)
	_, err = f.ReadAt(last, st.Size()-1)
	return err != nil || last[0] == '\n'
}
