package main

import (
	"fmt"
	"os"
	"path/filepath"

	"dcos.example/dcos/installer/bundle"
	"dcos.example/dcos/runtime/fault"
)

// signingKey reads the key at path, or makes it there. A key in the default
// place is trusted by whoever it belongs to; one somewhere else is the
// builder's business.
func signingKey(path string, getenv func(string) string) (bundle.Key, error) {
	trust := ""
	if path == "" {
		dir := bundle.TrustDir(getenv)
		if dir == "" {
			return bundle.Key{}, fmt.Errorf("there is no place for the signing key: neither XDG_CONFIG_HOME nor HOME is set; name one with -key")
		}
		path, trust = filepath.Join(filepath.Dir(dir), "signing.key"), filepath.Join(dir, "signing.pub")
	}
	password := func() (string, error) {
		return os.Getenv("DCOS_KEY_PASSWORD"), nil
	}
	key, err := bundle.LoadKey(path, password)
	if fault.Is(err, fault.NotFound) {
		if key, err = bundle.NewKey(); err != nil {
			return key, err
		}
		_, err = key.Save(path, "")
		if fault.Is(err, fault.Exists) { // another build was faster
			key, err = bundle.LoadKey(path, password)
		} else if err == nil {
			fmt.Fprintf(os.Stderr, "made signing key %s: keep it, and keep it secret\n", path)
		}
	}
	if err != nil || trust == "" {
		return key, err
	}
	if _, err := os.Stat(trust); err == nil {
		return key, nil
	}
	return key, trustIt(key, trust)
}

func trustIt(key bundle.Key, file string) error {
	text, err := key.Public().MarshalText()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}
