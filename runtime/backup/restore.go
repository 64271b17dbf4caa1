package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"dcos.example/dcos/runtime/backup/archive"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/state"
	"dcos.example/dcos/runtime/state/etcd"
)

// restoredFile is in a master's data directory and says which backup its store
// was begun from.
const restoredFile = "restored-from"

// Begin restores the store of an empty master when the installer has left an
// order for that in dir (config.RestoreDir): the master is then the only one of
// a new ensemble, which the others join. It returns the order that Finish is
// still to carry out; nil when there is none.
func Begin(dir string, o etcd.Options) (*archive.Order, error) {
	const op = "restore the store from a backup"
	b, err := os.ReadFile(filepath.Join(dir, archive.OrderName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var order archive.Order
	if err == nil {
		err = json.Unmarshal(b, &order)
	}
	if err != nil {
		return nil, fault.Newf(op, fault.Invalid, "the order in %s cannot be read: %w", dir, err)
	}
	if order.ClusterID != o.Token {
		return nil, fault.Newf(op, fault.Invalid, "the order in %s is for cluster %s, this is %s", dir, order.ClusterID, o.Token)
	}
	note := filepath.Join(o.DataDir, restoredFile)
	if _, err := etcd.Inspect(o.DataDir); err == nil {
		// It has been carried out, unless somebody has put it beside a store.
		if was, err := os.ReadFile(note); err == nil && string(was) == order.Backup+"\n" {
			return &order, removeSnapshot(dir)
		}
		return nil, fault.Newf(op, fault.Exists, "there is an order in %s, and a store in %s that did not come from it; remove the one that is not wanted", dir, o.DataDir)
	} else if !fault.Is(err, fault.NotFound) {
		return nil, err
	}
	snapshot := filepath.Join(dir, archive.OrderSnapshot)
	if err := checkSum(snapshot, order.SHA256); err != nil {
		return nil, fault.New(op, fault.Invalid, err)
	}
	if err := os.MkdirAll(o.DataDir, 0o700); err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	if err := os.WriteFile(note, []byte(order.Backup+"\n"), 0o600); err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	if err := etcd.Restore(o, snapshot); err != nil {
		return nil, err
	}
	return &order, removeSnapshot(dir)
}

func removeSnapshot(dir string) error {
	if err := os.Remove(filepath.Join(dir, archive.OrderSnapshot)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.New("remove the snapshot that was restored", fault.Internal, err)
	}
	return nil
}

func checkSum(file, want string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		return fault.Newf("check "+file, fault.Invalid, "its digest is %s, the order says %s", got, want)
	}
	return nil
}

// Finish forgets the agents that the order says are no more, before anything
// waits for them, and then the order. The leader calls it before its components
// run.
func Finish(ctx context.Context, dir string, order *archive.Order, store state.Backend) error {
	store = state.Restrict(store, kindAgent)
	for _, id := range order.ForgetAgents {
		rec, err := store.Get(ctx, state.Key{Kind: kindAgent, ID: id})
		if fault.Is(err, fault.NotFound) {
			continue
		}
		if err == nil {
			_, err = store.Commit(ctx, state.Op{Key: rec.Key, IfRev: rec.Rev})
		}
		if err != nil {
			return err
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fault.New("remove the order to restore", fault.Internal, err)
	}
	return nil
}
