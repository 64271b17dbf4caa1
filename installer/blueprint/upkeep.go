package blueprint

import (
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"dcos.example/dcos/installer/diag"
)

// Preflight is the `preflight { … }` block: what its author knows better than
// the checks.
type Preflight struct {
	Ignore []Ignored // by id
	Range  hcl.Range
}

// Ignored is a check that does not count.
type Ignored struct {
	ID     string // which ids there are the checks know
	Reason string
	Range  hcl.Range
}

// Upgrade is the `upgrade { … }` block: how changes go through agents that
// work.
type Upgrade struct {
	MaxUnavailable Field[int]
	Drain          Field[bool] // move tasks away first; they outlive the restart of an agent anyway
	Window         Field[Window]
}

// Backup is the `backup { … }` block. Without one, the cluster is backed up
// only when somebody asks.
type Backup struct {
	Every      Field[time.Duration] // 0: only when asked
	Keep       Field[int]
	Dir        Field[string] // on every master; empty: the default, or S3
	S3         *S3
	Recipients Field[[]string] // age public keys of further readers
	Range      hcl.Range
}

// S3 is the `s3 { … }` block of a backup.
type S3 struct {
	Endpoint, Bucket, Prefix, Region Field[string]
	AccessKey, SecretKey             Field[string] // always secret
	Range                            hcl.Range
}

var preflightSchema = &hcl.BodySchema{Attributes: []hcl.AttributeSchema{{Name: "ignore"}}}

// checkIDRE is the form of a check's id; "a.b" is a check of a group.
var checkIDRE = regexp.MustCompile(`^[a-z0-9]+([._-][a-z0-9]+)*$`)

func (p *parser) preflight(b *hcl.Block) Preflight {
	out := Preflight{Range: b.DefRange}
	content, hd := b.Body.Content(preflightSchema)
	p.diags.AddHCL(hd)
	a := content.Attributes["ignore"]
	if a == nil {
		return out
	}
	reasons := field(p, p.scope, content.Attributes, "ignore", cty.Map(cty.String), map[string]string(nil), b.DefRange)
	where := p.keysOf(a.Expr)
	for _, id := range slices.Sorted(maps.Keys(reasons.Value)) {
		i := Ignored{ID: id, Reason: strings.TrimSpace(reasons.Value[id]), Range: reasons.Range}
		if pos, ok := where[id]; ok {
			i.Range = pos[0]
		}
		if !checkIDRE.MatchString(id) {
			p.errorAt(i.Range, "Invalid check", fmt.Sprintf("%q is not the id of a check.", id), "dcos-install preflight shows the ids.")
		} else if i.Reason == "" {
			p.errorAt(i.Range, "Ignored without a reason", fmt.Sprintf("Whoever reads this later will ask why %s is ignored.", id), fmt.Sprintf(`Say why: %q = "…".`, id))
		}
		out.Ignore = append(out.Ignore, i)
	}
	return out
}

var upgradeSchema = &hcl.BodySchema{Attributes: []hcl.AttributeSchema{{Name: "max_unavailable"}, {Name: "drain"}, {Name: "window"}}}

// noUpgrade are the settings without the block.
func noUpgrade(at hcl.Range) Upgrade {
	return Upgrade{MaxUnavailable: Field[int]{Value: 1, Range: at}, Drain: Field[bool]{Range: at}, Window: Field[Window]{Range: at}}
}

func (p *parser) upgrade(b *hcl.Block) Upgrade {
	content, hd := b.Body.Content(upgradeSchema)
	p.diags.AddHCL(hd)
	attrs := content.Attributes
	u := noUpgrade(b.DefRange)
	u.MaxUnavailable = p.whole(p.scope, attrs, "max_unavailable", 1, 1, maxCount, b.DefRange)
	u.Drain = field(p, p.scope, attrs, "drain", cty.Bool, false, b.DefRange)
	text := field(p, p.scope, attrs, "window", cty.String, "", b.DefRange)
	u.Window.Range, u.Window.Set = text.Range, text.Set
	if text.Set {
		w, err := ParseWindow(text.Value)
		if err != nil {
			p.errorAt(text.Range, "Invalid window", fmt.Sprintf("window: %s.", err),
				`Write days and hours: "Sat,Sun 02:00-06:00", "Mon-Fri 22:00-04:00", or "02:00-04:00" for every day. Times are those of the machine that runs dcos-install, unless UTC follows.`)
		}
		u.Window.Value = w
	}
	return u
}

