package backup

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"time"

	"dcos.example/dcos/runtime/backup/archive"
	"dcos.example/dcos/runtime/fault"
)

// Overview is the answer of GET /backups.
type Overview struct {
	Where   string          `json:"where"`           // a directory on the masters, or the address of a bucket
	Every   string          `json:"every,omitempty"` // empty: only when asked
	Keep    int             `json:"keep"`
	Last    *Status         `json:"last,omitempty"` // how the last try went
	Next    *time.Time      `json:"next,omitempty"`
	Backups []archive.Entry `json:"backups"`
	Silent  []string        `json:"silent,omitempty"` // masters that did not say what they have
}

// Handler answers Path, CopiesPath and what is below. It is for callers who are masters:
// the gateway decides which people may ask, and sends them to the leader.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+Path, s.overview)
	mux.HandleFunc("POST "+Path, func(w http.ResponseWriter, r *http.Request) {
		e, err := s.Make(r.Context())
		if err != nil {
			refuse(w, err)
			return
		}
		writeJSON(w, http.StatusCreated, e)
	})
	mux.HandleFunc("GET "+Path+"/{id}", func(w http.ResponseWriter, r *http.Request) {
		if _, err := s.leading(); err != nil {
			refuse(w, err)
			return
		}
		f, err := s.open(r.Context(), r.PathValue("id"))
		send(w, r.PathValue("id"), f, err)
	})
	mux.HandleFunc("GET "+CopiesPath, func(w http.ResponseWriter, r *http.Request) {
		es, err := s.dir.List(r.Context())
		if err != nil {
			refuse(w, err)
			return
		}
		if es == nil {
			es = []archive.Entry{}
		}
		writeJSON(w, http.StatusOK, es)
	})
	mux.HandleFunc("GET "+CopiesPath+"/{id}", func(w http.ResponseWriter, r *http.Request) {
		f, err := s.dir.Open(r.Context(), r.PathValue("id"))
		send(w, r.PathValue("id"), f, err)
	})
	mux.HandleFunc("PUT "+CopiesPath+"/{id}", s.take)
	return mux
}

func (s *Service) overview(w http.ResponseWriter, r *http.Request) {
	t, err := s.leading()
	if err != nil {
		refuse(w, err)
		return
	}
	o := Overview{Where: s.cfg.Backup.Dir, Keep: s.cfg.Backup.Keep}
	if p, ok := s.place.(interface{ String() string }); ok && s.cfg.Backup.S3 != nil {
		o.Where = p.String()
	}
	if last, err := t.last(r.Context()); err == nil {
		o.Last = &last
	}
	if every := time.Duration(s.cfg.Backup.Every); every > 0 {
		o.Every = every.String()
		next := s.cfg.Now().Add(s.due(r.Context(), t)).UTC().Truncate(time.Second)
		o.Next = &next
	}
	if o.Backups, o.Silent, err = s.List(r.Context()); err != nil {
		refuse(w, err)
		return
	}
	writeJSON(w, http.StatusOK, o)
}

// take keeps a copy of what the leader has made.
func (s *Service) take(w http.ResponseWriter, r *http.Request) {
	var e archive.Entry
	if err := json.Unmarshal([]byte(r.Header.Get(entryHeader)), &e); err != nil || e.ID != r.PathValue("id") || !e.Of(s.cfg.Cluster.ID) {
		http.Error(w, entryHeader+" does not tell of this backup of this cluster", http.StatusBadRequest)
		return
	}
	if s.cfg.Backup.S3 != nil {
		http.Error(w, "this master keeps backups in a bucket", http.StatusConflict)
		return
	}
	if err := s.dir.Receive(e, r.Body); err != nil {
		refuse(w, err)
		return
	}
	s.prune(r.Context())
	w.WriteHeader(http.StatusNoContent)
}

func send(w http.ResponseWriter, id string, f io.ReadCloser, err error) {
	if err != nil {
		refuse(w, err)
		return
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", `attachment; filename="`+archive.FileName(id)+`"`)
	w.Header().Set("Cache-Control", "no-store")
	if st, ok := f.(interface {
		Seek(int64, int) (int64, error)
	}); ok {
		if n, err := st.Seek(0, io.SeekEnd); err == nil {
			w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
		}
		if _, err := st.Seek(0, io.SeekStart); err != nil {
			refuse(w, fault.New("read backup "+id, fault.Internal, err))
			return
		}
	}
	if _, err := io.Copy(w, f); err != nil {
		// The status is sent: only an answer that breaks off says that it is
		// not whole.
		panic(http.ErrAbortHandler)
	}
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the connection is gone: nobody to tell
}

// refuse is the one place where kinds become HTTP statuses.
func refuse(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	switch fault.KindOf(err) {
	case fault.NotFound:
		status = http.StatusNotFound
	case fault.Invalid:
		status = http.StatusBadRequest
	case fault.Conflict, fault.Exists:
		status = http.StatusConflict
	case fault.Unavailable:
		status = http.StatusServiceUnavailable
	case fault.Exhausted:
		status = http.StatusInsufficientStorage
	}
	http.Error(w, err.Error(), status)
}
