package wire_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/agent"
	"dcos.example/dcos/runtime/api/mesos/executor"
	"dcos.example/dcos/runtime/api/mesos/master"
	"dcos.example/dcos/runtime/api/mesos/quota"
	"dcos.example/dcos/runtime/api/mesos/scheduler"
	"dcos.example/dcos/runtime/api/wire"
	"dcos.example/dcos/runtime/fault"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// arbitrary fills m with drawn values, required fields always.
func arbitrary(t *rapid.T, m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.Cardinality() != protoreflect.Required && (depth > 4 || rapid.IntRange(0, 3).Draw(t, "set") != 0) {
			continue
		}
		switch {
		case f.IsMap():
			for range rapid.IntRange(1, 3).Draw(t, "entries") {
				v := m.Mutable(f).Map().NewValue()
				if f.MapValue().Message() != nil {
					arbitrary(t, v.Message(), depth+1)
				} else {
					v = scalar(t, f.MapValue())
				}
				m.Mutable(f).Map().Set(scalar(t, f.MapKey()).MapKey(), v)
			}
		case f.IsList():
			for range rapid.IntRange(1, 3).Draw(t, "elements") {
				if f.Message() != nil {
					arbitrary(t, m.Mutable(f).List().AppendMutable().Message(), depth+1)
				} else {
					m.Mutable(f).List().Append(scalar(t, f))
				}
			}
		case f.Message() != nil:
			arbitrary(t, m.Mutable(f).Message(), depth+1)
		default:
			m.Set(f, scalar(t, f))
		}
	}
}

func scalar(t *rapid.T, f protoreflect.FieldDescriptor) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(rapid.Bool().Draw(t, "bool"))
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(rapid.String().Draw(t, "string"))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"))
	case protoreflect.EnumKind:
		vs := f.Enum().Values()
		return protoreflect.ValueOfEnum(vs.Get(rapid.IntRange(0, vs.Len()-1).Draw(t, "enum")).Number())
	case protoreflect.DoubleKind:
		special := rapid.SampledFrom([]float64{0, 1, 1.5, 1e-9, 1e22, math.MaxFloat64, math.Inf(1), math.Inf(-1), math.NaN()})
		return protoreflect.ValueOfFloat64(rapid.OneOf(special, rapid.Float64()).Draw(t, "double"))
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(rapid.Int32().Draw(t, "int32"))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(rapid.Int64().Draw(t, "int64"))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(rapid.Uint32().Draw(t, "uint32"))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(rapid.Uint64().Draw(t, "uint64"))
	}
	t.Fatalf("no values for %s", f.Kind())
	return protoreflect.Value{}
}

// withDefaults sets the declared defaults that JSON spells out.
func withDefaults(m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		deprecated := strings.Contains(string(f.FullName()), "Resource.role") || f.FullName() == "mesos.v1.FrameworkInfo.role"
		if f.HasDefault() && !m.Has(f) && !deprecated {
			m.Set(f, f.Default())
		}
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap():
			if f.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool { withDefaults(v.Message()); return true })
			}
		case f.IsList():
			for i := 0; f.Message() != nil && i < v.List().Len(); i++ {
				withDefaults(v.List().Get(i).Message())
			}
		case f.Message() != nil:
			withDefaults(v.Message())
		}
		return true
	})
}

