package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"aead.dev/minisign"

	"dcos.example/dcos/runtime/fault"
)

// ReleaseKey is the public key of whoever built this program, as minisign
// writes it (one line of base64); the linker sets it. Empty: none is built in.
var ReleaseKey = ""

// TrustVariable names a file with a public key, as -trust-key does.
const TrustVariable = "DCOS_TRUST_KEY"

// SignatureName is the entry after the manifest: a minisign signature of the
// manifest's bytes, and so, through its digests, of everything in the bundle.
const SignatureName = ManifestName + ".minisig"

// maxSignature bounds a signature's text.
const maxSignature = 4 << 10

// Trust are the keys whose signatures count. Its zero value trusts nobody.
type Trust struct{ keys []trusted }

type trusted struct {
	key  minisign.PublicKey
	from string // where it was found, for people
}

// TrustDir is where a person keeps the keys that they trust, one file *.pub
// each; getenv is that of the process. Empty: there is no such place.
func TrustDir(getenv func(string) string) string {
	config := getenv("XDG_CONFIG_HOME")
	if home := getenv("HOME"); config == "" && home != "" {
		config = filepath.Join(home, ".config")
	}
	if !filepath.IsAbs(config) {
		return ""
	}
	return filepath.Join(config, "dcos", "trusted")
}

// FindTrust collects the keys that count for a run: ReleaseKey, those in
// TrustDir, the file that TrustVariable names, and the files given.
func FindTrust(getenv func(string) string, files ...string) (Trust, error) {
	var t Trust
	if ReleaseKey != "" {
		if err := t.Add([]byte(ReleaseKey), "built into this program"); err != nil {
			return t, err
		}
	}
	if dir := TrustDir(getenv); dir != "" {
		found, err := filepath.Glob(filepath.Join(dir, "*.pub"))
		if err != nil {
			return t, fault.New("look for trusted keys in "+dir, fault.Invalid, err)
		}
		files = append(found, files...)
	}
	if f := getenv(TrustVariable); f != "" {
		files = append(files, f)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return t, fault.New("read trusted key", fault.Invalid, err)
		}
		if err := t.Add(b, f); err != nil {
			return t, err
		}
	}
	return t, nil
}

// SigningKey returns the file of the secret key that make bundle signs with,
// beside TrustDir, "" when there is none.
func SigningKey(getenv func(string) string) string {
	dir := TrustDir(getenv)
	if dir == "" {
		return ""
	}
	path := filepath.Join(filepath.Dir(dir), "signing.key")
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

// TrustKey trusts one key.
func TrustKey(public minisign.PublicKey) Trust { return Trust{[]trusted{{public, "given"}}} }

// Add trusts one more key, in minisign's form; from says where it comes from.
func (t *Trust) Add(text []byte, from string) error {
	if _, _, secret := bytes.Cut(text, []byte("secret key")); secret {
		return fault.Newf("read trusted key "+from, fault.Invalid, "this is a secret key; the public one is needed, which ends in .pub")
	}
	var k minisign.PublicKey
	if err := k.UnmarshalText(bytes.TrimSpace(text)); err != nil {
		return fault.Newf("read trusted key "+from, fault.Invalid, "it is no minisign public key: %w", err)
	}
	t.AddKey(k, from)
	return nil
}

// AddKey is Add for a key that was read already.
func (t *Trust) AddKey(k minisign.PublicKey, from string) {
	if !slices.ContainsFunc(t.keys, func(o trusted) bool { return o.key.Equal(k) }) {
		t.keys = append(t.keys, trusted{k, from})
	}
}

// Line returns the key with an id, on one line; "" when it is not trusted.
func (t Trust) Line(id string) string {
	for _, k := range t.keys {
		if KeyID(k.key.ID()) == id {
			return k.key.String()
		}
	}
	return ""
}

// String lists the keys, for messages.
func (t Trust) String() string {
	if len(t.keys) == 0 {
		return "no key is trusted"
	}
	var out []string
	for _, k := range t.keys {
		out = append(out, fmt.Sprintf("%s (%s)", KeyID(k.key.ID()), k.from))
	}
	return "trusted are " + strings.Join(out, ", ")
}

// KeyID writes the id of a key as minisign does.
func KeyID(id uint64) string { return fmt.Sprintf("%016X", id) }

// Signature says who vouches for a bundle.
type Signature struct {
	KeyID   string `json:"keyId"`
	Comment string `json:"comment"` // signed along
	// TrustedBy is where the key was found, "" when it is not trusted here.
	TrustedBy string `json:"trustedBy,omitempty"`

	text []byte
}

// Text is the signature as minisign reads it.
func (s Signature) Text() []byte { return s.text }

// parseSignature reads a signature's text, without believing it.
func parseSignature(text []byte) (Signature, error) {
	var m minisign.Signature
	if err := m.UnmarshalText(text); err != nil {
		return Signature{}, err
	}
	return Signature{KeyID: KeyID(m.KeyID), Comment: m.TrustedComment, text: text}, nil
}

// verify checks a signature of manifest by one of the trusted keys. What it
// says names the key and what to do.
func (t Trust) verify(manifest []byte, s *Signature) error {
	if len(s.text) == 0 {
		return errors.New("it is not signed. Fetch a signed one, or, if you built it and know what is in it, sign it: dcos-install bundle sign -key KEY.key BUNDLE")
	}
	i := slices.IndexFunc(t.keys, func(k trusted) bool { return KeyID(k.key.ID()) == s.KeyID })
	if i < 0 {
		return fmt.Errorf("it is signed with key %s, which is not trusted here; %s. If you know whose key that is, name the file of its public half: "+
			"-trust-key FILE.pub, or %s in the environment, or put it into ~/.config/dcos/trusted/", s.KeyID, t, TrustVariable)
	}
	if !minisign.Verify(t.keys[i].key, manifest, s.text) {
		return fmt.Errorf("its signature by key %s is wrong: it was changed after it was signed. Do not use it; fetch it again from where it comes", s.KeyID)
	}
	s.TrustedBy = t.keys[i].from
	return nil
}

// Key signs bundles.
type Key struct{ private minisign.PrivateKey }

// Public is the half that others need, to trust.
func (k Key) Public() minisign.PublicKey { return k.private.Public().(minisign.PublicKey) }

// NewKey makes a key.
func NewKey() (Key, error) {
	_, private, err := minisign.GenerateKey(nil)
	if err != nil {
		return Key{}, fault.New("make signing key", fault.Internal, err)
	}
	return Key{private}, nil
}

// LoadKey reads a secret key as minisign writes it; password is asked for only
// when the key is encrypted.
func LoadKey(path string, password func() (string, error)) (Key, error) {
	op := "read signing key " + path
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Key{}, fault.Newf(op, fault.NotFound, "there is no such file; make a key with: dcos-install bundle keygen %s", path)
	}
	if err != nil {
		return Key{}, fault.New(op, fault.Denied, err)
	}
	var k Key
	if !minisign.IsEncrypted(b) {
		if err := k.private.UnmarshalText(b); err != nil {
			return Key{}, fault.New(op, fault.Invalid, err)
		}
		return k, nil
	}
	pw, err := password()
	if err != nil {
		return Key{}, err
	}
	if k.private, err = minisign.DecryptKey(pw, b); err != nil {
		return Key{}, fault.Newf(op, fault.Denied, "the password is wrong, or the file is damaged")
	}
	return k, nil
}

