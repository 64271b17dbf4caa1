// Package fault classifies errors by what the caller should do about them.
package fault

import (
	"errors"
	"fmt"
)

// Kind says how a caller may react. The zero Kind is Internal.
type Kind uint8

const (
	Internal    Kind = iota // a bug or lost invariant: report, do not retry blindly
	Invalid                 // the request can never succeed as written
	NotFound                // the named object does not exist
	Exists                  // the name is taken
	Conflict                // the object moved on: read again, decide again
	Denied                  // the caller is known and may not
	Exhausted               // quota or resources are used up
	Unavailable             // a dependency is away: retry with backoff
)

var names = [...]string{"internal", "invalid", "not found", "exists", "conflict", "denied", "exhausted", "unavailable"}

func (k Kind) String() string { return names[k] }

// Error is an operation that failed, why, and of which kind.
type Error struct {
	Op   string // what was being done to what, in present tense: "write app /web"
	Kind Kind
	Err  error
}

func (e *Error) Error() string {
	if e.Err == nil {
		return e.Op + ": " + e.Kind.String()
	}
	return e.Op + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// New returns an error of kind k for op; err may be nil.
func New(op string, k Kind, err error) error { return &Error{op, k, err} }

// Newf is New with a formatted cause. A %w operand keeps its chain.
func Newf(op string, k Kind, format string, args ...any) error {
	return &Error{op, k, fmt.Errorf(format, args...)}
}

// KindOf returns the kind of the outermost *Error in err's chain, and Internal
// when there is none.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Internal
}

// Is reports whether err is of kind k.
func Is(err error, k Kind) bool { return err != nil && KindOf(err) == k }
