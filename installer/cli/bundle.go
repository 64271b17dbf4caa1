package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"dcos.example/dcos/installer/bundle"
	"dcos.example/dcos/installer/cli/view"
	"dcos.example/dcos/runtime/fault"
)

// passwordVariable holds the password of a signing key that has one.
const passwordVariable = "DCOS_KEY_PASSWORD"

func (r *run) bundleCommand() *cobra.Command {
	parent := &cobra.Command{
		Use:   "bundle",
		Short: "Look into, verify, extend and sign release bundles",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	parent.AddCommand(r.bundleInfo(), r.bundleVerify(), r.bundleAdd(), r.bundleSign(), r.bundleKeygen())
	for _, c := range parent.Commands() {
		r.strictArgs(c)
	}
	return parent
}

// bundleFile returns the bundle that a command without -bundle is about.
func (r *run) bundleFile(args []string) (string, error) {
	if len(args) > 0 {
		return r.abs(args[0]), nil
	}
	if p := r.bundlePath(); p != "" {
		return p, nil
	}
	exe, err := os.Executable()
	if err != nil {
		return "", fault.New("find the release bundle", fault.Internal, err)
	}
	return FindBundle(exe)
}

func (r *run) bundleInfo() *cobra.Command {
	return r.withTrust(&cobra.Command{
		Use: "info [BUNDLE]", Short: "Say what a bundle holds and who signed it", Args: cobra.MaximumNArgs(1),
		Long: "Say what a bundle holds and who signed it. It is not an error that nobody did: verify tells.",
		RunE: func(_ *cobra.Command, args []string) error {
			path, err := r.bundleFile(args)
			if err != nil {
				return err
			}
			trust, err := r.trust(meta{})
			if err != nil {
				return err
			}
			m, s, untrusted, err := bundle.Inspect(path, trust)
			if err != nil {
				return err
			}
			doc := bundleDocument(path, m, s)
			if untrusted != nil {
				doc.Reason = told(untrusted)
			}
			return r.show(doc)
		},
	})
}

// told is an error without its operation, which a document says in its way.
func told(err error) string {
	if f, ok := errors.AsType[*fault.Error](err); ok && f.Err != nil {
		return f.Err.Error()
	}
	return err.Error()
}

func bundleDocument(path string, m bundle.Manifest, s bundle.Signature) view.Bundle {
	d := view.Bundle{
		Path: path, Version: m.Version, Release: m.Release(), Digest: m.Digest(), Platform: m.Platform, Base: m.Base, Files: len(m.Files),
		Components: m.Components, Formats: m.Formats, Images: []view.Image{}, Packages: []view.Package{}, Trusted: s.TrustedBy != "",
	}
	for _, f := range m.Files {
		d.Size += f.Size
	}
	for _, i := range m.Images {
		d.Images = append(d.Images, view.Image{Name: i.Name, Path: i.Path})
	}
	for _, p := range m.Packages {
		d.Packages = append(d.Packages, view.Package{Name: p.Name, Version: p.Version, Images: append([]string{}, p.Images...), Size: p.Size})
	}
	if s.KeyID != "" {
		d.Signature = &view.Signature{KeyID: s.KeyID, Comment: s.Comment, TrustedBy: s.TrustedBy}
	}
	return d
}

func (r *run) bundleVerify() *cobra.Command {
	return r.withTrust(&cobra.Command{
		Use: "verify [BUNDLE]", Short: "Read all of a bundle; fail unless it is whole and signed by a trusted key", Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			path, err := r.bundleFile(args)
			if err != nil {
				return err
			}
			trust, err := r.trust(meta{})
			if err != nil {
				return err
			}
			m, s, err := bundle.Verify(path, trust)
			if err != nil {
				return err
			}
			doc := bundleDocument(path, m, s)
			doc.Verified = true
			return r.show(doc)
		},
	})
}

