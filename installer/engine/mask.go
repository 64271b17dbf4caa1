package engine

import (
	"cmp"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"

	"dcos.example/dcos/runtime/fault"
)

const (
	maskedText  = "[secret]"
	unknownText = "[unknown]"
	// shortest secret that is searched for in texts: shorter ones would shred
	// every message and protect nothing.
	shortestSecret = 4
)

// mask knows the secret strings of a run and takes them out of texts.
type mask struct {
	mu      sync.RWMutex
	secrets map[string]bool
	replace *strings.Replacer // nil after a secret was learned
}

func newMask() *mask { return &mask{secrets: map[string]bool{}} }

// learn remembers every string inside a secret of m.
func (k *mask) learn(m resource.PropertyMap) {
	if !m.ContainsSecrets() {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, v := range m {
		k.walk(v, false)
	}
}

func (k *mask) walk(v resource.PropertyValue, secret bool) {
	switch {
	case v.IsSecret():
		k.walk(v.SecretValue().Element, true)
	case v.IsOutput():
		k.walk(v.OutputValue().Element, secret || v.OutputValue().Secret)
	case v.IsArray():
		for _, e := range v.ArrayValue() {
			k.walk(e, secret)
		}
	case v.IsObject():
		for _, e := range v.ObjectValue() {
			k.walk(e, secret)
		}
	case v.IsString() && secret:
		k.add(v.StringValue())
	}
}

// add remembers s, the forms quoting gives it, and each of its lines.
func (k *mask) add(s string) {
	forms := []string{s}
	if b, err := json.Marshal(s); err == nil {
		forms = append(forms, string(b[1:len(b)-1]))
	}
	if lines := strings.Split(s, "\n"); len(lines) > 1 {
		forms = append(forms, lines...)
	}
	for _, f := range forms {
		if f = strings.TrimSpace(f); len(f) >= shortestSecret && !k.secrets[f] {
			k.secrets[f] = true
			k.replace = nil
		}
	}
}

// text returns s without the secrets known so far.
func (k *mask) text(s string) string {
	k.mu.RLock()
	r, none := k.replace, len(k.secrets) == 0
	k.mu.RUnlock()
	if s == "" || none {
		return s
	}
	if r == nil {
		k.mu.Lock()
		// The longest first, or a secret that contains another would show its rest.
		var pairs []string
		for _, f := range slices.SortedFunc(maps.Keys(k.secrets), func(a, b string) int {
			return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b))
		}) {
			pairs = append(pairs, f, maskedText)
		}
		r = strings.NewReplacer(pairs...)
		k.replace = r
		k.mu.Unlock()
	}
	return r.Replace(s)
}

// fault returns err as a fault whose text holds no secrets. The chain ends
// here: what is below may spell secrets out.
func (k *mask) fault(op string, err error) error {
	return fault.New(op, fault.KindOf(err), errors.New(k.text(message(err))))
}

// message is err's text, with the reasons of an InitError in place of the
// SDK's words about them ("resource … failed to initialize: 1 error occurred:").
func message(err error) string {
	s := err.Error()
	if ie, ok := errors.AsType[*plugin.InitError](err); ok && len(ie.Reasons) > 0 {
		s = strings.ReplaceAll(s, ie.Error(), strings.Join(ie.Reasons, "\n"))
	}
	return s
}

// holds reports whether s contains a known secret; short secrets must be equal.
func holdsSecret(s string, secrets map[string]bool) bool {
	if secrets[s] {
		return true
	}
	for f := range secrets {
		if len(f) >= 2*shortestSecret && strings.Contains(s, f) {
			return true
		}
	}
	return false
}

// keepSecret marks as secret what a provider returned unmarked although it is
// (or contains) a secret of its inputs, and the keys the goal names.
func keepSecret(outputs, inputs resource.PropertyMap, keys []resource.PropertyKey) resource.PropertyMap {
	if !inputs.ContainsSecrets() && len(keys) == 0 {
		return outputs
	}
	known := newMask()
	known.learn(inputs)
	out := make(resource.PropertyMap, len(outputs))
	for key, v := range outputs {
		if slices.Contains(keys, key) || inputs[key].IsSecret() {
			if !v.IsSecret() {
				v = resource.MakeSecret(v)
			}
		} else {
			v = markSecrets(v, known.secrets)
		}
		out[key] = v
	}
	return out
}

func markSecrets(v resource.PropertyValue, secrets map[string]bool) resource.PropertyValue {
	switch {
	case v.IsString() && holdsSecret(v.StringValue(), secrets):
		return resource.MakeSecret(v)
	case v.IsArray():
		out := make([]resource.PropertyValue, len(v.ArrayValue()))
		for i, e := range v.ArrayValue() {
			out[i] = markSecrets(e, secrets)
		}
		return resource.NewProperty(out)
	case v.IsObject():
		out := make(resource.PropertyMap, len(v.ObjectValue()))
		for k, e := range v.ObjectValue() {
			out[k] = markSecrets(e, secrets)
		}
		return resource.NewProperty(out)
	}
	return v
}
