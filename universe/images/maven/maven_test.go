package maven

import (
	"encoding/xml"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dcos.example/dcos/universe/images/lock"
)

func TestParse(t *testing.T) {
	for line, want := range map[string]lock.Jar{
		"   org.lz4:lz4-java:jar:1.8.0:runtime:/r/lz4-java-1.8.0.jar -- module org.lz4.java [auto]":              {Group: "org.lz4", Artifact: "lz4-java", Version: "1.8.0"},
		"   io.netty:netty-tcnative:jar:linux-x86_64:2.0.70.Final:compile:/r/x.jar\x1b[36m -- module x\x1b[0;1m": {Group: "io.netty", Artifact: "netty-tcnative", Version: "2.0.70.Final", Classifier: "linux-x86_64"},
		"   a:b:zip:1:runtime:/r/b-1.zip": {Group: "a", Artifact: "b", Version: "1", Type: "zip"},
	} {
		got, file, ok := parse(line)
		if diff := cmp.Diff(want, got); !ok || diff != "" || !strings.HasPrefix(file, "/r/") || strings.Contains(file, " ") {
			t.Errorf("%s: %v %q %s", line, ok, file, diff)
		}
	}
	for _, line := range []string{"", "The following files have been resolved:", "   none"} {
		if j, _, ok := parse(line); ok {
			t.Errorf("%q is %v", line, j)
		}
	}
}

// An item to copy has no exclusions, and Maven refuses an empty list of them.
func TestProjects(t *testing.T) {
	p := newProject()
	p.Plugin = &copying{Items: []dependency{{GroupID: "g", ArtifactID: "a", Version: "1"}}}
	b, err := xml.Marshal(p)
	if err != nil || strings.Contains(string(b), "exclusions") || !strings.Contains(string(b), "<artifactItem><groupId>g</groupId>") {
		t.Errorf("%v %s", err, b)
	}
	p = newProject()
	p.Dependencies = []dependency{{GroupID: "g", Exclusions: &exclusions{[]exclusion{{"*", "*"}}}}}
	b, err = xml.Marshal(p)
	if err != nil || strings.Contains(string(b), "<build>") || !strings.Contains(string(b), "<exclusion><groupId>*</groupId>") {
		t.Errorf("%v %s", err, b)
	}
}

func TestExplain(t *testing.T) {
	for said, want := range map[string]string{
		"[ERROR] Failed: Could not find artifact a:b:jar:9 in central (there) -> [Help 1]":                                                 "no repository of this machine's Maven has a:b:jar:9: check group, artifact and version",
		"[ERROR] x: Could not transfer artifact a:b:pom:1 from/to central (there): transfer failed for x: Unknown host h: h -> [Help 1]\n": "repository central does not give a:b:pom:1",
		"[ERROR] Something else -> [Help 1]\n[ERROR] more":                                                                                 "[ERROR] Something else",
	} {
		if got := explain(said); !strings.HasPrefix(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
