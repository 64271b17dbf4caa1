//go:build e2e

package gateway_test

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"strings"
	"testing"

	"dcos.example/dcos/ci/conformance/target"
)

var c target.Cluster

func TestMain(m *testing.M) { os.Exit(target.Main(m, &c, "confgateway", "198.19.191.0/24")) }

const asJSON = "application/json"

// Nobody passes without a token, by whatever path; the 401 is the one that
// DC/OS's CLI and UI look for.
func TestUnauthenticated(t *testing.T) {
	for _, path := range []string{"/metadata", "/pkgpanda/active.buildinfo.full.json", "/mesos/", "/mesos/state", "/mesos/api/v1", "/marathon/v2/apps",
		"/service/marathon/v2/apps", "/service/any/", "/agent/x/state", "/slave/x/state", "/mesos_dns/v1/version", "/net/v1/nodes", "/net/v1/vips",
		"/acs/api/v1/users", "/nothing", "//mesos/state", "/mesos//state"} {
		for _, method := range []string{"GET", "POST", "HEAD"} {
			a := c.Anonymous(t, method, path, "")
			if a.Code != 401 || a.Header.Get("WWW-Authenticate") != "oauthjwt" {
				t.Errorf("%s %s as nobody: %d %v", method, path, a.Code, a.Header)
			}
		}
	}
	c.Anonymous(t, "GET", "/mesos/state", "").Is(t, 401, "<html", "window.location", "/login")
	c.Anonymous(t, "GET", "/mesos/state", "", "Accept", asJSON).Is(t, 401, `{"message":`)
	for _, path := range []string{"/mesos/../metadata", "/ca/../mesos/state", "/%6desos/state", "/ca/%2e%2e/mesos/state"} {
		if a := c.Anonymous(t, "GET", path, ""); a.Code != 400 && a.Code != 401 {
			t.Errorf("%s as nobody: %d", path, a.Code)
		}
	}
	claims := base64.RawURLEncoding.EncodeToString([]byte(`{"uid":"admin"}`))
	for _, header := range []string{"token=x", "Bearer ", "token=" + c.Token + "x",
		"token=" + base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + claims + ".",
		"token=" + base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + claims + ".AAAA"} {
		c.Anonymous(t, "GET", "/metadata", "", "Authorization", header).Is(t, 401)
	}
	c.Anonymous(t, "GET", "/metadata", "", "Authorization", "Bearer "+c.Token).Is(t, 200)
	c.Anonymous(t, "GET", "/metadata", "", "Cookie", "dcos-acs-auth-cookie="+c.Token).Is(t, 200)
}