func drawMessage(t *rapid.T) proto.Message {
	m := rapid.SampledFrom([]proto.Message{
		&scheduler.Call{}, &scheduler.Event{}, &executor.Event{}, &executor.Call{},
		&master.Event{}, &master.Response{}, &agent.Call{}, &agent.Response{}, &agent.ProcessIO{}, &quota.QuotaConfig{},
	}).Draw(t, "type").ProtoReflect().New()
	arbitrary(t, m, 0)
	return m.Interface()
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMessage(t)
		b, err := wire.Protobuf.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		got := m.ProtoReflect().New().Interface()
		if err := wire.Protobuf.Unmarshal(b, got); err != nil || !proto.Equal(m, got) {
			t.Fatalf("protobuf: %v %s", err, cmp.Diff(m, got, protocmp.Transform()))
		}
		if b, err = wire.JSON.Marshal(m); err != nil {
			t.Fatal(err)
		}
		withDefaults(m.ProtoReflect())
		if err := wire.JSON.Unmarshal(b, got); err != nil || !proto.Equal(m, got) {
			t.Fatalf("JSON %s: %v %s", b, err, cmp.Diff(m, got, protocmp.Transform()))
		}
		// An independent reader understands the same.
		peer := m.ProtoReflect().New().Interface()
		if err := protojson.Unmarshal(b, peer); err != nil || !proto.Equal(m, peer) {
			t.Fatalf("protojson reads %s: %v %s", b, err, cmp.Diff(m, peer, protocmp.Transform()))
		}
		// And its text, with 64-bit numbers as strings, is understood here.
		if b, err = (protojson.MarshalOptions{UseProtoNames: true}).Marshal(m); err != nil {
			t.Fatal(err)
		}
		if err := wire.JSON.Unmarshal(b, got); err != nil || !proto.Equal(m, got) {
			t.Fatalf("from protojson %s: %v %s", b, err, cmp.Diff(m, got, protocmp.Transform()))
		}
	})
}

// examples are messages as clients see them in Mesos' own documentation.
func examples() map[string]proto.Message {
	id := func(v string) *mesos.FrameworkID { return &mesos.FrameworkID{Value: &v} }
	return map[string]proto.Message{
		"subscribe": &scheduler.Call{
			Type: scheduler.Call_SUBSCRIBE.Enum(),
			Subscribe: &scheduler.Call_Subscribe{FrameworkInfo: &mesos.FrameworkInfo{
				User: proto.String("root"), Name: proto.String(`a "quoted" name ü`), Roles: []string{"*", "x"},
				Capabilities: []*mesos.FrameworkInfo_Capability{{Type: mesos.FrameworkInfo_Capability_MULTI_ROLE.Enum()}},
			}},
		},
		"subscribed": &scheduler.Event{
			Type:       scheduler.Event_SUBSCRIBED.Enum(),
			Subscribed: &scheduler.Event_Subscribed{FrameworkId: id("12220-3440-12532-2345"), HeartbeatIntervalSeconds: proto.Float64(15)},
		},
		"message": &scheduler.Event{
			Type: scheduler.Event_MESSAGE.Enum(),
			Message: &scheduler.Event_Message{
				AgentId: &mesos.AgentID{Value: proto.String("a")}, ExecutorId: &mesos.ExecutorID{Value: proto.String("e")}, Data: []byte("t+?>binary\x00"),
			},
		},
		"quota": &quota.QuotaConfig{Role: proto.String("dev"), Limits: map[string]*mesos.Value_Scalar{
			"mem": {Value: proto.Float64(512)}, "cpus": {Value: proto.Float64(0.1)},
		}},
		"drain": &master.Call{Type: master.Call_DRAIN_AGENT.Enum(), DrainAgent: &master.Call_DrainAgent{
			AgentId: &mesos.AgentID{Value: proto.String("a")}, MaxGracePeriod: &durationpb.Duration{Seconds: 600},
		}},
		"unavailability": &mesos.Unavailability{Start: &mesos.TimeInfo{Nanoseconds: proto.Int64(math.MaxInt64)}},
	}
}

