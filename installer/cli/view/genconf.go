package view

import (
	"fmt"
	"strings"
	"time"
)

// Genconf is a directory from which hosts install themselves.
type Genconf struct {
	Cluster string        `json:"cluster"`
	Dir     string        `json:"dir"`
	Release string        `json:"release"`
	Hosts   []GenconfHost `json:"hosts"`
}

// GenconfHost is a host that has a package.
type GenconfHost struct {
	Name    string `json:"name"`
	Role    string `json:"role"` // as dcos_install.sh takes it
	Address string `json:"address"`
}

func (Genconf) Kind() string { return "genconf" }

func (d Genconf) WriteText(p *Printer) {
	rows := [][]string{{"HOST", "ADDRESS", "ROLE"}}
	for _, h := range d.Hosts {
		rows = append(rows, []string{h.Name, h.Address, h.Role})
	}
	p.table("", rows)
	p.Printf("\nWrote %s: dcos_install.sh, this program, release %s, and packages for these hosts and for agents that the file does not name.\n", d.Dir, d.Release)
	p.Printf("%s the packages hold the cluster's secrets. Let nobody else read the directory, and remove it when the hosts are installed.\n\n", p.paint(yellow, "Keep it to yourself:"))
	p.Printf("  dcos-install genconf serve    hands everything out; then run on each host what it shows\n")
	p.Printf("  bash dcos_install.sh ROLE     installs a host that has a copy of the directory, with its own package only\n")
	p.Printf("\nThe administrator's password, if it was generated: dcos-install output -raw -reveal admin_password\n")
}

// GenconfServe is a bootstrap server that has begun to serve.
type GenconfServe struct {
	Cluster string    `json:"cluster"`
	URL     string    `json:"url"`
	Pin     string    `json:"pin"` // SHA-256 of the public key, base64
	Until   time.Time `json:"until"`
	// TokensFile holds a line "ROLE TOKEN" for each role. Tokens are shown to
	// people only.
	TokensFile string         `json:"tokensFile"`
	Tokens     []GenconfToken `json:"-"`
}

// GenconfToken is a role's token.
type GenconfToken struct{ Role, Token string }

func (GenconfServe) Kind() string { return "genconf serve" }

func (d GenconfServe) WriteText(p *Printer) {
	p.Printf("Serving cluster %s on %s until %s. On each host run, as root, the line of its role:\n", d.Cluster, d.URL, d.Until.Local().Format(time.DateTime))
	for _, t := range d.Tokens {
		p.Printf("\n%s\n  curl -fsSk --pinnedpubkey 'sha256//%s' %s/dcos_install.sh |\n    DCOS_TOKEN=%s bash -s %s\n", p.paint(bold, t.Role), d.Pin, d.URL, t.Token, t.Role)
	}
	p.Printf("\nWhere nobody can tamper with the network in between, curl -fsS %s/dcos_install.sh does as well.\n", strings.Replace(d.URL, "https:", "http:", 1))
	p.Printf("A host's package is given to one address only. Press Ctrl-C when all hosts are installed: the tokens end with it.\n")
}

// Installed is the end of an installation on the host itself.
type Installed struct {
	Host    string        `json:"host"`
	Role    string        `json:"role"`
	Address string        `json:"address"`
	Cluster string        `json:"cluster"`
	Release string        `json:"release"`
	Masters []string      `json:"masters"`
	Elapsed time.Duration `json:"elapsedNanos"`
}

func (Installed) Kind() string { return "installed" }

func (d Installed) WriteText(p *Printer) {
	p.Printf("\n%s this is host %s (%s, %s) of cluster %s now, with release %s (%s).\n", p.paint(green, "Installed:"), d.Host, d.Address, d.Role, d.Cluster, d.Release, short(d.Elapsed))
	need := len(d.Masters)/2 + 1
	what := "master answers"
	if need > 1 {
		what = fmt.Sprintf("of %d masters answer", len(d.Masters))
	}
	p.Printf("The cluster is up when %d %s: https://%s\n", need, what, strings.Join(d.Masters, ", https://"))
}
