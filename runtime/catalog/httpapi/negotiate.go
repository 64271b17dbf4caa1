package httpapi

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"dcos.example/dcos/runtime/api/cosmos"
	"dcos.example/dcos/runtime/catalog/failure"
)

// maxBody bounds a request, in bytes; options are what is long in one.
const maxBody = 4 << 20

// media is a media type with what must be the same for two to be one.
type media struct {
	kind, charset, version string
	quality                float64
}

func parseMedia(s string) (media, bool) {
	kind, params, err := mime.ParseMediaType(s)
	if err != nil {
		return media{}, false
	}
	m := media{kind: kind, charset: strings.ToLower(params["charset"]), version: params["version"], quality: 1}
	if q, ok := params["q"]; ok {
		if m.quality, err = strconv.ParseFloat(q, 64); err != nil {
			return media{}, false
		}
	}
	return m, true
}

func (m media) is(other media) bool {
	return m.kind == other.kind && m.charset == other.charset && m.version == other.version
}

// accepted returns which of the types that a call may answer with the client
// likes best: of several, the one it values most, or names first. Types must be
// named exactly; ranges are none, as in DC/OS.
func accepted(r *http.Request, c cosmos.Call) (string, *failure.Error) {
	header := strings.Join(r.Header.Values("Accept"), ", ")
	if header == "" {
		return "", failure.NotPresent("Accept")
	}
	var wanted []media
	for _, part := range strings.Split(header, ",") {
		if m, ok := parseMedia(part); ok && m.quality > 0 {
			wanted = append(wanted, m)
		}
	}
	slices.SortStableFunc(wanted, func(a, b media) int { return cmp.Compare(b.quality, a.quality) })
	for _, w := range wanted {
		for _, a := range c.Accept {
			if have, _ := parseMedia(a); w.is(have) {
				return a, nil
			}
		}
	}
	return "", failure.NotValid("Accept", header, c.Accept)
}

// sent checks the type of a request.
func sent(r *http.Request, c cosmos.Call) *failure.Error {
	header := r.Header.Get("Content-Type")
	if header == "" {
		return failure.NotPresent("Content-Type")
	}
	got, ok := parseMedia(header)
	if want, _ := parseMedia(c.Request); !ok || !got.is(want) {
		return failure.NotValid("Content-Type", header, []string{c.Request})
	}
	return nil
}

// read decodes the body of a request into v. Keys that mean nothing are left
// out, as in DC/OS, whose clients send some.
func read(w http.ResponseWriter, r *http.Request, v any) error {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var long *http.MaxBytesError
	if errors.As(err, &long) {
		return failure.TooLarge(maxBody)
	} else if err != nil {
		return failure.JSON("parse", err.Error(), "")
	}
	err = json.Unmarshal(text, v)
	var kind *json.UnmarshalTypeError
	if errors.As(err, &kind) {
		return failure.JSON("decode", kind.Field+" is a "+kind.Value, "."+kind.Field)
	} else if err != nil {
		return failure.JSON("parse", err.Error(), "")
	}
	return nil
}

// required reports a field that is missing.
func required(name, value string) error {
	if value == "" {
		return failure.JSON("decode", name+" is missing", "."+name)
	}
	return nil
}
