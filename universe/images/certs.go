package images

import (
	"bytes"
	"context"
	"crypto/sha1" //nolint:gosec // what the format is made with
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf16"

	"dcos.example/dcos/universe/images/lock"
)

// What the scripts of Debian's ca-certificates and ca-certificates-java make on
// a machine.
const (
	certBundle = "etc/ssl/certs/ca-certificates.crt"
	javaStore  = "etc/ssl/certs/java/cacerts"
)

// certificates returns the trust stores that the packages' scripts would make:
// below holds the packages of the bases.
func (b *Builder) certificates(ctx context.Context, own, below []lock.Deb) (map[string][]byte, error) {
	has := func(name string) bool {
		return slices.ContainsFunc(own, func(d lock.Deb) bool { return d.Name == name })
	}
	if !has("ca-certificates") && !has("ca-certificates-java") {
		return nil, nil
	}
	all := slices.Concat(own, below)
	at := slices.IndexFunc(all, func(d lock.Deb) bool { return d.Name == "ca-certificates" })
	if at < 0 {
		return nil, fmt.Errorf("ca-certificates-java needs ca-certificates, in this image or its base")
	}
	if err := b.debian.Fetch(ctx, all[at:at+1]); err != nil {
		return nil, err
	}
	found, err := b.debian.Read(ctx, all[at], func(p string) bool { return strings.HasPrefix(p, "usr/share/ca-certificates/") })
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	names := slices.Sorted(maps.Keys(found))
	if has("ca-certificates") {
		var bundle bytes.Buffer
		for _, n := range names {
			bundle.Write(found[n])
		}
		files[certBundle] = bundle.Bytes()
	}
	if has("ca-certificates-java") {
		files[javaStore] = keystore(names, found)
	}
	return files, nil
}

// keystore writes certificates in the JKS format, with its usual password.
// Layout and digest are those of the JDK's sun.security.provider.JavaKeyStore.
func keystore(names []string, certs map[string][]byte) []byte {
	const magic, version, trusted = 0xfeedfeed, 2, 2
	var body bytes.Buffer
	text := func(s string) {
		binary.Write(&body, binary.BigEndian, uint16(len(s)))
		body.WriteString(s)
	}
	count := 0
	for _, n := range names {
		block, _ := pem.Decode(certs[n])
		if block == nil {
			continue
		}
		count++
		binary.Write(&body, binary.BigEndian, uint32(trusted))
		text("debian:" + strings.ToLower(n[strings.LastIndex(n, "/")+1:]))
		binary.Write(&body, binary.BigEndian, uint64(0)) // when it was added
		text("X.509")
		binary.Write(&body, binary.BigEndian, uint32(len(block.Bytes)))
		body.Write(block.Bytes)
	}
	var out bytes.Buffer
	for _, v := range []uint32{magic, version, uint32(count)} {
		binary.Write(&out, binary.BigEndian, v)
	}
	out.Write(body.Bytes())
	h := sha1.New()
	for _, c := range utf16.Encode([]rune("changeit")) {
		binary.Write(h, binary.BigEndian, c)
	}
	h.Write([]byte("Mighty Aphrodite"))
	h.Write(out.Bytes())
	return h.Sum(out.Bytes())
}
