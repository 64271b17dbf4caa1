// Package arch_test holds the import map of docs/architecture.md.
package arch_test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "dcos.example/dcos/"

// allow lists, for each package or folder, what of this project it may import
// besides itself. The longest matching row wins; a package without a row
// fails. It is the table of floors, so a change here is a change of the house.
var allow = map[string][]string{
	// L0: words and numbers.
	"runtime/fault":         {},
	"runtime/config":        {"runtime/fault"},
	"runtime/api/mesos":     {},
	"runtime/api/agentlink": {"runtime/api/mesos"},
	"runtime/api/wire":      {"runtime/fault"},
	"runtime/api/marathon":  {},
	"runtime/api/cosmos":    {},
	"runtime/api/service":   {},
	"runtime/resource":      {"runtime/fault", "runtime/api/mesos"},
	"runtime/task":          {"runtime/api/mesos"},
	"runtime/password":      {"runtime/fault"},
	"runtime/mustache":      {"runtime/fault"},
	// L1: the store, who leads, who is who.
	"runtime/state":          {"runtime/fault"},
	"runtime/leader":         {"runtime/fault", "runtime/state"},
	"runtime/pki":            {"runtime/fault"},
	"runtime/server":         {"runtime/fault"},
	"runtime/deposit":        {"runtime/fault", "runtime/state"},
	"runtime/backup/archive": {"runtime/fault"},
	"runtime/backup/target":  {"runtime/fault", "runtime/config", "runtime/backup/archive"},
	"runtime/outbox":         {"runtime/fault", "runtime/state"},
	// L2: how components meet.
	"runtime/membership": {"runtime/fault", "runtime/config", "runtime/state"},
	"runtime/framework":  {"runtime/fault", "runtime/api"},
	"runtime/feed":       {"runtime/fault", "runtime/api", "runtime/task", "runtime/framework"},
	// L3: deciders. They see values only.
	"runtime/allocator":               {"runtime/resource", "runtime/task"},
	"runtime/placement":               {"runtime/api/mesos", "runtime/resource"},
	"runtime/orchestrator/spec":       {"runtime/fault", "runtime/api", "runtime/placement"},
	"runtime/orchestrator/deployment": {"runtime/orchestrator/spec"},
	"runtime/service/spec":            {"runtime/api", "runtime/resource", "runtime/placement", "runtime/mustache"},
	"runtime/service/plan":            {"runtime/api", "runtime/service/spec"},
	"runtime/service/match":           {"runtime/api", "runtime/resource", "runtime/placement", "runtime/service/spec"},
	"runtime/balancer/ruleset":        {"runtime/feed", "runtime/api"},
	"runtime/dns/zone":                {"runtime/feed", "runtime/task"},
	"runtime/gateway/route":           {},
	"runtime/catalog/index":           {"runtime/api", "runtime/catalog/envelope", "runtime/catalog/failure", "universe/schema"},
	"runtime/catalog/render":          {"runtime/api", "runtime/mustache", "runtime/catalog/envelope", "runtime/catalog/failure", "universe/schema"},
	// L4: components, never each other.
	"runtime/master":       {"runtime/fault", "runtime/config", "runtime/api", "runtime/resource", "runtime/task", "runtime/state", "runtime/leader", "runtime/allocator", "runtime/pki"},
	"runtime/agent":        {"runtime/fault", "runtime/config", "runtime/api", "runtime/resource", "runtime/task"},
	"runtime/orchestrator": {"runtime/fault", "runtime/api", "runtime/resource", "runtime/task", "runtime/placement", "runtime/state", "runtime/outbox", "runtime/server", "runtime/framework"},
	"runtime/service":      {"runtime/fault", "runtime/api", "runtime/state", "runtime/outbox", "runtime/resource", "runtime/task", "runtime/placement", "runtime/mustache", "runtime/framework", "runtime/server"},
	"runtime/balancer":     {"runtime/fault", "runtime/feed"},
	"runtime/dns":          {"runtime/fault", "runtime/feed"},
	"runtime/identity":     {"runtime/fault", "runtime/state", "runtime/password"},
	"runtime/catalog":      {"runtime/fault", "runtime/state", "runtime/api", "universe/schema"},
	"runtime/registry":     {"runtime/fault", "runtime/config", "runtime/state", "runtime/pki"},
	"runtime/backup":       {"runtime/fault", "runtime/config", "runtime/state", "runtime/deposit"},
	"runtime/gateway":      {"runtime/fault", "runtime/config", "runtime/server", "runtime/feed", "runtime/task"},
	// L5: the binaries.
	"cmd/dcosd": {"runtime"},
	"cmd/dcos":  {"runtime/fault", "runtime/config", "runtime/api", "runtime/pki"},

	// The installer's side.
	"genconf":                 {"runtime/fault", "runtime/config", "runtime/resource", "installer/topology"},
	"providers":               {"runtime/fault"},
	"providers/onprem":        {"providers", "installer/host/facts", "runtime/fault", "runtime/config"},
	"providers/local":         {"providers", "installer/bundle", "runtime/fault", "runtime/config"},
	"installer/diag":          {},
	"installer/bundle":        {"runtime/fault", "runtime/config"},
	"installer/blueprint":     {"installer/diag", "runtime/resource"},
	"installer/dcosconfig":    {"installer/diag"},
	"installer/topology":      {"installer/blueprint", "installer/diag", "runtime/config"},
	"installer/host":          {"runtime/fault", "runtime/config", "installer/bundle", "providers/local", "providers/input"},
	"installer/host/ssh":      {"runtime/fault", "runtime/config", "installer/host", "installer/bundle", "providers"},
	"installer/host/emulated": {"runtime/fault", "runtime/config", "runtime/pki", "installer/host", "installer/bundle"},
	"installer/host/facts":    {},
	"installer/host/unpack":   {},
	"installer/gateway":       {"runtime/fault", "runtime/config"},
	"installer/bootstrap":     {"runtime/fault", "runtime/config", "runtime/pki", "runtime/password", "installer/gateway", "installer/host", "installer/bundle", "providers"},
	"installer/impact":        {},
	"installer/workload":      {"runtime/fault", "installer/impact"},
	"installer/edit":          {"runtime/fault"},
	"installer/stack":         {"runtime/fault"},
	"installer/engine":        {"runtime/fault", "providers", "installer/stack"},
	"installer/preflight":     {"runtime/fault", "runtime/config", "installer/host", "installer/topology"},
	"installer/rolepackage":   {"runtime/fault", "runtime/config", "installer/topology", "installer/engine", "installer/program", "installer/bundle", "installer/host", "installer/bootstrap", "providers"},
	"installer/program":       {"installer/topology", "installer/engine", "installer/host", "genconf", "providers/input", "runtime/fault"},
	"installer/recovery":      {"runtime/fault", "runtime/config", "runtime/deposit", "runtime/backup/archive", "installer/host", "providers"},
	"installer/cli":           {"installer", "providers", "runtime/fault", "runtime/pki", "runtime/backup/archive", "runtime/deposit", "runtime/config"},
	"installer/cmd":           {"installer", "providers", "runtime/fault"},

	"universe":        {},
	"universe/schema": {"runtime/fault", "runtime/api/cosmos", "runtime/mustache"},
	"universe/repo":   {"runtime/api/cosmos", "universe/schema"},
	"demo":            {},
	"ci":              {"runtime", "installer", "universe"},
	"ci/bench":        {"runtime", "installer", "providers", "ci"},
	"ci/lab":          {"providers/local", "runtime/fault"},
}