func TestGolden(t *testing.T) {
	for name, m := range examples() {
		got, err := wire.JSON.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("testdata", name+".json")
		if *update {
			if err := os.WriteFile(path, append(got, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), string(got)+"\n"); d != "" {
			t.Errorf("%s: -want +got\n%s", name, d)
		}
	}
}

func TestTolerantInput(t *testing.T) {
	offer := []*mesos.OfferID{{Value: proto.String("o")}}
	for _, c := range []struct {
		name, in string
		want     proto.Message
	}{
		{"single object for repeated", `{"offer_ids":{"value":"o"}}`, &scheduler.Call_Accept{OfferIds: offer}},
		{"null, unknown fields and spaces", ` { "filters" : null , "new":[{"a":[1,"}\"]"]},{}], "offer_ids" : [ {"value" : "o"} , null ] } `, &scheduler.Call_Accept{OfferIds: offer}},
		{"last of two keys", `{"offer_ids":[{"value":"x"}],"offer_ids":[{"value":"o"}]}`, &scheduler.Call_Accept{OfferIds: offer}},
		{"numbers as text", `{"type":"SCALAR","scalar":{"value":"1.5"}}`, &mesos.Value{Type: mesos.Value_SCALAR.Enum(), Scalar: &mesos.Value_Scalar{Value: proto.Float64(1.5)}}},
		{"float for integer", `{"begin":1e3,"end":"2.9"}`, &mesos.Value_Range{Begin: proto.Uint64(1000), End: proto.Uint64(2)}},
		{"boolean as text", `{"value":"x","extract":"false"}`, &mesos.CommandInfo_URI{Value: proto.String("x"), Extract: proto.Bool(false)}},
		{"infinity", `{"refuse_seconds":"Infinity"}`, &mesos.Filters{RefuseSeconds: proto.Float64(math.Inf(1))}},
		{"unknown enum name", `{"type":"NEWER"}`, &scheduler.Call{}},
		{"escapes", `{"value":"\u00fc\n\ud83d\ude00"}`, &mesos.TaskID{Value: proto.String("ü\n😀")}},
		{"duration text", `{"agent_id":{"value":"a"},"max_grace_period":"10mins"}`, &master.Call_DrainAgent{AgentId: &mesos.AgentID{Value: proto.String("a")}, MaxGracePeriod: &durationpb.Duration{Seconds: 600}}},
		{"duration fraction", `{"agent_id":{"value":"a"},"max_grace_period":"1.5s"}`, &master.Call_DrainAgent{AgentId: &mesos.AgentID{Value: proto.String("a")}, MaxGracePeriod: &durationpb.Duration{Seconds: 1, Nanos: 5e8}}},
	} {
		got := c.want.ProtoReflect().New().Interface()
		if err := wire.JSON.Unmarshal([]byte(c.in), got); err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if d := cmp.Diff(c.want, got, protocmp.Transform()); d != "" {
			t.Errorf("%s: -want +got\n%s", c.name, d)
		}
	}
}

func TestRefusedInput(t *testing.T) {
	deep := strings.Repeat(`{"parent":`, 200) + "{}" + strings.Repeat("}", 200)
	for _, c := range []struct {
		in   string
		into proto.Message
		want string
	}{
		{`{"type":`, &scheduler.Call{}, "not JSON"},
		{``, &scheduler.Call{}, "not JSON"},
		{`{} {}`, &scheduler.Call{}, "not JSON"},
		{`[]`, &scheduler.Call{}, "must be a JSON object, is an array"},
		{`{"accept":{"filters":{"refuse_seconds":"soon"}}}`, &scheduler.Call{}, `accept.filters.refuse_seconds: must be a number, is "soon"`},
		{`{"accept":{"filters":{"refuse_seconds":true}}}`, &scheduler.Call{}, `is a boolean`},
		{`{"kill":{}}`, &scheduler.Call{}, "mesos.v1.scheduler.Call.Kill.task_id"},
		{`{"value":7}`, &mesos.TaskID{}, "must be a string, is a number"},
		{`{"value":{}}`, &mesos.TaskID{}, "must be a string, is an object"},
		{`{"task_id":"t"}`, &scheduler.Call_Kill{}, "must be an object, is a string"},
		{`{"data":"***"}`, &executor.Call_Message{}, "must be base64"},
		{`{"begin":-1,"end":1}`, &mesos.Value_Range{}, "begin: -1 is out of range"},
		{`{"number":4294967296}`, &mesos.Port{}, "out of range"},
		{`{"type":"NONE"}`, &mesos.Value{}, `has no value "NONE"`},
		{`{"role":"r","limits":[]}`, &quota.QuotaConfig{}, "must be an object, is an array"},
		{`{"agent_id":{"value":"a"},"max_grace_period":"long"}`, &master.Call_DrainAgent{}, "must be a duration"},
		{deep, &mesos.ContainerID{}, "nested deeper"},
	} {
		err := wire.JSON.Unmarshal([]byte(c.in), c.into)
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.60s: got %v, want invalid with %q", c.in, err, c.want)
		}
	}
	for _, f := range []wire.Format{wire.JSON, wire.Protobuf} {
		if _, err := f.Marshal(&mesos.TaskID{}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: message without required field gave %v", f, err)
		}
	}
	if err := wire.Protobuf.Unmarshal([]byte{0xff}, &mesos.TaskID{}); !fault.Is(err, fault.Invalid) {
		t.Errorf("broken protobuf gave %v", err)
	}
}

