package cli_test

import (
	"archive/tar"
	"bytes"
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
