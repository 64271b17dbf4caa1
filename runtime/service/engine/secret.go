package engine

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"math/big"
	"slices"

	"dcos.example/dcos/runtime/api/service"
	"dcos.example/dcos/runtime/fault"
)

// Vault seals secrets for the store.
type Vault struct {
	aead cipher.AEAD
	key  []byte
}

// NewVault returns one for a key of 32 bytes.
func NewVault(key []byte) (*Vault, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fault.New("read sealing key", fault.Invalid, err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fault.New("read sealing key", fault.Invalid, err)
	}
	// What tells values apart must not be made with the key that hides them.
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("service secret prints"))
	return &Vault{aead, mac.Sum(nil)}, nil
}

func (v *Vault) seal(name, value string) []byte {
	nonce := make([]byte, v.aead.NonceSize())
	_, _ = rand.Read(nonce) // never fails
	return v.aead.Seal(nonce, nonce, []byte(value), []byte(name))
}

func (v *Vault) open(name string, sealed []byte) (string, error) {
	n := v.aead.NonceSize()
	if len(sealed) < n {
		return "", fault.Newf("open secret "+name, fault.Internal, "it is cut off")
	}
	plain, err := v.aead.Open(nil, sealed[:n], sealed[n:], []byte(name))
	if err != nil {
		return "", fault.Newf("open secret "+name, fault.Internal, "it was sealed with another key")
	}
	return string(plain), nil
}

// print is the same for the same value of a secret, and tells nothing of it.
func (v *Vault) print(name, value string) string {
	mac := hmac.New(sha256.New, v.key)
	mac.Write([]byte(name + "\x00" + value))
	return hex.EncodeToString(mac.Sum(nil)[:12])
}

const letters = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"

// generate makes a random text of n letters.
func generate(n int) string {
	out := make([]byte, n)
	for i := range out {
		k, _ := rand.Int(rand.Reader, big.NewInt(int64(len(letters)))) // never fails
		out[i] = letters[k.Int64()]
	}
	return string(out)
}

// hide moves the values of a spec's secrets into the record. Those that are
// generated stay what they were before.
func (v *Vault) hide(s *service.Spec, before *configRecord) (map[string][]byte, map[string]string, error) {
	sealed, prints := map[string][]byte{}, map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(s.Secrets)) {
		sec := s.Secrets[name]
		value := sec.Value
		if sec.Generate > 0 {
			value = generate(sec.Generate)
			if before != nil && before.Secrets[name] != nil && before.Spec.Secrets[name].Generate > 0 {
				old, err := v.open(name, before.Secrets[name])
				if err != nil {
					return nil, nil, err
				}
				value = old
			}
		}
		sealed[name], prints[name] = v.seal(name, value), v.print(name, value)
		sec.Value = ""
		s.Secrets[name] = sec
	}
	return sealed, prints, nil
}

// reveal returns the values of a configuration's secrets that a pod uses.
func (v *Vault) reveal(c *config, names []string) (map[string]string, error) {
	out := map[string]string{}
	for _, name := range names {
		value, err := v.open(name, c.Secrets[name])
		if err != nil {
			return nil, err
		}
		out[name] = value
	}
	return out, nil
}
