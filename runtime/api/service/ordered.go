package service

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
	"strconv"
)

// Named is one entry of an Ordered.
type Named[T any] struct {
	Name  string
	Value T
}

// Ordered is an object whose keys keep the order in which they were written:
// pods and phases are worked on in it.
type Ordered[T any] []Named[T]

// Get returns the entry called name, nil if there is none.
func (o Ordered[T]) Get(name string) *T {
	for i := range o {
		if o[i].Name == name {
			return &o[i].Value
		}
	}
	return nil
}

// All yields names and values, which may be changed.
func (o Ordered[T]) All() iter.Seq2[string, *T] {
	return func(yield func(string, *T) bool) {
		for i := range o {
			if !yield(o[i].Name, &o[i].Value) {
				return
			}
		}
	}
}

// MarshalJSON writes an object in o's order.
func (o Ordered[T]) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, e := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(e.Name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(e.Value)
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// UnmarshalJSON reads an object as this package wrote it. What a person wrote
// goes through Parse.
func (o *Ordered[T]) UnmarshalJSON(b []byte) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	*o = nil
	open, err := dec.Token()
	if err != nil || open == nil {
		return err
	}
	if open != json.Delim('{') {
		return fmt.Errorf("%v where an object is wanted", open)
	}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return err
		}
		e := Named[T]{Name: name.(string)} // keys are strings
		if err := dec.Decode(&e.Value); err != nil {
			return err
		}
		*o = append(*o, e)
	}
	return nil
}

// MarshalJSON writes [0,["task"]] or ["default",["task"]].
func (s Step) MarshalJSON() ([]byte, error) {
	var at any = s.Instance
	if s.Instance == EveryInstance {
		at = everyInstance
	}
	return json.Marshal([]any{at, s.Tasks})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (s *Step) UnmarshalJSON(b []byte) error {
	var parts []json.RawMessage
	if err := json.Unmarshal(b, &parts); err != nil {
		return err
	}
	if len(parts) != 2 {
		return fmt.Errorf("a step of %d parts", len(parts))
	}
	s.Instance = EveryInstance
	if n, err := strconv.Atoi(string(parts[0])); err == nil {
		s.Instance = n
	}
	return json.Unmarshal(parts[1], &s.Tasks)
}

const everyInstance = "default"
