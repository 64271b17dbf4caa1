// Package wire is a cable that takes its time: it passes Ethernet frames
// between two taps and delays them on the way. It stands in for the kernel's
// netem, which not every kernel has. The kernel cuts large segments up and
// computes checksums before a tap, so that what is passed on is what a real
// cable would carry.
package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	// maxFrame is more than any frame of links with an MTU of 9000.
	maxFrame = 9216
	// queue is how many frames are on the way in one direction; more are
	// dropped, as a real one would. At 1 Gbit/s it holds 0.2 s.
	queue = 16384
)

// Tap makes the link name, which vanishes when the file is closed. What the
// network sends to the link is read from the file and the other way round.
func Tap(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make tap %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Run passes frames between a and b, both ways, each delayed by delay and a
// random part of jitter, in order, until ctx ends or an end fails. It closes
// both.
func Run(ctx context.Context, a, b io.ReadWriteCloser, delay, jitter time.Duration) error {
	g, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, func() {
		a.Close()
		b.Close()
	})
	defer stop()
	g.Go(func() error { return pass(ctx, a, b, delay, jitter) })
	g.Go(func() error { return pass(ctx, b, a, delay, jitter) })
	err := g.Wait()
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

type frame struct {
	due  time.Time
	data []byte
}

// pass moves frames one way. It ends when one of its ends does.
func pass(ctx context.Context, from io.Reader, to io.Writer, delay, jitter time.Duration) error {
	under := make(chan frame, queue)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(under)
		buf := make([]byte, maxFrame)
		var last time.Time
		for {
			n, err := from.Read(buf)
			if err != nil {
				return err
			}
			due := time.Now().Add(delay)
			if jitter > 0 {
				due = due.Add(rand.N(jitter))
			}
			if due.Before(last) {
				due = last // a cable does not reorder
			}
			last = due
			select {
			case under <- frame{due, append([]byte(nil), buf[:n]...)}:
			default: // full
			}
		}
	})
	g.Go(func() error {
		for f := range under {
			if wait := time.Until(f.due); wait > 0 {
				select {
				case <-ctx.Done():
					return nil
				case <-time.After(wait):
				}
			}
			// A link that is down takes nothing; the frame is lost.
			if _, err := to.Write(f.data); err != nil && !errors.Is(err, unix.EIO) {
				return err
			}
		}
		return nil
	})
	return g.Wait()
}
