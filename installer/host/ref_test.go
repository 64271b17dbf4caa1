package host_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"

	"dcos.example/dcos/installer/host"
)

func TestReferencesAreData(t *testing.T) {
	login := host.Login{Address: "192.0.2.1", Port: 2222, User: "ops", KeyFile: "~/.ssh/id", KnownHosts: "/k", HostKey: "ssh-ed25519 AAAA", TrustOnFirstUse: true}
	bastion := host.Login{Address: "bastion", Port: 22, User: "jump", UseAgent: true, Password: "pw"}
	for _, ref := range []host.Ref{
		{Kind: host.KindLocal, Name: "a", Dir: "/d"},
		{Kind: host.KindSSH, Name: "b", SSH: host.SSH{Login: login, Sudo: host.SudoPassword, SudoPassword: "s", Bastion: &bastion, Timeout: 3 * time.Second}},
		{Kind: host.KindSSH, Name: "c", SSH: host.SSH{Login: host.Login{Address: "::1", Port: 22, User: "root", Password: "p"}, Sudo: host.SudoNone}},
		{Kind: host.KindEmulated, Name: "d"},
	} {
		p := ref.Property().ObjectValue()
		for _, key := range []resource.PropertyKey{"password", "sudoPassword"} {
			if v := p[key]; v.HasValue() && !v.IsSecret() {
				t.Errorf("%s is not secret", key)
			}
		}
		got, err := host.ReadRef(ref.Name, p)
		if err != nil {
			t.Error(err)
		}
		if d := cmp.Diff(ref, got); d != "" {
			t.Error(d)
		}
	}
	_, err := host.ReadRef("x", resource.PropertyMap{"kind": resource.NewProperty("ssh"), "port": resource.NewProperty(70000.0), "sudo": resource.NewProperty("password"), "timeout": resource.NewProperty("soon"), "colour": resource.NewProperty("red")})
	for _, want := range []string{"connection to host x", "address is missing", "port must be between", "sudoPassword is missing", `"soon" is not a duration`, "colour is not a property"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
}

func TestKinds(t *testing.T) {
	if _, err := (host.Kinds{}).Open(t.Context(), host.Ref{Kind: host.KindSSH, Name: "m1"}); err == nil || !strings.Contains(err.Error(), `reach host m1: no way to reach hosts of kind "ssh"`) {
		t.Error(err)
	}
}
