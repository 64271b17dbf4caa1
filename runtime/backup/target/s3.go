package target

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"hash"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"dcos.example/dcos/runtime/backup/archive"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
)

// attempts is how often a request is tried; the next backup comes anyway.
const attempts = 3

// S3 is a bucket.
type S3 struct {
	client         *minio.Client
	bucket, prefix string
	name           string
}

// NewS3 returns the bucket that c names, used with keys. It asks nothing yet.
func NewS3(c config.S3, keys config.S3Keys) (*S3, error) {
	const op = "use the backup store"
	u, err := url.Parse(c.Endpoint)
	if err != nil {
		return nil, fault.New(op, fault.Invalid, err)
	}
	region := c.Region
	if region == "" {
		region = "us-east-1"
	}
	via, err := minio.DefaultTransport(u.Scheme == "https")
	if err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	via.ResponseHeaderTimeout = time.Minute
	client, err := minio.New(u.Host, &minio.Options{
		Creds: credentials.NewStaticV4(keys.AccessKey, keys.SecretKey, ""), Secure: u.Scheme == "https", Region: region,
		Transport: via, MaxRetries: attempts,
	})
	if err != nil {
		return nil, fault.New(op, fault.Invalid, err)
	}
	prefix := strings.Trim(c.Prefix, "/")
	return &S3{client: client, bucket: c.Bucket, prefix: prefix, name: strings.TrimSuffix(c.Endpoint, "/") + "/" + path.Join(c.Bucket, prefix)}, nil
}

func (s *S3) String() string { return s.name }

func (s *S3) key(name string) string { return path.Join(s.prefix, name) }

// explain says what to do about the answers that people meet.
func (s *S3) explain(op string, err error) error {
	kind := fault.Unavailable
	switch res := minio.ToErrorResponse(err); {
	case res.Code == "NoSuchBucket":
		return fault.Newf(op, fault.NotFound, "there is no bucket %s at %s; make it first", s.bucket, s.client.EndpointURL())
	case res.StatusCode == http.StatusForbidden:
		return fault.Newf(op, fault.Denied, "%s refuses the access key, or the key may not do this in bucket %s: %s", s.client.EndpointURL(), s.bucket, res.Message)
	case res.StatusCode == http.StatusNotFound:
		kind = fault.NotFound
	}
	return fault.New(op, kind, err)
}

// Put uploads the backup in the file at path, then its entry.
func (s *S3) Put(ctx context.Context, e archive.Entry, file string) error {
	op := "upload backup " + e.ID
	if err := checkID(op, e.ID); err != nil {
		return err
	}
	info, err := s.client.FPutObject(ctx, s.bucket, s.key(archive.FileName(e.ID)), file, minio.PutObjectOptions{ContentType: "application/octet-stream"})
	if err != nil {
		return s.explain(op, err)
	}
	if info.Size != e.Size {
		return fault.Newf(op, fault.Internal, "the store has %d of %d bytes", info.Size, e.Size)
	}
	b, n, err := encode(e)
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	if _, err := s.client.PutObject(ctx, s.bucket, s.key(archive.EntryName(e.ID)), b, n, minio.PutObjectOptions{ContentType: "application/json"}); err != nil {
		return s.explain(op, err)
	}
	return nil
}

// List returns what is there, the newest first. It asks once for each backup.
func (s *S3) List(ctx context.Context) ([]archive.Entry, error) {
	const op = "list backups"
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the listing when it is left early
	prefix := s.prefix
	if prefix != "" {
		prefix += "/"
	}
	var out []archive.Entry
	for o := range s.client.ListObjects(ctx, s.bucket, minio.ListObjectsOptions{Prefix: prefix}) {
		if o.Err != nil {
			return nil, s.explain(op, o.Err)
		}
		id, ok := strings.CutSuffix(path.Base(o.Key), ".json")
		if !ok || !archive.ValidID(id) {
			continue
		}
		r, err := s.client.GetObject(ctx, s.bucket, o.Key, minio.GetObjectOptions{})
		if err != nil {
			return nil, s.explain(op, err)
		}
		var e archive.Entry
		err = json.NewDecoder(io.LimitReader(r, 1<<20)).Decode(&e)
		if err = errors.Join(err, r.Close()); err != nil {
			return nil, s.explain(op, err)
		}
		if e.ID == id {
			out = append(out, e)
		}
	}
	return sorted(out), nil
}

// Open reads a backup; fault.NotFound when it is not there.
func (s *S3) Open(ctx context.Context, id string) (io.ReadCloser, error) {
	op := "read backup " + id
	if err := checkID(op, id); err != nil {
		return nil, err
	}
	r, err := s.client.GetObject(ctx, s.bucket, s.key(archive.FileName(id)), minio.GetObjectOptions{})
	if err != nil {
		return nil, s.explain(op, err)
	}
	if _, err := r.Stat(); err != nil { // the first request is made here
		r.Close()
		return nil, s.explain(op, err)
	}
	return r, nil
}

// Remove removes a backup.
func (s *S3) Remove(ctx context.Context, id string) error {
	op := "remove backup " + id
	if err := checkID(op, id); err != nil {
		return err
	}
	for _, name := range []string{archive.EntryName(id), archive.FileName(id)} {
		if err := s.client.RemoveObject(ctx, s.bucket, s.key(name), minio.RemoveObjectOptions{}); err != nil {
			return s.explain(op, err)
		}
	}
	return nil
}

type sum struct{ hash.Hash }

func newSum() sum { return sum{sha256.New()} }

func (s sum) hex() string { return hex.EncodeToString(s.Sum(nil)) }
