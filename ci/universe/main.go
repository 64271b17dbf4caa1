// Command universe is what `make universe` runs: it builds the images of the
// universe's packages and the index that catalogs read.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sync/errgroup"

	"dcos.example/dcos/universe/images"
)

type options struct {
	root, out, work string
	only            []string
	key             string
	update, check   bool
}

func main() {
	var o options
	var only string
	flag.StringVar(&o.root, "root", ".", "this repository's folder")
	flag.StringVar(&o.out, "out", "build/universe", "folder of repo.json and images/")
	flag.StringVar(&o.work, "work", "", "folder that keeps downloads and layers (default: cache in -out)")
	flag.StringVar(&only, "only", "", "packages, with commas or spaces between (default: all)")
	flag.BoolVar(&o.update, "update-locks", false, "resolve everything anew and write the lock files")
	flag.StringVar(&o.key, "key", "", "secret key to sign the index with (default: the one that bundles are signed with, when there is one)")
	flag.BoolVar(&o.check, "check", false, "also run each image's checks, without a network (as root)")
	flag.Parse()
	o.only = strings.FieldsFunc(only, func(r rune) bool { return r == ',' || r == ' ' })
	if o.work == "" {
		o.work = filepath.Join(o.out, "cache")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		stop()
		os.Exit(1)
	}
}

// recipes returns the image recipes of the wanted packages: image.yaml beside
// the releases, and in a release that has an image of its own.
func recipes(packages string, only []string) ([]string, error) {
	var all []string
	for _, pattern := range []string{"*/image.yaml", "*/*/image.yaml"} {
		found, err := filepath.Glob(filepath.Join(packages, pattern))
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	if len(only) == 0 {
		return all, nil
	}
	var wanted []string
	for _, name := range only {
		n := len(wanted)
		for _, file := range all {
			rel, err := filepath.Rel(packages, file)
			if err != nil {
				return nil, err
			}
			if strings.HasPrefix(rel, name+string(filepath.Separator)) {
				wanted = append(wanted, file)
			}
		}
		if _, err := os.Stat(filepath.Join(packages, name)); len(wanted) == n && err != nil {
			return nil, fmt.Errorf("no package %s in %s", name, packages)
		}
	}
	return wanted, nil
}

func run(ctx context.Context, o options) error {
	began := time.Now()
	var mu sync.Mutex
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Printf(format+"\n", args...)
	}
	b, err := images.NewBuilder(images.Options{Root: o.root, Work: o.work, Update: o.update, Notice: func(s string) { say("notice: %s", s) }})
	if err != nil {
		return err
	}
	packages := filepath.Join(o.root, "universe", "packages")
	files, err := recipes(packages, o.only)
	if err != nil {
		return err
	}
	// What is wrong with a package is told before minutes are spent on images.
	index, err := readIndex(packages, o.only)
	if err != nil {
		return err
	}
	errs := make([]error, len(files))
	var g errgroup.Group
	g.SetLimit(2) // each waits for registries half of the time, and uses a core otherwise
	for i, file := range files {
		g.Go(func() error {
			at := time.Now()
			built, err := b.Build(ctx, file, filepath.Join(o.out, "images"))
			if err != nil {
				errs[i] = err
				return nil // the others may still be built
			}
			say("%-34s %8s, %8s unpacked, %d layers, %4.1f s  %s", strings.TrimPrefix(built.Reference, images.Registry+"/"),
				humanize.IBytes(uint64(built.Size)), humanize.IBytes(uint64(built.Unpacked)), len(built.Layers), time.Since(at).Seconds(), built.Digest)
			if o.check {
				if errs[i] = b.Check(ctx, built, func(s string) { say("%s: %s", built.Name, s) }); errs[i] != nil {
					errs[i] = fmt.Errorf("%s: %w", built.Name, errs[i])
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := errors.Join(slices.DeleteFunc(errs, func(e error) bool { return e == nil })...); err != nil {
		return err
	}
	signed, err := writeIndex(index, o)
	if err != nil {
		return err
	}
	say("%d images, and an index of %d releases, %s, in %.1f s", len(files), len(index.Packages), signed, time.Since(began).Seconds())
	return nil
}
