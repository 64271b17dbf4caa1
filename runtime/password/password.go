// Package password hashes and verifies passwords with argon2id, written in
// the PHC string form: $argon2id$v=19$m=19456,t=2,p=1$<salt>$<hash>.
package password

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"

	"dcos.example/dcos/runtime/fault"
	"golang.org/x/crypto/argon2"
)

// Cost of new hashes: the minimum OWASP recommends, some 20 ms and 19 MiB on
// a small machine. A master that hashes in parallel for several logins must
// not run out of memory. Old hashes keep the cost they say.
const (
	memoryKiB  = 19 * 1024
	passes     = 2
	lanes      = 1
	saltLen    = 16
	hashLen    = 32
	maxMemory  = 1 << 20 // KiB; a hash asking for more is refused
	maxPasses  = 64
	maxEncoded = 512
)

// Hash returns the PHC string of pw with a fresh salt.
func Hash(pw string) (string, error) {
	salt := make([]byte, saltLen)
	if _, err := rand.Read(salt); err != nil {
		return "", fault.New("hash password", fault.Internal, err)
	}
	sum := argon2.IDKey([]byte(pw), salt, passes, memoryKiB, lanes, hashLen)
	enc := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version,
		memoryKiB, passes, lanes, enc.EncodeToString(salt), enc.EncodeToString(sum)), nil
}

// Verify reports whether pw is the password that hash was made from, in time
// that depends on the hash's cost alone. An unreadable hash is an error.
func Verify(hash, pw string) (bool, error) {
	p, err := parse(hash)
	if err != nil {
		return false, fault.New("read password hash", fault.Invalid, err)
	}
	got := argon2.IDKey([]byte(pw), p.salt, p.time, p.memory, p.lanes, uint32(len(p.sum)))
	return subtle.ConstantTimeCompare(got, p.sum) == 1, nil
}

// Check returns why hash cannot be used, or nil.
func Check(hash string) error {
	if _, err := parse(hash); err != nil {
		return fault.New("read password hash", fault.Invalid, err)
	}
	return nil
}

type params struct {
	memory, time uint32
	lanes        uint8
	salt, sum    []byte
}

func parse(hash string) (p params, err error) {
	parts := strings.Split(hash, "$")
	if len(hash) > maxEncoded || len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" {
		return p, fmt.Errorf("not of the form $argon2id$v=19$m=…,t=…,p=…$salt$hash")
	}
	var version int
	if _, err := fmt.Sscanf(parts[2], "v=%d", &version); err != nil || version != argon2.Version {
		return p, fmt.Errorf("version %q is not v=%d", parts[2], argon2.Version)
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &p.memory, &p.time, &p.lanes); err != nil {
		return p, fmt.Errorf("parameters %q: %w", parts[3], err)
	}
	if p.memory < 8 || p.memory > maxMemory || p.time < 1 || p.time > maxPasses || p.lanes < 1 {
		return p, fmt.Errorf("parameters %q are out of range", parts[3])
	}
	if p.salt, err = base64.RawStdEncoding.DecodeString(parts[4]); err != nil || len(p.salt) < 8 {
		return p, fmt.Errorf("salt is not 8 or more bytes in base64")
	}
	if p.sum, err = base64.RawStdEncoding.DecodeString(parts[5]); err != nil || len(p.sum) < 16 {
		return p, fmt.Errorf("hash is not 16 or more bytes in base64")
	}
	return p, nil
}
