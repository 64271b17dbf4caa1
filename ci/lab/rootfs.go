package lab

import (
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"os"
	"path/filepath"
)

// recipe makes the root file system, and names it by its own hash.
//
//go:embed rootfs
var recipe []byte

// rootfs returns the directory of the root file system that hosts share,
// whether or not it was made.
func rootfs() string {
	sum := sha256.Sum256(recipe)
	return filepath.Join(cmp.Or(os.Getenv("DCOS_LAB_CACHE"), "/var/cache/dcos-lab"), "rootfs-"+hex.EncodeToString(sum[:6]))
}

// OpsPassword is what sudo asks the user ops for. Shells trip over it.
const OpsPassword = "pa$$ word's"