// Redirects name no host, so that a forged one leads nowhere.
func TestRedirects(t *testing.T) {
	for path, want := range map[string]string{
		"/mesos": "301 /mesos/", "/marathon": "307 /marathon/", "/service/marathon": "301 /service/marathon/", "/service/test-service": "301 /service/test-service/",
		"/mesos_dns": "301 /mesos_dns/", "/net": "301 /net/", "/mesos/master/redirect": "307 /mesos/",
	} {
		a := c.Ask(t, "GET", path, "", "Host", "bad.host")
		if got := fmt.Sprint(a.Code, " ", a.Header.Get("Location")); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	host := strings.TrimPrefix(c.URL, "https://")
	plain := c
	plain.URL = "http://" + host
	a := plain.Anonymous(t, "GET", "/mesos/state?a=b", "")
	if a.Code != 308 || a.Header.Get("Location") != c.URL+"/mesos/state?a=b" {
		t.Errorf("port 80: %d %v", a.Code, a.Header)
	}
	if a := plain.Anonymous(t, "GET", "/", "", "Host", "bad host"); strings.Contains(a.Header.Get("Location"), "bad") {
		t.Errorf("port 80 with a bad host: %v", a.Header)
	}
	plain.Anonymous(t, "GET", "/ca/dcos-ca.crt", "").Is(t, 200, "BEGIN CERTIFICATE")
}

func TestMetadata(t *testing.T) {
	c.Anonymous(t, "HEAD", "/", "").Is(t, 200)
	page := c.Anonymous(t, "GET", "/", "").Is(t, 200, "<form", `action="/login"`)
	if csp := page.Header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'; ") || strings.Contains(csp, "unsafe") || strings.Contains(csp, "script-src") {
		t.Errorf("CSP %q", csp)
	}
	page.Has(t, "X-Frame-Options", "DENY").Has(t, "X-Content-Type-Options", "nosniff")
	block, _ := pem.Decode([]byte(c.Anonymous(t, "GET", "/ca/dcos-ca.crt", "").Is(t, 200).Body))
	if block == nil {
		t.Fatal("no certificate")
	}
	if cert, err := x509.ParseCertificate(block.Bytes); err != nil || !cert.IsCA {
		t.Errorf("%v %+v", err, cert)
	}
	var meta struct {
		ID string `json:"CLUSTER_ID"`
	}
	c.Ask(t, "GET", "/metadata", "").Is(t, 200).Keys(t, "CLUSTER_ID", "PUBLIC_IPV4").JSON(t, &meta)
	c.Anonymous(t, "GET", "/dcos-metadata/dcos-version.json", "").Is(t, 200).Keys(t, "version", "dcos-variant", "dcos-image-commit", "bootstrap-id")
	var ui struct {
		ClusterConfiguration struct {
			ID        string
			FirstUser bool
		}
	}
	c.Anonymous(t, "GET", "/dcos-metadata/ui-config.json", "").Is(t, 200, `"uiConfiguration":{"plugins":{`).JSON(t, &ui)
	if ui.ClusterConfiguration.ID != meta.ID || meta.ID == "" {
		t.Errorf("ids %+v %+v", ui, meta)
	}
	var packages map[string]struct{ Name, Version string }
	c.Ask(t, "GET", "/pkgpanda/active.buildinfo.full.json", "").Is(t, 200).JSON(t, &packages)
	if len(packages) <= 5 || packages["mesos"].Version == "" || packages["marathon"].Version == "" || packages["containerd"].Version == "" {
		t.Errorf("components %+v", packages)
	}
}

