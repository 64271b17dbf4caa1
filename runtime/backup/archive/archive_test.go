package archive_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"dcos.example/dcos/runtime/backup/archive"
	"dcos.example/dcos/runtime/fault"
)

func identity(t *testing.T) *age.X25519Identity {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// write returns an archive with a snapshot that does not compress well.
func write(t *testing.T, to ...age.Recipient) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "db")
	snapshot := make([]byte, 300<<10)
	x := uint32(1)
	for i := range snapshot {
		x = x*1664525 + 1013904223
		snapshot[i] = byte(x >> 24)
	}
	if err := os.WriteFile(file, snapshot, 0o600); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := archive.Write(&b, to, archive.Manifest{ID: "b1", ClusterName: "prod", Release: "0.1.0", Created: time.Unix(1e9, 0).UTC()}, []archive.Source{
		{Name: archive.ConfigDir + "/etc/dcos/pki/ca.key", Data: []byte("the key of the cluster")},
		{Name: archive.SnapshotName, Path: file},
	}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRoundTrip(t *testing.T) {
	id := identity(t)
	b := write(t, id.Recipient(), identity(t).Recipient())
	for _, secret := range []string{"the key of the cluster", "prod", "manifest"} {
		if bytes.Contains(b, []byte(secret)) {
			t.Errorf("the file shows %q", secret)
		}
	}
	got, err := archive.Open(bytes.NewReader(b), []age.Identity{id}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	snapshot, err := os.ReadFile(got.Snapshot)
	if err != nil || len(snapshot) != 300<<10 {
		t.Errorf("a snapshot of %d bytes, %v", len(snapshot), err)
	}
	if m := got.Manifest; m.Format != archive.Format || m.ClusterName != "prod" || len(m.Files) != 2 {
		t.Errorf("manifest %+v", m)
	}
	if string(got.Config("/etc/dcos/pki/ca.key")) != "the key of the cluster" {
		t.Errorf("files %v", got.Files)
	}
}

func TestPassphrase(t *testing.T) {
	to, err := age.NewScryptRecipient("correct horse")
	if err != nil {
		t.Fatal(err)
	}
	to.SetWorkFactor(10)
	b := write(t, to)
	for phrase, want := range map[string]bool{"correct horse": true, "battery staple": false} {
		id, err := age.NewScryptIdentity(phrase)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := archive.Open(bytes.NewReader(b), []age.Identity{id}, t.TempDir()); (err == nil) != want || err != nil && !fault.Is(err, fault.Denied) {
			t.Errorf("%s: %v", phrase, err)
		}
	}
}

func TestRefused(t *testing.T) {
	id := identity(t)
	whole := write(t, id.Recipient())
	flip := func(at int) []byte {
		b := bytes.Clone(whole)
		b[at] ^= 1
		return b
	}
	for _, c := range []struct {
		what string
		b    []byte
		id   age.Identity
		kind fault.Kind
		says string
	}{
		{"another's key", whole, identity(t), fault.Denied, "encrypted for other ones"},
		{"empty", nil, id, fault.Invalid, "not a backup"},
		{"something else", []byte("PK\x03\x04 is a zip, and a long one"), id, fault.Invalid, "not a backup"},
		{"header cut off", whole[:60], id, fault.Invalid, "header"},
		{"cut off in the middle", whole[:len(whole)/2], id, fault.Invalid, "damaged or cut off"},
		{"cut off between two parts", whole[:64<<10], id, fault.Invalid, "damaged or cut off"},
		{"last byte missing", whole[:len(whole)-1], id, fault.Invalid, "damaged or cut off"},
		{"a byte more", append(bytes.Clone(whole), 0), id, fault.Invalid, "damaged or cut off"},
		{"first part damaged", flip(300), id, fault.Invalid, "damaged or cut off"},
		{"middle damaged", flip(len(whole) / 2), id, fault.Invalid, "damaged or cut off"},
		{"end damaged", flip(len(whole) - 1), id, fault.Invalid, "damaged or cut off"},
	} {
		_, err := archive.Open(bytes.NewReader(c.b), []age.Identity{c.id}, t.TempDir())
		if !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v (%s), want %s %q", c.what, err, fault.KindOf(err), c.kind, c.says)
		}
	}
	if err := archive.Write(&bytes.Buffer{}, nil, archive.Manifest{}, nil); !fault.Is(err, fault.Invalid) {
		t.Errorf("for nobody: %v", err)
	}
	if _, err := archive.Recipients([]string{"age1nonsense"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("no public key: %v", err)
	}
}
