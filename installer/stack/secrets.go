package stack

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/config"

	"dcos.example/dcos/runtime/fault"
)

// PassphraseFromEnv reads the passphrase an operator gave by environment:
// DCOS_PASSPHRASE, or the first line of the file DCOS_PASSPHRASE_FILE. Empty
// when neither is set.
func PassphraseFromEnv() (string, error) {
	if p := os.Getenv("DCOS_PASSPHRASE"); p != "" {
		return p, nil
	}
	path := os.Getenv("DCOS_PASSPHRASE_FILE")
	if path == "" {
		return "", nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fault.New("read DCOS_PASSPHRASE_FILE", fault.Invalid, err)
	}
	p, _, _ := strings.Cut(string(b), "\n")
	if p = strings.TrimSuffix(p, "\r"); p == "" {
		return "", fault.Newf("read DCOS_PASSPHRASE_FILE", fault.Invalid, "%s has an empty first line", path)
	}
	return p, nil
}

// identityDoc is stack.json, written once. Salt is "v1:<salt>:<check>", as Pulumi's
// passphrase provider writes it; check is a known word, encrypted.
type identityDoc struct {
	Name    string `json:"name"`
	Secrets string `json:"secrets"` // key-file or passphrase
	Salt    string `json:"salt,omitempty"`
}

const (
	kindKeyFile    = "key-file"
	kindPassphrase = "passphrase"
	checkWord      = "pulumi"
)

// secrets encrypts with AES-256-GCM. The key comes from a file, or from a
// passphrase when it is first needed: deriving it takes a million rounds of
// PBKDF2, 140-380 ms.
type secrets struct {
	kind    string
	crypter func() (config.Crypter, error)
}

// openIdentity reads stack.json and makes it, named name, when there is none.
func openIdentity(dir, name, passphrase string) (identityDoc, error) {
	const op = "open stack"
	var doc identityDoc
	raw, err := os.ReadFile(filepath.Join(dir, identityFile))
	if errors.Is(err, fs.ErrNotExist) {
		if raw, err = createIdentity(dir, name, passphrase); err != nil {
			return doc, fault.New(op, fault.Internal, err)
		}
	} else if err != nil {
		return doc, fault.New(op, fault.Denied, err)
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return doc, fault.Newf(op, fault.Internal, "%s is damaged: %w", filepath.Join(dir, identityFile), err)
	}
	return doc, nil
}

func newSecrets(dir string, doc identityDoc, passphrase string, log *slog.Logger) (*secrets, error) {
	s := &secrets{kind: doc.Secrets}
	switch doc.Secrets {
	case kindKeyFile:
		if passphrase != "" {
			log.Warn("a passphrase is set, but this stack is encrypted with its key file; the passphrase is not used")
		}
		s.crypter = sync.OnceValues(func() (config.Crypter, error) { return keyCrypter(dir) })
	case kindPassphrase:
		s.crypter = sync.OnceValues(func() (config.Crypter, error) { return passphraseCrypter(passphrase, doc.Salt) })
	default:
		return nil, fault.Newf("open stack", fault.Invalid, "unknown secrets %q in %s: made by a newer version?", doc.Secrets, identityFile)
	}
	return s, nil
}

// createIdentity writes the name and the key or salt of a new stack. When two processes
// race, the link decides and both read what won.
func createIdentity(dir, name, passphrase string) ([]byte, error) {
	doc := identityDoc{Name: name, Secrets: kindKeyFile}
	if passphrase == "" {
		key := make([]byte, 32)
		rand.Read(key)
		err := createOnce(dir, keyFile, []byte(base64.StdEncoding.EncodeToString(key)+"\n"))
		if err != nil {
			return nil, err
		}
	} else {
		salt := make([]byte, 8)
		rand.Read(salt)
		check, err := config.NewSymmetricCrypterFromPassphrase(passphrase, salt).EncryptValue(context.Background(), checkWord)
		if err != nil {
			return nil, err
		}
		doc.Secrets, doc.Salt = kindPassphrase, "v1:"+base64.StdEncoding.EncodeToString(salt)+":"+check
	}
	raw, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	if err := createOnce(dir, identityFile, append(raw, '\n')); err != nil {
		return nil, err
	}
	return os.ReadFile(filepath.Join(dir, identityFile))
}

// createOnce writes a file, whole and on disk, unless it exists.
func createOnce(dir, name string, b []byte) error {
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(dir)
}

func keyCrypter(dir string) (config.Crypter, error) {
	const op = "read the key of the stack"
	path := filepath.Join(dir, keyFile)
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.Newf(op, fault.Denied, "the secrets of the cluster cannot be decrypted without it: %w\nPut the file back from where you saved it. Without it the cluster can only be destroyed and made anew: remove %s, then dcos-install destroy", err, dir)
	}
	key, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(raw)))
	if err != nil || len(key) != 32 {
		return nil, fault.Newf(op, fault.Denied, "%s does not hold 32 bytes in base64: it is not the file that this stack was made with; put that back", path)
	}
	return config.NewSymmetricCrypter(key), nil
}

func passphraseCrypter(passphrase, state string) (config.Crypter, error) {
	const op = "unlock secrets of the stack"
	if passphrase == "" {
		return nil, fault.Newf(op, fault.Denied,
			"the stack is encrypted with a passphrase; set DCOS_PASSPHRASE or DCOS_PASSPHRASE_FILE")
	}
	parts := strings.SplitN(state, ":", 3)
	if len(parts) != 3 || parts[0] != "v1" {
		return nil, fault.Newf(op, fault.Internal, "malformed salt in %s", identityFile)
	}
	salt, err := base64.StdEncoding.DecodeString(parts[1])
	if err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	c := config.NewSymmetricCrypterFromPassphrase(passphrase, salt)
	if word, err := c.DecryptValue(context.Background(), parts[2]); err != nil || word != checkWord {
		return nil, fault.Newf(op, fault.Denied, "wrong passphrase")
	}
	return c, nil
}
