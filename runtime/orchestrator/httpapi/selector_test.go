package httpapi

import "testing"

func TestSelector(t *testing.T) {
	labels := map[string]string{"a": "b", "env": "prod", "x.y": "1,2"}
	for text, want := range map[string]bool{
		"": true, "a": true, "z": false, "a==b": true, "a == c": false, "a!=c": true, "a!=b": false, "z!=c": false,
		"env in (dev, prod)": true, "env notin (dev,prod)": false, "env notin (dev)": true, "a,env==prod": true, "a,env==dev": false,
		`x.y==1\,2`: true,
	} {
		match, err := selector(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
		} else if match(labels) != want {
			t.Errorf("%q is %v", text, !want)
		}
	}
	for _, text := range []string{"a b", "==x", "a in ()", "a,,b"} {
		if _, err := selector(text); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}