// owners lists libraries that exactly these packages may import: what would
// spread through the code otherwise.
var owners = map[string][]string{
	"go.yaml.in/yaml/v3":                  {"installer/dcosconfig", "runtime/api/service", "universe/images/recipe"},
	"github.com/santhosh-tekuri/":         {"universe/schema"},
	"aead.dev/minisign":                   {"installer/bundle"},
	"github.com/CycloneDX/":               {"installer/bundle/sbom", "universe/images/sbom"},
	"go.etcd.io/":                         {"runtime/state/etcd"},
	"github.com/google/nftables":          {"runtime/balancer/nft", "runtime/agent/network", "providers/local", "ci/lab", "installer/preflight/probe"},
	"github.com/containerd/containerd/v2": {"runtime/agent", "ci/bench"},
	"github.com/containerd/go-cni":        {"runtime/agent/network"},
	"github.com/pulumi/pulumi/sdk/v3":     {"installer", "providers", "ci/bench"},
	"golang.org/x/crypto/ssh":             {"installer/host/ssh", "ci/lab"},
	"github.com/minio/minio-go/v7":        {"runtime/backup/target", "universe/tools/cassandra"},
	"github.com/twmb/franz-go":            {"universe/tools/kafka", "ci/e2e"},
	"github.com/redis/go-redis/":          {"universe/tools/redis", "ci/e2e"},
	"github.com/apache/cassandra-gocql-":  {"universe/tools/cassandra", "ci/e2e"},
	"filippo.io/age":                      {"runtime/backup", "installer/bootstrap", "installer/cli", "installer/recovery"},
}

