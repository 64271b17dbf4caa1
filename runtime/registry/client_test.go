package registry_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	spec "github.com/opencontainers/image-spec/specs-go/v1"
)

// containerdClient pushes and pulls as containerd does.
type containerdClient struct {
	t        *testing.T
	resolver remotes.Resolver
}

func (c containerdClient) Push(ref string, parts map[string][]byte) error {
	ctx := c.t.Context()
	p, err := c.resolver.Pusher(ctx, ref)
	if err != nil {
		return err
	}
	for _, kind := range []string{spec.MediaTypeImageConfig, spec.MediaTypeImageLayer, spec.MediaTypeImageManifest} {
		b := parts[kind]
		d := spec.Descriptor{MediaType: kind, Digest: digest.FromBytes(b), Size: int64(len(b))}
		w, err := p.Push(remotes.WithMediaTypeKeyPrefix(ctx, kind, "x"), d)
		if errdefs.IsAlreadyExists(err) {
			continue
		}
		if err != nil {
			return err
		}
		if err := content.Copy(ctx, w, bytes.NewReader(b), d.Size, d.Digest); err != nil {
			return err
		}
	}
	return nil
}

func (c containerdClient) Pull(ref string) (spec.Descriptor, []byte, error) {
	ctx := c.t.Context()
	name, d, err := c.resolver.Resolve(ctx, ref)
	if err != nil {
		return d, nil, err
	}
	f, err := c.resolver.Fetcher(ctx, name)
	if err != nil {
		return d, nil, err
	}
	r, err := f.Fetch(ctx, d)
	if err != nil {
		return d, nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	return d, b, err
}

// raw is one request of the administrator's.
func raw(t *testing.T, method, url string, header map[string]string, body string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("admin", "secret")
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

// Blobs come in pieces, whole, at once, and from another repository.
func TestUploads(t *testing.T) {
	c := newCluster(t, 1)
	base := "http://" + c.masters[0].url
	start := func() string {
		resp, _ := raw(t, http.MethodPost, base+"/v2/app/blobs/uploads/", nil, "")
		if resp.StatusCode != http.StatusAccepted {
			t.Fatal(resp.Status)
		}
		return base + resp.Header.Get("Location")
	}
	want := func(resp *http.Response, text string, status int, code string) {
		t.Helper()
		if resp.StatusCode != status || code != "" && !strings.Contains(text, `"`+code+`"`) {
			t.Errorf("%s %s: %s %s; want %d %s", resp.Request.Method, resp.Request.URL.Path, resp.Status, text, status, code)
		}
	}
	d := string(digest.FromString("one two three"))

	at := start()
	resp, text := raw(t, http.MethodPatch, at, map[string]string{"Content-Range": "0-3"}, "one ")
	want(resp, text, http.StatusAccepted, "")
	if r := resp.Header.Get("Range"); r != "0-3" {
		t.Errorf("range %s", r)
	}
	resp, text = raw(t, http.MethodPatch, at, map[string]string{"Content-Range": "8-12"}, "three")
	want(resp, text, http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID")
	resp, text = raw(t, http.MethodGet, at, nil, "")
	want(resp, text, http.StatusNoContent, "")
	resp, text = raw(t, http.MethodPatch, at, map[string]string{"Content-Range": "4-7"}, "two ")
	want(resp, text, http.StatusAccepted, "")
	resp, text = raw(t, http.MethodPut, at+"?digest="+d, nil, "three")
	want(resp, text, http.StatusCreated, "")
	resp, text = raw(t, http.MethodGet, base+resp.Header.Get("Location"), map[string]string{"Range": "bytes=4-6"}, "")
	if want(resp, text, http.StatusPartialContent, ""); text != "two" {
		t.Errorf("a part: %q", text)
	}
	resp, text = raw(t, http.MethodPut, at+"?digest="+d, nil, "")
	want(resp, text, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN")

	at = start()
	resp, text = raw(t, http.MethodPut, at+"?digest="+d, nil, "one two four")
	want(resp, text, http.StatusBadRequest, "DIGEST_INVALID")
	at = start()
	resp, text = raw(t, http.MethodDelete, at, nil, "")
	want(resp, text, http.StatusNoContent, "")
	resp, text = raw(t, http.MethodGet, at, nil, "")
	want(resp, text, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN")

	resp, text = raw(t, http.MethodPost, base+"/v2/app/blobs/uploads/?digest="+string(digest.FromString("once")), nil, "once")
	want(resp, text, http.StatusCreated, "")
	resp, text = raw(t, http.MethodPost, base+"/v2/other/blobs/uploads/?from=app&mount="+d, nil, "")
	want(resp, text, http.StatusCreated, "")
	resp, text = raw(t, http.MethodPost, base+"/v2/other/blobs/uploads/?from=app&mount="+string(digest.FromString("none")), nil, "")
	want(resp, text, http.StatusAccepted, "")
}

func TestMistakes(t *testing.T) {
	c := newCluster(t, 1)
	base := "http://" + c.masters[0].url + "/v2/"
	none := string(digest.FromString("none"))
	manifest := `{"schemaVersion":2,"mediaType":"` + spec.MediaTypeImageManifest + `","config":{"mediaType":"x","digest":"` + none + `","size":4},"layers":[]}`
	oci := map[string]string{"Content-Type": spec.MediaTypeImageManifest}
	for _, test := range []struct {
		method, path string
		header       map[string]string
		body         string
		status       int
		code         string
	}{
		{"GET", "App/manifests/1", nil, "", 400, "NAME_INVALID"},
		{"GET", "app/manifests/-", nil, "", 400, "TAG_INVALID"},
		{"GET", "app/manifests/1", nil, "", 404, "MANIFEST_UNKNOWN"},
		{"GET", "app/manifests/" + none, nil, "", 404, "MANIFEST_UNKNOWN"},
		{"GET", "app/blobs/" + none, nil, "", 404, "BLOB_UNKNOWN"},
		{"GET", "app/blobs/sha512:" + strings.Repeat("0", 128), nil, "", 400, "DIGEST_INVALID"},
		{"GET", "app/blobs/sha256:../../etc", nil, "", 400, "DIGEST_INVALID"},
		{"GET", "app/tags/list", nil, "", 404, "NAME_UNKNOWN"},
		{"GET", "_catalog?n=x", nil, "", 400, "PAGINATION_NUMBER_INVALID"},
		{"GET", "app/other/1", nil, "", 404, "UNSUPPORTED"},
		{"POST", "app/manifests/1", nil, "", 405, "UNSUPPORTED"},
		{"PUT", "app/manifests/1", oci, manifest, 400, "MANIFEST_BLOB_UNKNOWN"},
		{"PUT", "app/manifests/1", map[string]string{"Content-Type": "text/plain"}, manifest, 400, "MANIFEST_INVALID"},
		{"PUT", "app/manifests/1", oci, "{", 400, "MANIFEST_INVALID"},
		{"PUT", "app/manifests/1", oci, `{"schemaVersion":1}`, 400, "MANIFEST_INVALID"},
		{"PUT", "app/manifests/1", oci, strings.Repeat(" ", 5<<20), 413, "MANIFEST_INVALID"},
		{"PUT", "app/manifests/" + none, oci, manifest, 400, "DIGEST_INVALID"},
		{"PUT", "app/blobs/uploads/none?digest=" + none, nil, "", 404, "BLOB_UPLOAD_UNKNOWN"},
		{"DELETE", "app/manifests/1", nil, "", 404, "MANIFEST_UNKNOWN"},
	} {
		resp, text := raw(t, test.method, base+test.path, test.header, test.body)
		if resp.StatusCode != test.status || !strings.Contains(text, `"code":"`+test.code+`"`) {
			t.Errorf("%s %s: %s %s; want %d %s", test.method, test.path, resp.Status, text, test.status, test.code)
		}
	}
}
