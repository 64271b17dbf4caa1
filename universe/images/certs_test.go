package images

import (
	"encoding/pem"
	"testing"
)

// The digest at the end covers the password and all before it; the JDK refuses
// a store with another.
func TestKeystore(t *testing.T) {
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{1, 2, 3}})
	b := keystore([]string{"a/b.crt", "a/none.crt"}, map[string][]byte{"a/b.crt": block, "a/none.crt": nil})
	const header, entry, digest = 12, 4 + 2 + len("debian:b.crt") + 8 + 2 + len("X.509") + 4 + 3, 20
	if len(b) != header+entry+digest || b[3] != 0xed || b[11] != 1 {
		t.Errorf("%d bytes, want %d: %x", len(b), header+entry+digest, b)
	}
}
