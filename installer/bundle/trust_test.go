package bundle_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"aead.dev/minisign"
	"github.com/klauspost/compress/zstd"

	"dcos.example/dcos/installer/bundle"
	"dcos.example/dcos/runtime/fault"
)

func environment(vars map[string]string) func(string) string {
	return func(k string) string { return vars[k] }
}

func TestOnlyTrustedSignaturesCount(t *testing.T) {
	ours, theirs := newKey(t), newKey(t)
	dir := release(t)
	signed, _ := write(t, dir, &ours)
	unsigned, _ := write(t, dir, nil)
	foreign, _ := write(t, dir, &theirs)
	swapped := filepath.Join(t.TempDir(), "swapped.bundle")
	other := release(t)
	put(t, filepath.Join(other, "bin/dcosd"), "another program")
	evil, _ := write(t, other, nil)
	repack(t, evil, swapped, signature(t, signed))
	home := t.TempDir()
	public, err := ours.Save(filepath.Join(home, "dcos/trusted/us.key"), "")
	if err != nil {
		t.Fatal(err)
	}
	trust, err := bundle.FindTrust(environment(map[string]string{"XDG_CONFIG_HOME": home}))
	if err != nil {
		t.Fatal(err)
	}
	id := func(k bundle.Key) string { return bundle.KeyID(k.Public().ID()) }
	for name, test := range map[string]struct {
		file string
		want []string // parts of the message; none: it is taken
	}{
		"signed":                       {signed, nil},
		"unsigned":                     {unsigned, []string{"not signed", "bundle sign"}},
		"by somebody else":             {foreign, []string{id(theirs), "not trusted", id(ours), public, "-trust-key"}},
		"signature of another release": {swapped, []string{id(ours), "changed after it was signed"}},
	} {
		t.Run(name, func(t *testing.T) {
			cache := t.TempDir()
			_, _, err := bundle.Unpack(test.file, cache, trust)
			_, merr := bundle.ReadManifest(test.file, trust)
			_, _, verr := bundle.Verify(test.file, trust)
			for _, err := range []error{err, merr, verr} {
				if len(test.want) == 0 && err != nil {
					t.Error(err)
				}
				for _, w := range test.want {
					if !fault.Is(err, fault.Denied) || !strings.Contains(err.Error(), w) {
						t.Errorf("got %v, want denied with %q", err, w)
					}
				}
			}
			if left, _ := os.ReadDir(cache); len(test.want) > 0 && len(left) > 0 {
				t.Errorf("unpacked: %v", left)
			}
			if _, _, untrusted, err := bundle.Inspect(test.file, trust); err != nil || (untrusted != nil) != (len(test.want) > 0) {
				t.Errorf("inspect: %v, %v", untrusted, err)
			}
		})
	}
}

// signature returns the signature inside a bundle.
func signature(t *testing.T, file string) []byte {
	_, s, _, err := bundle.Inspect(file, bundle.Trust{})
	if err != nil {
		t.Fatal(err)
	}
	return s.Text()
}

// repack copies a bundle and puts a signature after its manifest.
func repack(t *testing.T, from, to string, sig []byte) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	zr, err := zstd.NewReader(in)
	if err != nil {
		t.Fatal(err)
	}
	defer zr.Close()
	var b bytes.Buffer
	zw, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	tw := tar.NewWriter(zw)
	for tr := tar.NewReader(zr); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		text, rerr := io.ReadAll(tr)
		if err != nil || rerr != nil {
			t.Fatal(err, rerr)
		}
		add := func(h *tar.Header, text []byte) {
			if err := tw.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
			if _, err := tw.Write(text); err != nil {
				t.Fatal(err)
			}
		}
		add(h, text)
		if h.Name == bundle.ManifestName {
			add(&tar.Header{Name: bundle.SignatureName, Mode: 0o644, Size: int64(len(sig))}, sig)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	put(t, to, b.String())
}

func TestFindTrust(t *testing.T) {
	home := t.TempDir()
	k := newKey(t)
	public, err := k.Save(filepath.Join(home, "site.key"), "")
	if err != nil {
		t.Fatal(err)
	}
	if trust, err := bundle.FindTrust(environment(map[string]string{bundle.TrustVariable: public})); err != nil || !strings.Contains(trust.String(), public) {
		t.Errorf("by variable: %s, %v", trust, err)
	}
	if trust, err := bundle.FindTrust(environment(nil), public); err != nil || !strings.Contains(trust.String(), bundle.KeyID(k.Public().ID())) {
		t.Errorf("by flag: %s, %v", trust, err)
	}
	if trust, err := bundle.FindTrust(environment(map[string]string{"HOME": home})); err != nil || trust.String() != "no key is trusted" {
		t.Errorf("none: %s, %v", trust, err)
	}
	for _, f := range []string{strings.TrimSuffix(public, ".pub") + ".key", filepath.Join(home, "none.pub")} {
		if _, err := bundle.FindTrust(environment(nil), f); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v, want invalid", f, err)
		}
	}
}

func TestKeysAreMinisigns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.key")
	k := newKey(t)
	public, err := k.Save(path, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Save(path, ""); !fault.Is(err, fault.Exists) {
		t.Errorf("saved twice: %v", err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi, err)
	}
	again, err := bundle.LoadKey(path, nil)
	if err != nil || again.Public().ID() != k.Public().ID() {
		t.Errorf("%v, %v", again, err)
	}
	if _, err := bundle.LoadKey(path+".none", nil); !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "keygen") {
		t.Errorf("no key: %v", err)
	}
	file, m := write(t, release(t), &k)
	pub, err := minisign.PublicKeyFromFile(public)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	if !minisign.Verify(pub, append(text, '\n'), signature(t, file)) {
		t.Error("the signature inside is not one of manifest.json")
	}
	whole, err := k.SignFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil || !minisign.Verify(pub, b, whole) {
		t.Errorf("the signature beside is not one of the file: %v", err)
	}
}

func TestCache(t *testing.T) {
	for _, test := range []struct {
		uid  int
		env  map[string]string
		want string
	}{
		{0, map[string]string{"HOME": "/root"}, bundle.CacheDir},
		{1000, map[string]string{"HOME": "/home/a"}, "/home/a/.cache/dcos/bundles"},
		{1000, map[string]string{"HOME": "/home/a", "XDG_CACHE_HOME": "/big"}, "/big/dcos/bundles"},
		{1000, nil, bundle.CacheDir},
	} {
		if got := bundle.Cache(test.uid, environment(test.env)); got != test.want {
			t.Errorf("%d %v: %s, want %s", test.uid, test.env, got, test.want)
		}
	}
}
