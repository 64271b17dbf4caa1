package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"dcos.example/dcos/installer/bundle"
	"dcos.example/dcos/universe/images"
	"dcos.example/dcos/universe/images/recipe"
	"dcos.example/dcos/universe/repo"
)

// readIndex makes the index of the wanted packages; each image that they name
// must have a recipe.
func readIndex(packages string, only []string) (repo.Index, error) {
	all, err := recipes(packages, nil)
	if err != nil {
		return repo.Index{}, err
	}
	o := repo.Options{Only: only, Registry: images.Registry}
	var errs []error
	for _, file := range all {
		r, err := recipe.Read(file)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		o.Images = append(o.Images, images.Registry+"/"+r.Name+":"+r.Version)
	}
	index, err := repo.Build(os.DirFS(packages), packages, o)
	return index, errors.Join(append(errs, err)...)
}

// writeIndex writes the index, and its signature when there is a key; it returns
// which.
func writeIndex(index repo.Index, o options) (string, error) {
	text, err := index.Marshal()
	if err != nil {
		return "", err
	}
	file := filepath.Join(o.out, repo.File)
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(file+".new", text, 0o644); err != nil {
		return "", err
	}
	if err := os.Rename(file+".new", file); err != nil {
		return "", err
	}
	key, signature := o.key, filepath.Join(o.out, repo.Signature)
	if key == "" {
		key = bundle.SigningKey(os.Getenv)
	}
	if key == "" {
		// That of an earlier index does not fit.
		if err := os.Remove(signature); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		return "not signed (there is no key: make bundle makes one, -key names one)", nil
	}
	k, err := bundle.LoadKey(key, func() (string, error) { return os.Getenv("DCOS_KEY_PASSWORD"), nil })
	if err != nil {
		return "", err
	}
	b, err := k.SignFile(file)
	if err != nil {
		return "", err
	}
	return "signed by key " + bundle.KeyID(k.Public().ID()), os.WriteFile(signature, b, 0o644)
}
