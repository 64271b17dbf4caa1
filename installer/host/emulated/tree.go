package emulated

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"dcos.example/dcos/installer/bundle"
	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/runtime/config"
)

// inode is what is at a path.
type inode struct {
	dir      bool
	mode     fs.FileMode
	uid, gid int
	link     string
	data     []byte
	sum      string // of data, in hex
}

// tree is a file system in memory. Releases are not copied into it: their
// directories show what their manifests say. It is not safe for concurrent
// use.
type tree struct {
	nodes    map[string]*inode // by clean path; directories too
	releases map[string]*bundle.Share
}

func newTree() *tree {
	return &tree{nodes: map[string]*inode{"/": {dir: true, mode: 0o755}}, releases: map[string]*bundle.Share{}}
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// resolve follows the links of a path, of the last component only if last.
func (t *tree) resolve(p string, last bool) (string, error) {
	for hops := 0; hops < 20; hops++ {
		at, rest, again := "/", strings.Split(strings.Trim(path.Clean(p), "/"), "/"), false
		for i, name := range rest {
			at = path.Join(at, name)
			n := t.nodes[at]
			if n == nil || n.link == "" || i == len(rest)-1 && !last {
				continue
			}
			to := n.link
			if !path.IsAbs(to) {
				to = path.Join(path.Dir(at), to)
			}
			p, again = path.Join(append([]string{to}, rest[i+1:]...)...), true
			break
		}
		if !again {
			return at, nil
		}
	}
	return "", fmt.Errorf("%s: too many levels of symbolic links", p)
}

// inRelease returns the release and the path in it, if p is below one.
func (t *tree) inRelease(p string) (*bundle.Share, string) {
	rest, ok := strings.CutPrefix(p, config.ReleaseDir+"/")
	if !ok {
		return nil, ""
	}
	name, rest, _ := strings.Cut(rest, "/")
	return t.releases[name], rest
}

// get returns what is at p, nil when there is nothing.
func (t *tree) get(p string, follow bool) *inode {
	at, err := t.resolve(p, follow)
	if err != nil {
		return nil
	}
	if m, in := t.inRelease(at); m != nil {
		return release(m, in)
	}
	return t.nodes[at]
}

func release(s *bundle.Share, in string) *inode {
	switch in {
	case "":
		return &inode{dir: true, mode: 0o755}
	case bundle.ManifestName:
		return &inode{mode: 0o644, sum: s.Digest}
	}
	for _, f := range s.Files {
		if f.Path == in {
			return &inode{mode: f.Mode, sum: f.SHA256}
		}
		if strings.HasPrefix(f.Path, in+"/") {
			return &inode{dir: true, mode: 0o755}
		}
	}
	return nil
}

// mkdir makes a directory and those above it.
func (t *tree) mkdir(p string) error {
	at, err := t.resolve(p, true)
	if err != nil {
		return err
	}
	if n := t.nodes[at]; n != nil {
		if !n.dir {
			return fmt.Errorf("mkdir %s: Not a directory", at)
		}
		return nil
	}
	if err := t.mkdir(path.Dir(at)); err != nil {
		return err
	}
	t.nodes[at] = &inode{dir: true, mode: 0o755}
	return nil
}

// put replaces what is at p.
func (t *tree) put(p string, f host.File) error {
	if err := t.mkdir(path.Dir(p)); err != nil {
		return err
	}
	dir, err := t.resolve(path.Dir(p), true)
	if err != nil {
		return err
	}
	at := path.Join(dir, path.Base(p))
	if n := t.nodes[at]; n != nil && n.dir {
		return fmt.Errorf("mv: cannot overwrite directory '%s' with non-directory", at)
	}
	if f.Link != "" {
		t.nodes[at] = &inode{link: f.Link, mode: 0o777}
		return nil
	}
	t.nodes[at] = &inode{mode: f.Mode.Perm(), uid: f.UID, gid: f.GID, data: f.Data, sum: digest(f.Data)}
	return nil
}

// remove removes what is at p with all below it.
func (t *tree) remove(p string) {
	at, err := t.resolve(p, false)
	if err != nil {
		return
	}
	for name := range t.nodes {
		if name == at || strings.HasPrefix(name, at+"/") {
			delete(t.nodes, name)
		}
	}
	for name := range t.releases {
		if r := path.Join(config.ReleaseDir, name); r == at || strings.HasPrefix(r, at+"/") {
			delete(t.releases, name)
		}
	}
}

// names lists a directory; false when there is none.
func (t *tree) names(p string) ([]string, bool) {
	n := t.get(p, true)
	if n == nil || !n.dir {
		return nil, false
	}
	at, err := t.resolve(p, true)
	if err != nil {
		return nil, false
	}
	out := []string{}
	for name := range t.nodes {
		if path.Dir(name) == at && name != "/" {
			out = append(out, path.Base(name))
		}
	}
	if at == config.ReleaseDir {
		for name := range t.releases {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out, true
}

func (n *inode) entry(content bool) host.Entry {
	if n.link != "" {
		return host.Entry{File: host.File{Link: n.link}}
	}
	e := host.Entry{File: host.File{Mode: n.mode.Perm(), UID: n.uid, GID: n.gid}, SHA256: n.sum}
	if content {
		e.Data = n.data
	}
	return e
}
