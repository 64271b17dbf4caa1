package volume

import (
	"errors"
	"io/fs"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// usageFresh is how long a measurement counts, and usageTooMany for how
	// long nothing is measured of a volume with too many files.
	usageFresh   = 15 * time.Second
	usageTooMany = 10 * time.Minute
	// maxFiles bounds a measurement: so many can be looked at in well under a
	// tenth of a second.
	maxFiles = 20_000
)

// Meter measures how much is in volumes. It is for views, which may be asked
// for often: a measurement is used for a while, and volumes with very many
// files are not measured. Its zero value is ready.
type Meter struct {
	mu    sync.Mutex
	known map[string]measured
}

type measured struct {
	bytes uint64
	ok    bool
	until time.Time
}

// Usage returns the bytes that a volume takes of its disk; ok is false when
// that is not known.
func (m *Meter) Usage(v Volume, now time.Time) (bytes uint64, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if k, found := m.known[v.Path]; found && now.Before(k.until) {
		return k.bytes, k.ok
	}
	if m.known == nil {
		m.known = make(map[string]measured)
	}
	for path, k := range m.known { // of volumes that nobody asks for any more
		if now.After(k.until) {
			delete(m.known, path)
		}
	}
	k := measured{until: now.Add(usageFresh)}
	var err error
	if k.bytes, err = v.measure(); err == nil {
		k.ok = true
	} else if errors.Is(err, errTooMany) {
		k.until = now.Add(usageTooMany)
	}
	m.known[v.Path] = k
	return k.bytes, k.ok
}

var errTooMany = errors.New("too many files")

func (v Volume) measure() (sum uint64, err error) {
	if v.Disk != "" {
		var st unix.Statfs_t
		if err := unix.Statfs(v.Disk, &st); err != nil {
			return 0, err
		}
		return (st.Blocks - st.Bfree) * uint64(st.Bsize), nil
	}
	n := 0
	seen := map[uint64]bool{} // files with several names count once
	err = filepath.WalkDir(v.Path, func(p string, e fs.DirEntry, err error) error {
		if n++; n > maxFiles {
			return errTooMany
		}
		var fi fs.FileInfo
		if err == nil {
			fi, err = e.Info()
		}
		if errors.Is(err, fs.ErrNotExist) && p != v.Path {
			return nil // it went meanwhile
		}
		if err != nil {
			return err
		}
		st, ok := fi.Sys().(*syscall.Stat_t)
		if !ok || st.Nlink > 1 && !fi.IsDir() && seen[st.Ino] {
			return nil
		}
		seen[st.Ino] = true
		sum += uint64(st.Blocks) * 512
		return nil
	})
	return sum, err
}
