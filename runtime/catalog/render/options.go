package render

import (
	"errors"
	"maps"
	"slices"

	"dcos.example/dcos/runtime/api/cosmos"
	"dcos.example/dcos/runtime/catalog/failure"
	"dcos.example/dcos/universe/schema"
)

// Options are those of one installation.
type Options struct {
	User     map[string]any // the profile's, with what the user gave over them
	Resolved map[string]any // the defaults, with User over them
}

// Resolve brings a package's defaults, one of its profiles ("" for none) and
// the user's options together, and checks the outcome. Configs may be nil.
func Resolve(configs *schema.Cache, p *cosmos.Package, profile string, given map[string]any) (Options, error) {
	o := Options{User: schema.Merge(nil, given)}
	if profile != "" {
		below, err := Profile(p, profile)
		if err != nil {
			return o, err
		}
		o.User = schema.Merge(below, given)
	}
	if p.Config == nil {
		o.Resolved = o.User
		if len(o.User) > 0 {
			return o, failure.OptionsNotAllowed()
		}
		return o, nil
	}
	config, err := configs.Config(p.Config)
	if err != nil {
		return o, badConfig(p, err)
	}
	o.Resolved = schema.Merge(config.Defaults(), o.User)
	var wrong schema.Reports
	if err := config.Check(o.Resolved); errors.As(err, &wrong) {
		return o, failure.JSONSchemaMismatch(wrong)
	} else if err != nil {
		return o, badConfig(p, err)
	}
	return o, nil
}

// badConfig is a config.json that is none: then no options are right.
func badConfig(p *cosmos.Package, err error) error {
	r := schema.Report{Level: "fatal", Domain: "syntax", Message: schema.Key(p) + ": " + err.Error(), Fields: []string{}}
	return failure.JSONSchemaMismatch(schema.Reports{r})
}

// Profile returns the options of a package's profile.
func Profile(p *cosmos.Package, profile string) (map[string]any, error) {
	text, ok := p.Profiles[profile]
	if !ok {
		return nil, failure.ProfileNotFound(p.Name, profile, slices.Sorted(maps.Keys(p.Profiles)))
	}
	v, err := schema.Decode(text)
	if err != nil {
		return nil, badConfig(p, err)
	}
	options, _ := v.(map[string]any)
	return options, nil
}
