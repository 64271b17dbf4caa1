package cli_test

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"

	"dcos.example/dcos/runtime/backup/archive"
	"dcos.example/dcos/runtime/config"
)

// mkBackup writes a backup of a cluster, as a master would, and the key that
// opens it: mkbackup FILE KEYFILE CLUSTER RELEASE
func mkBackup() {
	if err := writeBackup(os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func writeBackup(file, keyFile, cluster, release string) error {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return err
	}
	if err := os.WriteFile(keyFile, []byte(id.String()+"\n"), 0o600); err != nil {
		return err
	}
	snapshot := filepath.Join(filepath.Dir(file), "snapshot.db")
	if err := os.WriteFile(snapshot, []byte("a store"), 0o600); err != nil {
		return err
	}
	sources := []archive.Source{{Name: archive.SnapshotName, Path: snapshot}}
	for path, text := range map[string]string{
		config.CACertFile: "CERTIFICATE OF THE BACKUP\n", config.CAKeyFile: "s3cret-key-of-the-backup", config.JoinTokenFile: "s3cret-token-of-the-backup\n",
		config.SealKeyFile: "s3cret-seal-of-the-backup\n", config.AdminHashFile: `{"uid":"admin","password_hash":"s3cret-hash-of-the-backup"}`,
		config.MasterFile: `{"backup":{"keep":7,"recipients":["` + id.Recipient().String() + `"]}}`,
	} {
		sources = append(sources, archive.Source{Name: archive.ConfigDir + path, Data: []byte(text)})
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	return archive.Write(f, []age.Recipient{id.Recipient()}, archive.Manifest{ID: "b1", ClusterID: "id-of-the-backup", ClusterName: cluster, Release: release,
		Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}, sources)
}
