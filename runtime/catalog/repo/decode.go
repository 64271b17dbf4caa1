package repo

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"dcos.example/dcos/runtime/api/cosmos"
	"dcos.example/dcos/runtime/catalog/index"
	"dcos.example/dcos/universe/schema"
)

// Limits of what a repository may be, in bytes and numbers. The whole public
// Universe was 30 MB and 1235 revisions in the end.
const (
	maxWire      = 64 << 20 // as it comes
	maxContent   = 96 << 20 // unpacked
	maxPackage   = 6 << 20
	maxRevisions = 20_000
)

// limited reads from r, and fails beyond a number of bytes instead of ending.
type limited struct {
	r    io.Reader
	left int64
	err  error
}

func limit(r io.Reader, bytes int64, format string, args ...any) *limited {
	return &limited{r: r, left: bytes, err: fmt.Errorf(format, args...)}
}

func (l *limited) Read(b []byte) (int, error) {
	if l.left <= 0 {
		// Exactly as long as allowed is allowed.
		var one [1]byte
		n, err := l.r.Read(one[:])
		if n > 0 {
			return 0, l.err
		}
		return 0, err
	}
	n, err := l.r.Read(b[:min(int64(len(b)), l.left)])
	l.left -= int64(n)
	return n, err
}

// portion limits what one package may take, so that none needs more memory than
// that, whatever the whole may be.
type portion struct {
	r    io.Reader
	left int
}

var errLargePackage = fmt.Errorf("a package is larger than %d bytes", maxPackage)

func (p *portion) Read(b []byte) (int, error) {
	if p.left <= 0 {
		return 0, errLargePackage
	}
	n, err := p.r.Read(b[:min(len(b), p.left)])
	p.left -= n
	return n, err
}

// decodeJSON reads a repository of version 3 to 5, one package at a time.
// Packages of a later packaging version than that are what it must not have.
func decodeJSON(r io.Reader, version int) ([]index.Revision, error) {
	p := &portion{r: limit(r, maxContent, "it is larger than %d bytes", maxContent), left: maxPackage}
	d := json.NewDecoder(p)
	if err := delim(d, '{'); err != nil {
		return nil, err
	}
	var all []index.Revision
	seen := false
	for d.More() {
		p.left = maxPackage
		key, err := d.Token()
		if err != nil {
			return nil, notJSON(err)
		}
		if key != "packages" {
			var other json.RawMessage
			if err := d.Decode(&other); err != nil {
				return nil, notJSON(err)
			}
			continue
		}
		if seen {
			return nil, errors.New("it has packages twice")
		}
		seen = true
		if all, err = decodePackages(d, p, version); err != nil {
			return nil, err
		}
	}
	if err := delim(d, '}'); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is something after the JSON object")
	}
	if !seen {
		return nil, errors.New(`it has no "packages"`)
	}
	return all, nil
}

func decodePackages(d *json.Decoder, p *portion, version int) ([]index.Revision, error) {
	if err := delim(d, '['); err != nil {
		return nil, err
	}
	var all []index.Revision
	for d.More() {
		if len(all) == maxRevisions {
			return nil, fmt.Errorf("it has more than %d packages", maxRevisions)
		}
		p.left = maxPackage
		var pkg cosmos.Package
		if err := d.Decode(&pkg); err != nil {
			return nil, fmt.Errorf("package %d: %w", len(all)+1, notJSON(err))
		}
		r, err := revision(&pkg, version)
		if err != nil {
			return nil, fmt.Errorf("package %d, %s: %w", len(all)+1, schema.Key(&pkg), err)
		}
		all = append(all, r)
	}
	return all, delim(d, ']')
}

// revision checks a package and packs it.
func revision(p *cosmos.Package, version int) (index.Revision, error) {
	if err := schema.Check(p); err != nil {
		return index.Revision{}, err
	}
	if schema.Major(p.PackagingVersion) > version {
		return index.Revision{}, fmt.Errorf("packaging version %s is none that a repository of version %d may have", p.PackagingVersion, version)
	}
	if p.Tags == nil {
		p.Tags = []string{}
	}
	return index.NewRevision(p)
}

func delim(d *json.Decoder, want json.Delim) error {
	t, err := d.Token()
	if err != nil {
		return notJSON(err)
	}
	if t != want {
		return fmt.Errorf("at byte %d there should be %q", d.InputOffset(), want.String())
	}
	return nil
}

// notJSON words what is wrong with JSON without repeating any of it.
func notJSON(err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("it ends too early")
	case errors.As(err, &syntax):
		return fmt.Errorf("it is no JSON at byte %d", syntax.Offset)
	case errors.As(err, &kind):
		return fmt.Errorf("%s is a %s", kind.Field, kind.Value)
	}
	return err
}

// isZip reports whether a file that begins so is a zip archive.
func isZip(head []byte) bool {
	return bytes.HasPrefix(head, []byte("PK\x03\x04")) || bytes.HasPrefix(head, []byte("PK\x05\x06"))
}

func isGzip(head []byte) bool { return bytes.HasPrefix(head, []byte("\x1f\x8b")) }
