package recipe_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dcos.example/dcos/universe/images/recipe"
)

func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "image.yaml")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestAllProblemsAtOnceWithTheirLines(t *testing.T) {
	file := write(t, `name: Kafka
version: 4.1.0 final
maven:
  - into: opt/kafka
    artifacts:
      - org.apache.kafka:kafka_2.13:4.1.0
      - org.apache.kafka
files:
  - {path: /a, text: x, source: y}
go:
  - {module: example.com/x, path: /x}
ports: [9092]
`)
	_, err := recipe.Read(file)
	if err == nil {
		t.Fatal("no problem")
	}
	for _, want := range []string{
		`:1: name "Kafka"`, `:2: version "4.1.0 final"`, `:1: from is missing`, `:4: "opt/kafka"`, `:7: "org.apache.kafka"`,
		`:9: /a: want either text or source`, `:11: "example.com/x": want module@vVERSION`, `:12: "9092": want NUMBER/tcp`,
	} {
		if !strings.Contains(err.Error(), file+want) {
			t.Errorf("no %s in\n%v", want, err)
		}
	}
}

func TestUnknownKeysAreErrors(t *testing.T) {
	file := write(t, "name: kafka\nfrom: jre\nversoin: 1\ndebain: {}\n")
	_, err := recipe.Read(file)
	for _, want := range []string{file + ":3: field versoin", file + ":4: field debain"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %s in %v", want, err)
		}
	}
}

// The bases and the packages of this repository are recipes.
func TestOurs(t *testing.T) {
	for _, pattern := range []string{"../bases/*.yaml", "../../packages/*/image.yaml", "../../packages/*/*/image.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if _, err := recipe.Read(file); err != nil {
				t.Error(err)
			}
		}
	}
}
