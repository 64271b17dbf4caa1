package backup

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"dcos.example/dcos/runtime/backup/archive"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
)

// Paths of the API on the masters' port. Those of copies are about this master's
// own directory, and for other masters only.
const (
	Path       = "/backups"
	CopiesPath = "/backup-copies"

	entryHeader = "Dcos-Backup-Entry"
)

// others are the masters besides this one.
func (s *Service) others() []config.Member {
	return slices.DeleteFunc(slices.Clone(s.cfg.Masters()), func(m config.Member) bool { return m.Name == s.cfg.Host.Name })
}

func (s *Service) ask(ctx context.Context, method string, m config.Member, path string, body io.Reader, entry string) (*http.Response, error) {
	url := "https://" + net.JoinHostPort(m.Addr.String(), strconv.Itoa(config.PortMaster)) + path
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return nil, err
	}
	if entry != "" {
		req.Header.Set(entryHeader, entry)
	}
	resp, err := s.cfg.Peers.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		resp.Body.Close()
		kind := fault.Unavailable
		if resp.StatusCode == http.StatusNotFound {
			kind = fault.NotFound
		}
		return nil, fault.Newf("ask master "+m.Name, kind, "it answers %s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	return resp, nil
}

// copyToPeers gives the file to the other masters, so that it outlives this
// one, and returns who took it. One that is away does without.
func (s *Service) copyToPeers(ctx context.Context, e archive.Entry, file string) []string {
	entry, err := json.Marshal(e)
	if err != nil {
		s.cfg.Log.Error("copy the backup", "err", err)
		return nil
	}
	var mu sync.Mutex
	var took []string
	var all sync.WaitGroup
	for _, m := range s.others() {
		all.Go(func() {
			f, err := os.Open(file)
			if err == nil {
				defer f.Close()
				var resp *http.Response
				if resp, err = s.ask(ctx, http.MethodPut, m, CopiesPath+"/"+e.ID, f, string(entry)); err == nil {
					err = resp.Body.Close()
				}
			}
			if err != nil {
				s.cfg.Log.Warn("copy the backup", "to", m.Name, "err", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, m.Name)
		})
	}
	all.Wait()
	slices.Sort(took)
	return took
}

// List returns every backup of this cluster, the newest first, and which
// masters did not say what they have.
func (s *Service) List(ctx context.Context) ([]archive.Entry, []string, error) {
	own, err := s.place.List(ctx)
	if err != nil {
		return nil, nil, err
	}
	byID := map[string]archive.Entry{}
	add := func(es []archive.Entry, master string) {
		for _, e := range es {
			if !e.Of(s.cfg.Cluster.ID) {
				continue
			}
			if have, ok := byID[e.ID]; ok {
				e = have
			}
			if master != "" {
				e.Copies = append(e.Copies, master)
			}
			byID[e.ID] = e
		}
	}
	var silent []string
	if s.cfg.Backup.S3 != nil {
		add(own, "")
	} else {
		add(own, s.cfg.Host.Name)
		for _, m := range s.others() {
			es, err := s.listOn(ctx, m)
			if err != nil {
				silent = append(silent, m.Name)
				continue
			}
			add(es, m.Name)
		}
	}
	out := []archive.Entry{}
	for _, e := range byID {
		slices.Sort(e.Copies)
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b archive.Entry) int { return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(b.ID, a.ID)) })
	return out, silent, nil
}

func (s *Service) listOn(ctx context.Context, m config.Member) ([]archive.Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	resp, err := s.ask(ctx, http.MethodGet, m, CopiesPath, nil, "")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var es []archive.Entry
	err = json.NewDecoder(io.LimitReader(resp.Body, 16<<20)).Decode(&es)
	return es, err
}

// open finds a backup wherever it is.
func (s *Service) open(ctx context.Context, id string) (io.ReadCloser, error) {
	r, err := s.place.Open(ctx, id)
	if err == nil || s.cfg.Backup.S3 != nil || !fault.Is(err, fault.NotFound) {
		return r, err
	}
	for _, m := range s.others() {
		if resp, aerr := s.ask(ctx, http.MethodGet, m, CopiesPath+"/"+id, nil, ""); aerr == nil {
			return resp.Body, nil
		} else if !fault.Is(aerr, fault.NotFound) {
			err = errors.Join(err, aerr)
		}
	}
	return nil, err
}

// prune removes the oldest backups of this cluster beyond those to keep, on
// this master or in the bucket; every master does so with its own directory.
func (s *Service) prune(ctx context.Context) {
	es, err := s.place.List(ctx)
	if err != nil {
		s.cfg.Log.Warn("remove old backups", "err", err)
		return
	}
	es = slices.DeleteFunc(es, func(e archive.Entry) bool { return !e.Of(s.cfg.Cluster.ID) })
	for _, e := range es[min(len(es), s.cfg.Backup.Keep):] {
		if err := s.place.Remove(ctx, e.ID); err != nil {
			s.cfg.Log.Warn("remove an old backup", "id", e.ID, "err", err)
			continue
		}
		s.cfg.Log.Info("an old backup is removed", "id", e.ID)
	}
}
