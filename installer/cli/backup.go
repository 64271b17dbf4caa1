package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"dcos.example/dcos/installer/cli/view"
	"dcos.example/dcos/installer/gateway"
	"dcos.example/dcos/installer/program"
	"dcos.example/dcos/runtime/backup/archive"
	"dcos.example/dcos/runtime/fault"
)

const backupsPath = "/system/v1/backups"

type backupFlags struct {
	out, id, passphraseFile string
	verify                  bool
}

func (r *run) backupCommand() *cobra.Command {
	var f backupFlags
	c := &cobra.Command{
		Use:   "backup",
		Short: "Back the cluster up now, list backups, or fetch one",
		Long: `The leading master saves the store, the cluster's keys, the masters' configuration and the
installer's state in one encrypted file, starts a member from it to see that it is good, and
keeps it where the backup block of the cluster's file says. -out fetches the file too.

  dcos-install backup -out prod.backup   make one and fetch it
  dcos-install backup list               what there is, and how the last one went
  dcos-install backup key                the key that opens them: keep it apart from them`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := r.interruptible(c.Context())
			defer stop()
			if f.out == "" && (f.verify || f.passphraseFile != "" || f.id != "") {
				return usageError{errors.New("-verify, -passphrase-file and -id need -out FILE")}
			}
			return r.backup(ctx, f)
		},
	}
	c.Flags().StringVar(&f.out, "out", "", "write the backup to a `file`")
	c.Flags().StringVar(&f.id, "id", "", "fetch the backup of this `id` instead of making one")
	c.Flags().BoolVar(&f.verify, "verify", false, "open the written file and check all that is in it")
	c.Flags().StringVar(&f.passphraseFile, "passphrase-file", "", "encrypt the written file with the passphrase in the first line of a `file`")
	list := &cobra.Command{
		Use: "list", Short: "List backups, and how the last one went", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return r.listBackups(c.Context()) },
	}
	reveal := false
	key := &cobra.Command{
		Use: "key", Short: "Show for whom backups are encrypted, and with -reveal the key that opens them", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return r.backupKey(reveal) },
	}
	key.Flags().BoolVar(&reveal, "reveal", false, "print the secret key alone")
	r.withCluster(c)
	for _, sub := range []*cobra.Command{list, key} {
		r.strictArgs(r.withCluster(sub))
		c.AddCommand(sub)
	}
	return c
}

func (r *run) backup(ctx context.Context, f backupFlags) error {
	s, err := r.openExisting(nil, "backup")
	if err != nil {
		return err
	}
	if err := s.rememberKey(); err != nil {
		return err
	}
	if f.out != "" {
		if _, err := os.Stat(r.abs(f.out)); err == nil {
			return fault.Newf("write "+f.out, fault.Exists, "the file exists; it is left as it is")
		}
	}
	c, err := s.gateway()
	if err != nil {
		return err
	}
	defer c.Close()
	doc := view.Backup{File: f.out}
	if f.id == "" {
		if err := c.JSON(ctx, http.MethodPost, backupsPath, nil, &doc.Entry); err != nil {
			return err
		}
		doc.Made = true
	} else if doc.Entry, err = findBackup(ctx, c, f.id); err != nil {
		return err
	}
	if f.out != "" {
		if err := s.fetchBackup(ctx, c, f, &doc); err != nil {
			return err
		}
	}
	return r.show(doc)
}

func findBackup(ctx context.Context, c *gateway.Client, id string) (archive.Entry, error) {
	var all view.Backups
	if err := c.JSON(ctx, http.MethodGet, backupsPath, nil, &all); err != nil {
		return archive.Entry{}, err
	}
	for _, e := range all.Backups {
		if e.ID == id {
			return e, nil
		}
	}
	return archive.Entry{}, fault.Newf("find backup "+id, fault.NotFound, "there is none of that name; dcos-install backup list shows those there are")
}

// fetchBackup writes the file of a backup, and nothing unless it is whole.
func (s *session) fetchBackup(ctx context.Context, c *gateway.Client, f backupFlags, doc *view.Backup) (err error) {
	op := "fetch backup " + doc.ID
	out := s.run.abs(f.out)
	resp, err := c.Do(ctx, http.MethodGet, backupsPath+"/"+url.PathEscape(doc.ID), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	tmp, err := os.CreateTemp(filepath.Dir(out), ".backup-*")
	if err != nil {
		return fault.New(op, fault.Denied, err)
	}
	defer os.Remove(tmp.Name()) // nothing is there after the rename
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(tmp, sum), resp.Body)
	if err == nil && n != doc.Size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return errors.Join(fault.Newf(op, fault.Unavailable, "%d of %d bytes came: %w", n, doc.Size, err), tmp.Close())
	}
	if hex.EncodeToString(sum.Sum(nil)) != doc.SHA256 {
		return errors.Join(fault.Newf(op, fault.Unavailable, "what came is not what was made"), tmp.Close())
	}
	if err := errors.Join(tmp.Sync(), tmp.Close()); err != nil {
		return fault.New(op, fault.Denied, err)
	}
	written := tmp.Name()
	if f.passphraseFile != "" {
		if written, err = s.reencrypt(written, f.passphraseFile); err != nil {
			return err
		}
		defer os.Remove(written)
		doc.Passphrase = true
	}
	if f.verify {
		ids, err := s.run.identities(s, restoreFlags{passphraseFile: f.passphraseFile})
		if err != nil {
			return err
		}
		b, done, err := openBackup(written, ids)
		if err != nil {
			return err
		}
		done()
		doc.Checked = b.Manifest.ID == doc.ID
	}
	if err := os.Rename(written, out); err != nil {
		return fault.New(op, fault.Denied, err)
	}
	return nil
}

