package console_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dcos.example/dcos/cmd/dcos/console"
	"dcos.example/dcos/runtime/fault"
)

func TestJSON(t *testing.T) {
	var out bytes.Buffer
	con := &console.Console{Env: console.Env{Stdout: &out}}
	if err := con.JSON(json.RawMessage(`{"cmd":"a \u003e b \u0026\u0026 c","path":"C:\\u003e"}`)); err != nil {
		t.Fatal(err)
	}
	want := "{\n  \"cmd\": \"a > b && c\",\n  \"path\": \"C:\\\\u003e\"\n}\n"
	if out.String() != want {
		t.Errorf("got %swant %s", out.String(), want)
	}
}

// Nobody can be asked without a terminal, and nothing is taken for a yes.
func TestConfirmWithoutTerminal(t *testing.T) {
	con := &console.Console{Env: console.Env{Stdin: strings.NewReader("yes\n"), Stdout: &bytes.Buffer{}, Stderr: &bytes.Buffer{}}}
	if err := con.Confirm("Go on?", "yes"); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "--yes") {
		t.Error(err)
	}
}

func TestJSONObject(t *testing.T) {
	file := filepath.Join(t.TempDir(), "o.json")
	for text, want := range map[string]string{
		`{"a":12345678901234567890}`: "",
		``:                           "it is empty",
		"{\n \"a\": 1,\n}":           "line 3, column 1: ",
		`[1]`:                        "line 1, column 1: it must be an object",
		`null`:                       "line 1, column 1: it must be an object",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := console.JSONObject(file)
		if want != "" {
			if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v", text, err)
			}
			continue
		}
		if n, ok := m["a"].(json.Number); err != nil || !ok || n != "12345678901234567890" {
			t.Errorf("%q: %v %v", text, m, err)
		}
	}
}

func TestSimilar(t *testing.T) {
	for word, want := range map[string]string{"kafak": ` Did you mean "kafka"?`, "Kafka": ` Did you mean "kafka"?`, "spark": "", "": ""} {
		if got := console.Similar(word, []string{"hdfs", "kafka"}); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
}
