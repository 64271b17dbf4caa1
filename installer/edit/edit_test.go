package edit_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"dcos.example/dcos/installer/edit"
	"dcos.example/dcos/runtime/fault"
)

func TestCount(t *testing.T) {
	for name, tc := range map[string]struct{ src, want string }{
		"a number": {"# agents\nnode_group \"agent\" {\n  count  = 2 # two\n  cpus   = 1\n}\n",
			"# agents\nnode_group \"agent\" {\n  count  = 3 # two\n  cpus   = 1\n}\n"},
		"a variable": {"variable \"agents\" {\n  type    = number\n  default = 2\n}\nnode_group \"agent\" { count = var.agents }\n",
			"variable \"agents\" {\n  type    = number\n  default = 3\n}\nnode_group \"agent\" { count = var.agents }\n"},
		"no group":        {"cluster \"c\" {}\n", "cluster \"c\" {}\n\nnode_group \"agent\" {\n  count = 3\n}\n"},
		"no count at all": {"node_group \"agent\" {\n}\n", "node_group \"agent\" {\n  count = 3\n}\n"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := edit.Count([]byte(tc.src), "agent", 3)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, string(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
	for name, src := range map[string]string{
		"computed":            "node_group \"agent\" { count = 1 + 1 }",
		"variable, no number": "variable \"n\" {}\nnode_group \"agent\" { count = var.n }",
		"not HCL":             "node_group {",
	} {
		if got, err := edit.Count([]byte(src), "agent", 3); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
}

const machines = `# Ours.
node_group "master" {
  # the old one
  host "m1" { address = "10.0.0.11" }

  host "m2" {
    address = "10.0.0.12" # rack 2
    port    = 2222
  }
}

node_group "agent" {
  hosts = {
    a1 = "10.0.0.21" # first
    a2 = "10.0.0.22"
  }
}

node_group "public_agent" {
  hosts = { p1 = "10.0.0.31", p2 = "10.0.0.32" }
}
`

func TestMachines(t *testing.T) {
	for name, tc := range map[string]struct {
		do       func([]byte) ([]byte, error)
		old, new string // the part of the file that changes
	}{
		"remove a block": {func(b []byte) ([]byte, error) { return edit.Remove(b, "m1") },
			"  # the old one\n  host \"m1\" { address = \"10.0.0.11\" }\n", ""},
		"remove a line of hosts": {func(b []byte) ([]byte, error) { return edit.Remove(b, "a1") },
			"    a1 = \"10.0.0.21\" # first\n", ""},
		"remove the last line of hosts": {func(b []byte) ([]byte, error) { return edit.Remove(b, "a2") },
			"    a2 = \"10.0.0.22\"\n", ""},
		"remove the first of a line": {func(b []byte) ([]byte, error) { return edit.Remove(b, "p1") },
			"p1 = \"10.0.0.31\", ", ""},
		"remove the last of a line": {func(b []byte) ([]byte, error) { return edit.Remove(b, "p2") },
			", p2 = \"10.0.0.32\"", ""},
		"move a block": {func(b []byte) ([]byte, error) { return edit.Address(b, "m2", "10.0.0.99") }, "10.0.0.12", "10.0.0.99"},
		"move a line":  {func(b []byte) ([]byte, error) { return edit.Address(b, "a2", "10.0.0.99") }, "10.0.0.22", "10.0.0.99"},
		"add beside hosts": {func(b []byte) ([]byte, error) { return edit.Add(b, "agent", "a3", "10.0.0.23") },
			"    a2 = \"10.0.0.22\"\n  }\n", "    a2 = \"10.0.0.22\"\n  }\n  host \"a3\" {\n    address = \"10.0.0.23\"\n  }\n"},
		"add beside blocks": {func(b []byte) ([]byte, error) { return edit.Add(b, "master", "m3", "10.0.0.13") },
			"    port    = 2222\n  }\n", "    port    = 2222\n  }\n  host \"m3\" {\n    address = \"10.0.0.13\"\n  }\n"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := tc.do([]byte(machines))
			if err != nil {
				t.Fatal(err)
			}
			want := replaceOnce(t, machines, tc.old, tc.new)
			if diff := cmp.Diff(want, string(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
	if _, err := edit.Remove([]byte(machines), "x9"); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	if _, err := edit.Address([]byte(machines), "x9", "1.2.3.4"); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	got, err := edit.Add([]byte("node_group \"agent\" {}\n"), "agent", "a1", "10.0.0.1")
	if err != nil || string(got) != "node_group \"agent\" {\n  host \"a1\" {\n    address = \"10.0.0.1\"\n  }\n}\n" {
		t.Errorf("%q, %v", got, err)
	}
}

func replaceOnce(t *testing.T, s, old, new string) string {
	t.Helper()
	for i := 0; i+len(old) <= len(s); i++ {
		if s[i:i+len(old)] == old {
			return s[:i] + new + s[i+len(old):]
		}
	}
	t.Fatalf("%q is not there", old)
	return ""
}