type listed struct {
	ImportPath, Dir                            string
	Imports, GoFiles, CgoFiles, IgnoredGoFiles []string
}

func TestImportMap(t *testing.T) {
	used := map[string]bool{}
	needed := map[[2]string]bool{}
	for _, p := range list(t) {
		pkg := strings.TrimPrefix(p.ImportPath, module)
		row, ok := longest(pkg)
		if !ok {
			t.Errorf("%s has no row; add one to allow and to docs/architecture.md", pkg)
			continue
		}
		used[row] = true
		for _, imp := range p.Imports {
			to, mine := strings.CutPrefix(imp, module)
			if mine && !under(to, row) {
				i := slices.IndexFunc(allow[row], func(a string) bool { return under(to, a) })
				if i < 0 {
					t.Errorf("%s may not import %s", pkg, to)
				} else {
					needed[[2]string{row, allow[row][i]}] = true
				}
			}
			for lib, pkgs := range owners {
				if strings.HasPrefix(imp, lib) && !slices.ContainsFunc(pkgs, func(o string) bool { return under(pkg, o) }) {
					t.Errorf("%s may not import %s: only %s may", pkg, imp, strings.Join(pkgs, ", "))
				}
			}
		}
	}
	for row, allowed := range allow {
		if !used[row] {
			t.Errorf("the row %s matches no package", row)
		}
		for _, a := range allowed {
			if used[row] && !needed[[2]string{row, a}] {
				t.Errorf("the row %s allows %s, which nothing there imports", row, a)
			}
		}
	}
}

// TestPackageComments: every package says once what its job is.
func TestPackageComments(t *testing.T) {
	for _, p := range list(t) {
		var with []string
		for _, name := range slices.Concat(p.GoFiles, p.CgoFiles, p.IgnoredGoFiles) {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if f.Doc != nil && !ast.IsGenerated(f) {
				with = append(with, name)
			}
		}
		tests := len(p.GoFiles) == 0 // no code but tests: their files may say it
		if len(with) > 1 || len(with) == 0 && !tests {
			t.Errorf("%s has its comment in %v, must have it in one file", p.ImportPath, with)
		}
	}
}

func list(t *testing.T) []listed {
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Imports,GoFiles,CgoFiles,IgnoredGoFiles", module+"...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("list packages: %v", err)
	}
	var all []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func longest(pkg string) (best string, ok bool) {
	for row := range allow {
		if len(row) > len(best) && under(pkg, row) {
			best, ok = row, true
		}
	}
	return best, ok
}

func under(pkg, folder string) bool { return pkg == folder || strings.HasPrefix(pkg, folder+"/") }