func TestUsers(t *testing.T) {
	const base = "/acs/api/v1"
	login := func(uid, password string) target.Answer {
		b, _ := json.Marshal(map[string]string{"uid": uid, "password": password})
		return c.Anonymous(t, "POST", base+"/auth/login", string(b), "Content-Type", asJSON)
	}
	c.Anonymous(t, "GET", base+"/auth/providers", "").Is(t, 200, `"dcos-users"`, `"authentication-type":"dcos-uid-password"`, `"client-method":"dcos-usercredential-post-receive-authtoken"`, `"start_flow_url":"/acs/api/v1/auth/login"`)
	c.Anonymous(t, "GET", base+"/auth/jwks", "").Is(t, 200, `"kty":"RSA"`, `"alg":"RS256"`)
	login(c.User, "wrong").Is(t, 401, `"code":"ERR_INVALID_CREDENTIALS"`, `"title"`, `"description"`)
	c.Anonymous(t, "POST", base+"/auth/login", "", "Content-Type", asJSON).Is(t, 400)
	in := login(c.User, c.Password).Is(t, 200, `"token":`)
	if cookies := strings.Join(in.Header.Values("Set-Cookie"), "\n"); !strings.Contains(cookies, "dcos-acs-auth-cookie=") || !strings.Contains(cookies, "dcos-acs-info-cookie=") || !strings.Contains(cookies, "HttpOnly") {
		t.Errorf("cookies %s", cookies)
	}
	header, claims, ok := strings.Cut(c.Token, ".")
	if claims, _, _ = strings.Cut(claims, "."); !ok {
		t.Fatalf("token %q", c.Token)
	}
	var head struct{ Alg, Typ string }
	var body struct {
		UID string
		Exp float64
	}
	for part, to := range map[string]any{header: &head, claims: &body} {
		if raw, err := base64.RawURLEncoding.DecodeString(part); err != nil || json.Unmarshal(raw, to) != nil {
			t.Fatalf("token: %v", err)
		}
	}
	if head.Alg != "RS256" || head.Typ != "JWT" || body.UID != c.User || body.Exp == 0 {
		t.Errorf("token %+v %+v", head, body)
	}

	const user = base + "/users/conformance@example.com"
	c.Ask(t, "DELETE", user, "")
	t.Cleanup(func() { c.Ask(t, "DELETE", user, "") })
	c.Ask(t, "GET", user, "").Is(t, 400, "ERR_UNKNOWN_USER_ID")
	c.Ask(t, "PUT", user, "").Is(t, 400)
	c.Ask(t, "PUT", user, `{"password":"x"}`, "Content-Type", asJSON).Is(t, 400, "ERR_INVALID_DATA")
	c.Ask(t, "PUT", user, `{"password":"secret-1","description":"d"}`, "Content-Type", asJSON).Is(t, 201)
	c.Ask(t, "PUT", user, `{"password":"secret-1"}`, "Content-Type", asJSON).Is(t, 409, "ERR_USER_EXISTS")
	c.Ask(t, "GET", user, "").Is(t, 200).Keys(t, "uid", "url", "description", "is_remote", "is_service", "provider_type", "provider_id")
	c.Ask(t, "GET", base+"/users", "").Is(t, 200, `{"array":[`, "conformance@example.com")
	var mine struct{ Token string }
	login("conformance@example.com", "secret-1").Is(t, 200).JSON(t, &mine)
	asUser := func() int { return c.Anonymous(t, "GET", "/metadata", "", "Authorization", "token="+mine.Token).Code }
	if got := asUser(); got != 200 {
		t.Errorf("as the new user: %d", got)
	}
	c.Ask(t, "PATCH", user, `{"description":"e"}`, "Content-Type", asJSON).Is(t, 204)
	c.Ask(t, "DELETE", user, "").Is(t, 204)
	target.Eventually(t, "the session of a deleted user ends", func() error {
		if got := asUser(); got != 401 {
			return fmt.Errorf("%d", got)
		}
		return nil
	})
	if out := c.Ask(t, "GET", base+"/auth/logout", ""); !strings.Contains(strings.Join(out.Header.Values("Set-Cookie"), "\n"), "dcos-acs-auth-cookie=") {
		t.Errorf("logout: %d %v", out.Code, out.Header)
	}
}

