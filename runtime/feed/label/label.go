// Package label makes DNS labels of the names of tasks and frameworks, the way
// Mesos-DNS does, for everything that names a task on the network.
package label

import (
	"crypto/sha1"
	"encoding/base32"
	"strings"
)

// Max is DNS' bound on the length of a label, in bytes.
const Max = 63

// zbase32 is the alphabet in which Mesos-DNS writes hashes.
var zbase32 = base32.NewEncoding("ybndrfg8ejkmcpqxot1uwisza345h769").WithPadding(base32.NoPadding)

// Hash shortens any text to five characters that may stand in a label.
func Hash(s string) string {
	sum := sha1.Sum([]byte(s))
	return zbase32.EncodeToString(sum[:])[:5]
}

// Of makes one DNS label of a task's name as Mesos-DNS does: lower case,
// dots and underscores become hyphens, everything else that may not stand in a
// host name goes. App /a/b/c, whose tasks Marathon names "c.b.a", becomes
// "c-b-a". What is too long for a label is cut and ends in a hash of the whole,
// so that two long names stay two names.
func Of(name string) string {
	mapped := strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			return r + ('a' - 'A')
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			return r
		case r == '-' || r == '.' || r == '_':
			return '-'
		}
		return -1
	}, name)
	mapped = strings.Trim(mapped, "-")
	if len(mapped) > Max {
		mapped = strings.TrimRight(mapped[:Max-6], "-") + "-" + Hash(name)
	}
	return mapped
}

// Domain makes labels of a framework's name, one for each part between dots.
func Domain(name string) string {
	var parts []string
	for p := range strings.SplitSeq(name, ".") {
		if l := Of(p); l != "" {
			parts = append(parts, l)
		}
	}
	return strings.Join(parts, ".")
}
