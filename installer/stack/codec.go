package stack

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"

	"dcos.example/dcos/runtime/fault"
)

// encodeMap turns properties into what is written: plain JSON values, and for a
// secret the envelope of Pulumi's checkpoints with the encrypted JSON of the
// value.
func (s *secrets) encodeMap(m resource.PropertyMap) (map[string]any, error) {
	if m == nil {
		return nil, nil
	}
	out := make(map[string]any, len(m))
	for k, v := range m {
		x, err := s.encode(v)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k, err)
		}
		out[string(k)] = x
	}
	return out, nil
}

func (s *secrets) encode(v resource.PropertyValue) (any, error) {
	switch {
	case v.IsNull():
		return nil, nil
	case v.IsBool(), v.IsNumber(), v.IsString():
		return v.V, nil
	case v.IsSecret():
		return s.seal(v.SecretValue().Element)
	case v.IsOutput():
		o := v.OutputValue()
		if !o.Known {
			return nil, fmt.Errorf("an unknown value cannot be stored")
		}
		if o.Secret {
			return s.seal(o.Element)
		}
		return s.encode(o.Element)
	case v.IsArray():
		out := make([]any, len(v.ArrayValue()))
		for i, e := range v.ArrayValue() {
			x, err := s.encode(e)
			if err != nil {
				return nil, fmt.Errorf("[%d]: %w", i, err)
			}
			out[i] = x
		}
		return out, nil
	case v.IsObject():
		return s.encodeMap(v.ObjectValue())
	}
	return nil, fmt.Errorf("a value of type %s cannot be stored", v.TypeString())
}

func (s *secrets) seal(v resource.PropertyValue) (any, error) {
	plain, err := s.encode(v)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(plain)
	if err != nil {
		return nil, err
	}
	c, err := s.crypter()
	if err != nil {
		return nil, err
	}
	sealed, err := c.EncryptValue(context.Background(), string(b))
	if err != nil {
		return nil, err
	}
	return map[string]any{resource.SigKey: resource.SecretSig, "ciphertext": sealed}, nil
}

func (s *secrets) decodeMap(m map[string]any) (resource.PropertyMap, error) {
	out := make(resource.PropertyMap, len(m))
	for k, v := range m {
		x, err := s.decode(v)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k, err)
		}
		out[resource.PropertyKey(k)] = x
	}
	return out, nil
}

func (s *secrets) decode(v any) (resource.PropertyValue, error) {
	switch v := v.(type) {
	case map[string]any:
		if v[resource.SigKey] == resource.SecretSig {
			sealed, _ := v["ciphertext"].(string)
			return s.open(sealed)
		}
		m, err := s.decodeMap(v)
		return resource.NewProperty(m), err
	case []any:
		out := make([]resource.PropertyValue, len(v))
		for i, e := range v {
			x, err := s.decode(e)
			if err != nil {
				return x, fmt.Errorf("[%d]: %w", i, err)
			}
			out[i] = x
		}
		return resource.NewProperty(out), nil
	}
	return resource.NewPropertyValue(v), nil
}

func (s *secrets) open(sealed string) (resource.PropertyValue, error) {
	c, err := s.crypter()
	if err != nil {
		return resource.PropertyValue{}, err
	}
	plain, err := c.DecryptValue(context.Background(), sealed)
	if err != nil {
		return resource.PropertyValue{}, fault.Newf("decrypt", fault.Denied, "the key of the stack is not the one that this state was encrypted with; put that one back (%w)", err)
	}
	var x any
	if err := json.Unmarshal([]byte(plain), &x); err != nil {
		return resource.PropertyValue{}, err
	}
	v, err := s.decode(x)
	return resource.MakeSecret(v), err
}
