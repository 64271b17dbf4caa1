package bootstrap

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"slices"

	"filippo.io/age"
	"github.com/google/uuid"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"

	"dcos.example/dcos/providers"
	"dcos.example/dcos/providers/input"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/password"
	"dcos.example/dcos/runtime/pki"
)

// secrets is TypeSecrets. They live in the installer's state, sealed, and
// nowhere else until a Node carries them to its host.
type secrets struct{}

type secretsInputs struct {
	cluster, user, password string
	founders                []string // names of the masters when the secrets are made
}

func readSecrets(m resource.PropertyMap) (secretsInputs, *input.Reader) {
	r := input.Read(m)
	s := secretsInputs{cluster: r.Text("clusterName"), user: r.Text("adminUser"), password: r.OptionalText("adminPassword")}
	for _, v := range r.List("founders") { // absent in the state of an earlier installer
		v, known := input.Plain(v)
		switch {
		case !known:
		case !v.IsString() || v.StringValue() == "":
			r.Fail("founders", "%v is not the name of a master", v)
		default:
			s.founders = append(s.founders, v.StringValue())
		}
	}
	return s, r
}

func (secrets) check(req plugin.CheckRequest) plugin.CheckResponse {
	s, r := readSecrets(req.News)
	if p := req.News["adminPassword"]; p.HasValue() && !r.Unknown("adminPassword") && len(s.password) < 8 {
		r.Fail("adminPassword", "must have at least 8 characters")
	}
	return plugin.CheckResponse{Properties: req.News, Failures: r.Failures()}
}

// diff takes no notice of other founders than those that the cluster was made
// with. Only a cluster from before there were any is given some, once.
func (secrets) diff(req plugin.DiffRequest) plugin.DiffResponse {
	_, recorded := req.OldOutputs["founders"]
	if v, known := input.Plain(req.NewInputs["founders"]); known && (recorded || v.IsNull()) {
		req.IgnoreChanges = append(slices.Clone(req.IgnoreChanges), "founders")
	}
	d := providers.DiffInputs(req)
	if !req.OldOutputs["backupRecipient"].HasValue() && d.Changes != plugin.DiffSome {
		// A cluster from before there were backups is given a key for them.
		d.Changes = plugin.DiffSome
		d.ChangedKeys = append(d.ChangedKeys, "backupRecipient")
		d.DetailedDiff = map[string]plugin.PropertyDiff{"backupRecipient": {Kind: plugin.DiffAdd}}
	}
	return d
}

var secretKeys = []resource.PropertyKey{"clusterId", "caCert", "caKey", "joinToken", "sealKey", "adminPassword", "adminHash", "generatedPassword", "founders",
	"backupRecipient", "backupIdentity"}

func (secrets) create(_ context.Context, req plugin.CreateRequest) (res plugin.CreateResponse, err error) {
	if req.Preview {
		res.Properties = resource.PropertyMap{}
		for _, k := range secretKeys {
			res.Properties[k] = providers.Unknown()
		}
		return res, nil
	}
	const op = "make the cluster's secrets"
	s, _ := readSecrets(req.Properties)
	ca, err := pki.NewAuthority(s.cluster)
	if err != nil {
		return res, fault.New(op, fault.Internal, err)
	}
	key, err := ca.KeyPEM()
	if err != nil {
		return res, fault.New(op, fault.Internal, err)
	}
	id := uuid.NewString()
	out := resource.PropertyMap{
		"clusterId": resource.NewProperty(id),
		"caCert":    resource.NewProperty(string(ca.CertPEM())),
		"caKey":     secret(string(key)),
		"joinToken": secret(hex.EncodeToString(random(32))),
		"sealKey":   secret(base64.StdEncoding.EncodeToString(random(32))),
	}
	if len(s.founders) > 0 {
		out["founders"] = req.Properties["founders"]
	}
	if err := setBackupKey(out); err != nil {
		return res, err
	}
	return plugin.CreateResponse{ID: resource.ID(id), Properties: out}, setPassword(out, s.password)
}

// setBackupKey puts the key pair of backups into out. Masters get the public
// half only: who has a backup and a master of today cannot read it.
func setBackupKey(out resource.PropertyMap) error {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return fault.New("make the key of backups", fault.Internal, err)
	}
	out["backupRecipient"], out["backupIdentity"] = resource.NewProperty(id.Recipient().String()), secret(id.String())
	return nil
}

// setPassword puts the password, or a generated one, and its hash into out.
func setPassword(out resource.PropertyMap, given string) error {
	pw := given
	if pw == "" {
		pw = base64.RawURLEncoding.EncodeToString(random(15))
	}
	hash, err := password.Hash(pw)
	if err != nil {
		return fault.New("hash the administrator's password", fault.Internal, err)
	}
	out["adminPassword"], out["adminHash"] = secret(pw), secret(hash)
	out["generatedPassword"] = resource.NewProperty(given == "")
	return nil
}

// update changes the password and nothing else: whatever the other secrets
// protect would be lost with them, and who founded the cluster stays true.
func (secrets) update(_ context.Context, req plugin.UpdateRequest) (plugin.UpdateResponse, error) {
	s, _ := readSecrets(req.NewInputs)
	out := req.OldOutputs.Copy()
	if _, recorded := out["founders"]; !recorded && len(s.founders) > 0 {
		out["founders"] = req.NewInputs["founders"]
	}
	if !out["backupRecipient"].HasValue() {
		if req.Preview {
			out["backupRecipient"], out["backupIdentity"] = providers.Unknown(), providers.Unknown()
		} else if err := setBackupKey(out); err != nil {
			return plugin.UpdateResponse{}, err
		}
	}
	have, _ := input.Plain(out["adminPassword"])
	if s.password == "" || have.IsString() && have.StringValue() == s.password {
		return plugin.UpdateResponse{Properties: out}, nil
	}
	if req.Preview {
		for _, k := range []resource.PropertyKey{"adminPassword", "adminHash", "generatedPassword"} {
			out[k] = providers.Unknown()
		}
		return plugin.UpdateResponse{Properties: out}, nil
	}
	return plugin.UpdateResponse{Properties: out}, setPassword(out, s.password)
}

func secret(s string) resource.PropertyValue { return resource.MakeSecret(resource.NewProperty(s)) }

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return b
}
