package bundle_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dcos.example/dcos/installer/bundle"
	"dcos.example/dcos/installer/bundle/sbom"
	"dcos.example/dcos/runtime/fault"
)

// layout returns the files of an image with one layer in OCI's layout.
func layout(name, layer string) map[string]string {
	files := map[string]string{"oci-layout": `{"imageLayoutVersion":"1.0.0"}`}
	blob := func(text string) string {
		sum := sha256.Sum256([]byte(text))
		d := hex.EncodeToString(sum[:])
		files["blobs/sha256/"+d] = text
		return fmt.Sprintf(`{"mediaType":"x","digest":"sha256:%s","size":%d`, d, len(text))
	}
	m := blob(fmt.Sprintf(`{"schemaVersion":2,"config":%s},"layers":[%s}]}`, blob(`{"os":"linux"}`), blob(layer)))
	files["index.json"] = fmt.Sprintf(`{"schemaVersion":2,"manifests":[%s,"annotations":{"io.containerd.image.name":%q}}]}`, m, name)
	return files
}

func tarOf(t *testing.T, files map[string]string) []byte {
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	var names []string
	for n := range files {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		if err := tw.WriteHeader(&tar.Header{Name: n, Mode: 0o644, Size: int64(len(files[n]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write([]byte(files[n])); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func layoutTar(t *testing.T, file, name, layer string) {
	put(t, file, string(tarOf(t, layout(name, layer))))
}

func TestAddImages(t *testing.T) {
	vendor, site := newKey(t), newKey(t)
	base, before := write(t, release(t), &vendor)
	dir := t.TempDir()
	layoutTar(t, filepath.Join(dir, "tars/a.tar"), "registry.example/a:1", "layer a")
	for n, text := range layout("registry.example/b:2", "layer b") {
		put(t, filepath.Join(dir, "b", n), text)
	}
	docker := tarOf(t, map[string]string{"manifest.json": `[{"Config":"c.json","RepoTags":["nginx:1.27"],"Layers":["l.tar"]}]`, "c.json": "{}", "l.tar": "layer"})
	var zipped bytes.Buffer
	zw := gzip.NewWriter(&zipped)
	if _, err := zw.Write(docker); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "nginx.tar.gz"), zipped.String())
	out := filepath.Join(dir, "site.bundle")
	paths := []string{filepath.Join(dir, "tars"), filepath.Join(dir, "b"), filepath.Join(dir, "nginx.tar.gz")}
	m, err := bundle.Add(base, out, bundle.Additions{Images: paths}, site, bundle.TrustKey(vendor.Public()))
	if err != nil {
		t.Fatal(err)
	}
	want := []bundle.Image{
		{Name: "docker.io/dcos/hello:0.1", Path: "images/hello.tar"}, {Name: "docker.io/library/nginx:1.27", Path: "images/nginx.tar"},
		{Name: "registry.example/a:1", Path: "images/a.tar"}, {Name: "registry.example/b:2", Path: "images/b.tar"},
	}
	if diff := cmp.Diff(want, m.Images); diff != "" || m.Base != before.Release() || m.Version != before.Version {
		t.Errorf("manifest: base %s, version %s, images %s", m.Base, m.Version, diff)
	}
	trust := bundle.TrustKey(site.Public())
	got, sig, err := bundle.Verify(out, trust)
	if err != nil || got.Digest() != m.Digest() || sig.KeyID != bundle.KeyID(site.Public().ID()) {
		t.Fatalf("%+v %v", sig, err)
	}
	unpacked, _, err := bundle.Unpack(out, t.TempDir(), trust)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(unpacked, sbom.File))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	doc, err := sbom.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := doc.Write(&text); err != nil || strings.Count(text.String(), `"type": "container"`) != 4 {
		t.Errorf("bill of materials: %v\n%s", err, text.String())
	}
	if b, err := os.ReadFile(filepath.Join(unpacked, "images/nginx.tar")); err != nil || !bytes.Equal(b, docker) {
		t.Errorf("nginx.tar: %d bytes, %v", len(b), err)
	}
	// The same again adds nothing.
	again, err := bundle.Add(out, filepath.Join(dir, "again.bundle"), bundle.Additions{Images: paths}, site, trust)
	if err != nil || !cmp.Equal(again.Files, m.Files) {
		t.Errorf("again: %v %s", err, cmp.Diff(m.Files, again.Files))
	}
}

func TestAddRefuses(t *testing.T) {
	key := newKey(t)
	trust := bundle.TrustKey(key.Public())
	base, _ := write(t, release(t), &key)
	part := layout("x.example/x:1", "layer")
	for n := range part {
		if strings.HasPrefix(n, "blobs/") && part[n] == "layer" {
			delete(part, n)
		}
	}
	damaged := layout("x.example/x:1", "layer")
	for n := range damaged {
		if damaged[n] == "layer" {
			damaged[n] = "lawyer"
		}
	}
	for name, test := range map[string]struct{ text, file, want string }{
		"no tar":              {"hello", "x.tar", "no tar"},
		"another tar":         {string(tarOf(t, map[string]string{"a": "b"})), "x.tar", "no image archive"},
		"half an image":       {string(tarOf(t, part)), "x.tar", "missing"},
		"a damaged layer":     {string(tarOf(t, damaged)), "x.tar", "damaged"},
		"a nameless image":    {string(tarOf(t, layout("", "layer"))), "x.tar", "no name"},
		"a short name":        {string(tarOf(t, layout("latest", "layer"))), "x.tar", "skopeo"},
		"the name of another": {string(tarOf(t, layout("docker.io/dcos/hello:0.1", "mine"))), "x.tar", "in the bundle already"},
		"the file of another": {string(tarOf(t, layout("x.example/x:1", "mine"))), "hello.tar", "rename"},
		"saved by id":         {string(tarOf(t, map[string]string{"manifest.json": `[{"Config":"c","Layers":[]}]`, "c": ""})), "x.tar", "docker save NAME"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			put(t, filepath.Join(dir, "in", test.file), test.text)
			out := filepath.Join(dir, "out.bundle")
			_, err := bundle.Add(base, out, bundle.Additions{Images: []string{filepath.Join(dir, "in", test.file)}}, key, trust)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, "*bundle*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	if _, err := bundle.Add(base, filepath.Join(t.TempDir(), "o"), bundle.Additions{Images: []string{t.TempDir()}}, key, trust); !fault.Is(err, fault.Invalid) {
		t.Errorf("an empty directory: %v", err)
	}
}

func TestSign(t *testing.T) {
	vendor, site := newKey(t), newKey(t)
	dir := release(t)
	unsigned, m := write(t, dir, nil)
	out := filepath.Join(t.TempDir(), "signed.bundle")
	if _, err := bundle.Sign(unsigned, out, site, bundle.Trust{}); err != nil {
		t.Fatal(err)
	}
	if got, _, err := bundle.Verify(out, bundle.TrustKey(site.Public())); err != nil || got.Digest() != m.Digest() {
		t.Errorf("signed: %v", err)
	}
	foreign, _ := write(t, dir, &vendor)
	if _, err := bundle.Sign(foreign, foreign, site, bundle.Trust{}); !fault.Is(err, fault.Denied) {
		t.Errorf("signed over a signature that is not trusted: %v", err)
	}
	if _, err := bundle.Sign(foreign, foreign, site, bundle.TrustKey(vendor.Public())); err != nil {
		t.Errorf("in place: %v", err)
	}
	if _, _, err := bundle.Verify(foreign, bundle.TrustKey(site.Public())); err != nil {
		t.Error(err)
	}
}
