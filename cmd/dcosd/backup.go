package main

import (
	"context"
	"net/http"

	"dcos.example/dcos/runtime/backup"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/deposit"
	"dcos.example/dcos/runtime/pki"
	"dcos.example/dcos/runtime/server"
	"dcos.example/dcos/runtime/state"
	"dcos.example/dcos/runtime/state/etcd"
)

// backupWork holds what is in clear while a backup is made; sockets lie in it.
const backupWork = config.VarDir + "/backup-work"

// backups wires what saves the cluster and the installer's state.
func (m *masterHost) backups(member *etcd.Member, store state.Backend, members func() []config.Member) (*backup.Service, *deposit.Deposit, error) {
	seal, err := readSealKey()
	if err != nil {
		return nil, nil, err
	}
	kept := deposit.New(store, seal, m.cfg.Cluster.ID)
	s, err := backup.New(backup.Config{
		Cluster: m.cfg.Cluster, Host: m.cfg.Host, Backup: m.cfg.Backup, Work: backupWork,
		Store: member, Deposit: kept, Masters: members,
		Peers: server.Transport(m.creds.ClientTLS(pki.RoleMaster)),
		Log:   m.log.With("part", "backup"),
	})
	return s, kept, err
}

// serveBackups opens the paths by which masters speak of backups.
func serveBackups(mux *http.ServeMux, h http.Handler) {
	h = pki.RequireRole(h, pki.RoleMaster)
	for _, p := range []string{backup.Path, backup.CopiesPath} {
		mux.Handle(p, h)
		mux.Handle(p+"/", h)
	}
}

// followDeposit keeps this master's file of the installer's state.
func (m *masterHost) followDeposit(ctx context.Context, d *deposit.Deposit) {
	d.Follow(ctx, config.DepositFile, func(err error) { m.log.Warn("keep the installer's state in a file", "err", err) })
}
