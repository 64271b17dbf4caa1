package cli_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"

	"dcos.example/dcos/installer/bundle"
)

// mkBundle packs a directory: mkbundle FILE DIR [KEY]
func mkBundle(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: mkbundle FILE DIR [KEY]")
	}
	var key *bundle.Key
	if len(args) > 2 {
		k, err := bundle.LoadKey(ts.MkAbs(args[2]), nil)
		ts.Check(err)
		key = &k
	}
	var b bytes.Buffer
	_, err := bundle.Write(&b, bundle.Contents{Dir: ts.MkAbs(args[1]), Version: "0.1.0", Platform: "linux/amd64",
		Components: map[string]string{"runc": "1.5.2", "etcd": "3.7.3"}, Formats: map[string]int{"state": 1, "config": 1}}, key)
	ts.Check(err)
	ts.Check(os.MkdirAll(filepath.Dir(ts.MkAbs(args[0])), 0o755))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b.Bytes(), 0o644))
}

// mkImage writes an image archive as docker save does: mkimage FILE NAME
func mkImage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mkimage FILE NAME")
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), imageArchive(args[1]), 0o644))
}

// mkLayout writes an image archive in OCI's layout: mklayout FILE NAME
func mkLayout(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mklayout FILE NAME")
	}
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	file := func(name, text string) {
		ts.Check(tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}))
		_, err := tw.Write([]byte(text))
		ts.Check(err)
	}
	blob := func(text string) string {
		d := fmt.Sprintf("%x", sha256.Sum256([]byte(text)))
		file("blobs/sha256/"+d, text)
		return fmt.Sprintf(`{"digest":"sha256:%s","size":%d`, d, len(text))
	}
	m := blob(fmt.Sprintf(`{"schemaVersion":2,"config":%s},"layers":[%s}]}`, blob(`{"os":"linux"}`), blob("layer of "+args[1])))
	file("index.json", fmt.Sprintf(`{"schemaVersion":2,"manifests":[%s,"annotations":{"io.containerd.image.name":%q}}]}`, m, args[1]))
	ts.Check(tw.Close())
	ts.Check(os.MkdirAll(filepath.Dir(ts.MkAbs(args[0])), 0o755))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b.Bytes(), 0o644))
}

func imageArchive(name string) []byte {
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, f := range []struct{ name, text string }{
		{"manifest.json", `[{"Config":"c.json","RepoTags":["` + name + `"],"Layers":["l.tar"]}]`}, {"c.json", "{}"}, {"l.tar", "layer"},
	} {
		// A buffer takes everything.
		_ = tw.WriteHeader(&tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.text))})
		_, _ = tw.Write([]byte(f.text))
	}
	_ = tw.Close()
	return b.Bytes()
}
