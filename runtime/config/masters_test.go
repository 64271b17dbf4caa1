package config_test

import (
	"strings"
	"testing"

	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
)

func TestMasters(t *testing.T) {
	m, err := config.Load(write(t, `{"masters":[{"name":"m2","addr":"198.18.0.12"}],"founders":["m1"]}`), config.Masters{})
	if err != nil || len(m.Masters) != 1 || m.Masters[0].Name != "m2" || m.Founders[0] != "m1" {
		t.Errorf("a founder that has left: %+v %v", m, err)
	}
	for text, want := range map[string]string{
		`{}`: "masters: missing",
		`{"masters":[{"name":"m1","addr":"198.18.0.11"}]}`:                                                               "founders: missing",
		`{"masters":[{"name":"m1","addr":"fd00::1"}],"founders":["m1"]}`:                                                 "IPv4",
		`{"masters":[{"name":"m1","addr":"198.18.0.11"},{"name":"m2","addr":"198.18.0.11"}],"founders":["m1"]}`:          "another",
		`{"masters":[{"name":"m1","addr":"198.18.0.11"},{"name":"m1","addr":"198.18.0.12"}],"founders":["m1"],"x":true}`: "unknown field",
	} {
		if _, err := config.Load(write(t, text), config.Masters{}); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
