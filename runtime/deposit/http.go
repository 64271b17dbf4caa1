package deposit

import (
	"encoding/json"
	"net/http"
	"time"

	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/state"
)

// Document is the installer's state as the API has it: the answer of GET and
// the body of PUT.
type Document struct {
	// Revision of the store: in an answer that of this state, in a PUT that of
	// the state that it replaces, 0 for the first.
	Revision  state.Rev `json:"revision"`
	Serial    uint64    `json:"serial"`
	Operation string    `json:"operation"`
	By        string    `json:"by"`
	At        time.Time `json:"at,omitzero"`
	Size      int       `json:"size,omitempty"`
	Content   []byte    `json:"content,omitempty"` // left out with ?content=false
}

// Handler answers GET and PUT for one path. Who may ask is decided before.
func (d *Deposit) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		switch r.Method {
		case http.MethodGet:
			d.get(w, r)
		case http.MethodPut:
			d.put(w, r)
		default:
			w.Header().Set("Allow", "GET, PUT")
			http.Error(w, "There is GET and PUT.", http.StatusMethodNotAllowed)
		}
	})
}

func (d *Deposit) get(w http.ResponseWriter, r *http.Request) {
	var content []byte
	h, err := d.Head(r.Context())
	if err == nil && r.URL.Query().Get("content") != "false" {
		h, content, err = d.Get(r.Context())
	}
	if err != nil {
		refuse(w, err)
		return
	}
	answer(w, Document{Revision: h.Rev, Serial: h.Serial, Operation: h.Operation, By: h.By, At: h.At, Size: h.Size, Content: content})
}

func (d *Deposit) put(w http.ResponseWriter, r *http.Request) {
	var in Document
	// In JSON the content takes a third more.
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 2*MaxSize)).Decode(&in); err != nil {
		http.Error(w, "Read the state: "+err.Error(), http.StatusBadRequest)
		return
	}
	if in.Operation == "" || len(in.Content) == 0 || in.Revision < 0 {
		http.Error(w, "operation and content are needed, and a revision that is 0 or more.", http.StatusBadRequest)
		return
	}
	h, err := d.Put(r.Context(), in.Revision, Head{Serial: in.Serial, Operation: in.Operation, By: in.By, At: time.Now().UTC().Truncate(time.Second)}, in.Content)
	if err != nil {
		refuse(w, err)
		return
	}
	answer(w, Document{Revision: h.Rev, Serial: h.Serial, Operation: h.Operation, By: h.By, At: h.At, Size: h.Size})
}

func answer(w http.ResponseWriter, d Document) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(d) // the connection is gone: nobody to tell
}

// refuse is the one place where kinds become HTTP statuses.
func refuse(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	switch fault.KindOf(err) {
	case fault.NotFound:
		status = http.StatusNotFound
	case fault.Conflict:
		status = http.StatusConflict
	case fault.Invalid:
		status = http.StatusBadRequest
	case fault.Unavailable:
		status = http.StatusServiceUnavailable
	case fault.Exhausted:
		status = http.StatusInsufficientStorage
	}
	http.Error(w, err.Error(), status)
}
