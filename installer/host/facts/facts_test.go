package facts_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"dcos.example/dcos/installer/host/facts"
)

const tools = "tool restorecon\ntool chcon\ntool journalctl\ntool systemctl\ntool sha256sum\ntool stat\ntool base64\n"

func TestParse(t *testing.T) {
	for name, c := range map[string]struct {
		text    string
		want    facts.Facts
		relabel string
	}{
		"debian": {
			"uid 0\ninit systemd\nsystemd yes\nos PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nos NAME=\"Debian GNU/Linux\"\nos VERSION_ID=\"12\"\nos ID=debian\nos HOME_URL=\"https://www.debian.org/\"\njournal /var/log/journal\n" + strings.Replace(tools, "tool restorecon\n", "", 1),
			facts.Facts{Root: true, Init: "systemd", Systemd: true, Family: facts.Debian, ID: "debian", Version: "12", Name: "Debian GNU/Linux 12 (bookworm)", SELinux: facts.SELinuxOff, Journal: true}, ""},
		"ubuntu": {
			"uid 1000\ninit systemd\nsystemd yes\nos PRETTY_NAME=\"Ubuntu 24.04.1 LTS\"\nos VERSION_ID=\"24.04\"\nos ID=ubuntu\nos ID_LIKE=debian\nfirewall ufw\njournal /run/log/journal\n",
			facts.Facts{Init: "systemd", Systemd: true, Family: facts.Debian, ID: "ubuntu", Version: "24.04", Name: "Ubuntu 24.04.1 LTS", SELinux: facts.SELinuxOff, Firewall: []string{"ufw"}, Journal: true}, ""},
		"rocky": {
			"uid 0\ninit systemd\nsystemd yes\nos NAME=\"Rocky Linux\"\nos ID=\"rocky\"\nos ID_LIKE=\"rhel centos fedora\"\nos VERSION_ID=\"9.4\"\nos PRETTY_NAME=\"Rocky Linux 9.4 (Blue Onyx)\"\nselinux 1\nfirewall firewalld\n" + tools,
			facts.Facts{Root: true, Init: "systemd", Systemd: true, Family: facts.RHEL, ID: "rocky", Version: "9.4", Name: "Rocky Linux 9.4 (Blue Onyx)", SELinux: facts.SELinuxEnforcing, Firewall: []string{"firewalld"}}, "restorecon -RF"},
		"sles": {
			"uid 0\ninit systemd\nsystemd yes\nos ID=\"sles\"\nos ID_LIKE=\"suse\"\nos VERSION_ID=\"15.6\"\nos PRETTY_NAME=\"SUSE Linux Enterprise Server 15 SP6\"\n",
			facts.Facts{Root: true, Init: "systemd", Systemd: true, Family: facts.SUSE, ID: "sles", Version: "15.6", Name: "SUSE Linux Enterprise Server 15 SP6", SELinux: facts.SELinuxOff}, ""},
		"flatcar": {
			"uid 0\ninit systemd\nsystemd yes\nos ID=flatcar\nos ID_LIKE=coreos\nos VERSION_ID=3975.2.0\nos PRETTY_NAME=\"Flatcar Container Linux by Kinvolk 3975.2.0 (Oklo)\"\nselinux 0\nreadonly /opt\ntool chcon\n",
			facts.Facts{Root: true, Init: "systemd", Systemd: true, Family: facts.Flatcar, ID: "flatcar", Version: "3975.2.0", Name: "Flatcar Container Linux by Kinvolk 3975.2.0 (Oklo)", SELinux: facts.SELinuxPermissive, ReadOnly: []string{"/opt"}}, "chcon -R -t bin_t"},
		"a derivative, and a line cut off": {
			"uid 0\ninit init\nos ID=mint\nos ID_LIKE=\"ubuntu debian\"\nos PRETTY_NAME='Mint \\\"x\\\"'\nos BROKEN",
			facts.Facts{Root: true, Init: "init", Family: facts.Debian, ID: "mint", Name: `Mint "x"`, SELinux: facts.SELinuxOff}, ""},
		"nothing": {"", facts.Facts{Family: facts.Other, SELinux: facts.SELinuxOff}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := facts.Parse(c.text)
			if d := cmp.Diff(c.want, got, cmpopts.IgnoreUnexported(facts.Facts{})); d != "" {
				t.Error(d)
			}
			if got.RelabelPrograms() != c.relabel {
				t.Errorf("relabel with %q, want %q", got.RelabelPrograms(), c.relabel)
			}
		})
	}
}

// The script runs in a plain shell and says what the parser wants.
func TestScriptRunsHere(t *testing.T) {
	out, err := exec.Command("/bin/sh", "-euc", facts.Script+"exit 0").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	f := facts.Parse(string(out))
	if f.ID == "" || f.Init == "" || !f.Has("sha256sum") || !f.Has("stat") {
		t.Errorf("%+v from\n%s", f, out)
	}
}
