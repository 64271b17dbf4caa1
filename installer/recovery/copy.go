// Package recovery brings back what was lost: the installer's state from the
// cluster, the cluster from a backup. It decides and translates; the commands
// in installer/cli ask, show and carry out.
package recovery

import (
	"context"
	"encoding/json"

	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/deposit"
	"dcos.example/dcos/runtime/fault"
)

// copyFormat is the version of Copy that this program writes and reads.
const copyFormat = 1

// Copy is the installer's state as the cluster keeps it: everything with which
// another machine goes on. It holds every secret of the cluster, unless they
// are encrypted with a passphrase.
type Copy struct {
	Format    int               `json:"format"`
	Cluster   string            `json:"cluster"`
	Installer string            `json:"installer"` // version of the program that wrote it
	Files     map[string][]byte `json:"files"`     // of the stack
}

// Pack encodes c.
func (c Copy) Pack() ([]byte, error) {
	c.Format = copyFormat
	b, err := json.Marshal(c)
	if err != nil {
		return nil, fault.New("pack the installer's state", fault.Internal, err)
	}
	return b, nil
}

// Unpack decodes what Pack returned.
func Unpack(b []byte) (c Copy, err error) {
	const op = "read the installer's state"
	if err := json.Unmarshal(b, &c); err != nil {
		return c, fault.Newf(op, fault.Invalid, "it is damaged: %w", err)
	}
	if c.Format != copyFormat {
		return c, fault.Newf(op, fault.Invalid, "it has format %d, this program reads %d; dcos-install %s wrote it: use that, or a newer one", c.Format, copyFormat, c.Installer)
	}
	return c, nil
}

// FromMaster reads the state from the files of a master, which need not run:
// the sealed state lies there, with the key beside it. It also returns the id of
// the cluster.
func FromMaster(ctx context.Context, h host.Files) (c Copy, head deposit.Head, cluster string, err error) {
	const op = "read the installer's state from the master"
	read := func(path, missing string) []byte {
		if err != nil {
			return nil
		}
		f, rerr := h.ReadFile(ctx, path)
		if fault.Is(rerr, fault.NotFound) {
			err = fault.Newf(op, fault.NotFound, "%s", missing)
		} else {
			err = rerr
		}
		return f.Data
	}
	cfg := read(config.MasterFile, "no master is installed on this host: there is no "+config.MasterFile)
	key := read(config.SealKeyFile, "there is no "+config.SealKeyFile+" on it")
	file := read(config.DepositFile, "it has none: no apply has finished since the cluster was made")
	if err != nil {
		return c, head, "", err
	}
	var m struct {
		Cluster struct {
			ID string `json:"id"`
		} `json:"cluster"`
	}
	if err := json.Unmarshal(cfg, &m); err != nil {
		return c, head, "", fault.New(op, fault.Internal, err)
	}
	head, content, err := deposit.OpenFile(file, key, m.Cluster.ID)
	if err != nil {
		return c, head, "", err
	}
	c, err = Unpack(content)
	return c, head, m.Cluster.ID, err
}
