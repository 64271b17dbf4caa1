package recovery_test

import (
	"strings"
	"testing"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"

	"dcos.example/dcos/installer/recovery"
)

func TestRedact(t *testing.T) {
	secret := func(s string) resource.PropertyValue { return resource.MakeSecret(resource.NewProperty(s)) }
	known := recovery.SecretsIn(resource.PropertyMap{
		"joinToken": secret("0123456789abcdef"), "open": resource.NewProperty("visible"), "short": secret("abc"),
		"files": resource.NewProperty(resource.PropertyMap{"ca.key": resource.NewProperty(resource.PropertyMap{"content": secret("-----BEGIN EC KEY-----\nMHcCAQEEIFoo\nBar+Baz9876=\n-----END EC KEY-----\n")})}),
	})
	r := recovery.NewRedactor(known)
	in := strings.Join([]string{
		"join with 0123456789abcdef now", "a line of the key: MHcCAQEEIFoo", "visible stays, abc too",
		"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----", "AGE-SECRET-KEY-1QQPQQQQ",
		"Authorization: token=eyJhbGciOi.eyJ1aWQiOi.c2lnbmF0dXJl", `{"password_hash":"$argon2id$v=19$m=1$c2FsdA$aGFzaA"}`,
		`"admin_password": "with \" quote inside"`, "secret_key=wJalrXUtnFEMI&x=1", "MYSQL_ROOT_PASSWORD=hunter22 next",
	}, "\n")
	got := string(r.Redact([]byte(in)))
	for _, hidden := range []string{"0123456789abcdef", "MHcCAQEEIFoo", "c2VjcmV0", "1QQPQQQQ", "c2lnbmF0dXJl", "c2FsdA", "quote inside", "wJalrX", "hunter22"} {
		if strings.Contains(got, hidden) {
			t.Errorf("%q is still there:\n%s", hidden, got)
		}
	}
	for _, kept := range []string{"visible stays, abc too", "x=1", "next", "join with [secret] now"} {
		if !strings.Contains(got, kept) {
			t.Errorf("%q was lost:\n%s", kept, got)
		}
	}
}
