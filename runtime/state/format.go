package state

import (
	"context"
	"encoding/json"
	"fmt"

	"dcos.example/dcos/runtime/fault"
)

// Format is the newest format of what is stored that this release reads, and
// the one that it writes. It grows when an older release would misunderstand
// or destroy what a newer one stores.
const Format = 1

// formatKey holds the format of everything stored.
var formatKey = Key{Kind: "format", ID: "state"}

type formatRecord struct {
	Format  int    `json:"format"`
	Release string `json:"release"` // that raised it
}

// CheckFormat refuses, with fault.Invalid, a store that a newer release than
// this, release, has written to.
func CheckFormat(ctx context.Context, b Backend, release string) error {
	_, _, err := readFormat(ctx, b, release)
	return err
}

// ClaimFormat is CheckFormat for a leader: from then on older releases refuse
// the store. A leader calls it before it writes anything else.
func ClaimFormat(ctx context.Context, b Backend, release string) error {
	f, rev, err := readFormat(ctx, b, release)
	if err != nil || f.Format == Format {
		return err
	}
	v, err := json.Marshal(formatRecord{Format, release})
	if err != nil {
		return fault.New("claim the store", fault.Internal, err)
	}
	_, err = b.Commit(ctx, Op{Key: formatKey, IfRev: rev, Value: v})
	if fault.Is(err, fault.Conflict) { // the leader before this one was late
		return CheckFormat(ctx, b, release)
	}
	return err
}

func readFormat(ctx context.Context, b Backend, release string) (f formatRecord, rev Rev, err error) {
	const op = "check the format of the store"
	r, err := b.Get(ctx, formatKey)
	if fault.Is(err, fault.NotFound) {
		return f, 0, nil
	}
	if err != nil {
		return f, 0, err
	}
	if err := json.Unmarshal(r.Value, &f); err != nil {
		return f, 0, fault.New(op, fault.Internal, err)
	}
	if f.Format > Format {
		return f, 0, fault.New(op, fault.Invalid, fmt.Errorf("release %s has raised it to %d, and this is release %s, which reads up to %d: "+
			"run release %[1]s or newer, or restore a backup that is older than it", f.Release, f.Format, release, Format))
	}
	return f, r.Rev, nil
}
