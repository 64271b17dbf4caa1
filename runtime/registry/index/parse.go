package index

import (
	"cmp"
	"encoding/json"
	"fmt"

	digest "github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"dcos.example/dcos/runtime/fault"
)

// MaxManifest is the size in bytes up to which manifests are taken.
const MaxManifest = 4 << 20

// Media types of Docker's, which are those of OCI by other names.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// ParseManifest reads an image manifest or an index of those, OCI's or
// Docker's. mediaType is what it was said to be, "" if nothing was said.
func ParseManifest(text []byte, mediaType string) (Manifest, error) {
	const op = "read manifest"
	bad := func(format string, args ...any) (Manifest, error) {
		return Manifest{}, fault.Newf(op, fault.Invalid, format, args...)
	}
	var doc struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		ArtifactType  string            `json:"artifactType"`
		Config        *v1.Descriptor    `json:"config"`
		Layers        []v1.Descriptor   `json:"layers"`
		Manifests     []v1.Descriptor   `json:"manifests"`
		Subject       *v1.Descriptor    `json:"subject"`
		Annotations   map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return bad("it is no JSON of a manifest: %w", err)
	}
	if doc.MediaType != "" && mediaType != "" && doc.MediaType != mediaType {
		return bad("it says that it is %s and was sent as %s", doc.MediaType, mediaType)
	}
	mediaType = cmp.Or(doc.MediaType, mediaType)
	if doc.SchemaVersion != 2 {
		return bad("schemaVersion is %d; only 2 is known here", doc.SchemaVersion)
	}
	m := Manifest{MediaType: mediaType, Size: int64(len(text)), Annotations: doc.Annotations}
	switch mediaType {
	case v1.MediaTypeImageManifest, dockerManifest:
		if doc.Config == nil {
			return bad("it names no config")
		}
		m.ArtifactType = cmp.Or(doc.ArtifactType, doc.Config.MediaType)
		for _, d := range append([]v1.Descriptor{*doc.Config}, doc.Layers...) {
			if err := check(d); err != nil {
				return bad("%w", err)
			}
			if len(d.URLs) == 0 { // those with addresses are not given to registries
				m.Blobs = append(m.Blobs, Blob{d.Digest, d.Size})
			}
		}
	case v1.MediaTypeImageIndex, dockerList:
		m.ArtifactType = doc.ArtifactType
		for _, d := range doc.Manifests {
			if err := check(d); err != nil {
				return bad("%w", err)
			}
			m.Manifests = append(m.Manifests, d.Digest)
		}
	default:
		return bad("media type %q is that of no manifest; known are those of OCI's and Docker's images and indexes", mediaType)
	}
	if doc.Subject != nil {
		if err := check(*doc.Subject); err != nil {
			return bad("subject: %w", err)
		}
		m.Subject = doc.Subject.Digest
	} else {
		m.Annotations, m.ArtifactType = nil, "" // for referrers alone
	}
	return m, nil
}

func check(d v1.Descriptor) error {
	if err := d.Digest.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w", d.Digest, err)
	}
	if d.Digest.Algorithm() != digest.SHA256 {
		return fmt.Errorf("digest %s: only sha256 is known here", d.Digest)
	}
	if d.Size < 0 {
		return fmt.Errorf("%s has size %d", d.Digest, d.Size)
	}
	return nil
}
