package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// bucket is where backups are kept, in the words of the plan's parameters.
type bucket struct {
	endpoint, region, name, id, secret, token string
}

// store is an open bucket.
type store struct {
	c    *minio.Client
	name string
}

func (b bucket) open() (*store, error) {
	if b.name == "" {
		return nil, errors.New("S3_BUCKET_NAME is not set: start the plan with -p S3_BUCKET_NAME=…")
	}
	endpoint := b.endpoint
	if endpoint == "" {
		endpoint = "https://s3.amazonaws.com"
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("S3_ENDPOINT_URL %q is no address as https://HOST:PORT", endpoint)
	}
	lookup := minio.BucketLookupAuto
	if b.endpoint != "" {
		lookup = minio.BucketLookupPath // stores of one's own seldom have a name for each bucket
	}
	c, err := minio.New(u.Host, &minio.Options{
		Creds: credentials.NewStaticV4(b.id, b.secret, b.token), Secure: u.Scheme == "https", Region: b.region, BucketLookup: lookup,
	})
	if err != nil {
		return nil, err
	}
	return &store{c, b.name}, nil
}

func (s *store) read(ctx context.Context, key string) ([]byte, error) {
	o, err := s.c.GetObject(ctx, s.name, key, minio.GetObjectOptions{})
	if err != nil {
		return nil, err
	}
	defer o.Close()
	return io.ReadAll(o)
}

func (s *store) write(ctx context.Context, key string, text []byte) error {
	_, err := s.c.PutObject(ctx, s.name, key, bytes.NewReader(text), int64(len(text)), minio.PutObjectOptions{})
	return err
}

// list yields the keys that begin with prefix.
func (s *store) list(ctx context.Context, prefix string) ([]string, error) {
	var keys []string
	for o := range s.c.ListObjects(ctx, s.name, minio.ListObjectsOptions{Prefix: prefix, Recursive: true}) {
		if o.Err != nil {
			return nil, o.Err
		}
		keys = append(keys, o.Key)
	}
	return keys, nil
}

// Keys of a backup: SERVICE/SNAPSHOT/schema.json, and
// SERVICE/SNAPSHOT/node-I/KEYSPACE/TABLE/FILE. RESTORE_FROM names another
// service, whose backup comes to this one.
func (e environment) root() string {
	service := e.service
	if from := os.Getenv("RESTORE_FROM"); from != "" {
		service = from
	}
	return path.Join(service, e.snapshot)
}

func (e environment) schemaKey() string { return path.Join(e.root(), "schema.json") }
func (e environment) nodeKey() string   { return path.Join(e.root(), "node-"+strconv.Itoa(e.index)) }

// upload puts the files of the snapshot into the bucket. The node's last key is
// its list of files: a backup without it is not whole.
func upload(ctx context.Context, e environment) error {
	if err := e.named(); err != nil {
		return err
	}
	s, err := e.bucket.open()
	if err != nil {
		return err
	}
	if e.index == 0 {
		session, err := e.session()
		if err != nil {
			return err
		}
		all, err := describe(ctx, session)
		session.Close()
		if err != nil {
			return fmt.Errorf("ask for the schema: %w", err)
		}
		text, err := json.Marshal(all)
		if err != nil {
			return err
		}
		if err := s.write(ctx, e.schemaKey(), text); err != nil {
			return fmt.Errorf("write the schema: %w", err)
		}
	}
	files, err := snapshotFiles(e.data, e.snapshot)
	if err != nil {
		return err
	}
	var names []string
	for _, f := range files {
		if _, err := s.c.FPutObject(ctx, s.name, path.Join(e.nodeKey(), f.key), f.path, minio.PutObjectOptions{}); err != nil {
			return fmt.Errorf("write %s: %w", f.key, err)
		}
		names = append(names, f.key)
	}
	text, err := json.Marshal(names)
	if err != nil {
		return err
	}
	if err := s.write(ctx, path.Join(e.nodeKey(), index), text); err != nil {
		return fmt.Errorf("write the list of files: %w", err)
	}
	fmt.Fprintf(os.Stderr, "%d files of %s are in %s\n", len(files), e.snapshot, s.name)
	return nil
}

