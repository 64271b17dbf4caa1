package recovery_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"

	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/installer/recovery"
	"dcos.example/dcos/runtime/backup/archive"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/deposit"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/state/memory"
)

// machine is a host whose files are in memory and that writes down what it is
// told to do.
type machine struct {
	host.Host
	files map[string]string
	did   []string
}

func (m *machine) ReadFile(_ context.Context, path string) (host.File, error) {
	text, ok := m.files[path]
	if !ok {
		return host.File{}, fault.Newf("read "+path, fault.NotFound, "no such file")
	}
	return host.File{Data: []byte(text)}, nil
}

func (m *machine) WriteFile(_ context.Context, path string, f host.File) error {
	m.files[path] = string(f.Data)
	m.did = append(m.did, "write "+path)
	return nil
}

func (m *machine) StartUnit(_ context.Context, name string) error {
	m.did = append(m.did, "start "+name)
	return nil
}

func TestFromMaster(t *testing.T) {
	key := []byte(strings.Repeat("k", 32))
	d := deposit.New(memory.New(), key, "cluster-1")
	packed, err := recovery.Copy{Cluster: "prod", Installer: "0.1.0", Files: map[string][]byte{"state.json": []byte("{}")}}.Pack()
	if err != nil {
		t.Fatal(err)
	}
	head, err := d.Put(t.Context(), 0, deposit.Head{Serial: 7, Operation: "op"}, packed)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "sealed")
	ctx, cancel := context.WithCancel(t.Context())
	var following sync.WaitGroup
	following.Go(func() { d.Follow(ctx, file, func(err error) { t.Error(err) }) })
	var sealed []byte
	for end := time.Now().Add(time.Minute); len(sealed) == 0; time.Sleep(time.Millisecond) {
		if sealed, err = os.ReadFile(file); err != nil && time.Now().After(end) {
			t.Fatal(err)
		}
	}
	cancel()
	following.Wait()
	m := &machine{files: map[string]string{
		config.MasterFile: `{"cluster":{"id":"cluster-1","name":"prod"}}`, config.SealKeyFile: base64.StdEncoding.EncodeToString(key) + "\n", config.DepositFile: string(sealed),
	}}
	c, got, id, err := recovery.FromMaster(t.Context(), m)
	if err != nil || c.Cluster != "prod" || string(c.Files["state.json"]) != "{}" || id != "cluster-1" || got.Serial != 7 || got.SHA256 != head.SHA256 {
		t.Errorf("%+v %+v %s %v", c, got, id, err)
	}
	for missing, says := range map[string]string{config.MasterFile: "no master is installed", config.DepositFile: "no apply has finished"} {
		less := &machine{files: map[string]string{}}
		for k, v := range m.files {
			if k != missing {
				less.files[k] = v
			}
		}
		if _, _, _, err := recovery.FromMaster(t.Context(), less); !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), says) {
			t.Errorf("without %s: %v", missing, err)
		}
	}
	if _, err := recovery.Unpack([]byte(`{"format":9,"installer":"3.0.0"}`)); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "3.0.0") {
		t.Errorf("of a later program: %v", err)
	}
}

func TestForget(t *testing.T) {
	addr := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{198, 19, 70, n}) }
	agents := []archive.Agent{{ID: "same", Addr: addr(1)}, {ID: "other", Addr: addr(2)}, {ID: "wiped", Addr: addr(3)}, {ID: "unseen", Addr: addr(4)}, {ID: "unlisted", Addr: addr(5)}}
	got := recovery.Forget(agents, map[netip.Addr]recovery.Standing{
		addr(1): {Known: true, ID: "same"}, addr(2): {Known: true, ID: "new"}, addr(3): {Known: true}, addr(4): {},
	})
	if d := cmp.Diff([]string{"other", "wiped", "unlisted"}, got); d != "" {
		t.Error(d)
	}
}

