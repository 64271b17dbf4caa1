// Package deposit keeps the installer's state inside the cluster that it
// describes, so that whoever lost the machine with the state gets it back from
// any master (dcos-install adopt).
//
// The state is compressed, sealed with the masters' seal key, and cut into
// chunks that the store can hold. It names the revision it replaces, so one of
// two installers that work on a cluster finds out. Every master also keeps the
// sealed state in a file: with the seal key beside it, the state can be read
// when the store has lost its quorum.
//
// What is in the state is the installer's affair; this package sees bytes.
package deposit

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/state"
)

// Kind is what this package stores: the record "head", and chunks under
// "<generation>/<number>".
const Kind state.Kind = "installer-state"

const (
	headID = "head"
	// chunkSize keeps a record well below what a request to the store may hold.
	chunkSize = 512 << 10
	// MaxSize bounds a state: what a cluster of thousands of hosts needs, many
	// times over.
	MaxSize = 64 << 20
	version = 1
)

// Head tells of a deposited state.
type Head struct {
	Version int `json:"version"`
	// Serial and Operation are the installer's: the number of the state, and
	// the operation that left it. They tell a newer state from a foreign one.
	Serial    uint64    `json:"serial"`
	Operation string    `json:"operation"`
	By        string    `json:"by"` // user and host of the installer
	At        time.Time `json:"at"`

	Generation string `json:"generation"`
	Size       int    `json:"size"`   // in bytes, as deposited
	Sealed     int    `json:"sealed"` // in bytes, as stored
	SHA256     string `json:"sha256"` // of the sealed form
	Chunks     int    `json:"chunks"`

	Rev state.Rev `json:"-"` // of the head's record
}

// Deposit is the place in one cluster's store.
type Deposit struct {
	store   state.Backend
	heads   state.Table[Head]
	key     []byte
	cluster string
}

// New returns the deposit of the cluster, sealed with key, which has 32 bytes.
func New(store state.Backend, key []byte, cluster string) *Deposit {
	store = state.Restrict(store, Kind)
	return &Deposit{store: store, heads: state.NewTable[Head](store, Kind), key: key, cluster: cluster}
}

// Head returns what is deposited; fault.NotFound when nothing is.
func (d *Deposit) Head(ctx context.Context) (Head, error) {
	obj, err := d.heads.Get(ctx, headID)
	obj.Spec.Rev = obj.Rev
	return obj.Spec, err
}

// Put replaces the state that is at revision rev (0: there is none) and returns
// the new head. fault.Conflict says that another one is there.
func (d *Deposit) Put(ctx context.Context, rev state.Rev, h Head, content []byte) (Head, error) {
	const op = "keep the installer's state"
	if len(content) > MaxSize {
		return h, fault.Newf(op, fault.Invalid, "it has %d MiB, %d are the most", len(content)>>20, MaxSize>>20)
	}
	h.Version, h.Generation, h.Size = version, rand.Text(), len(content)
	sealed, err := seal(d.key, d.cluster, h.Generation, content)
	if err != nil {
		return h, err
	}
	sum := sha256.Sum256(sealed)
	h.Sealed, h.SHA256 = len(sealed), hex.EncodeToString(sum[:])
	h.Chunks = (len(sealed) + chunkSize - 1) / chunkSize
	// The head is written last, only if all its chunks are there, and makes
	// them the state. What of it is there before is nobody's.
	checks := make([]state.Op, 0, h.Chunks+1)
	for i := range h.Chunks {
		key := chunkKey(h.Generation, i)
		part := sealed[i*chunkSize : min(len(sealed), (i+1)*chunkSize)]
		at, err := d.store.Commit(ctx, state.Op{Key: key, Value: part})
		if err != nil {
			return h, err
		}
		checks = append(checks, state.Op{Key: key, IfRev: at, Check: true})
	}
	head, err := d.heads.Put(state.Object[Head]{ID: headID, Rev: rev, Spec: h})
	if err != nil {
		return h, err
	}
	h.Rev, err = d.store.Commit(ctx, append(checks, head)...)
	return h, errors.Join(err, d.sweep(ctx))
}

// sweep removes the chunks that are not the state's. Those of a Put that is
// under way elsewhere may be among them: that one then fails, and is repeated.
func (d *Deposit) sweep(ctx context.Context) error {
	head, err := d.Head(ctx)
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	recs, _, err := d.store.List(ctx, Kind)
	if err != nil {
		return err
	}
	var ops []state.Op
	for _, r := range recs {
		if r.Key.ID != headID && !strings.HasPrefix(r.Key.ID, head.Generation+"/") {
			ops = append(ops, state.Op{Key: r.Key, IfRev: r.Rev})
		}
	}
	if len(ops) == 0 {
		return nil
	}
	if _, err := d.store.Commit(ctx, ops...); err != nil && !fault.Is(err, fault.Conflict) {
		return err // on conflict another sweep was there
	}
	return nil
}

// Get returns the state.
func (d *Deposit) Get(ctx context.Context) (Head, []byte, error) {
	h, sealed, err := d.sealed(ctx)
	if err != nil {
		return h, nil, err
	}
	content, err := unseal(d.key, d.cluster, h, sealed)
	return h, content, err
}

