package ssh

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"

	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/runtime/fault"
)

// keyring holds the key files that were read: opening an encrypted one takes
// its time, and all hosts use the same.
type keyring struct {
	mu     sync.Mutex
	parsed map[string]parsedKey
}

type parsedKey struct {
	signer gossh.Signer
	err    error
}

// signer reads a key file.
func (p *Pool) signer(path string) (gossh.Signer, error) {
	p.keys.mu.Lock()
	defer p.keys.mu.Unlock()
	if k, ok := p.keys.parsed[path]; ok {
		return k.signer, k.err
	}
	s, err := readKey(path, p.o.Passphrase)
	p.keys.parsed[path] = parsedKey{s, err}
	return s, err
}

func readKey(path, passphrase string) (gossh.Signer, error) {
	op := "read key file " + path
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Newf(op, fault.Invalid, "there is no such file; name the private key in key_file, or make one: ssh-keygen -t ed25519 -f %s", path)
	}
	if err != nil {
		return nil, fault.New(op, fault.Denied, err)
	}
	s, err := gossh.ParsePrivateKey(b)
	var locked *gossh.PassphraseMissingError
	switch {
	case errors.As(err, &locked) && passphrase == "":
		return nil, fault.Newf(op, fault.Denied, "it is encrypted; set DCOS_SSH_PASSPHRASE to its passphrase, or load it into your SSH agent (ssh-add %s) and use agent = true", path)
	case errors.As(err, &locked):
		s, err = gossh.ParsePrivateKeyWithPassphrase(b, []byte(passphrase))
		if errors.Is(err, x509.IncorrectPasswordError) {
			return nil, fault.Newf(op, fault.Denied, "the passphrase in DCOS_SSH_PASSPHRASE does not open it")
		}
	}
	if err != nil {
		return nil, fault.Newf(op, fault.Invalid, "%w; it must be a private key, not the .pub beside it", err)
	}
	return s, nil
}

// proof is what a login is tried with, and how to say so.
type proof struct {
	methods []gossh.AuthMethod
	tried   []string // for messages
	close   func()   // ends the connection to the agent
}

// proof gathers the keys and passwords that l names. Exactly those are tried:
// servers count attempts.
func (p *Pool) proof(l host.Login) (proof, error) {
	pr := proof{close: func() {}}
	if l.KeyFile != "" {
		path := p.expand(l.KeyFile)
		s, err := p.signer(path)
		if err != nil {
			return pr, err
		}
		pr.methods = append(pr.methods, gossh.PublicKeys(s))
		pr.tried = append(pr.tried, fmt.Sprintf("key %s (%s)", path, gossh.FingerprintSHA256(s.PublicKey())))
	}
	if l.UseAgent {
		if p.o.Agent == "" {
			return pr, fault.Newf("use the SSH agent", fault.Invalid, "SSH_AUTH_SOCK is not set; start one (eval $(ssh-agent); ssh-add), or name a key_file. Under sudo, keep it: sudo --preserve-env=SSH_AUTH_SOCK")
		}
		c, err := net.Dial("unix", p.o.Agent)
		if err != nil {
			return pr, fault.Newf("use the SSH agent", fault.Unavailable, "%w; is it running, and is SSH_AUTH_SOCK right?", err)
		}
		pr.close = func() { c.Close() }
		a := agent.NewClient(c)
		held, err := a.List()
		if err != nil || len(held) == 0 {
			pr.close()
			return pr, fault.Newf("use the SSH agent", fault.Invalid, "it holds no keys; add one: ssh-add")
		}
		pr.methods = append(pr.methods, gossh.PublicKeysCallback(a.Signers))
		pr.tried = append(pr.tried, fmt.Sprintf("the %d keys of the SSH agent", len(held)))
	}
	if l.Password != "" {
		pr.methods = append(pr.methods, gossh.Password(l.Password), gossh.KeyboardInteractive(
			func(_, _ string, questions []string, _ []bool) ([]string, error) {
				answers := make([]string, len(questions))
				for i := range answers {
					answers[i] = l.Password
				}
				return answers, nil
			}))
		pr.tried = append(pr.tried, "the password")
	}
	if len(pr.methods) == 0 {
		return pr, fault.Newf("log in as "+l.User, fault.Invalid, "nothing to log in with: give key_file, agent = true or password")
	}
	return pr, nil
}
