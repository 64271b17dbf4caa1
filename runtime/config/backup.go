package config

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"
)

const (
	// BackupDir is where masters keep backups when nothing else is said.
	BackupDir = VarDir + "/backups"
	// BackupKeysFile holds the keys of the S3-compatible store, on masters:
	// {"access_key","secret_key"}.
	BackupKeysFile = EtcDir + "/pki/backup-s3.json"
	// RestoreDir is where a master that starts empty looks for the snapshot
	// that it is to start from.
	RestoreDir = VarDir + "/restore"
	// DepositFile is every master's sealed copy of the installer's state.
	DepositFile = VarDir + "/installer-state.sealed"
)

// backupEvery is the shortest time between two backups: each reads the whole
// store twice.
const backupEvery = time.Minute

// Backup says when the cluster is backed up, where to, and who can read it.
type Backup struct {
	Every Duration `json:"every,omitempty"` // between two backups; 0: only when asked
	Keep  int      `json:"keep"`            // how many; older ones are removed
	// Dir is a directory on every master. It is used when there is no S3.
	Dir string `json:"dir,omitempty"`
	S3  *S3    `json:"s3,omitempty"`
	// Recipients are the age public keys that backups are encrypted for. The
	// first is the cluster's own, whose other half only its installer has.
	Recipients []string `json:"recipients,omitempty"`
}

// S3 is a bucket of an S3-compatible store. Its keys are in BackupKeysFile.
type S3 struct {
	Endpoint string `json:"endpoint"` // "https://host:port"; "http://…" sends backups, which are encrypted, and signatures in clear
	Bucket   string `json:"bucket"`   // must exist
	Prefix   string `json:"prefix,omitempty"`
	Region   string `json:"region,omitempty"` // "us-east-1" if empty
}

// S3Keys is the content of BackupKeysFile.
type S3Keys struct {
	AccessKey string `json:"access_key"`
	SecretKey string `json:"secret_key"`
}

// Validate returns everything that is wrong with k.
func (k S3Keys) Validate() error {
	if k.AccessKey == "" || k.SecretKey == "" {
		return invalid("check keys of the backup store", []error{errors.New("access_key and secret_key: both are needed")})
	}
	return nil
}

// DefaultBackup keeps seven backups on the masters, made only when asked for.
func DefaultBackup() Backup { return Backup{Keep: 7, Dir: BackupDir} }

func (b Backup) check() (errs []error) {
	if b.Every != 0 && time.Duration(b.Every) < backupEvery {
		errs = append(errs, fmt.Errorf("backup.every: %s is under %s", time.Duration(b.Every), backupEvery))
	}
	if b.Keep < 1 {
		errs = append(errs, errors.New("backup.keep: must be positive"))
	}
	if b.Every != 0 && len(b.Recipients) == 0 {
		errs = append(errs, errors.New("backup.recipients: missing; nobody could read the backups"))
	}
	if b.S3 == nil {
		if !filepath.IsAbs(b.Dir) {
			errs = append(errs, fmt.Errorf("backup.dir: %q must be an absolute path", b.Dir))
		}
		return errs
	}
	if u, err := url.Parse(b.S3.Endpoint); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || strings.Trim(u.Path, "/") != "" {
		errs = append(errs, fmt.Errorf("backup.s3.endpoint: %q must be https://HOST[:PORT]", b.S3.Endpoint))
	}
	if b.S3.Bucket == "" {
		errs = append(errs, errors.New("backup.s3.bucket: missing"))
	}
	return errs
}