func TestSecrets(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	b := &archive.Backup{Manifest: archive.Manifest{ClusterID: "cluster-1"}, Files: map[string][]byte{}}
	for path, text := range map[string]string{
		config.CACertFile: "CERT", config.CAKeyFile: "KEY", config.JoinTokenFile: "token\n", config.SealKeyFile: "seal\n",
		config.AdminHashFile: `{"uid":"admin","password_hash":"$argon2id$x"}` + "\n",
		config.MasterFile:    `{"backup":{"keep":7,"recipients":["` + id.Recipient().String() + `","` + other.Recipient().String() + `"]}}`,
	} {
		b.Files[archive.ConfigDir+path] = []byte(text)
	}
	plain := func(v resource.PropertyValue) string {
		for v.IsSecret() {
			v = v.SecretValue().Element
		}
		if !v.IsString() {
			return ""
		}
		return v.StringValue()
	}
	recorded := resource.PropertyMap{"adminPassword": resource.MakeSecret(resource.NewProperty("pw")), "caKey": resource.NewProperty("stale")}
	out, err := recovery.Secrets(b, recorded, id, "m1")
	if err != nil {
		t.Fatal(err)
	}
	for k, want := range map[resource.PropertyKey]string{"clusterId": "cluster-1", "caCert": "CERT", "caKey": "KEY", "joinToken": "token", "sealKey": "seal",
		"adminHash": "$argon2id$x", "adminPassword": "pw", "backupIdentity": id.String(), "backupRecipient": id.Recipient().String()} {
		if got := plain(out[k]); got != want {
			t.Errorf("%s is %q, want %q", k, got, want)
		}
	}
	if f := out["founders"].ArrayValue(); len(f) != 1 || f[0].StringValue() != "m1" {
		t.Errorf("founders %v", f)
	}
	if recorded["caKey"].StringValue() != "stale" {
		t.Error("what was recorded is changed")
	}
	// Somebody else's key opens the backup, and does not become the cluster's.
	out, err = recovery.Secrets(b, nil, other, "m1")
	if err != nil || out["backupIdentity"].HasValue() || plain(out["adminPassword"]) != "" {
		t.Errorf("%v, %v", out, err)
	}
	delete(b.Files, archive.ConfigDir+config.CAKeyFile)
	if _, err := recovery.Secrets(b, nil, id, "m1"); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), config.CAKeyFile) {
		t.Errorf("without a key: %v", err)
	}
}

// TestSeed: the first master, and no other, has the snapshot and then the order
// before its unit starts; once.
func TestSeed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "snapshot.db")
	if err := os.WriteFile(file, []byte("snapshot"), 0o600); err != nil {
		t.Fatal(err)
	}
	machines := map[string]*machine{"m1": {files: map[string]string{}}, "m2": {files: map[string]string{}}}
	seed := &recovery.Seed{Host: "m1", Snapshot: file, Order: archive.Order{Backup: "b", ClusterID: "c"}}
	open := seed.Open(func(_ context.Context, ref host.Ref) (host.Host, error) { return machines[ref.Name], nil })
	for _, name := range []string{"m1", "m2", "m1"} {
		h, err := open(t.Context(), host.Ref{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		if err := h.StartUnit(t.Context(), config.UnitMaster); err != nil {
			t.Fatal(err)
		}
	}
	snapshot, order := filepath.Join(config.RestoreDir, "snapshot.db"), filepath.Join(config.RestoreDir, "order.json")
	if d := cmp.Diff([]string{"write " + snapshot, "write " + order, "start " + config.UnitMaster, "start " + config.UnitMaster}, machines["m1"].did); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"start " + config.UnitMaster}, machines["m2"].did); d != "" {
		t.Error(d)
	}
	var o archive.Order
	if err := json.Unmarshal([]byte(machines["m1"].files[order]), &o); err != nil || o.Backup != "b" {
		t.Errorf("%+v, %v", o, err)
	}
}
