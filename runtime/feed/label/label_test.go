package label_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"dcos.example/dcos/runtime/feed/label"
)

func TestLabel(t *testing.T) {
	long := strings.Repeat("abcdefgh.", 10)
	for in, want := range map[string]string{"Web_App.group": "web-app-group", "-a-": "a", "ü": "", "a b": "ab"} {
		if got := label.Of(in); got != want {
			t.Errorf("Label(%q) = %q, want %q", in, got, want)
		}
	}
	if label.Of(long+"x") == label.Of(long+"y") {
		t.Error("two long names share a label")
	}
	rapid.Check(t, func(t *rapid.T) {
		l := label.Of(rapid.String().Draw(t, "name"))
		bad := strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-")
		if len(l) > 63 || bad != "" || strings.HasPrefix(l, "-") || strings.HasSuffix(l, "-") {
			t.Fatalf("label %q", l)
		}
	})
}

func TestDomain(t *testing.T) {
	for in, want := range map[string]string{"/group/web": "groupweb", "kafka.prod": "kafka.prod", "..a..": "a", "/": ""} {
		if got := label.Domain(in); got != want {
			t.Errorf("Domain(%q) = %q, want %q", in, got, want)
		}
	}
}
