package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/host"
)

func (a *app) verifyCommand() *cobra.Command {
	var all bool
	var identity, from string
	cmd := &cobra.Command{
		Use:   "verify [name|latest|file...]",
		Short: "Read snapshots back and look through them: the newest, those named, or any file",
		Long: `Verify reads snapshots from the first byte to the last: the sha256 that etcd wrote
at the end, every page of the database, its revision, keys and KV hash. Without an
argument, or with "latest", it is the newest of each store. A name is looked for in
every store, and has to be what its manifest says. With --from only that store is
looked through. A store that cannot be asked stops no other one.

Anything else is a file, by whatever program it was saved; no configuration is
needed for one. Where a manifest lies beside it, it has to be what that says. A copy
of a member's own database, member/snap/db of its data directory, has no sha256:
verify says so, and that only its structure was checked.

Of an encrypted one of a store only the object's hash is checked where no --identity
is given, and verify says so. The KV hash is the one that "etcdctl endpoint hashkv"
prints for the same revision.
What is not good is named on standard error, and the exit code is 1.`,
		Example: `  nodeagent snapshot verify
  nodeagent snapshot verify --all -o json
  nodeagent snapshot verify 20261121T120000Z-cp1-4711.db.zst
  nodeagent snapshot verify /mnt/usb/etcd-snapshot.db
  nodeagent snapshot verify --identity key.txt /mnt/usb/20261121T120000Z-cp1-4711.db.zst.age`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if all && len(args) > 0 {
				return usageError{errors.New("--all is given, and names are too")}
			}
			with, err := a.identities(identity)
			if err != nil {
				return err
			}
			v := &verification{app: a, all: all, from: from, with: with, list: []verifiedSnapshot{}}
			err = v.run(cmd.Context(), args)
			return errors.Join(err, print(a, v.list, v.table))
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "every snapshot of every store")
	cmd.Flags().StringVar(&from, "from", "", "only in this `store` of backup.stores: its name as list prints it, or its kind")
	cmd.Flags().StringVar(&identity, "identity", "", "file of age identities, to open encrypted snapshots with")
	return cmd
}

// identities are those of a file, which is no part of the host: it may lie on a stick. None is read
// where no file is given.
func (a *app) identities(file string) (etcdbackup.Identities, error) {
	if file == "" {
		return etcdbackup.Identities{}, nil
	}
	if !strings.HasPrefix(file, "credential:") {
		absolute, err := filepath.Abs(file)
		if err != nil {
			return etcdbackup.Identities{}, fmt.Errorf("read identities: %w", err)
		}
		file = absolute
	}
	data, err := host.New("/").ReadSecret(file)
	if err != nil {
		return etcdbackup.Identities{}, fmt.Errorf("read identities: %w", err)
	}
	return etcdbackup.ParseIdentities(data)
}

// scratchBeside makes a file without a name in the directory of another, or, where that cannot be
// written to, as on a stick, in /var/tmp, which is not in memory as /tmp may be.
func scratchBeside(path string) func(size int64) (*os.File, error) {
	return func(int64) (*os.File, error) {
		h := host.New("/")
		dir, err := filepath.Abs(filepath.Dir(path))
		if err != nil {
			return nil, err
		}
		file, err := h.ScratchFile(dir)
		if err == nil {
			return file, nil
		}
		other, otherErr := h.ScratchFile("/var/tmp")
		if otherErr != nil {
			return nil, errors.Join(err, otherErr)
		}
		return other, nil
	}
}

// verifiedSnapshot is a snapshot that was read and found good.
type verifiedSnapshot struct {
	Store string `json:"store,omitempty"` // "" is a file of its own
	Name  string `json:"name"`            // of the object, or the file's path
	// Opened is false for what is encrypted, of which only the object was read: what else is told
	// of it is its manifest's.
	Opened bool `json:"opened"`
	etcdbackup.Verdict
}

// verification reads what it is told to; list is what was good.
type verification struct {
	app  *app
	all  bool
	from string // "" is every store
	with etcdbackup.Identities
	list []verifiedSnapshot
}