func TestMediaTypes(t *testing.T) {
	for in, want := range map[string]bool{"application/json": true, "application/x-protobuf": true, "application/json; charset=utf-8": false, "": false, "text/plain": false} {
		if f, ok := wire.ParseFormat(in); ok != want || ok && f.ContentType() != in {
			t.Errorf("ParseFormat(%q) = %v, %v", in, f, ok)
		}
	}
	for in, want := range map[string]string{
		"": wire.TypeJSON, "*/*": wire.TypeJSON, "application/*": wire.TypeJSON,
		"application/x-protobuf":                         wire.TypeProtobuf,
		"application/x-protobuf, application/json;q=0.1": wire.TypeJSON,
		"application/json;q=0, application/x-protobuf":   wire.TypeProtobuf,
		"application/json;q=0.0, */*":                    wire.TypeProtobuf,
		"text/html":                                      "", "application/x-protobuf;q=0": "",
	} {
		f, ok := wire.Accept(in)
		if ok != (want != "") || ok && f.ContentType() != want {
			t.Errorf("Accept(%q) = %v, %v; want %q", in, f, ok, want)
		}
	}
}

type flushes struct {
	bytes.Buffer
	n int
}

func (f *flushes) Flush() { f.n++ }

func TestRecordIO(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		records := rapid.SliceOf(rapid.SliceOf(rapid.Byte())).Draw(t, "records")
		var f flushes
		w := wire.NewRecordWriter(&f)
		for _, r := range records {
			if err := w.Write(r); err != nil {
				t.Fatal(err)
			}
		}
		if f.n != len(records) {
			t.Fatalf("flushed %d times for %d records", f.n, len(records))
		}
		r := wire.NewRecordReader(iotestOneByte{&f.Buffer}, 1<<20)
		for _, want := range records {
			if got, err := r.Read(); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("read %q, %v; want %q", got, err, want)
			}
		}
		if _, err := r.Read(); err != io.EOF {
			t.Fatalf("end of stream is %v", err)
		}
	})
	big := bytes.Repeat([]byte("x"), 5<<20)
	var buf bytes.Buffer
	w := wire.NewRecordWriter(&buf)
	for range 2 {
		if err := w.Write(big); err != nil {
			t.Fatal(err)
		}
	}
	r := wire.NewRecordReader(&buf, len(big))
	for range 2 {
		if got, err := r.Read(); err != nil || !bytes.Equal(got, big) {
			t.Fatalf("big record: %d bytes, %v", len(got), err)
		}
	}
	for in, kind := range map[string]fault.Kind{
		"5\nabc": fault.Unavailable, "5": fault.Unavailable, "\n": fault.Invalid, "x": fault.Invalid, "-1\n": fault.Invalid,
		"11\n0123456789a": fault.Invalid, "99999999999999999999999\n": fault.Invalid, "00000000000000000000001\nx": fault.Invalid,
	} {
		if _, err := wire.NewRecordReader(strings.NewReader(in), 10).Read(); !fault.Is(err, kind) {
			t.Errorf("%q gave %v, want %v", in, err, kind)
		}
	}
	if _, err := wire.NewRecordReader(strings.NewReader("5\nabc"), 10).Read(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("broken stream gave %v", err)
	}
}

