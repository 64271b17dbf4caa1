package images_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"

	"dcos.example/dcos/universe/images"
)

func TestArchiveIsReproducibleAndNamed(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	if err := os.WriteFile(program, []byte("#!not really"), 0o755); err != nil {
		t.Fatal(err)
	}
	spec := images.Spec{Name: "docker.io/dcos/x:1", Program: program, Path: "/x", User: "65534:65534", Port: "8080/tcp"}
	var built [2][]byte
	for i := range built {
		file := filepath.Join(dir, "x.tar")
		if err := images.WriteArchive(spec, file); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		built[i] = b
	}
	if !bytes.Equal(built[0], built[1]) {
		t.Error("two builds differ")
	}
	files := map[string][]byte{}
	for tr := tar.NewReader(bytes.NewReader(built[0])); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[h.Name], err = io.ReadAll(tr); err != nil {
			t.Fatal(err)
		}
	}
	var index struct {
		Manifests []struct {
			Digest      string            `json:"digest"`
			Annotations map[string]string `json:"annotations"`
		} `json:"manifests"`
	}
	if err := json.Unmarshal(files["index.json"], &index); err != nil {
		t.Fatal(err)
	}
	if len(index.Manifests) != 1 || index.Manifests[0].Annotations["io.containerd.image.name"] != spec.Name {
		t.Fatalf("index is %s", files["index.json"])
	}
	var manifest struct {
		Config struct{ Digest string }
		Layers []struct{ MediaType string }
	}
	blob := func(digest string) []byte { return files["blobs/sha256/"+digest[len("sha256:"):]] }
	if err := json.Unmarshal(blob(index.Manifests[0].Digest), &manifest); err != nil {
		t.Fatal(err)
	}
	var config struct {
		Config struct {
			User       string
			Entrypoint []string
		}
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(blob(manifest.Config.Digest), &config); err != nil {
		t.Fatal(err)
	}
	if config.Config.User != spec.User || config.Config.Entrypoint[0] != "/x" || len(config.RootFS.DiffIDs) != 1 {
		t.Errorf("config is %+v", config)
	}
	if files["oci-layout"] == nil {
		t.Error("no oci-layout file")
	}
}
