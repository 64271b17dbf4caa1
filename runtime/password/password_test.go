package password_test

import (
	"strings"
	"testing"

	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/password"
)

func TestHashVerify(t *testing.T) {
	h, err := password.Hash("correct horse")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(h, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Errorf("Hash = %q", h)
	}
	again, err := password.Hash("correct horse")
	if err != nil || again == h {
		t.Errorf("two hashes of one password are equal (err %v)", err)
	}
	for pw, want := range map[string]bool{"correct horse": true, "correct hors": false, "": false} {
		if ok, err := password.Verify(h, pw); err != nil || ok != want {
			t.Errorf("Verify(%q) = %v, %v; want %v", pw, ok, err, want)
		}
	}
}

// Made by the reference implementation: argon2 -id -t 2 -m 16 -p 1, salt
// "somesalt", password "password".
func TestVerifyKnown(t *testing.T) {
	const h = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
	if ok, err := password.Verify(h, "password"); !ok || err != nil {
		t.Errorf("Verify = %v, %v", ok, err)
	}
}

func TestVerifyRefuses(t *testing.T) {
	for name, h := range map[string]string{
		"empty":       "",
		"plain":       "secret",
		"argon2i":     "$argon2i$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
		"old version": "$argon2id$v=16$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
		"huge memory": "$argon2id$v=19$m=4294967295,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
		"no lanes":    "$argon2id$v=19$m=64,t=2,p=0$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
		"short hash":  "$argon2id$v=19$m=64,t=2,p=1$c29tZXNhbHQ$CTFh",
		"long":        "$argon2id$v=19$m=64,t=2,p=1$c29tZXNhbHQ$" + strings.Repeat("A", 600),
	} {
		if ok, err := password.Verify(h, "password"); ok || !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: Verify = %v, %v; want Invalid", name, ok, err)
		}
		if err := password.Check(h); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: Check = %v; want Invalid", name, err)
		}
	}
}
