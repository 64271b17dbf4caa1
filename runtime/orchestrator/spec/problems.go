package spec

import (
	"errors"
	"strings"

	"dcos.example/dcos/runtime/api/marathon"
)

// Problems is everything wrong with a well-typed document, by place.
type Problems struct{ Details []marathon.Detail }

func (p *Problems) Error() string {
	var b strings.Builder
	b.WriteString("Object is not valid")
	for _, d := range p.Details {
		b.WriteString("; " + d.Path + ": " + strings.Join(d.Errors, ", "))
	}
	return b.String()
}

// add records text at path; problems of one path stay together.
func (p *Problems) add(path, text string) {
	for i := range p.Details {
		if p.Details[i].Path == path {
			p.Details[i].Errors = append(p.Details[i].Errors, text)
			return
		}
	}
	p.Details = append(p.Details, marathon.Detail{Path: path, Errors: []string{text}})
}

func (p *Problems) check(ok bool, path, text string) {
	if !ok {
		p.add(path, text)
	}
}

// err is p, or nil when there are no problems.
func (p *Problems) err() error {
	if len(p.Details) == 0 {
		return nil
	}
	return p
}

// Details returns the places and texts that err carries, whether they are
// about types or about rules.
func Details(err error) ([]marathon.Detail, bool) {
	var types *marathon.TypeError
	var rules *Problems
	switch {
	case errors.As(err, &types):
		return types.Details, true
	case errors.As(err, &rules):
		return rules.Details, true
	}
	return nil, false
}