type iotestOneByte struct{ r io.Reader }

func (r iotestOneByte) Read(p []byte) (int, error) { return r.r.Read(p[:min(1, len(p))]) }

func FuzzJSON(f *testing.F) {
	for _, m := range examples() {
		b, _ := wire.JSON.Marshal(m)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var m, again scheduler.Call
		if wire.JSON.Unmarshal(b, &m) != nil {
			return
		}
		out, err := wire.JSON.Marshal(&m)
		if err != nil || !json.Valid(out) {
			t.Fatalf("encode: %v: %s", err, out)
		}
		withDefaults(m.ProtoReflect())
		if err := wire.JSON.Unmarshal(out, &again); err != nil || !proto.Equal(&m, &again) {
			t.Fatalf("%s → %s: %v %s", b, out, err, cmp.Diff(&m, &again, protocmp.Transform()))
		}
	})
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte("3\nabc0\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := wire.NewRecordReader(bytes.NewReader(b), 1000)
		for {
			got, err := r.Read()
			if err != nil {
				return
			}
			if len(got) > 1000 {
				t.Fatalf("record of %d bytes", len(got))
			}
		}
	})
}

func offers() *scheduler.Event {
	m := &scheduler.Event{Type: scheduler.Event_OFFERS.Enum(), Offers: &scheduler.Event_Offers{}}
	for range 50 {
		o := &mesos.Offer{
			Id: &mesos.OfferID{Value: proto.String("5b6c2d9e-90e5-4f0f-8e1a-8b7d5d4e9b7a-O123")}, FrameworkId: &mesos.FrameworkID{Value: proto.String("5b6c2d9e-90e5-4f0f-8e1a-8b7d5d4e9b7a-0001")},
			AgentId: &mesos.AgentID{Value: proto.String("5b6c2d9e-90e5-4f0f-8e1a-8b7d5d4e9b7a-S1")}, Hostname: proto.String("10.0.0.1"),
		}
		for _, n := range []string{"cpus", "mem", "disk", "gpus"} {
			o.Resources = append(o.Resources, &mesos.Resource{Name: &n, Type: mesos.Value_SCALAR.Enum(), Scalar: &mesos.Value_Scalar{Value: proto.Float64(12.5)}, AllocationInfo: &mesos.Resource_AllocationInfo{Role: proto.String("*")}})
		}
		m.Offers.Offers = append(m.Offers.Offers, o)
	}
	return m
}

func BenchmarkMarshal(b *testing.B) {
	m := offers()
	b.Run("json", func(b *testing.B) {
		b.ReportAllocs()
		var buf []byte
		for b.Loop() {
			buf, _ = wire.JSON.Append(buf[:0], m)
		}
		b.SetBytes(int64(len(buf)))
	})
	b.Run("protojson", func(b *testing.B) {
		b.ReportAllocs()
		var buf []byte
		for b.Loop() {
			buf, _ = protojson.MarshalOptions{UseProtoNames: true}.MarshalAppend(buf[:0], m)
		}
		b.SetBytes(int64(len(buf)))
	})
	b.Run("protobuf", func(b *testing.B) {
		var buf []byte
		for b.Loop() {
			buf, _ = wire.Protobuf.Append(buf[:0], m)
		}
		b.SetBytes(int64(len(buf)))
	})
}

func BenchmarkUnmarshal(b *testing.B) {
	in, _ := wire.JSON.Marshal(offers())
	b.Run("json", func(b *testing.B) {
		b.SetBytes(int64(len(in)))
		for b.Loop() {
			if err := wire.JSON.Unmarshal(in, &scheduler.Event{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("protojson", func(b *testing.B) {
		b.SetBytes(int64(len(in)))
		for b.Loop() {
			if err := protojson.Unmarshal(in, &scheduler.Event{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
