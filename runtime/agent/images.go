package agent

import (
	"context"
	"net"
	"net/url"
	"strconv"
	"time"

	"dcos.example/dcos/runtime/agent/container"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
)

// imageStore is what a driver with images of its own can do besides.
type imageStore interface {
	Images(context.Context) ([]container.Image, error)
	RemoveImage(ctx context.Context, name string) error
	CollectImages(ctx context.Context, now time.Time, usage float64, keep ...string) ([]string, error)
	DiskUsage() (float64, error)
}

// registries are where the cluster's registry is now: at every master.
func (a *Agent) registries() (out []string) {
	for _, m := range a.o.Masters() {
		if u, err := url.Parse(m); err == nil {
			out = append(out, net.JoinHostPort(u.Hostname(), strconv.Itoa(config.PortRegistry)))
		}
	}
	return out
}

// collectEvery is the pause between two collections of images.
const collectEvery = 10 * time.Minute

// collectImages removes unused images until ctx ends.
func (a *Agent) collectImages(ctx context.Context, s imageStore) {
	tick := time.NewTicker(collectEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			usage, err := s.DiskUsage()
			var removed []string
			if err == nil {
				removed, err = s.CollectImages(ctx, now, usage)
			}
			if err != nil && ctx.Err() == nil {
				a.o.Log.Warn("collect images", "removed", removed, "error", err)
			} else if len(removed) > 0 {
				a.o.Log.Info("collected images", "removed", removed)
			}
		}
	}
}

// images is the driver's store; there is none before the driver is connected,
// nor with one that has no images.
func (a *Agent) images(op string) (imageStore, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s, ok := a.driver.(imageStore); ok {
		return s, nil
	}
	return nil, fault.Newf(op, fault.Unavailable, "containerd is not connected yet")
}

// Images implements httpapi.Source.
func (a *Agent) Images(ctx context.Context) ([]container.Image, error) {
	s, err := a.images("list images")
	if err != nil {
		return nil, err
	}
	return s.Images(ctx)
}

// RemoveImage implements httpapi.Source.
func (a *Agent) RemoveImage(ctx context.Context, name string) error {
	s, err := a.images("remove image")
	if err != nil {
		return err
	}
	return s.RemoveImage(ctx, name)
}

// PruneImages implements httpapi.Source.
func (a *Agent) PruneImages(ctx context.Context, keep []string) error {
	s, err := a.images("prune images")
	if err != nil {
		return err
	}
	const full = 1 // as on a full disk
	removed, err := s.CollectImages(ctx, time.Now(), full, keep...)
	a.o.Log.Info("pruned images", "removed", removed)
	return err
}
