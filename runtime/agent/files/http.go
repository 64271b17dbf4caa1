package files

import (
	"encoding/json"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"regexp"
	"strconv"
	"strings"

	"dcos.example/dcos/runtime/fault"
)

// Handler serves /files/{browse,read,download,debug} with the shapes of Mesos.
// The old suffix ".json" works as well.
func (t *Tree) Handler() http.Handler {
	mux := http.NewServeMux()
	for name, h := range map[string]http.HandlerFunc{"browse": t.browse, "read": t.read, "debug": t.debug} {
		mux.HandleFunc("GET /files/"+name, h)
		mux.HandleFunc("GET /files/"+name+".json", h)
	}
	mux.HandleFunc("GET /files/download", t.download)
	mux.HandleFunc("GET /files/download.json", t.download)
	return mux
}

type fileJSON struct {
	Path  string `json:"path"`
	Nlink uint64 `json:"nlink"`
	Size  int64  `json:"size"`
	Mtime int64  `json:"mtime"`
	Mode  string `json:"mode"`
	UID   string `json:"uid"`
	GID   string `json:"gid"`
}

func (t *Tree) browse(w http.ResponseWriter, r *http.Request) {
	list, err := t.List(r.URL.Query().Get("path"))
	if err != nil {
		fail(w, err)
		return
	}
	out := make([]fileJSON, 0, len(list))
	for _, i := range list {
		out = append(out, fileJSON{i.Path, i.Nlink, i.Size, i.Mtime.Unix(), modeText(i.Mode), i.UID, i.GID})
	}
	reply(w, r, out)
}

// modeText writes a mode as ls does, "-rw-r--r--".
func modeText(m fs.FileMode) string {
	kind := "-"
	switch {
	case m.IsDir():
		kind = "d"
	case m&fs.ModeSymlink != 0:
		kind = "l"
	case m&fs.ModeNamedPipe != 0:
		kind = "p"
	case m&fs.ModeSocket != 0:
		kind = "s"
	case m&fs.ModeCharDevice != 0:
		kind = "c"
	case m&fs.ModeDevice != 0:
		kind = "b"
	}
	return kind + m.Perm().String()[1:]
}

func (t *Tree) read(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	offset, err1 := number(q.Get("offset"), -1)
	length, err2 := number(q.Get("length"), -1)
	switch {
	case err1 != nil:
		fail(w, fault.Newf("read file", fault.Invalid, "failed to parse offset: %w", err1))
		return
	case err2 != nil:
		fail(w, fault.Newf("read file", fault.Invalid, "failed to parse length: %w", err2))
		return
	case offset < -1:
		fail(w, fault.Newf("read file", fault.Invalid, "negative offset provided: %d", offset))
		return
	case length < -1:
		fail(w, fault.Newf("read file", fault.Invalid, "negative length provided: %d", length))
		return
	}
	type piece struct {
		Data   string `json:"data"`
		Offset int64  `json:"offset"`
	}
	if offset == -1 { // asks for the size
		_, size, err := t.Read(q.Get("path"), 0, 0)
		if err != nil {
			fail(w, err)
			return
		}
		reply(w, r, piece{"", size})
		return
	}
	data, _, err := t.Read(q.Get("path"), offset, length)
	if err != nil {
		fail(w, err)
		return
	}
	reply(w, r, piece{string(data), offset})
}

func number(s string, absent int64) (int64, error) {
	if s == "" {
		return absent, nil
	}
	return strconv.ParseInt(s, 10, 64)
}

func (t *Tree) download(w http.ResponseWriter, r *http.Request) {
	p := r.URL.Query().Get("path")
	f, err := t.Open(p)
	if err != nil {
		fail(w, err)
		return
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		fail(w, fault.New("download file", fault.Internal, err))
		return
	}
	w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": path.Base(p)}))
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", fi.ModTime(), f)
}

func (t *Tree) debug(w http.ResponseWriter, r *http.Request) { reply(w, r, t.Roots()) }

var callback = regexp.MustCompile(`^[A-Za-z_$][A-Za-z0-9_$.]*$`)

func reply(w http.ResponseWriter, r *http.Request, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		fail(w, fault.New("encode reply", fault.Internal, err))
		return
	}
	kind := "application/json"
	if cb := r.URL.Query().Get("jsonp"); callback.MatchString(cb) {
		kind = "text/javascript"
		b = []byte(cb + "(" + string(b) + ");")
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	_, _ = w.Write(b) // the client went away: nothing to do
}

// fail answers with the status of err's kind.
func fail(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	switch fault.KindOf(err) {
	case fault.Invalid:
		status = http.StatusBadRequest
	case fault.NotFound:
		status = http.StatusNotFound
	case fault.Denied:
		status = http.StatusForbidden
	}
	http.Error(w, strings.TrimSpace(err.Error())+".", status)
}
