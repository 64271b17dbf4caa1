package container

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"dcos.example/dcos/runtime/fault"
)

// Images that no container uses stay imageDelay on an empty disk, and less the
// fuller it is; imageHeadroom is the share of it that counts as full. What was
// used a moment ago stays all the same, as it is most likely used again.
const (
	imageDelay    = 7 * 24 * time.Hour
	imageHeadroom = 0.1
	imageRest     = 10 * time.Minute
)

// labelUsed is when an image was used last, in seconds since 1970.
const labelUsed = "dcos/used"

// Image is an image on this host.
type Image struct {
	Name    string    `json:"name"`
	Digest  string    `json:"digest"`
	Size    int64     `json:"size"` // bytes, as transferred; layers are shared with other images
	Used    time.Time `json:"used"` // when a container of it was started last, or it came here
	Running bool      `json:"running"`
	Bundled bool      `json:"bundled"` // came with the release, and stays with it
}

// touch notes that an image is used.
func (d *Containerd) touch(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.used[name] = time.Now()
}

// Images lists the images of this host by name.
func (d *Containerd) Images(ctx context.Context) ([]Image, error) {
	const op = "list images"
	ctx = d.ctx(ctx)
	all, err := d.client.ListImages(ctx)
	if err != nil {
		return nil, fault.New(op, kind(err), err)
	}
	running, err := d.inUse(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]Image, 0, len(all))
	for _, i := range all {
		size, err := i.Size(ctx)
		if err != nil && !errdefs.IsNotFound(err) { // of one that is being pulled or removed, not all is here
			return nil, fault.New(op, kind(err), err)
		}
		d.mu.Lock()
		out = append(out, Image{
			Name: i.Name(), Digest: i.Target().Digest.String(), Size: size, Used: d.lastUse(i.Metadata()), Running: running[i.Name()], Bundled: d.bundled[i.Name()],
		})
		d.mu.Unlock()
	}
	slices.SortFunc(out, func(a, b Image) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// lastUse is when an image was used last; d.mu is held.
func (d *Containerd) lastUse(i images.Image) time.Time {
	at := i.CreatedAt
	if s, err := strconv.ParseInt(i.Labels[labelUsed], 10, 64); err == nil && s > at.Unix() {
		at = time.Unix(s, 0)
	}
	if t := d.used[i.Name]; t.After(at) {
		at = t
	}
	return at
}

// inUse returns the names of images that containers are made of.
func (d *Containerd) inUse(ctx context.Context) (map[string]bool, error) {
	cs, err := d.client.ContainerService().List(ctx)
	if err != nil {
		return nil, fault.New("list containers", kind(err), err)
	}
	names := make(map[string]bool, len(cs))
	for _, c := range cs {
		names[c.Image] = true
	}
	return names, nil
}

// RemoveImage removes an image by any form of its name. One that a container
// uses, or that came with the release, is a Conflict.
func (d *Containerd) RemoveImage(ctx context.Context, ref string) error {
	name, err := Normalize(ref)
	if err != nil {
		return err
	}
	op := "remove image " + name
	ctx = d.ctx(ctx)
	d.mu.Lock()
	bundled := d.bundled[name]
	d.mu.Unlock()
	if bundled {
		return fault.Newf(op, fault.Conflict, "it came with the release")
	}
	if _, err := d.client.ImageService().Get(ctx, name); err != nil {
		return fault.New(op, kind(err), err)
	}
	removed, err := d.drop(ctx, name)
	if err != nil {
		return fault.New(op, kind(err), err)
	}
	if !removed {
		return fault.Newf(op, fault.Conflict, "a container uses it, or is about to")
	}
	return nil
}

// drop removes an image that nobody uses. Starts that have their image and not
// their container yet would lose it: while there are any, nothing is removed.
func (d *Containerd) drop(ctx context.Context, name string) (bool, error) {
	if !d.gc.TryLock() {
		return false, nil
	}
	defer d.gc.Unlock()
	running, err := d.inUse(ctx)
	if err != nil || running[name] {
		return false, err
	}
	d.mu.Lock()
	delete(d.images, name)
	delete(d.used, name)
	d.mu.Unlock()
	err = d.client.ImageService().Delete(ctx, name, images.SynchronousDelete())
	if errdefs.IsNotFound(err) {
		err = nil
	}
	return err == nil, err
}

// CollectImages removes images that no container has used for long, and
// returns their names. usage is the share of the disk in use, from 0 to 1;
// keep are names that stay.
func (d *Containerd) CollectImages(ctx context.Context, now time.Time, usage float64, keep ...string) ([]string, error) {
	const op = "collect images"
	stay := max(imageRest, time.Duration(float64(imageDelay)*max(0, 1-imageHeadroom-usage)))
	ctx = d.ctx(ctx)
	all, err := d.client.ListImages(ctx)
	if err != nil {
		return nil, fault.New(op, kind(err), err)
	}
	running, err := d.inUse(ctx)
	if err != nil {
		return nil, err
	}
	var removed []string
	var errs []error
	for _, i := range all {
		if running[i.Name()] {
			d.touch(i.Name())
		}
		d.mu.Lock()
		used, spare := d.lastUse(i.Metadata()), d.bundled[i.Name()] || slices.Contains(keep, i.Name())
		d.mu.Unlock()
		if spare || now.Sub(used) < stay {
			errs = append(errs, d.noteUse(ctx, i, used))
			continue
		}
		ok, err := d.drop(ctx, i.Name())
		errs = append(errs, err)
		if ok {
			removed = append(removed, i.Name())
		}
	}
	if err := errors.Join(errs...); err != nil {
		return removed, fault.New(op, fault.Internal, err)
	}
	return removed, nil
}

// noteUse keeps the time of an image's last use for the next run of the
// program, to the hour, as each note is a write.
func (d *Containerd) noteUse(ctx context.Context, i containerd.Image, used time.Time) error {
	m := i.Metadata()
	s, err := strconv.ParseInt(m.Labels[labelUsed], 10, 64)
	if err == nil && used.Unix()-s < 3600 {
		return nil
	}
	_, err = d.client.ImageService().Update(ctx, images.Image{
		Name: m.Name, Target: m.Target, Labels: map[string]string{labelUsed: strconv.FormatInt(used.Unix(), 10)},
	}, "labels."+labelUsed)
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// DiskUsage is the share of the disk with images that is in use.
func (d *Containerd) DiskUsage() (float64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(d.o.Root, &st); err != nil {
		return 0, fault.Newf("read disk usage", fault.Internal, "%s: %w", d.o.Root, err)
	}
	if st.Blocks == 0 {
		return 0, nil
	}
	return 1 - float64(st.Bavail)/float64(st.Blocks), nil
}