// Save writes the key to path, with mode 0600, and its public half beside it,
// with .pub for .key. Neither replaces a file. An empty password leaves it in
// clear, as minisign -W does.
func (k Key) Save(path, password string) (public string, err error) {
	op := "write signing key " + path
	public = strings.TrimSuffix(path, ".key") + ".pub"
	text, err := k.private.MarshalText()
	if password != "" {
		text, err = minisign.EncryptKey(password, k.private)
	}
	if err != nil {
		return "", fault.New(op, fault.Internal, err)
	}
	pub, err := k.Public().MarshalText()
	if err != nil {
		return "", fault.New(op, fault.Internal, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", fault.New(op, fault.Denied, err)
	}
	if err := create(path, text, 0o600); err != nil {
		return "", fault.New(op, fault.KindOf(err), err)
	}
	if err := create(public, pub, 0o644); err != nil {
		return "", fault.New(op, fault.KindOf(err), err)
	}
	return public, nil
}

// create makes a file that must not be there, whole or not at all.
func create(path string, text []byte, mode fs.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".key-")
	if err != nil {
		return fault.New("write "+path, fault.Denied, err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(append(bytes.TrimRight(text, "\n"), '\n'))
	if err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close()); err != nil {
		return fault.New("write "+path, fault.Internal, err)
	}
	err = os.Link(tmp.Name(), path)
	if errors.Is(err, fs.ErrExist) {
		return fault.Newf("write "+path, fault.Exists, "the file exists; it is left as it is")
	}
	if err != nil {
		return fault.New("write "+path, fault.Internal, err)
	}
	return nil
}

// PublicLine is the key's public half as ReleaseKey takes it.
func (k Key) PublicLine() string { return k.Public().String() }

// sign signs text, always with the same result.
func (k Key) sign(text []byte, comment string) []byte {
	r := minisign.NewReader(bytes.NewReader(text))
	if _, err := io.Copy(io.Discard, r); err != nil { // memory does not fail
		panic("hash: " + err.Error())
	}
	return r.SignWithComments(k.private, comment, untrusted(k))
}

func untrusted(k Key) string { return "signature from DC/OS key " + KeyID(k.private.ID()) }

// SignFile returns a signature of the whole file at path, for minisign -V.
func (k Key) SignFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.New("sign "+path, fault.NotFound, err)
	}
	defer f.Close()
	r := minisign.NewReader(f)
	if _, err := io.Copy(io.Discard, r); err != nil {
		return nil, fault.New("sign "+path, fault.Unavailable, err)
	}
	return r.SignWithComments(k.private, "file:"+filepath.Base(path), untrusted(k)), nil
}
