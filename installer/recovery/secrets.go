package recovery

import (
	"encoding/json"
	"strings"

	"filippo.io/age"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"

	"dcos.example/dcos/runtime/backup/archive"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
)

// Secrets returns the outputs of the cluster's secrets as a backup has them:
// those that masters have from their files, the rest (the password in clear,
// the key of backups) from recorded, which may be nil. With other ones nobody
// who knew the cluster would know it again.
//
// The only founder is first: it alone begins from the backup, and the others
// join it.
func Secrets(b *archive.Backup, recorded resource.PropertyMap, identity age.Identity, first string) (resource.PropertyMap, error) {
	const op = "read the secrets of the cluster from the backup"
	out := recorded.Copy()
	if out == nil {
		out = resource.PropertyMap{}
	}
	var missing []string
	take := func(path string) string {
		text := string(b.Config(path))
		if strings.TrimSpace(text) == "" {
			missing = append(missing, path)
		}
		return text
	}
	secret := func(s string) resource.PropertyValue { return resource.MakeSecret(resource.NewProperty(s)) }
	out["clusterId"] = resource.NewProperty(b.Manifest.ClusterID)
	out["caCert"] = resource.NewProperty(take(config.CACertFile))
	out["caKey"] = secret(take(config.CAKeyFile))
	out["joinToken"] = secret(strings.TrimSpace(take(config.JoinTokenFile)))
	out["sealKey"] = secret(strings.TrimSpace(take(config.SealKeyFile)))
	var admin struct {
		Hash string `json:"password_hash"`
	}
	if err := json.Unmarshal([]byte(take(config.AdminHashFile)), &admin); err != nil || len(missing) > 0 {
		return nil, fault.Newf(op, fault.Invalid, "it has no %s", strings.Join(missing, ", "))
	}
	out["adminHash"] = secret(admin.Hash)
	if !out["adminPassword"].HasValue() {
		// Users are in the store and sign in with what they know; the installer
		// has to be told (admin_password).
		out["adminPassword"], out["generatedPassword"] = secret(""), resource.NewProperty(false)
	}
	if id, ok := identity.(*age.X25519Identity); ok && !out["backupIdentity"].HasValue() && contains(b, id) {
		out["backupRecipient"], out["backupIdentity"] = resource.NewProperty(id.Recipient().String()), secret(id.String())
	}
	out["founders"] = resource.NewProperty([]resource.PropertyValue{resource.NewProperty(first)})
	return out, nil
}

// contains reports whether id is the cluster's own key, not one that somebody
// had added.
func contains(b *archive.Backup, id *age.X25519Identity) bool {
	var m struct {
		Backup config.Backup `json:"backup"`
	}
	return json.Unmarshal(b.Config(config.MasterFile), &m) == nil && len(m.Backup.Recipients) > 0 && m.Backup.Recipients[0] == id.Recipient().String()
}
