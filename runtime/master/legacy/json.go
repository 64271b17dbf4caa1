package legacy

import (
	"encoding/json"
	"math"
	"strconv"

	"google.golang.org/protobuf/proto"

	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/wire"
	"dcos.example/dcos/runtime/resource"
)

// limit is a task's limit of a resource. None is infinite, which is no number
// in JSON: Mesos writes the word.
type limit float64

func (l limit) MarshalJSON() ([]byte, error) {
	if math.IsInf(float64(l), 1) {
		return []byte(`"Infinity"`), nil
	}
	return json.Marshal(float64(l))
}

// resources is the model that all endpoints share: scalars as numbers, of
// which cpus, gpus, mem and disk are always there; ranges and sets as text.
type resources struct{ resource.Resources }

func (r resources) MarshalJSON() ([]byte, error) {
	b := make([]byte, 0, 96)
	b = append(b, '{')
	names := [...]string{resource.CPUs, resource.GPUs, resource.Mem, resource.Disk}
	for i, n := range names {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(strconv.AppendQuote(b, n), ':')
		b = strconv.AppendFloat(b, r.Scalar(n).Float(), 'f', -1, 64)
	}
	seen := map[string]bool{names[0]: true, names[1]: true, names[2]: true, names[3]: true}
	for it := range r.All() {
		if seen[it.Name()] {
			continue
		}
		seen[it.Name()] = true
		b = append(strconv.AppendQuote(append(b, ','), it.Name()), ':')
		switch it.Kind() {
		case resource.KindScalar:
			b = strconv.AppendFloat(b, r.Scalar(it.Name()).Float(), 'f', -1, 64)
		case resource.KindRanges:
			b = strconv.AppendQuote(b, r.Ranges(it.Name()).String())
		default:
			set := []byte{'{'}
			for i, s := range it.Set() {
				if i > 0 {
					set = append(set, ", "...)
				}
				set = append(set, s...)
			}
			b = strconv.AppendQuote(b, string(append(set, '}')))
		}
	}
	return append(b, '}'), nil
}

func fromProto(ps []*mesos.Resource) resources {
	r, err := resource.FromProto(ps)
	if err != nil { // the master checked them when they came in
		return resources{}
	}
	return resources{r}
}

// message is a protobuf message in the spelling of the v1 JSON.
type message struct{ proto.Message }

func (m message) MarshalJSON() ([]byte, error) { return wire.JSON.Marshal(m.Message) }

// optional returns m for an omitempty field: nil when there is none.
func optional[M interface {
	proto.Message
	comparable
}](m M) json.Marshaler {
	var none M
	if m == none {
		return nil
	}
	return message{m}
}

func messages[M proto.Message](ms []M) []message {
	out := make([]message, len(ms))
	for i, m := range ms {
		out[i] = message{m}
	}
	return out
}

func labels(l *mesos.Labels) []message {
	if l == nil {
		return nil
	}
	return messages(l.Labels)
}

func attributes(as []*mesos.Attribute) map[string]any {
	out := make(map[string]any, len(as))
	for _, a := range as {
		if a.GetType() == mesos.Value_SCALAR {
			out[a.GetName()] = a.GetScalar().GetValue()
		} else {
			out[a.GetName()] = resource.AttributeText(a)
		}
	}
	return out
}
