// Package profile remembers clusters and sessions on disk:
//
//	<dir>/clusters/<id>/cluster.json   address, name, token (0600)
//	<dir>/clusters/<id>/ca.crt         the certificate that its masters chain to
//	<dir>/attached                     id of the cluster that commands talk to
//
// The environment wins over what is stored: DCOS_CLUSTER chooses another
// cluster, DCOS_URL, DCOS_ACS_TOKEN, DCOS_SSL_VERIFY and
// DCOS_TIMEOUT replace values.
package profile

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"dcos.example/dcos/runtime/fault"
)

// Cluster is one cluster as remembered.
type Cluster struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	URL      string `json:"url"`
	Token    string `json:"token,omitempty"`
	Insecure bool   `json:"insecure,omitempty"` // certificates are not verified
	Timeout  int    `json:"timeout,omitempty"`  // seconds; zero: default
	CAPEM    []byte `json:"-"`                  // ca.crt; empty: the system's CAs
}

// Store is a directory of clusters.
type Store struct {
	dir    string
	getenv func(string) string
}

// Open returns the Store in $DCOS_DIR, else in ~/.dcos. Nothing is created.
func Open(getenv func(string) string) (*Store, error) {
	dir := getenv("DCOS_DIR")
	if dir == "" {
		home := getenv("HOME")
		if home == "" {
			return nil, fault.Newf("find configuration", fault.Invalid, "neither DCOS_DIR nor HOME is set")
		}
		dir = filepath.Join(home, ".dcos")
	}
	return &Store{dir, getenv}, nil
}

// List returns all clusters by name.
func (s *Store) List() ([]Cluster, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, "clusters"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fault.New("list clusters", fault.Internal, err)
	}
	var all []Cluster
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		c, err := s.read(e.Name())
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b Cluster) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	return all, nil
}

// Find returns the cluster of that id, name or unique start of an id.
func (s *Store) Find(name string) (Cluster, error) {
	op := "find cluster " + name
	all, err := s.List()
	if err != nil {
		return Cluster{}, err
	}
	var found []Cluster
	for _, c := range all {
		if c.ID == name {
			return c, nil
		}
		if c.Name == name || name != "" && strings.HasPrefix(c.ID, name) {
			found = append(found, c)
		}
	}
	switch len(found) {
	case 0:
		return Cluster{}, fault.Newf(op, fault.NotFound, "no such cluster is set up; `dcos cluster list` shows those that are")
	case 1:
		return found[0], nil
	}
	return Cluster{}, fault.Newf(op, fault.Invalid, "%d clusters fit, use the full ID", len(found))
}

// AttachedID is the id of the attached cluster, empty when there is none.
func (s *Store) AttachedID() string {
	b, err := os.ReadFile(filepath.Join(s.dir, "attached"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// Current returns the cluster that commands talk to, with what the
// environment says.
func (s *Store) Current() (Cluster, error) {
	const op = "find the attached cluster"
	var c Cluster
	var err error
	switch name := s.getenv("DCOS_CLUSTER"); {
	case name != "":
		c, err = s.Find(name)
	case s.AttachedID() != "":
		c, err = s.read(s.AttachedID())
	case s.getenv("DCOS_URL") == "":
		err = fault.Newf(op, fault.Invalid, "no cluster is attached; run `dcos cluster setup https://<address of a master>` or `dcos cluster attach <name>`")
	}
	if err != nil {
		return c, err
	}
	if v := s.getenv("DCOS_URL"); v != "" {
		c.URL = strings.TrimSuffix(v, "/")
	}
	if v := s.getenv("DCOS_ACS_TOKEN"); v != "" {
		c.Token = v
	}
	if v := s.getenv("DCOS_TIMEOUT"); v != "" {
		if err := c.SetTimeout(v); err != nil {
			return c, err
		}
	}
	return c, c.SetVerify(s.getenv("DCOS_SSL_VERIFY"))
}

// SetTimeout takes a number of seconds.
func (c *Cluster) SetTimeout(text string) error {
	n, err := strconv.Atoi(text)
	if err != nil || n <= 0 {
		return fault.Newf("read timeout", fault.Invalid, "%q is no number of seconds", text)
	}
	c.Timeout = n
	return nil
}

// SetVerify takes DC/OS's way to say how certificates are verified: "false",
// "true", or a file of CA certificates. Empty changes nothing.
func (c *Cluster) SetVerify(how string) error {
	switch strings.ToLower(how) {
	case "":
	case "false", "0", "no":
		c.Insecure = true
	case "true", "1", "yes":
		c.Insecure = false
	default:
		pem, err := os.ReadFile(how)
		if err != nil {
			return fault.Newf("read CA certificates", fault.Invalid, "%w; give true, false or a file", err)
		}
		c.Insecure, c.CAPEM = false, pem
	}
	return nil
}

// Save writes c, readable by its owner only.
func (s *Store) Save(c Cluster) error {
	const op = "save cluster"
	if c.ID == "" || c.ID != filepath.Base(c.ID) || strings.HasPrefix(c.ID, ".") {
		return fault.Newf(op, fault.Invalid, "%q cannot be a cluster id", c.ID)
	}
	dir := filepath.Join(s.dir, "clusters", c.ID)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fault.New(op, fault.Internal, err)
	}
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	ca := filepath.Join(dir, "ca.crt")
	if len(c.CAPEM) > 0 {
		err = write(ca, c.CAPEM)
	} else if err = os.Remove(ca); errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err == nil {
		err = write(filepath.Join(dir, "cluster.json"), append(b, '\n'))
	}
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	return nil
}

// Attach makes id the cluster that commands talk to.
func (s *Store) Attach(id string) error {
	if err := write(filepath.Join(s.dir, "attached"), []byte(id+"\n")); err != nil {
		return fault.New("attach cluster", fault.Internal, err)
	}
	return nil
}

// Remove forgets a cluster.
func (s *Store) Remove(id string) error {
	if s.AttachedID() == id {
		if err := os.Remove(filepath.Join(s.dir, "attached")); err != nil {
			return fault.New("remove cluster", fault.Internal, err)
		}
	}
	if err := os.RemoveAll(filepath.Join(s.dir, "clusters", id)); err != nil {
		return fault.New("remove cluster", fault.Internal, err)
	}
	return nil
}

func (s *Store) read(id string) (Cluster, error) {
	op := "read cluster " + id
	var c Cluster
	dir := filepath.Join(s.dir, "clusters", id)
	b, err := os.ReadFile(filepath.Join(dir, "cluster.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return c, fault.Newf(op, fault.NotFound, "it is not set up any more; run `dcos cluster setup`")
	}
	if err != nil {
		return c, fault.New(op, fault.Internal, err)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return c, fault.Newf(op, fault.Invalid, "%s: %w", filepath.Join(dir, "cluster.json"), err)
	}
	c.CAPEM, err = os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return c, fault.New(op, fault.Internal, err)
	}
	return c, nil
}

// write replaces a file in one step.
func write(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