// reencrypt makes of a backup one that a passphrase opens.
func (s *session) reencrypt(file, passphraseFile string) (string, error) {
	const op = "encrypt the backup with the passphrase"
	phrase, err := s.run.firstLine(passphraseFile)
	if err != nil {
		return "", err
	}
	to, err := age.NewScryptRecipient(phrase)
	if err != nil {
		return "", fault.New(op, fault.Invalid, err)
	}
	ids, err := s.run.identities(s, restoreFlags{})
	if err != nil {
		return "", err
	}
	in, err := os.Open(file)
	if err != nil {
		return "", fault.New(op, fault.Internal, err)
	}
	defer in.Close()
	plain, err := age.Decrypt(in, ids...)
	if err != nil {
		return "", fault.New(op, fault.Denied, err)
	}
	out, err := os.CreateTemp(filepath.Dir(file), ".backup-*")
	if err != nil {
		return "", fault.New(op, fault.Denied, err)
	}
	sealed, err := age.Encrypt(out, to)
	if err == nil {
		_, err = io.Copy(sealed, plain)
		err = errors.Join(err, sealed.Close())
	}
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		return "", errors.Join(fault.New(op, fault.Internal, err), os.Remove(out.Name()))
	}
	return out.Name(), nil
}

func (r *run) firstLine(path string) (string, error) {
	b, err := os.ReadFile(r.abs(path))
	if err != nil {
		return "", fault.New("read "+path, fault.Invalid, err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	if line = strings.TrimRight(line, "\r"); line == "" {
		return "", fault.Newf("read "+path, fault.Invalid, "its first line is empty")
	}
	return line, nil
}

func (r *run) listBackups(ctx context.Context) error {
	s, err := r.openExisting(nil, "backup list")
	if err != nil {
		return err
	}
	c, err := s.gateway()
	if err != nil {
		return err
	}
	defer c.Close()
	doc := view.Backups{Cluster: s.cluster}
	if err := c.JSON(ctx, http.MethodGet, backupsPath, nil, &doc); err != nil {
		return err
	}
	return r.show(doc)
}

func (r *run) backupKey(reveal bool) error {
	s, err := r.openExisting(nil, "backup key")
	if err != nil {
		return err
	}
	if err := s.rememberKey(); err != nil {
		return err
	}
	keys, err := s.stack.Kept(keptKeys)
	if err != nil {
		return err
	}
	if len(keys) == 0 {
		return fault.Newf("show the key of backups", fault.NotFound, "the cluster has none yet; dcos-install apply makes one")
	}
	// The cluster that there is now, first; those before it after.
	st, err := s.stack.State()
	if err != nil {
		return err
	}
	now := ""
	if res := st.Live(program.SecretsKey(s.cluster).URN(s.stack.Name())); res != nil {
		now = text(res.Outputs["backupRecipient"])
	}
	var order []string
	for k := range keys {
		order = append(order, string(k))
	}
	slices.SortFunc(order, func(a, b string) int {
		switch {
		case a == now:
			return -1
		case b == now:
			return 1
		}
		return strings.Compare(a, b)
	})
	if !reveal {
		return r.show(view.Message{What: "backup-key", Fields: map[string]string{"recipient": order[0]},
			Text: "Backups are encrypted for " + order[0] + ".\nThe key that opens them is in the state. Keep a copy elsewhere, for when the state is lost with the cluster:\n  dcos-install backup key -reveal > backup-key.txt"})
	}
	if r.json {
		return r.show(view.Message{What: "backup-key", Fields: map[string]string{"recipient": order[0], "identity": text(keys[resourceKey(order[0])])}, Text: "backup key"})
	}
	var b bytes.Buffer
	for _, k := range order {
		fmt.Fprintf(&b, "# backups of cluster %s, public key: %s\n%s\n", s.cluster, k, text(keys[resourceKey(k)]))
	}
	_, err = r.app.Stdout.Write(b.Bytes())
	return err
}

// lastBackup is what the cluster says of its backups; nil when it does not.
func (s *session) lastBackup(ctx context.Context) *view.Backups {
	c, err := s.gateway()
	if err != nil {
		return nil
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	doc := view.Backups{Cluster: s.cluster}
	if err := c.JSON(ctx, http.MethodGet, backupsPath, nil, &doc); err != nil {
		return nil
	}
	return &doc
}