func (r *run) bundleAdd() *cobra.Command {
	var out, keyFile, universe string
	c := &cobra.Command{
		Use:   "add PACKAGE…|IMAGE…",
		Short: "Add packages and container images to a bundle, and sign it with your own key",
		Long: `Write a bundle with more in it, for clusters that reach no registry.

A PACKAGE is a name, as in kafka, or a name and a version, as in kafka:4.1.0-1, of the universe that
make universe made. It can be installed then, with images from the cluster's own registry.

An IMAGE is for agents, which load it when they start: an archive (of docker save, or in OCI's layout;
gzip or not), a directory in OCI's layout, or a directory with such archives. What is there as a file
is an image, everything else a package.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			base, err := r.bundleFile(nil)
			if err != nil {
				return err
			}
			if keyFile == "" {
				if keyFile = bundle.SigningKey(r.env); keyFile == "" {
					return usageError{errors.New("-key is needed: the bundle is another one, and somebody must vouch for it")}
				}
			}
			if out == "" {
				out = base
			}
			key, err := bundle.LoadKey(r.abs(keyFile), r.keyPassword)
			if err != nil {
				return err
			}
			trust, err := r.trust(meta{})
			if err != nil {
				return err
			}
			trust.AddKey(key.Public(), "the signing key") // adding twice is fine
			m, err := bundle.Add(base, r.abs(out), r.additions(args, base, universe), key, trust)
			if err != nil {
				return err
			}
			return r.showSigned(out, m, key)
		},
	}
	c.Flags().StringVar(&out, "out", "", "`file` to write the bundle to (default: in place)")
	c.Flags().StringVar(&keyFile, "key", "", "`file` of the secret key to sign with (default: the one of make bundle, if there is one)")
	c.Flags().StringVar(&universe, "universe", "", "`directory` of the packages (default: universe, next to the bundle)")
	c.Flags().StringVar(&r.bundle, "bundle", "", "`path` of the bundle to add to (default DCOS_BUNDLE, or next to this program)")
	return r.withTrust(c)
}

// packageName is how a package is named on the command line.
var packageName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*(:[A-Za-z0-9][A-Za-z0-9._+-]*)?$`)

// additions tells packages from images.
func (r *run) additions(args []string, base, universe string) bundle.Additions {
	add := bundle.Additions{Universe: filepath.Join(filepath.Dir(base), "universe")}
	if universe != "" {
		add.Universe = r.abs(universe)
	}
	for _, a := range args {
		if _, err := os.Stat(r.abs(a)); err != nil && packageName.MatchString(a) {
			add.Packages = append(add.Packages, a)
		} else {
			add.Images = append(add.Images, r.abs(a))
		}
	}
	return add
}

// showSigned shows a bundle that was just signed with key.
func (r *run) showSigned(path string, m bundle.Manifest, key bundle.Key) error {
	_, s, _, err := bundle.Inspect(r.abs(path), bundle.TrustKey(key.Public()))
	if err != nil {
		return err
	}
	s.TrustedBy = "that signed it just now"
	doc := bundleDocument(path, m, s)
	doc.Verified = true
	return r.show(doc)
}

func (r *run) bundleSign() *cobra.Command {
	var out, keyFile string
	var beside bool
	c := &cobra.Command{
		Use:   "sign -key KEY BUNDLE",
		Short: "Sign a bundle with your own key",
		Long: `Sign a bundle that is not signed, or sign one that you trust with your own key instead. The signature
is in the bundle: copying the one file is enough. With -beside a signature of the whole file is
written to BUNDLE.minisig as well, for: minisign -Vm BUNDLE -p KEY.pub`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if keyFile == "" {
				return usageError{errors.New("-key is needed; dcos-install bundle keygen makes one")}
			}
			key, err := bundle.LoadKey(r.abs(keyFile), r.keyPassword)
			if err != nil {
				return err
			}
			trust, err := r.trust(meta{})
			if err != nil {
				return err
			}
			trust.AddKey(key.Public(), "the signing key") // signing twice is fine
			if out == "" {
				out = args[0]
			}
			m, err := bundle.Sign(r.abs(args[0]), r.abs(out), key, trust)
			if err != nil {
				return err
			}
			if beside {
				sig, err := key.SignFile(r.abs(out))
				if err != nil {
					return err
				}
				if err := os.WriteFile(r.abs(out)+".minisig", sig, 0o644); err != nil {
					return fault.New("write "+out+".minisig", fault.Denied, err)
				}
			}
			return r.showSigned(out, m, key)
		},
	}
	c.Flags().StringVar(&out, "out", "", "`file` to write the bundle to (default: in place)")
	c.Flags().StringVar(&keyFile, "key", "", "`file` of the secret key to sign with")
	c.Flags().BoolVar(&beside, "beside", false, "write a signature of the whole file, too, for minisign -V")
	return r.withTrust(c)
}

func (r *run) bundleKeygen() *cobra.Command {
	return &cobra.Command{
		Use:   "keygen FILE.key",
		Short: "Make a key to sign bundles with",
		Long: `Make a minisign key pair: FILE.key is secret, FILE.pub is for whoever shall take bundles that you
sign. With ` + passwordVariable + ` in the environment the secret key is encrypted.`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if !strings.HasSuffix(args[0], ".key") {
				return usageError{fmt.Errorf("%s: the name of a secret key must end in .key", args[0])}
			}
			key, err := bundle.NewKey()
			if err != nil {
				return err
			}
			public, err := key.Save(r.abs(args[0]), r.env(passwordVariable))
			if err != nil {
				return err
			}
			return r.show(view.Message{What: "bundle keygen", Fields: map[string]string{"keyId": bundle.KeyID(key.Public().ID()), "secret": args[0], "public": public},
				Text: fmt.Sprintf("Made key %s.\n  %s  signs: keep it secret, and keep a copy\n  %s  is for those who take your bundles: -trust-key, or ~/.config/dcos/trusted/",
					bundle.KeyID(key.Public().ID()), args[0], public)})
		},
	}
}

// keyPassword is asked for the password of an encrypted signing key.
func (r *run) keyPassword() (string, error) {
	if pw := r.env(passwordVariable); pw != "" {
		return pw, nil
	}
	return "", fault.Newf("open the signing key", fault.Denied, "it is encrypted; put its password into %s", passwordVariable)
}
