package httpapi

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"

	digest "github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/registry/blob"
	"dcos.example/dcos/runtime/registry/index"
)

// manifests serves /v2/REPOSITORY/manifests/REFERENCE, a tag or a digest.
func (a *API) manifests(w http.ResponseWriter, r *http.Request, repo, ref string) error {
	d, name := digest.Digest(""), ref
	if blob.Check(digest.Digest(ref)) == nil {
		d, name = digest.Digest(ref), ""
	} else if !tag.MatchString(ref) {
		return wrong(codeTagInvalid, http.StatusBadRequest, "%q is neither a tag nor a digest with sha256", ref)
	}
	return a.only(w, r, methods{
		http.MethodGet:    func(w http.ResponseWriter, r *http.Request) error { return a.getManifest(w, r, repo, name, d) },
		http.MethodPut:    func(w http.ResponseWriter, r *http.Request) error { return a.putManifest(w, r, repo, name, d) },
		http.MethodDelete: func(w http.ResponseWriter, r *http.Request) error { return a.deleteManifest(w, r, repo, name, d) },
	})
}

func (a *API) getManifest(w http.ResponseWriter, r *http.Request, repo, name string, d digest.Digest) error {
	if name != "" {
		t, err := a.cfg.Index.Tag(r.Context(), repo, name)
		if err != nil {
			return noManifest(err, repo+":"+name)
		}
		d = t.Digest
	}
	m, err := a.cfg.Index.Manifest(r.Context(), index.Ref{Repository: repo, Digest: d})
	if err != nil {
		return noManifest(err, repo+"@"+string(d))
	}
	if err := a.cfg.Images.Ensure(r.Context(), d); err != nil {
		return coded(err, codeManifestNone, fault.NotFound, http.StatusNotFound)
	}
	f, size, err := a.cfg.Blobs.Open(d)
	if err != nil {
		return err
	}
	defer f.Close()
	h := w.Header()
	h.Set("Content-Type", m.MediaType)
	h.Set("Content-Length", strconv.FormatInt(size, 10))
	h.Set("Docker-Content-Digest", string(d))
	h.Set("ETag", `"`+string(d)+`"`)
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodGet {
		_, _ = io.Copy(w, f) // the caller compares the digest
	}
	return nil
}

func noManifest(err error, what string) error {
	if fault.Is(err, fault.NotFound) {
		return wrong(codeManifestNone, http.StatusNotFound, "there is no image %s", what)
	}
	return err
}

func (a *API) putManifest(w http.ResponseWriter, r *http.Request, repo, name string, d digest.Digest) error {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, index.MaxManifest))
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return wrong(codeManifest, http.StatusRequestEntityTooLarge, "it has more than %d bytes", index.MaxManifest)
		}
		return wrong(codeManifest, http.StatusBadRequest, "it was cut off: %w", err)
	}
	sum := digest.FromBytes(text)
	if d != "" && d != sum {
		return wrong(codeDigestInvalid, http.StatusBadRequest, "what came has digest %s", sum)
	}
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		mediaType = ""
	}
	m, err := index.ParseManifest(text, mediaType)
	if err != nil {
		return coded(err, codeManifest, fault.Invalid, http.StatusBadRequest)
	}
	if err := a.whole(r.Context(), m); err != nil {
		return err
	}
	if err := a.cfg.Blobs.Put(r.Context(), sum, bytes.NewReader(text)); err != nil {
		return err
	}
	if err := a.cfg.Index.Put(r.Context(), index.Ref{Repository: repo, Digest: sum}, m, name, ""); err != nil {
		return err
	}
	have, want := a.cfg.Images.Spread(r.Context(), sum)
	h := w.Header()
	if have < want {
		h.Set("Warning", fmt.Sprintf(`299 - "%d of %d masters hold it so far; until more do, the loss of one may be its loss"`, have, want))
		a.cfg.Log.Warn("an image was pushed that few masters hold", "repository", repo, "digest", sum, "hold", have, "should", want)
	}
	if m.Subject != "" {
		h.Set("OCI-Subject", string(m.Subject))
	}
	h.Set("Location", Prefix+repo+"/manifests/"+cmp.Or(name, string(sum)))
	h.Set("Docker-Content-Digest", string(sum))
	h.Set("Content-Length", "0")
	w.WriteHeader(http.StatusCreated)
	return nil
}

// whole refuses a manifest that names what is nowhere, and brings here what is
// on other masters.
func (a *API) whole(ctx context.Context, m index.Manifest) error {
	for _, b := range m.Blobs {
		if !a.cfg.Blobs.Use(b.Digest) {
			err := a.cfg.Images.Ensure(ctx, b.Digest)
			if err != nil {
				return coded(err, codeManifestBlob, fault.NotFound, http.StatusBadRequest)
			}
		}
		size, err := a.cfg.Blobs.Size(b.Digest)
		if err != nil {
			return err
		}
		if size != b.Size {
			return wrong(codeSizeInvalid, http.StatusBadRequest, "%s has %d bytes, not %d", b.Digest, size, b.Size)
		}
	}
	return nil
}

func (a *API) deleteManifest(w http.ResponseWriter, r *http.Request, repo, name string, d digest.Digest) error {
	var err error
	if name != "" {
		err = noManifest(a.cfg.Index.DeleteTag(r.Context(), repo, name), repo+":"+name)
	} else {
		err = noManifest(a.cfg.Index.DeleteManifest(r.Context(), index.Ref{Repository: repo, Digest: d}), repo+"@"+string(d))
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// referrers serves /v2/REPOSITORY/referrers/DIGEST.
func (a *API) referrers(w http.ResponseWriter, r *http.Request, repo, ref string) error {
	d := digest.Digest(ref)
	if err := blob.Check(d); err != nil {
		return coded(err, codeDigestInvalid, fault.Invalid, http.StatusBadRequest)
	}
	return a.only(w, r, methods{http.MethodGet: func(w http.ResponseWriter, r *http.Request) error {
		refs, manifests := a.cfg.Index.Referrers(index.Ref{Repository: repo, Digest: d})
		kind := r.URL.Query().Get("artifactType")
		out := v1.Index{MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{}}
		out.SchemaVersion = 2
		for i, m := range manifests {
			if kind == "" || m.ArtifactType == kind {
				out.Manifests = append(out.Manifests, v1.Descriptor{
					MediaType: m.MediaType, Digest: refs[i].Digest, Size: m.Size, ArtifactType: m.ArtifactType, Annotations: m.Annotations,
				})
			}
		}
		if kind != "" {
			w.Header().Set("OCI-Filters-Applied", "artifactType")
		}
		return answer(w, http.StatusOK, v1.MediaTypeImageIndex, out)
	}})
}