func (d *Deposit) sealed(ctx context.Context) (Head, []byte, error) {
	for {
		h, err := d.Head(ctx)
		if err != nil {
			return h, nil, err
		}
		var sealed []byte
		for i := range h.Chunks {
			var rec state.Record
			if rec, err = d.store.Get(ctx, chunkKey(h.Generation, i)); err != nil {
				break
			}
			sealed = append(sealed, rec.Value...)
		}
		if err == nil {
			return h, sealed, nil
		}
		// A newer state may have taken its place meanwhile.
		if again, herr := d.Head(ctx); !fault.Is(err, fault.NotFound) || herr != nil || again.Generation == h.Generation {
			return h, nil, err
		}
	}
}

func chunkKey(generation string, i int) state.Key {
	return state.Key{Kind: Kind, ID: fmt.Sprintf("%s/%06d", generation, i)}
}

func aead(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil || len(key) != 32 {
		return nil, fault.Newf("read the seal key", fault.Invalid, "it has %d bytes, must have 32", len(key))
	}
	return cipher.NewGCM(block)
}

// about binds what is sealed to its cluster and its place.
func about(cluster, generation string) []byte {
	return fmt.Appendf(nil, "dcos installer state v%d of %s, %s", version, cluster, generation)
}

func seal(key []byte, cluster, generation string, content []byte) ([]byte, error) {
	a, err := aead(key)
	if err != nil {
		return nil, err
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, fault.New("compress the installer's state", fault.Internal, err)
	}
	nonce := make([]byte, a.NonceSize())
	rand.Read(nonce)
	return a.Seal(nonce, nonce, enc.EncodeAll(content, nil), about(cluster, generation)), nil
}

func unseal(key []byte, cluster string, h Head, sealed []byte) ([]byte, error) {
	const op = "open the installer's state"
	a, err := aead(key)
	if err != nil {
		return nil, err
	}
	if h.Version != version {
		return nil, fault.Newf(op, fault.Invalid, "it has version %d, this program reads %d", h.Version, version)
	}
	if sum := sha256.Sum256(sealed); len(sealed) != h.Sealed || hex.EncodeToString(sum[:]) != h.SHA256 || len(sealed) < a.NonceSize() {
		return nil, fault.Newf(op, fault.Internal, "it is damaged: %d bytes are there, %d were written, or other ones", len(sealed), h.Sealed)
	}
	packed, err := a.Open(nil, sealed[:a.NonceSize()], sealed[a.NonceSize():], about(cluster, h.Generation))
	if err != nil {
		return nil, fault.Newf(op, fault.Denied, "the seal key is not the one that it was sealed with, or it belongs to another cluster")
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(2*MaxSize))
	if err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	defer dec.Close()
	content, err := dec.DecodeAll(packed, nil)
	if err == nil && len(content) != h.Size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fault.Newf(op, fault.Internal, "%d of %d bytes are in it: %w", len(content), h.Size, err)
	}
	return content, nil
}

// OpenFile returns the state from a master's file (config.DepositFile), with
// the content of the master's seal key file.
func OpenFile(file, sealKey []byte, cluster string) (Head, []byte, error) {
	const op = "open the installer's state"
	line, sealed, ok := bytes.Cut(file, []byte("\n"))
	var h Head
	if err := json.Unmarshal(line, &h); err != nil {
		return h, nil, fault.Newf(op, fault.Invalid, "the file is damaged: %v", err)
	}
	if !ok {
		return h, nil, fault.Newf(op, fault.Invalid, "the file is damaged: it ends after its first line")
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(sealKey)))
	if err != nil {
		return h, nil, fault.New("read the seal key", fault.Invalid, err)
	}
	content, err := unseal(key, cluster, h, sealed)
	return h, content, err
}

// Follow keeps file equal to what is deposited until ctx ends.
func (d *Deposit) Follow(ctx context.Context, file string, warn func(error)) {
	for ctx.Err() == nil {
		if err := d.follow(ctx, file); err != nil && ctx.Err() == nil {
			warn(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

func (d *Deposit) follow(ctx context.Context, file string) error {
	h, sealed, err := d.sealed(ctx)
	switch {
	case fault.Is(err, fault.NotFound):
		// Nothing yet. A file that is there tells of a cluster restored from an
		// older backup; it is of more use than none.
		if _, h.Rev, err = d.store.List(ctx, Kind); err != nil {
			return err
		}
	case err != nil:
		return err
	default:
		if err := writeFile(file, h, sealed); err != nil {
			return err
		}
	}
	for c, err := range d.store.Watch(ctx, h.Rev, Kind) {
		if err != nil {
			return err
		}
		if c.Key.ID == headID {
			return nil // and from the start
		}
	}
	return nil
}

func writeFile(file string, h Head, sealed []byte) error {
	const op = "keep the installer's state in a file"
	line, err := json.Marshal(h)
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	line = append(line, '\n')
	if have, err := os.Open(file); err == nil {
		first := make([]byte, len(line))
		_, err := io.ReadFull(have, first)
		have.Close()
		if err == nil && bytes.Equal(first, line) {
			return nil
		}
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".installer-state-*")
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	defer os.Remove(f.Name()) // nothing is there after the rename
	_, err = f.Write(append(line, sealed...))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	return nil
}
