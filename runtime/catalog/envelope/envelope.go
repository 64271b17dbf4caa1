// Package envelope packs packages: compressed for memory, and as the label by
// which an app or service keeps the package that it was installed from. Both
// are the same bytes.
package envelope

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"io"
	"strings"
	"sync"

	kgzip "github.com/klauspost/compress/gzip"

	"dcos.example/dcos/runtime/api/cosmos"
	"dcos.example/dcos/runtime/fault"
)

// maxPackage bounds a package in JSON, in bytes. Labels come from users.
const maxPackage = 8 << 20

// Packed is a package as gzip of its JSON.
type Packed []byte

// Pack compresses a package's JSON.
func Pack(text []byte) (Packed, error) {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.DefaultCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return bytes.Clone(b.Bytes()), nil
}

// readers are kept: each has windows of 32 KiB and tables.
var readers = sync.Pool{New: func() any { return new(kgzip.Reader) }}

// JSON returns the package's JSON.
func (p Packed) JSON() ([]byte, error) {
	const op = "unpack package"
	r := readers.Get().(*kgzip.Reader)
	defer readers.Put(r)
	if err := r.Reset(bytes.NewReader(p)); err != nil {
		return nil, fault.New(op, fault.Invalid, err)
	}
	var b bytes.Buffer
	b.Grow(5 * len(p))
	if _, err := io.Copy(&b, io.LimitReader(r, maxPackage+1)); err != nil {
		return nil, fault.New(op, fault.Invalid, err)
	}
	if b.Len() > maxPackage {
		return nil, fault.Newf(op, fault.Invalid, "it is longer than %d bytes", maxPackage)
	}
	return b.Bytes(), nil
}

// Package returns the package.
func (p Packed) Package() (*cosmos.Package, error) {
	text, err := p.JSON()
	if err != nil {
		return nil, err
	}
	var pkg cosmos.Package
	if err := json.Unmarshal(text, &pkg); err != nil {
		return nil, fault.New("unpack package", fault.Invalid, err)
	}
	return &pkg, nil
}

type envelope struct {
	Metadata map[string]string `json:"metadata"`
	Data     []byte            `json:"data"`
}

// Label is the value of DCOS_PACKAGE_DEFINITION for a package of that packaging
// version.
func (p Packed) Label(packagingVersion string) (string, error) {
	major, _, _ := strings.Cut(packagingVersion, ".")
	text, err := json.Marshal(envelope{
		Metadata: map[string]string{"Content-Type": cosmos.PackageType(major), "Content-Encoding": "gzip"},
		Data:     p,
	})
	return base64.StdEncoding.EncodeToString(text), err
}

// Open reads the value of DCOS_PACKAGE_DEFINITION.
func Open(label string) (Packed, error) {
	const op = "read package of a label"
	text, err := base64.StdEncoding.DecodeString(label)
	if err != nil {
		return nil, fault.New(op, fault.Invalid, err)
	}
	var e envelope
	if err := json.Unmarshal(text, &e); err != nil {
		return nil, fault.New(op, fault.Invalid, err)
	}
	if enc := e.Metadata["Content-Encoding"]; enc != "gzip" {
		return nil, fault.Newf(op, fault.Invalid, "its encoding is %q, not gzip", enc)
	}
	return e.Data, nil
}
