// Package httpapi is the v1 HTTP surface of a leading master: the scheduler
// API, the operator API and the agents' link. It checks requests in the order
// Mesos does, with its status codes and words; what calls mean is decided in
// core. The caller has checked already that this master leads.
package httpapi

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/api/wire"
	"dcos.example/dcos/runtime/fault"
)

// maxBody bounds a call; the largest are an agent's Subscribe with thousands
// of tasks.
const maxBody = 256 << 20

// status is the one table from fault kinds to codes of the Mesos APIs.
func status(err error) int {
	switch fault.KindOf(err) {
	case fault.Invalid, fault.NotFound:
		return http.StatusBadRequest
	case fault.Denied:
		return http.StatusForbidden
	case fault.Exists, fault.Conflict, fault.Exhausted:
		return http.StatusConflict
	case fault.Unavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// reason is what clients read: the cause, without our operation before it.
func reason(err error) string {
	if e, ok := errors.AsType[*fault.Error](err); ok && e.Err != nil {
		return e.Err.Error()
	}
	return err.Error()
}

func fail(w http.ResponseWriter, code int, format string, args ...any) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	fmt.Fprintf(w, format, args...)
}

func failWith(w http.ResponseWriter, err error) { fail(w, status(err), "%s", reason(err)) }

// decode reads the call in r's body into m. When false the request is answered.
func decode(w http.ResponseWriter, r *http.Request, m proto.Message) (wire.Format, bool) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		fail(w, http.StatusMethodNotAllowed, "Expecting one of { 'POST' }, but received '%s'", r.Method)
		return 0, false
	}
	ct := r.Header.Get("Content-Type")
	if ct == "" {
		fail(w, http.StatusBadRequest, "Expecting 'Content-Type' to be present")
		return 0, false
	}
	format, ok := wire.ParseFormat(ct)
	if !ok {
		fail(w, http.StatusUnsupportedMediaType, "Expecting 'Content-Type' of %s or %s", wire.TypeJSON, wire.TypeProtobuf)
		return 0, false
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		fail(w, http.StatusBadRequest, "Failed to read body: %v", err)
		return 0, false
	}
	if err := format.Unmarshal(body, m); err != nil {
		switch {
		case format == wire.Protobuf:
			fail(w, http.StatusBadRequest, "Failed to parse body into Call protobuf: %s", reason(err))
		case strings.Contains(reason(err), "not JSON"):
			fail(w, http.StatusBadRequest, "Failed to parse body into JSON: %s", reason(err))
		default:
			fail(w, http.StatusBadRequest, "Failed to convert JSON into Call protobuf: %s", reason(err))
		}
		return 0, false
	}
	return format, true
}

// accept returns the format to answer in; when false the request is answered.
func accept(w http.ResponseWriter, r *http.Request) (wire.Format, bool) {
	f, ok := wire.Accept(strings.Join(r.Header.Values("Accept"), ","))
	if !ok {
		fail(w, http.StatusNotAcceptable, "Expecting 'Accept' to allow %s or %s", wire.TypeProtobuf, wire.TypeJSON)
	}
	return f, ok
}

// accepted answers 202 without a body.
func accepted(w http.ResponseWriter) { w.WriteHeader(http.StatusAccepted) }
