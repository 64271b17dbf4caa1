package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"dcos.example/dcos/installer/bundle/sbom"
	"dcos.example/dcos/runtime/agent/checkpoint"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/state"
)

// formats are the newest ones that this release's programs know.
func formats() map[string]int {
	return map[string]int{"config": config.Format, "checkpoint": checkpoint.Format, "state": state.Format}
}

// materials writes the bill of materials of release into it.
func materials(ctx context.Context, version string, of map[string]string, release string) error {
	doc := sbom.New(version)
	for _, p := range programs(version, of) {
		var linked []sbom.Package
		if p.cgo {
			var err error
			if linked, err = staticLibraries(ctx, "libseccomp.a", "libc.a"); err != nil {
				return err
			}
		}
		at := path.Join(p.dir, path.Base(p.pkg))
		if err := doc.Program(at, filepath.Join(release, at), path.Base(p.pkg), programVersion(p, version, of), linked...); err != nil {
			return err
		}
	}
	b, err := os.ReadFile(filepath.Join(release, "images", demoArchive))
	if err != nil {
		return err
	}
	sum := sha256.Sum256(b)
	doc.Image(demoName, "images/"+demoArchive, hex.EncodeToString(sum[:]))
	var out bytes.Buffer
	if err := doc.Write(&out); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(release, sbom.File), out.Bytes(), 0o644)
}

// programVersion is the version of what a program belongs to.
func programVersion(p program, version string, of map[string]string) string {
	switch {
	case strings.HasPrefix(p.pkg, containerd):
		return of["containerd"]
	case strings.HasPrefix(p.pkg, plugins):
		return of["cni-plugins"]
	case strings.HasSuffix(p.pkg, "/runc"):
		return of["runc"]
	default:
		return version
	}
}

// staticLibraries returns the packages of this system that the static
// libraries come from which a C linker takes by these names.
func staticLibraries(ctx context.Context, names ...string) ([]sbom.Package, error) {
	var out []sbom.Package
	for _, n := range names {
		file, err := command(ctx, "gcc", "-print-file-name="+n)
		if err != nil {
			return nil, err
		}
		if file, err = filepath.EvalSymlinks(file); err != nil {
			return nil, fmt.Errorf("find %s: %w", n, err)
		}
		p, err := owner(ctx, file)
		if err != nil {
			return nil, fmt.Errorf("find the package of %s: %w", file, err)
		}
		out = append(out, p)
	}
	return out, nil
}

// owner asks the system's package manager, dpkg or rpm, whose a file is.
func owner(ctx context.Context, file string) (sbom.Package, error) {
	distro := osID()
	if _, err := exec.LookPath("dpkg-query"); err != nil {
		text, err := command(ctx, "rpm", "-q", "--qf", "%{NAME} %{VERSION}-%{RELEASE} %{ARCH}", "-f", file)
		if err != nil {
			return sbom.Package{}, err
		}
		return packageOf("rpm", distro, strings.Fields(text))
	}
	text, err := command(ctx, "dpkg-query", "-S", file)
	if err != nil {
		return sbom.Package{}, err
	}
	name, _, _ := strings.Cut(text, ": ")
	if text, err = command(ctx, "dpkg-query", "-W", "-f", "${Package} ${Version} ${Architecture}", name); err != nil {
		return sbom.Package{}, err
	}
	return packageOf("deb", distro, strings.Fields(text))
}

func packageOf(kind, distro string, f []string) (sbom.Package, error) {
	if len(f) != 3 {
		return sbom.Package{}, fmt.Errorf("the package manager says %q", f)
	}
	url := fmt.Sprintf("pkg:%s/%s/%s@%s?arch=%s", kind, distro, f[0], strings.ReplaceAll(f[1], "+", "%2B"), f[2])
	return sbom.Package{Name: f[0], Version: f[1], URL: url}, nil
}

// osID is the name of this distribution, as in /etc/os-release.
func osID() string {
	b, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "linux"
	}
	for l := range strings.Lines(string(b)) {
		if id, ok := strings.CutPrefix(strings.TrimSpace(l), "ID="); ok {
			return strings.Trim(id, `"`)
		}
	}
	return "linux"
}

func command(ctx context.Context, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", argv[0], err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(string(out)), nil
}
