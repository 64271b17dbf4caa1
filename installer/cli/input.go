package cli

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"dcos.example/dcos/installer/blueprint"
	"dcos.example/dcos/installer/cli/view"
	"dcos.example/dcos/installer/diag"
	"dcos.example/dcos/installer/topology"
	"dcos.example/dcos/runtime/fault"
)

// defaultFile is the file that commands read when none is named.
const defaultFile = "cluster.hcl"

// input is a cluster's file, read and evaluated.
type input struct {
	path      string // as the user would write it
	source    blueprint.Source
	values    blueprint.Values // of its variables
	blueprint *blueprint.Blueprint
	topology  *topology.Topology
	findings  diag.List
}

func (r *run) abs(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(r.dir, path)
}

// file returns the path of the cluster's file among args.
func (r *run) file(args []string) string {
	if len(args) == 0 {
		return defaultFile
	}
	if fi, err := os.Stat(r.abs(args[0])); err == nil && fi.IsDir() {
		return filepath.Join(args[0], defaultFile)
	}
	return args[0]
}

func (r *run) read(path string) (blueprint.Source, error) {
	b, err := os.ReadFile(r.abs(path))
	if errors.Is(err, fs.ErrNotExist) {
		hint := ""
		if path == defaultFile {
			hint = "; dcos-install init writes one to start from"
		}
		return blueprint.Source{}, fault.Newf("read "+path, fault.Invalid, "there is no such file%s", hint)
	}
	if err != nil {
		return blueprint.Source{}, fault.New("read "+path, fault.Invalid, err)
	}
	return blueprint.Source{Name: path, Text: b}, nil
}

// load reads the cluster's file and the variables. It returns findings in the
// input, and an error only for what is not the content's fault.
func (r *run) load(path string) (*input, error) {
	src, err := r.read(path)
	if err != nil {
		return nil, err
	}
	values := blueprint.Values{Dir: filepath.Dir(r.abs(path)), Flags: r.vars, Env: r.app.Env}
	for _, f := range r.varFiles {
		s, err := r.read(f)
		if err != nil {
			return nil, err
		}
		values.Files = append(values.Files, s)
	}
	return evaluate(path, src, values), nil
}

func evaluate(path string, src blueprint.Source, values blueprint.Values) *input {
	in := &input{path: path, source: src, values: values}
	in.blueprint, in.findings = blueprint.Parse(src, values)
	if !in.findings.HasErrors() {
		top, l := topology.New(in.blueprint)
		in.topology = top
		in.findings = append(append(in.findings, l...), unknownChecks(in)...)
		in.findings.Sort()
	}
	return in
}

// check shows the findings and fails if one is an error.
func (r *run) check(in *input) error {
	if err := r.findings(in.findings, in); err != nil {
		return err
	}
	if !in.findings.HasErrors() {
		return nil
	}
	if err := r.showOn(r.app.Stderr, validation(in)); err != nil {
		return err
	}
	return reported{exitInvalid}
}

func validation(in *input) view.Validation {
	errs, warns := in.findings.Count()
	return view.Validation{Valid: errs == 0, File: in.path, Errors: errs, Warnings: warns, Diagnostics: in.findings.JSON()}
}

// stateRoot is the directory that holds the stacks of the clusters, one each.
func (r *run) stateRoot(file string) string {
	if r.state != "" {
		return r.abs(r.state)
	}
	return filepath.Join(filepath.Dir(r.abs(file)), ".dcos")
}

// existing returns the names of the clusters that have a stack under root.
func existing(root string) ([]string, error) {
	es, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fault.New("read the state directory", fault.Denied, err)
	}
	var out []string
	for _, e := range es {
		if e.IsDir() {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// find returns the name and the stack directory of the cluster that a command
// without evaluation is about: the one named by -cluster, in the file, or the
// only one there is.
func (r *run) find(args []string) (name, dir string, err error) {
	const op = "find the cluster"
	file := r.file(args)
	root := r.stateRoot(file)
	have, err := existing(root)
	if err != nil {
		return "", "", err
	}
	name = r.cluster
	if name == "" {
		if src, rerr := r.read(file); rerr == nil {
			name = blueprint.ClusterName(src)
		} else if len(args) > 0 {
			return "", "", rerr
		}
	}
	switch {
	case name != "":
	case len(have) == 1:
		name = have[0]
	case len(have) == 0:
		return "", "", fault.Newf(op, fault.Invalid, "neither %s nor a state directory is here; name the FILE, or -state", file)
	default:
		return "", "", fault.Newf(op, fault.Invalid, "%s holds several clusters (%s); choose with -cluster", root, strings.Join(have, ", "))
	}
	if !slices.Contains(have, name) {
		return name, "", nil
	}
	return name, filepath.Join(root, name), nil
}
