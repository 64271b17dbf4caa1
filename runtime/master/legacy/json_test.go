package legacy_test

import (
	"encoding/json"
	"math"
	"testing"

	"dcos.example/dcos/runtime/master/legacy"
)

// A task without a limit of its CPUs must not take /state from everybody.
func TestNoLimit(t *testing.T) {
	b, err := json.Marshal(map[string]legacy.Limit{"cpus": legacy.Limit(math.Inf(1)), "mem": 32.5})
	if want := `{"cpus":"Infinity","mem":32.5}`; err != nil || string(b) != want {
		t.Errorf("%s, %v; want %s", b, err, want)
	}
}
