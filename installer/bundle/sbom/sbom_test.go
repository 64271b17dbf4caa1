package sbom_test

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"testing"

	"dcos.example/dcos/installer/bundle/sbom"
	"dcos.example/dcos/runtime/fault"
)

// TestProgram describes this very test. Binaries of tests do not say which
// modules they are made of; those of a release are checked where it is built.
func TestProgram(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	write := func() []byte {
		d := sbom.New("1.2.3")
		d.Image("docker.io/library/nginx:1.27", "images/nginx.tar", "aa")
		lib := sbom.Package{Name: "libc6-dev", Version: "2.36+x", URL: "pkg:deb/debian/libc6-dev@2.36%2Bx"}
		if err := d.Program("bin/self", self, "self", "1.2.3", lib); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := d.Write(&b); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	a := write()
	if !bytes.Equal(a, write()) {
		t.Error("two bills of the same release differ")
	}
	var doc struct {
		SpecVersion string
		Components  []struct {
			Type, Name, Purl string
		}
		Dependencies []struct {
			Ref       string
			DependsOn []string
		}
	}
	if err := json.Unmarshal(a, &doc); err != nil {
		t.Fatal(err)
	}
	if doc.SpecVersion != "1.6" {
		t.Errorf("version %s of CycloneDX", doc.SpecVersion)
	}
	for _, want := range []string{"self", "stdlib", "libc6-dev", "docker.io/library/nginx:1.27"} {
		if !slices.ContainsFunc(doc.Components, func(c struct{ Type, Name, Purl string }) bool { return c.Name == want }) {
			t.Errorf("%s is missing", want)
		}
	}
	again, err := sbom.Read(bytes.NewReader(a))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := again.Write(&b); err != nil || !bytes.Equal(a, b.Bytes()) {
		t.Errorf("read and written it differs: %v", err)
	}
}

func TestWhatIsNoBill(t *testing.T) {
	for _, text := range []string{"hello", "{}"} {
		if _, err := sbom.Read(bytes.NewReader([]byte(text))); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if err := sbom.New("1").Program("bin/x", os.DevNull, "x", "1"); !fault.Is(err, fault.Invalid) {
		t.Errorf("no program: %v", err)
	}
}
