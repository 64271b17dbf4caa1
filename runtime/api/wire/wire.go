// Package wire turns the protobuf messages of the Mesos v1 APIs into bytes and
// back, in the two spellings that those APIs speak (JSON as Mesos' stout
// library writes it, and plain protobuf), and frames them as RecordIO on
// streams. Every server and client of those APIs goes through here, so the
// rules of the wire are in this one place. See docs/adr/0007-wire-codec.md.
package wire

import (
	"strings"

	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/fault"
)

// Format is a spelling of messages. The zero Format is JSON.
type Format uint8

const (
	JSON Format = iota
	Protobuf
)

// Media types. Mesos compares them as text, so servers must send them without
// parameters.
const (
	TypeJSON     = "application/json"
	TypeProtobuf = "application/x-protobuf"
)

// HeaderStreamID is the header by which calls name their stream.
const HeaderStreamID = "Mesos-Stream-Id"

// LabelMovesTasks is the label of a framework, with the value "true", that
// moves its tasks off draining agents itself. The master tells it of them by
// inverse offers and kills its tasks only at the end of a drain's bound, or
// when it declines (ADR 11).
const LabelMovesTasks = "DCOS_MOVES_TASKS"

// ParseFormat returns the format that a Content-Type names. Like Mesos it
// takes the two media types exactly as written, without parameters.
func ParseFormat(contentType string) (Format, bool) {
	switch contentType {
	case TypeJSON:
		return JSON, true
	case TypeProtobuf:
		return Protobuf, true
	}
	return JSON, false
}

// Accept returns the format to answer in, given an Accept header (all its
// lines joined by commas). JSON wins wherever it is acceptable; an absent
// header accepts everything. False means 406. A media range with q=0 is
// refused, other weights do not matter.
func Accept(header string) (Format, bool) {
	if strings.TrimSpace(header) == "" {
		return JSON, true
	}
	accepts := func(mediaType string) bool {
		best, ok := 0, false // the most specific range decides
		for part := range strings.SplitSeq(header, ",") {
			name, params, _ := strings.Cut(part, ";")
			rank := 0
			switch strings.ToLower(strings.TrimSpace(name)) {
			case mediaType:
				rank = 3
			case "application/*":
				rank = 2
			case "*/*", "*":
				rank = 1
			}
			if rank > best {
				best, ok = rank, !zeroWeight(params)
			}
		}
		return ok
	}
	if accepts(TypeJSON) {
		return JSON, true
	}
	return Protobuf, accepts(TypeProtobuf)
}

func zeroWeight(params string) bool {
	for p := range strings.SplitSeq(params, ";") {
		k, v, _ := strings.Cut(strings.TrimSpace(p), "=")
		if strings.EqualFold(k, "q") {
			return strings.Trim(v, "0.") == "" && v != ""
		}
	}
	return false
}

// ContentType returns the media type of f.
func (f Format) ContentType() string {
	if f == Protobuf {
		return TypeProtobuf
	}
	return TypeJSON
}

func (f Format) String() string { return f.ContentType() }

// Marshal returns m in format f. A message that misses a required field is
// refused with fault.Invalid.
func (f Format) Marshal(m proto.Message) ([]byte, error) { return f.Append(nil, m) }

// Append is Marshal onto the end of b, for callers that reuse a buffer.
func (f Format) Append(b []byte, m proto.Message) ([]byte, error) {
	var err error
	if f == Protobuf {
		b, err = proto.MarshalOptions{}.MarshalAppend(b, m)
	} else if err = proto.CheckInitialized(m); err == nil {
		b = appendMessage(b, m.ProtoReflect())
	}
	if err != nil {
		return b, fault.New("encode "+name(m), fault.Invalid, err)
	}
	return b, nil
}

// Unmarshal sets m to the message in b. What cannot be read, or misses a
// required field, is fault.Invalid; m is then undefined. Unknown fields are
// kept in protobuf and dropped in JSON.
func (f Format) Unmarshal(b []byte, m proto.Message) error {
	var err error
	if f == Protobuf {
		err = proto.Unmarshal(b, m)
	} else {
		err = decode(b, m)
	}
	if err != nil {
		return fault.New("decode "+name(m)+" from "+f.ContentType(), fault.Invalid, err)
	}
	return nil
}

func name(m proto.Message) string { return string(m.ProtoReflect().Descriptor().FullName()) }
