package blueprint

import (
	"encoding/json"

	ctyjson "github.com/zclconf/go-cty/cty/json"
)

// AllVariables is Variables with the sensitive ones among them. What it returns
// must be kept like a password.
func (b *Blueprint) AllVariables() ([]byte, error) {
	vs := map[string]ctyjson.SimpleJSONValue{}
	for name, v := range b.scope.vars {
		if v, _ = v.UnmarkDeep(); v.IsWhollyKnown() {
			vs[name] = ctyjson.SimpleJSONValue{Value: v}
		}
	}
	return json.Marshal(vs)
}