// index is the key of a node's list of files.
const index = "files.json"

// file is one of a snapshot.
type file struct {
	key  string // KEYSPACE/TABLE/FILE
	path string
}

// snapshotFiles lists the files of a snapshot of people's keyspaces. Cassandra
// keeps them in KEYSPACE/TABLE-ID/snapshots/NAME.
func snapshotFiles(data, name string) ([]file, error) {
	dirs, err := filepath.Glob(filepath.Join(data, "*", "*", "snapshots", name))
	if err != nil {
		return nil, err
	}
	var all []file
	for _, dir := range dirs {
		rel, err := filepath.Rel(data, dir)
		if err != nil {
			return nil, err
		}
		parts := strings.Split(rel, string(filepath.Separator))
		keyspace := parts[0]
		table, _, _ := strings.Cut(parts[1], "-")
		if strings.HasPrefix(keyspace, "system") {
			continue
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, f := range entries {
			if f.Type().IsRegular() && f.Name() != "manifest.json" && f.Name() != "schema.cql" {
				all = append(all, file{path.Join(keyspace, table, f.Name()), filepath.Join(dir, f.Name())})
			}
		}
	}
	return all, nil
}

// restore brings the files of this node's number back and streams them to the
// nodes that own their rows now.
func restore(ctx context.Context, e environment) error {
	if err := e.named(); err != nil {
		return err
	}
	s, err := e.bucket.open()
	if err != nil {
		return err
	}
	if err := os.RemoveAll(e.scratch); err != nil {
		return err
	}
	defer os.RemoveAll(e.scratch)
	nodes, err := s.list(ctx, e.root()+"/")
	if err != nil {
		return fmt.Errorf("list the backup %s: %w", e.snapshot, err)
	}
	var all []string
	count, err := e.count(ctx)
	if err != nil {
		return err
	}
	for _, key := range mine(nodes, e.root(), e.index, count) {
		text, err := s.read(ctx, path.Join(key, index))
		if err != nil {
			return fmt.Errorf("read the list of files of %s: %w", key, err)
		}
		var names []string
		if err := json.Unmarshal(text, &names); err != nil {
			return fmt.Errorf("read the list of files of %s: %w", key, err)
		}
		tables, err := s.fetch(ctx, key, names, filepath.Join(e.scratch, path.Base(key)))
		if err != nil {
			return err
		}
		all = append(all, tables...)
	}
	for _, table := range all {
		if err := tool(ctx, "sstableloader", "-d", e.address, "-p", e.port, table); err != nil {
			return err
		}
	}
	fmt.Fprintf(os.Stderr, "%d tables of %s are loaded\n", len(all), e.snapshot)
	return nil
}

// mine are the nodes of a backup, as keys, that one of count instances brings
// back: its own, and if there were more nodes then than now, some beyond.
func mine(keys []string, root string, self, count int) []string {
	var own []string
	for _, k := range keys {
		dir := path.Dir(k)
		text, ok := strings.CutPrefix(path.Base(dir), "node-")
		if !ok || path.Base(k) != index || path.Dir(dir) != root {
			continue
		}
		if number, err := strconv.Atoi(text); err == nil && number%count == self {
			own = append(own, dir)
		}
	}
	slices.Sort(own)
	return own
}

// fetch gets files into folders KEYSPACE/TABLE below dir, and returns these.
func (s *store) fetch(ctx context.Context, key string, names []string, dir string) ([]string, error) {
	var tables []string
	for _, n := range names {
		if !filepath.IsLocal(n) {
			return nil, fmt.Errorf("the backup names a file %q", n)
		}
		to := filepath.Join(dir, filepath.FromSlash(n))
		if err := s.c.FGetObject(ctx, s.name, path.Join(key, n), to, minio.GetObjectOptions{}); err != nil {
			return nil, fmt.Errorf("read %s: %w", n, err)
		}
		if table := filepath.Dir(to); !slices.Contains(tables, table) {
			tables = append(tables, table)
		}
	}
	return tables, nil
}