func (v *verification) table(w io.Writer) error {
	for _, s := range v.list {
		name := s.Name
		if s.Store != "" {
			name = s.Store + ": " + name
		}
		how := "sha256 as at its end"
		if s.Kind == etcdbackup.KindDatabase {
			how = "a copy of a member's own database and no snapshot: it has no sha256, and only its structure was checked"
		}
		if s.Manifest {
			how = "sha256 as in its manifest"
		}
		if !s.Opened {
			_, err := fmt.Fprintf(w, "%s: revision %d, %d keys, sha256 as in its manifest; encrypted, and not opened\n", name, s.Revision, s.Keys)
			if err != nil {
				return err
			}
			continue
		}
		_, err := fmt.Fprintf(w, "%s: revision %d, %d keys, %d bytes, KV hash %d, %s\n", name, s.Revision, s.Keys, s.Size, s.KVHash, how)
		if err != nil {
			return err
		}
	}
	return nil
}

// run verifies the files among the arguments, and the snapshots of the stores that the others
// name. The error names what is not good, or not there.
func (v *verification) run(ctx context.Context, args []string) error {
	var names []string
	var errs []error
	for _, arg := range args {
		if !isFile(arg) {
			names = append(names, arg)
			continue
		}
		errs = append(errs, v.file(ctx, arg))
	}
	if len(names) > 0 || len(args) == 0 {
		m, err := v.app.machine()
		if err == nil {
			err = v.stored(ctx, m, names)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// isFile says that an argument is a path: it is not named like a backup, or it leads elsewhere.
func isFile(arg string) bool {
	if arg == "latest" {
		return false
	}
	_, err := etcdbackup.ParseName(arg)
	return err != nil || strings.ContainsRune(arg, filepath.Separator)
}

func (v *verification) file(ctx context.Context, path string) error {
	p := newTransfer(v.app.stderr, path)
	verdict, err := etcdbackup.Verifier{With: v.with, Scratch: scratchBeside(path), Progress: p.observe}.CheckFile(ctx, path)
	p.end()
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w; `nodeagent snapshot list` names those in the stores", err)
	}
	if err == nil {
		v.list = append(v.list, verifiedSnapshot{Name: path, Opened: true, Verdict: verdict})
	}
	return err
}

// stored reads back the named snapshots of the machine's stores, all of them, or the newest of
// each.
func (v *verification) stored(ctx context.Context, m *machine, names []string) error {
	var errs []error
	found := map[string]bool{}
	wanted := map[string]bool{}
	for _, name := range names {
		wanted[name] = true
	}
	stores := m.stores()
	if v.from != "" {
		var err error
		if stores, err = m.storesNamed(v.from); err != nil {
			return fmt.Errorf("verify: %w", err)
		}
	}
	for _, store := range stores {
		catalog, err := m.catalog(ctx, store)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for i, b := range catalog.Backups {
			latest := i == 0 && (len(names) == 0 || wanted["latest"])
			if !v.all && !latest && !wanted[b.Object.Name] {
				continue
			}
			found[b.Object.Name] = true
			found["latest"] = found["latest"] || latest
			errs = append(errs, v.one(ctx, m, store, b.Object.Name))
		}
	}
	for _, name := range names {
		switch {
		case found[name]:
		case name == "latest":
			errs = append(errs, errNoSnapshot)
		default:
			errs = append(errs, fmt.Errorf("verify %s: no store has it; `nodeagent snapshot list` lists those there are, and a file of that name is ./%[1]s", name))
		}
	}
	if len(names) == 0 && len(found) == 0 && errors.Join(errs...) == nil {
		errs = append(errs, errNoSnapshot)
	}
	return errors.Join(errs...)
}

var errNoSnapshot = errors.New("verify: there is no snapshot; `nodeagent snapshot save` takes one")

func (v *verification) one(ctx context.Context, m *machine, store etcdbackup.Store, object string) error {
	done, err := v.app.readBack(ctx, m, store, object, v.with)
	if err != nil {
		return err
	}
	found := verifiedSnapshot{store.String(), object, done.Opened, done.Verdict}
	if !done.Opened {
		s := done.Manifest.Snapshot
		found.Kind, found.Size, found.SHA256, found.Manifest = etcdbackup.KindSnapshot, s.Size, s.SHA256, true
		found.Revision, found.Keys = s.Revision, s.Keys
	}
	v.list = append(v.list, found)
	return nil
}

// readBack verifies one snapshot of a store and shows how far it is.
func (a *app) readBack(ctx context.Context, m *machine, store etcdbackup.Store, object string, with etcdbackup.Identities) (etcdbackup.Verified, error) {
	p := newTransfer(a.stderr, object)
	defer p.end()
	return etcdbackup.Verifier{With: with, Scratch: m.scratch, Progress: p.observe}.Verify(ctx, store, object)
}