var (
	backupSchema = &hcl.BodySchema{
		Attributes: []hcl.AttributeSchema{{Name: "every"}, {Name: "keep"}, {Name: "dir"}, {Name: "recipients"}},
		Blocks:     []hcl.BlockHeaderSchema{{Type: "s3"}},
	}
	s3Schema = &hcl.BodySchema{Attributes: []hcl.AttributeSchema{{Name: "endpoint", Required: true}, {Name: "bucket", Required: true}, {Name: "prefix"},
		{Name: "access_key", Required: true}, {Name: "secret_key", Required: true}, {Name: "region"}}}
)

const (
	defEvery = 24 * time.Hour
	defKeep  = 7
	maxKeep  = 1000
)

func (p *parser) backup(b *hcl.Block) *Backup {
	content, hd := b.Body.Content(backupSchema)
	p.diags.AddHCL(hd)
	attrs := content.Attributes
	out := &Backup{Range: b.DefRange}
	out.Every = p.duration(p.scope, attrs, "every", defEvery, time.Minute, 365*24*time.Hour, b.DefRange)
	out.Keep = p.whole(p.scope, attrs, "keep", defKeep, 1, maxKeep, b.DefRange)
	out.Dir = field(p, p.scope, attrs, "dir", cty.String, "", b.DefRange)
	if d := out.Dir; d.Set && (!filepath.IsAbs(d.Value) || filepath.Clean(d.Value) != d.Value || d.Value == "/") {
		p.errorAt(d.Range, "Invalid directory", fmt.Sprintf("dir: %q is not the absolute path of a directory on the masters.", d.Value), `For example "/var/backups/dcos".`)
	}
	out.Recipients = field(p, p.scope, attrs, "recipients", cty.List(cty.String), []string(nil), b.DefRange)
	for i, r := range out.Recipients.Value {
		if strings.HasPrefix(r, "age1") {
			continue
		}
		hint := ""
		if strings.HasPrefix(strings.ToUpper(r), "AGE-SECRET-KEY-") {
			hint = "It is the secret half, which must not be in a file like this one. Write the public half: age-keygen -y shows it."
		}
		p.diags.Add(diag.Diagnostic{Summary: "Invalid recipient", Detail: fmt.Sprintf("Element %d of recipients is not an age public key; those begin with age1.", i+1),
			Hint: hint, Range: &out.Recipients.Range, Secret: true})
	}
	for i, sb := range content.Blocks {
		if i > 0 {
			p.duplicate(sb, content.Blocks[0], "s3 block")
			continue
		}
		out.S3 = p.s3(sb)
	}
	if out.S3 != nil && out.Dir.Set {
		p.errorAt(attrs["dir"].NameRange, "Two places for backups", fmt.Sprintf("dir and the s3 block at line %d are both given.", out.S3.Range.Start.Line), "Keep one of them.")
	}
	return out
}

func (p *parser) s3(b *hcl.Block) *S3 {
	content, hd := b.Body.Content(s3Schema)
	p.diags.AddHCL(hd)
	attrs := content.Attributes
	text := func(name string) Field[string] { return field(p, p.scope, attrs, name, cty.String, "", b.DefRange) }
	const risk = "Whoever reads this file can read and remove the backups in the store."
	out := &S3{Range: b.DefRange, Endpoint: text("endpoint"), Bucket: text("bucket"), Prefix: text("prefix"), Region: text("region"),
		SecretKey: p.secret(attrs["secret_key"], b.DefRange, risk, "")}
	if a := attrs["access_key"]; a != nil { // a name, no secret by itself, but it may come with one
		out.AccessKey.Range = a.Expr.Range()
		out.AccessKey.Value, out.AccessKey.Set = attrValueMarked[string](p, p.scope, a, cty.String)
	}
	if e := out.Endpoint; e.Set {
		u, err := url.Parse(e.Value)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.User != nil {
			p.errorAt(e.Range, "Invalid endpoint", fmt.Sprintf("endpoint: %q is not the address of an S3-compatible store.", e.Value), `Write https://HOST, or https://HOST:PORT; the bucket has an attribute of its own.`)
		}
	}
	if k := out.Bucket; k.Set && (k.Value == "" || strings.ContainsAny(k.Value, "/ ")) {
		p.errorAt(k.Range, "Invalid bucket", fmt.Sprintf("bucket: %q is not the name of a bucket.", k.Value), "")
	}
	return out
}
