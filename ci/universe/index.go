package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"dcos.example/dcos/runtime/api/cosmos"
	"dcos.example/dcos/universe/schema"
)

// index writes repo.json: every release of the wanted packages as catalogs
// read them, judged before. It returns how many there are.
func index(packages, out string, only []string) (int, error) {
	dirs, err := filepath.Glob(filepath.Join(packages, "*", "[0-9]*"))
	if err != nil {
		return 0, err
	}
	repo := struct {
		Packages []cosmos.Package `json:"packages"`
	}{[]cosmos.Package{}}
	var errs []error
	for _, dir := range dirs {
		name := filepath.Base(filepath.Dir(dir))
		number, err := strconv.ParseInt(filepath.Base(dir), 10, 64)
		if err != nil || len(only) > 0 && !slices.Contains(only, name) {
			continue
		}
		p, err := schema.ReadDir(os.DirFS(dir), number)
		if err == nil {
			err = schema.CheckOwn(&p)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", dir, err))
			continue
		}
		repo.Packages = append(repo.Packages, p)
	}
	if err := errors.Join(errs...); err != nil {
		return 0, err
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(repo); err != nil {
		return 0, err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return 0, err
	}
	return len(repo.Packages), os.WriteFile(filepath.Join(out, "repo.json"), b.Bytes(), 0o644)
}