// An app with a web page is found by its labels, under its own path, and sees
// no credentials of the caller; its names and its VIP lead to it.
func TestServices(t *testing.T) {
	const path = "/service/marathon/v2/apps/conf-gateway"
	remove := func() {
		if c.Ask(t, "DELETE", path+"?force=true", "").Code == 200 {
			target.Eventually(t, "the app is gone", func() error {
				if a := c.Ask(t, "GET", "/net/v1/vips", ""); strings.Contains(a.Body, "conf-vip") {
					return fmt.Errorf("%s", a.Body)
				}
				return nil
			})
		}
	}
	remove()
	t.Cleanup(remove)
	c.Ask(t, "GET", "/service/conf/web/", "").Is(t, 404, "Service not found")
	app := `{"id":"/conf-gateway","cpus":0.1,"mem":64,"container":{"type":"MESOS","docker":{"image":"dcos/hello:0.1"},
		"portMappings":[{"containerPort":8080,"hostPort":0,"name":"http","labels":{"VIP_0":"/conf-vip:80"}}]},"networks":[{"mode":"container/bridge"}],
		"labels":{"DCOS_SERVICE_NAME":"conf/web","DCOS_SERVICE_SCHEME":"http","DCOS_SERVICE_PORT_INDEX":"0"},
		"healthChecks":[{"protocol":"MESOS_HTTP","path":"/health","intervalSeconds":1,"delaySeconds":0,"timeoutSeconds":1}]}`
	c.Ask(t, "POST", "/service/marathon/v2/apps", app, "Content-Type", asJSON).Is(t, 201)
	target.Eventually(t, "the app answers behind the gateway", func() error {
		if a := c.Ask(t, "GET", "/service/conf/web/", ""); a.Code != 200 {
			return fmt.Errorf("%d %s", a.Code, a.Body)
		}
		return nil
	})
	c.Anonymous(t, "GET", "/service/conf/web/", "").Is(t, 401)
	target.Eventually(t, "the VIP has a backend", func() error {
		var vips []struct {
			VIP, Protocol string
			Backend       []struct {
				IP   string
				Port int
			}
		}
		c.Ask(t, "GET", "/net/v1/vips", "").Is(t, 200).JSON(t, &vips)
		for _, v := range vips {
			if v.VIP == "conf-vip.marathon.l4lb.thisdcos.directory:80" && v.Protocol == "tcp" && len(v.Backend) == 1 && v.Backend[0].Port > 0 {
				return nil
			}
		}
		return fmt.Errorf("%+v", vips)
	})
	target.Eventually(t, "the app has names", func() error {
		a := c.Ask(t, "GET", "/mesos_dns/v1/services/_conf-gateway._tcp.marathon.mesos", "")
		if !strings.Contains(a.Body, `"port":"`) || strings.Contains(a.Body, `"port":""`) {
			return fmt.Errorf("%s", a.Body)
		}
		return nil
	})
	c.Ask(t, "GET", "/mesos_dns/v1/hosts/conf-gateway.marathon.mesos", "").Is(t, 200, `"host":"conf-gateway.marathon.mesos."`, `"ip":"`)
}

func TestNames(t *testing.T) {
	c.Ask(t, "GET", "/mesos_dns/v1/version", "").Is(t, 200, `"Service":"Mesos-DNS"`).Keys(t, "Service", "Version", "URL")
	for _, name := range []string{"leader.mesos", "master.mesos", "slave.mesos"} {
		c.Ask(t, "GET", "/mesos_dns/v1/hosts/"+name, "").Is(t, 200, `[{"host":"`+name+`.","ip":"`)
	}
	c.Ask(t, "GET", "/mesos_dns/v1/hosts/none.marathon.mesos", "").Is(t, 200, `[{"host":"","ip":""}]`)
	c.Ask(t, "GET", "/mesos_dns/v1/services/_none._tcp.marathon.mesos", "").Is(t, 200, `[{"service":"","host":"","ip":"","port":""}]`)
	c.Ask(t, "GET", "/mesos_dns/v1/enumerate", "").Is(t, 200, `"frameworks"`)
	var nodes []map[string]any
	c.Ask(t, "GET", "/net/v1/nodes", "").Is(t, 200).JSON(t, &nodes)
	for _, k := range []string{"private_ip", "public_ips", "hostname", "updated"} {
		if _, ok := nodes[0][k]; !ok {
			t.Errorf("node without %s: %v", k, nodes[0])
		}
	}
}

// A page of another site cannot use the session of its reader.
func TestOtherOrigins(t *testing.T) {
	cookie := []string{"Cookie", "dcos-acs-auth-cookie=" + c.Token, "Content-Type", asJSON}
	for _, header := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Origin", "https://evil.example"}} {
		c.Anonymous(t, "POST", "/service/marathon/v2/apps", `{}`, append(cookie, header...)...).Is(t, 403)
	}
	c.Anonymous(t, "POST", "/service/marathon/v2/apps", `{}`, append(cookie, "Sec-Fetch-Site", "same-origin")...).Is(t, 400, "Invalid JSON") // it got through
}
