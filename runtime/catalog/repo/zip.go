package repo

import (
	"archive/zip"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"dcos.example/dcos/runtime/catalog/index"
	"dcos.example/dcos/universe/schema"
)

const (
	maxFiles = 200_000
	maxFile  = 2 << 20
)

// A file of a package in a repository of version 2, below whatever folder.
var packageFile = regexp.MustCompile(`^(?:.*/)?packages/[^/]+/([^/]+)/(\d{1,9})/(package\.json|config\.json|resource\.json|command\.json|marathon\.json\.mustache)$`)

var versionFile = regexp.MustCompile(`^(?:.*/)?meta/version\.json$`)

type key struct {
	name    string
	release int64
}

// decodeZip reads a repository of version 2.
func decodeZip(r io.ReaderAt, size int64) ([]index.Revision, error) {
	z, err := zip.NewReader(r, size)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) {
		return nil, fmt.Errorf("it is no zip archive: %w", err)
	}
	if len(z.File) > maxFiles {
		return nil, fmt.Errorf("it has more than %d files", maxFiles)
	}
	var said uint64
	left := int64(maxContent)
	packages := map[key][]*zip.File{}
	for _, f := range z.File {
		if err := safe(f.Name); err != nil {
			return nil, err
		}
		if m := packageFile.FindStringSubmatch(f.Name); m != nil {
			release, err := strconv.ParseInt(m[2], 10, 64)
			if err != nil {
				return nil, err
			}
			// What it says may be a lie, and is counted again when it is read.
			if said += f.UncompressedSize64; f.UncompressedSize64 > maxContent || said > maxContent {
				return nil, fmt.Errorf("the archive unpacks to more than %d bytes", maxContent)
			}
			k := key{m[1], release}
			packages[k] = append(packages[k], f)
		} else if versionFile.MatchString(f.Name) {
			if err := checkVersion(f, &left); err != nil {
				return nil, err
			}
		}
	}
	if len(packages) > maxRevisions {
		return nil, fmt.Errorf("it has more than %d packages", maxRevisions)
	}
	if len(packages) == 0 {
		return nil, errors.New("it has no packages/<letter>/<name>/<release>/package.json")
	}
	var all []index.Revision
	for _, k := range slices.SortedFunc(maps.Keys(packages), func(a, b key) int {
		return cmp.Or(strings.Compare(a.name, b.name), cmp.Compare(a.release, b.release))
	}) {
		one, err := fromFiles(k, packages[k], &left)
		if err != nil {
			return nil, fmt.Errorf("package %s, release %d: %w", k.name, k.release, err)
		}
		all = append(all, one)
	}
	return all, nil
}

func fromFiles(k key, packed []*zip.File, left *int64) (index.Revision, error) {
	files := map[string][]byte{}
	for _, f := range packed {
		text, err := read(f, left)
		if err != nil {
			return index.Revision{}, err
		}
		files[path.Base(f.Name)] = text
	}
	p, err := schema.Assemble(files, k.release, false)
	if err != nil {
		return index.Revision{}, err
	}
	if p.Name != k.name {
		return index.Revision{}, fmt.Errorf("package.json calls it %q", p.Name)
	}
	return revision(&p, 5)
}

// safe refuses names that lead out of where an archive is unpacked. Nothing is
// unpacked here; such a name says what kind of archive it is.
func safe(name string) error {
	if strings.HasPrefix(name, "/") || strings.ContainsAny(name, "\\\x00") || slices.Contains(strings.Split(name, "/"), "..") {
		return fmt.Errorf("the file %q leads out of the archive", name)
	}
	return nil
}

// read unpacks a file, however large it says it is, and counts it.
func read(f *zip.File, left *int64) ([]byte, error) {
	r, err := f.Open()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name, err)
	}
	defer r.Close()
	text, err := io.ReadAll(limit(limit(r, *left, "the archive unpacks to more than %d bytes", maxContent), maxFile, "it unpacks to more than %d bytes", maxFile))
	*left -= int64(len(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name, err)
	}
	return text, nil
}

func checkVersion(f *zip.File, left *int64) error {
	text, err := read(f, left)
	if err != nil {
		return err
	}
	var v struct {
		Version string `json:"version"`
	}
	if err := json.Unmarshal(text, &v); err != nil {
		return fmt.Errorf("%s: %w", f.Name, notJSON(err))
	}
	if !strings.HasPrefix(v.Version, "2.") {
		return fmt.Errorf("it is of version %q, and only archives of version 2 are understood", v.Version)
	}
	return nil
}
