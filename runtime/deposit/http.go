package deposit

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/state"
)

// Headers of the API. The revision is the ETag.
const (
	headerSerial    = "Dcos-State-Serial"
	headerOperation = "Dcos-State-Operation"
	headerBy        = "Dcos-State-By"
)

// Handler answers GET, HEAD and PUT for one path, as docs/backup.md has it. Who
// may ask is decided before.
func (d *Deposit) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		switch r.Method {
		case http.MethodHead:
			h, err := d.Head(r.Context())
			if err != nil {
				refuse(w, err)
				return
			}
			describe(w, h)
		case http.MethodGet:
			h, content, err := d.Get(r.Context())
			if err != nil {
				refuse(w, err)
				return
			}
			describe(w, h)
			_, _ = w.Write(content) // the connection is gone: nobody to tell
		case http.MethodPut:
			d.put(w, r)
		default:
			w.Header().Set("Allow", "GET, HEAD, PUT")
			http.Error(w, "There is GET, HEAD and PUT.", http.StatusMethodNotAllowed)
		}
	})
}

func describe(w http.ResponseWriter, h Head) {
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(h.Size))
	w.Header().Set("Last-Modified", h.At.UTC().Format(http.TimeFormat))
	w.Header().Set("ETag", etag(h.Rev))
	w.Header().Set(headerSerial, strconv.FormatUint(h.Serial, 10))
	w.Header().Set(headerOperation, h.Operation)
	w.Header().Set(headerBy, h.By)
}

func etag(rev state.Rev) string { return `"` + strconv.FormatInt(int64(rev), 10) + `"` }

// put needs to be told what it replaces: If-Match with the ETag that was read,
// or If-None-Match: * for the first state.
func (d *Deposit) put(w http.ResponseWriter, r *http.Request) {
	rev, err := replaces(r.Header)
	if err != nil {
		http.Error(w, err.Error(), http.StatusPreconditionRequired)
		return
	}
	serial, err := strconv.ParseUint(r.Header.Get(headerSerial), 10, 64)
	if err != nil || r.Header.Get(headerOperation) == "" {
		http.Error(w, headerSerial+" and "+headerOperation+" must say which state this is.", http.StatusBadRequest)
		return
	}
	content, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxSize))
	if err != nil {
		http.Error(w, "Read the state: "+err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	h, err := d.Put(r.Context(), rev, Head{Serial: serial, Operation: r.Header.Get(headerOperation), By: r.Header.Get(headerBy), At: time.Now().UTC().Truncate(time.Second)}, content)
	if err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("ETag", etag(h.Rev))
	w.WriteHeader(http.StatusNoContent)
}

func replaces(h http.Header) (state.Rev, error) {
	if h.Get("If-None-Match") == "*" {
		return 0, nil
	}
	n, err := strconv.ParseInt(strings.Trim(h.Get("If-Match"), `"`), 10, 64)
	if err != nil || n <= 0 {
		return 0, fault.Newf("replace the installer's state", fault.Invalid, "If-Match must name the revision that is replaced, or If-None-Match be *")
	}
	return state.Rev(n), nil
}

// refuse is the one place where kinds become HTTP statuses.
func refuse(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	switch fault.KindOf(err) {
	case fault.NotFound:
		status = http.StatusNotFound
	case fault.Conflict:
		status = http.StatusPreconditionFailed
	case fault.Invalid:
		status = http.StatusBadRequest
	case fault.Unavailable:
		status = http.StatusServiceUnavailable
	case fault.Exhausted:
		status = http.StatusInsufficientStorage
	}
	http.Error(w, err.Error(), status)
}
