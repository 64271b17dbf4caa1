// Package identity knows the cluster's users and says who a caller is. It
// answers the users and login API of DC/OS (/acs/api/v1) and checks the tokens
// it gave out.
//
// Users and the sealed signing key are in the store, so that every master
// accepts what any master signed. A token names the generation of its user's
// credentials: deleting the user or changing the password ends all sessions at
// once, not when the tokens expire. What a user may do is not decided here.
package identity

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"log/slog"
	"os"
	"regexp"
	"runtime"
	"sync"
	"time"

	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/password"
	"dcos.example/dcos/runtime/state"
)

// The kinds this package stores.
const (
	KindUser       state.Kind = "user"
	KindSigningKey state.Kind = "signing-key"
	kindBoot       state.Kind = "identity" // one record, so that the first user is made once

	currentKey = "current"
	bootRecord = "first-boot"
)

// TokenTTL is how long a login lasts: the cookie of DC/OS 1.7 lived as long.
const TokenTTL = 5 * 24 * time.Hour

// User is an account of a person or, with a public key, of a service.
type User struct {
	Description  string `json:"description"`
	PasswordHash string `json:"password_hash,omitempty"`
	PublicKey    string `json:"public_key,omitempty"` // PEM, RSA
	// Generation changes with the credentials; tokens carry it.
	Generation string    `json:"generation"`
	Created    time.Time `json:"created"`
}

// FirstUser is the account that exists from first boot: the contents of
// config.AdminHashFile.
type FirstUser struct {
	UID          string `json:"uid"`
	PasswordHash string `json:"password_hash"`
}

// Config is what a Service is made from.
type Config struct {
	Store     state.Backend
	SealKey   []byte // 32 bytes; encrypts the signing key at rest
	ClusterID string
	First     FirstUser // empty UID: no user is made at first boot
	Log       *slog.Logger
}

// sealedKey is the signing key as stored: PKCS #8, AES-GCM, nonce first, with
// the key id as associated data.
type sealedKey struct {
	ID      string    `json:"id"`
	Sealed  []byte    `json:"sealed"`
	Created time.Time `json:"created"`
}

type signingKey struct {
	id  string
	rsa *rsa.PrivateKey
}

// Service is the identity component of one master.
type Service struct {
	users   state.Table[User]
	keys    state.Table[sealedKey]
	boot    state.Table[FirstUser]
	store   state.Backend
	seal    cipher.AEAD
	cluster string
	first   FirstUser
	log     *slog.Logger
	limits  *limits
	// hashing bounds how many passwords are hashed at once: each needs 19 MiB.
	hashing chan struct{}
	decoy   string // hash that logins of unknown users are compared with

	mu     sync.RWMutex
	key    *signingKey     // nil until read from the store
	known  map[string]User // nil until the first listing
	synced bool            // known follows the store right now
}

// New returns a Service that is not yet connected to the store.
func New(cfg Config) (*Service, error) {
	const op = "set up identity"
	block, err := aes.NewCipher(cfg.SealKey)
	if err != nil || len(cfg.SealKey) != 32 {
		return nil, fault.Newf(op, fault.Invalid, "seal key has %d bytes, must have 32", len(cfg.SealKey))
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	if cfg.First.UID != "" {
		if !validUID(cfg.First.UID) {
			return nil, fault.Newf(op, fault.Invalid, "first user: %q is not a user ID", cfg.First.UID)
		}
		if err := password.Check(cfg.First.PasswordHash); err != nil {
			return nil, fault.Newf(op, fault.Invalid, "first user: %w", err)
		}
	}
	decoy, err := password.Hash(rand.Text())
	if err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	store := state.Restrict(cfg.Store, KindUser, KindSigningKey, kindBoot)
	return &Service{
		users: state.NewTable[User](store, KindUser), keys: state.NewTable[sealedKey](store, KindSigningKey),
		boot: state.NewTable[FirstUser](store, kindBoot), store: store,
		seal: aead, cluster: cfg.ClusterID, first: cfg.First, log: cfg.Log, limits: newLimits(),
		hashing: make(chan struct{}, max(2, runtime.GOMAXPROCS(0))), decoy: decoy,
	}, nil
}

// LoadFirstUser reads a first user's file; a file that does not exist names
// none.
func LoadFirstUser(file string) (FirstUser, error) {
	var u FirstUser
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return u, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &u)
	}
	if err != nil {
		return u, fault.New("read first user", fault.Invalid, err)
	}
	return u, nil
}

// Run makes the first user and the signing key if this cluster has none, and
// follows the users until ctx ends. Until it has reached the store, callers
// get fault.Unavailable.
func (s *Service) Run(ctx context.Context) error {
	wait := 100 * time.Millisecond
	for {
		err := s.follow(ctx, func() { wait = 100 * time.Millisecond })
		s.mu.Lock()
		s.synced = false
		s.mu.Unlock()
		if ctx.Err() != nil {
			return nil
		}
		s.log.Warn("follow users", "err", err, "again_in", wait)
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
		wait = min(2*wait, 10*time.Second)
	}
}

