package gateway

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"net/url"
	"strings"

	"dcos.example/dcos/runtime/fault"
)

//go:embed pages
var files embed.FS

// csrfCookie holds the secret that a form must repeat. The __Host- prefix
// keeps pages of other origins of this host from planting one.
const csrfCookie = "__Host-dcos-csrf"

// pages are the gateway's own HTML pages. They need no script; the answer to
// who is not logged in has one, which DC/OS's clients look for.
type pages struct {
	t   *template.Template
	csp string
	// script is what a page with the one script there is may do besides.
	script string
}

func newPages() (*pages, error) {
	const op = "read pages"
	style, err := files.ReadFile("pages/style.css")
	if err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	script, err := files.ReadFile("pages/401.js")
	if err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	hash := func(b []byte) string {
		sum := sha256.Sum256(b)
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	t, err := template.New("").Funcs(template.FuncMap{
		"style":  func() template.CSS { return template.CSS(style) }, //nolint:gosec // embedded
		"script": func() template.JS { return template.JS(script) },  //nolint:gosec // embedded
		"number": number, "size": size,
	}).ParseFS(files, "pages/*.html")
	if err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	return &pages{t: t, script: "; script-src " + hash(script), csp: "default-src 'none'; style-src " + hash(style) +
		"; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"}, nil
}

func (p *pages) write(w http.ResponseWriter, status int, name string, data any) {
	var b bytes.Buffer
	if err := p.t.ExecuteTemplate(&b, name, data); err != nil {
		http.Error(w, "the page cannot be made: "+err.Error(), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	csp := p.csp
	if name == "401.html" {
		csp += p.script
	}
	h.Set("Content-Security-Policy", csp)
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("X-Frame-Options", "DENY")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // the connection is gone: nobody to tell
}

type loginPage struct {
	Cluster, CSRF, Next, UID, Error string
}

// home shows what runs, or the login form to who is not known.
func (g *Gateway) home(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	uid, err := g.cfg.Auth.Authenticate(r)
	switch {
	case fault.Is(err, fault.Denied):
		g.showLogin(w, r, http.StatusOK, loginPage{Next: "/"})
	case err != nil:
		g.refuse(w, r, http.StatusServiceUnavailable, "The cluster's store cannot be reached, so nobody can be recognized right now.")
	default:
		g.pages.write(w, http.StatusOK, "home.html", g.overview(r, uid, g.csrf(w, r)))
	}
}

// login shows the form and takes it.
func (g *Gateway) login(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if r.Method != http.MethodPost {
		g.showLogin(w, r, http.StatusOK, loginPage{Next: localPath(r.URL.Query().Get("next"))})
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, 8<<10)
	page := loginPage{Next: localPath(r.PostFormValue("next")), UID: r.PostFormValue("uid")}
	if !g.formIsOurs(r) {
		page.Error = "The form was too old, or cookies are off. Please try again."
		g.showLogin(w, r, http.StatusForbidden, page)
		return
	}
	token, err := g.cfg.Auth.Login(r.Context(), page.UID, r.PostFormValue("password"), r.RemoteAddr)
	switch {
	case fault.Is(err, fault.Denied):
		page.Error = "User ID or password is wrong."
		g.showLogin(w, r, http.StatusUnauthorized, page)
	case fault.Is(err, fault.Exhausted):
		page.Error = "Too many failed logins. Please wait a few seconds."
		g.showLogin(w, r, http.StatusTooManyRequests, page)
	case err != nil:
		g.cfg.Log.Warn("log in", "err", err)
		page.Error = "The cluster's store cannot be reached. Please try again."
		g.showLogin(w, r, http.StatusServiceUnavailable, page)
	default:
		for _, c := range g.cfg.Auth.LoginCookies(page.UID, token, true) {
			http.SetCookie(w, c)
		}
		w.Header().Set("Location", page.Next)
		w.WriteHeader(http.StatusSeeOther)
	}
}

func (g *Gateway) logout(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if r.Method != http.MethodPost || !g.formIsOurs(r) {
		g.refuse(w, r, http.StatusForbidden, "Log out by the button on the first page.")
		return
	}
	for _, c := range g.cfg.Auth.LogoutCookies(true) {
		http.SetCookie(w, c)
	}
	w.Header().Set("Location", "/")
	w.WriteHeader(http.StatusSeeOther)
}

func (g *Gateway) showLogin(w http.ResponseWriter, r *http.Request, status int, page loginPage) {
	page.Cluster, page.CSRF = g.cfg.Cluster.Name, g.csrf(w, r)
	g.pages.write(w, status, "login.html", page)
}

// csrf returns the form secret of this browser and makes one if needed.
func (g *Gateway) csrf(w http.ResponseWriter, r *http.Request) string {
	if c, err := r.Cookie(csrfCookie); err == nil && len(c.Value) >= 26 {
		return c.Value
	}
	secret := rand.Text()
	http.SetCookie(w, &http.Cookie{Name: csrfCookie, Value: secret, Path: "/", HttpOnly: true, Secure: true, SameSite: http.SameSiteStrictMode})
	return secret
}

// formIsOurs reports whether a form was filled in on a page of this gateway:
// it repeats the secret that only this origin could read and set.
func (g *Gateway) formIsOurs(r *http.Request) bool {
	if g.cross.Check(r) != nil {
		return false
	}
	c, err := r.Cookie(csrfCookie)
	return err == nil && c.Value != "" && subtle.ConstantTimeCompare([]byte(c.Value), []byte(r.PostFormValue("csrf"))) == 1
}

// localPath returns text if it is a path of this host, else "/".
func localPath(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "" || u.Host != "" || !strings.HasPrefix(text, "/") || strings.HasPrefix(text, "//") || strings.ContainsAny(text, "\\\r\n\t") {
		return "/"
	}
	return text
}