func (s *Service) follow(ctx context.Context, connected func()) error {
	if err := s.firstBoot(ctx); err != nil {
		return err
	}
	if err := s.loadKey(ctx); err != nil {
		return err
	}
	objs, rev, err := s.users.List(ctx)
	if err != nil {
		return err
	}
	known := make(map[string]User, len(objs))
	for _, o := range objs {
		known[o.ID] = o.Spec
	}
	s.mu.Lock()
	s.known, s.synced = known, true
	s.mu.Unlock()
	connected()
	for ch, err := range s.store.Watch(ctx, rev, KindUser) {
		if err != nil {
			return err
		}
		if err := s.note(ch); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (s *Service) note(ch state.Change) error {
	var u User
	if ch.Value != nil {
		obj, err := state.Decode[User](state.Record(ch))
		if err != nil {
			return err
		}
		u = obj.Spec
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if ch.Value == nil {
		delete(s.known, ch.Key.ID)
	} else {
		s.known[ch.Key.ID] = u
	}
	return nil
}

// firstBoot writes the first user and the signing key in one commit with the
// record that this was done. All masters try; one wins, and a first user who
// was deleted later does not come back.
func (s *Service) firstBoot(ctx context.Context) error {
	const op = "set up identity of the cluster"
	_, err := s.boot.Get(ctx, bootRecord)
	if err == nil || !fault.Is(err, fault.NotFound) {
		return err
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(rsaKey)
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	id, err := randomHex(8)
	if err != nil {
		return err
	}
	nonce := make([]byte, s.seal.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return fault.New(op, fault.Internal, err)
	}
	sealed := sealedKey{ID: id, Sealed: s.seal.Seal(nonce, nonce, der, []byte(id)), Created: time.Now().UTC()}
	keyOp, err := s.keys.Put(state.Object[sealedKey]{ID: currentKey, Spec: sealed})
	if err != nil {
		return err
	}
	bootOp, err := s.boot.Put(state.Object[FirstUser]{ID: bootRecord, Spec: FirstUser{UID: s.first.UID}})
	if err != nil {
		return err
	}
	ops := []state.Op{bootOp, keyOp}
	if s.first.UID != "" {
		gen, err := randomHex(8)
		if err != nil {
			return err
		}
		userOp, err := s.users.Put(state.Object[User]{ID: s.first.UID, Spec: User{
			Description: "First user, made at installation", PasswordHash: s.first.PasswordHash,
			Generation: gen, Created: time.Now().UTC(),
		}})
		if err != nil {
			return err
		}
		ops = append(ops, userOp)
	}
	switch _, err := s.store.Commit(ctx, ops...); {
	case fault.Is(err, fault.Conflict):
		return nil // another master was first
	case err != nil:
		return err
	}
	s.log.Info("identity set up", "first_user", s.first.UID, "signing_key", id)
	return nil
}

func (s *Service) loadKey(ctx context.Context) error {
	const op = "read signing key"
	obj, err := s.keys.Get(ctx, currentKey)
	if err != nil {
		return err
	}
	k := obj.Spec
	if len(k.Sealed) < s.seal.NonceSize() {
		return fault.Newf(op, fault.Internal, "record is too short")
	}
	n := s.seal.NonceSize()
	der, err := s.seal.Open(nil, k.Sealed[:n], k.Sealed[n:], []byte(k.ID))
	if err != nil {
		return fault.Newf(op, fault.Internal, "this master's seal key does not open it: %w", err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	rsaKey, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return fault.Newf(op, fault.Internal, "it is %T, not RSA", parsed)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.key = &signingKey{id: k.ID, rsa: rsaKey}
	return nil
}

// signer returns the signing key.
func (s *Service) signer() (*signingKey, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.key == nil {
		return nil, fault.Newf("sign token", fault.Unavailable, "the store was not reached yet")
	}
	return s.key, nil
}

// lookup returns a user from the followed view or, when that is not current,
// from the store.
func (s *Service) lookup(ctx context.Context, uid string) (User, error) {
	s.mu.RLock()
	u, ok := s.known[uid]
	synced := s.synced
	s.mu.RUnlock()
	if synced {
		if !ok {
			return u, fault.Newf("find user "+uid, fault.NotFound, "no such user")
		}
		return u, nil
	}
	obj, err := s.users.Get(ctx, uid)
	return obj.Spec, err
}

var uidForm = regexp.MustCompile(`^[a-zA-Z0-9_@.-]{1,96}$`)

func validUID(uid string) bool { return uidForm.MatchString(uid) && uid != "." && uid != ".." }

// parsePublicKey reads the RSA key of a service account.
func parsePublicKey(text string) (*rsa.PublicKey, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, errors.New("not a public key in PEM (X.509 SubjectPublicKeyInfo) form")
	}
	k, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := k.(*rsa.PublicKey)
	if !ok {
		return nil, errors.New("public key must be of type RSA")
	}
	if key.N.BitLen() < 2048 {
		return nil, errors.New("RSA key must have 2048 or more bits")
	}
	return key, nil
}

func randomHex(n int) (string, error) {
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		return "", fault.New("read random bytes", fault.Internal, err)
	}
	return hex.EncodeToString(b), nil
}
