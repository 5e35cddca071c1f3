package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/nodeagent/nodeagent/pkg/agent"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/drill"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/file"
	"github.com/nodeagent/nodeagent/pkg/host"
)

// drillFlags are those of `snapshot drill`.
type drillFlags struct {
	from, identity, scratch string
	due                     bool
}

func (a *app) drillCommand() *cobra.Command {
	var flags drillFlags
	cmd := &cobra.Command{
		Use:   "drill [name|latest]",
		Short: "Prove a snapshot by restoring it, and record the proof beside it",
		Long: `Drill fetches a snapshot back from where it is kept, decrypts it, restores it into
a scratch directory and opens it there with a real etcd, which listens nowhere.
Revision, number of keys and KV hash have to be what the manifest says. The proof,
with how long a restore takes, is written beside the snapshot. Nothing stays in the
scratch directory, and no etcd of a cluster is touched or asked.

Without a name, or with "latest", it is the newest of every store. With --from it is
that store alone: one of backup.stores by its name, as "nodeagent snapshot list"
prints it, or by its kind where there is one of that kind; or a directory, for which
no configuration is needed, and no other right than to read the files; where the
proof cannot be written it is only printed. A store that cannot be asked stops no
other one; the exit code is 1.

One that is encrypted is opened with the identity of --identity, which is a file as
age-keygen writes it or "-" for standard input, or of backup.drill.identityFile.
Without one the object is compared with its hash, and the proof says that it
was not opened.`,
		Example: `  nodeagent snapshot drill
  nodeagent snapshot drill 20261121T120000Z-cp1-4711.db.zst -o json
  nodeagent snapshot drill --from /mnt/backups --identity ~/identity.txt
  gpg -d identity.txt.gpg | nodeagent snapshot drill --from /mnt/backups --identity -`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d := &drilling{app: a, list: []drilled{}, name: "latest"}
			if len(args) > 0 {
				d.name = args[0]
			}
			if err := d.prepare(flags); err != nil {
				return fmt.Errorf("drill: %w", err)
			}
			err := d.run(cmd.Context())
			return errors.Join(err, print(a, d.list, d.table))
		},
	}
	cmd.Flags().StringVar(&flags.from, "from", "", "the `store` or directory to take the snapshot from, instead of all configured stores")
	cmd.Flags().BoolVar(&flags.due, "due", false, "only in stores whose newest proof is older than backup.drill.schedule wants it: hosts that share one take turns")
	cmd.Flags().StringVar(&flags.identity, "identity", "", "`file` of age identities, or - for standard input")
	cmd.Flags().StringVar(&flags.scratch, "scratch", "", "`directory` to restore in, with room for twice the database (default backup.drill.dir, with --from /var/tmp)")
	return cmd
}

// drilled is a proof, and the store in which it was found.
type drilled struct {
	Store string `json:"store"`
	Says  string `json:"says"` // how far the proof goes, in a sentence
	etcdbackup.Proof
}

// drilling is what one command drills; list is what was proven.
type drilling struct {
	app     *app
	machine *machine // nil with --from
	stores  []etcdbackup.Store
	name    string
	due     bool
	options drill.Options
	list    []drilled
}

// prepare reads what the flags and the configuration name.
func (d *drilling) prepare(flags drillFlags) (err error) {
	d.options = drill.Options{Agent: thisBuild().Version, Now: time.Now}
	h := host.New("/")
	scratch, identity := flags.scratch, flags.identity
	d.due = flags.due
	if flags.from == "" || isStoreName(flags.from) {
		if d.machine, err = d.app.machine(); err != nil {
			return err
		}
		m := d.machine
		h, d.stores, d.options.Host = m.host, m.stores(), m.nodeName()
		if flags.from != "" {
			if d.stores, err = m.storesNamed(flags.from); err != nil {
				return err
			}
		}
		if scratch == "" {
			scratch = m.cfg.Backup.Drill.Dir
		}
		d.options.Free = m.scratchRoom(scratch)
	} else if err = d.takeFrom(flags.from, &scratch); err != nil {
		return err
	}
	switch {
	case identity == "-":
		d.options.Identities, err = identitiesFrom(d.app.stdin)
	case identity != "":
		d.options.Identities, err = d.app.identities(identity)
	case d.machine != nil && d.machine.cfg.Backup.Drill.IdentityFile != "":
		var data []byte
		if data, err = h.ReadSecret(d.machine.cfg.Backup.Drill.IdentityFile); err == nil {
			d.options.Identities, err = etcdbackup.ParseIdentities(data)
		}
	}
	if err != nil {
		return err
	}
	if err := h.MkdirAll(scratch, 0o700); err != nil {
		return err
	}
	d.options.Scratch, err = h.Path(scratch)
	return err
}

// isStoreName says that an argument is what a configured store is called, or its kind, and no directory.
func isStoreName(from string) bool {
	kind := kindOf(from)
	if kind != "file" && kind != "s3" {
		return false
	}
	_, err := os.Stat(from)
	return err != nil
}

// takeFrom sets up a drill of a directory by somebody who has no more than that.
func (d *drilling) takeFrom(from string, scratch *string) error {
	dir, err := filepath.Abs(from)
	if err != nil {
		return err
	}
	if _, err := os.ReadDir(dir); err != nil {
		return err
	}
	if d.options.Host, err = os.Hostname(); err != nil {
		return err
	}
	if *scratch == "" {
		*scratch = "/var/tmp"
	}
	if *scratch, err = filepath.Abs(*scratch); err != nil {
		return err
	}
	d.stores = []etcdbackup.Store{file.New(host.New("/"), dir, d.options.Host)}
	room := *scratch
	d.options.Free = func(context.Context) (int64, error) {
		var stat syscall.Statfs_t
		err := syscall.Statfs(room, &stat)
		return int64(stat.Bavail) * stat.Bsize, err
	}
	return nil
}

// scratchRoom is what a directory's filesystem has beside the reserve of backups.
func (m *machine) scratchRoom(dir string) func(context.Context) (int64, error) {
	return func(ctx context.Context) (int64, error) {
		room, err := m.fileStore(dir).Room(ctx)
		return room.Free, err
	}
}

// maxIdentity is more than any file of identities has.
const maxIdentity = 64 << 10

func identitiesFrom(r io.Reader) (etcdbackup.Identities, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxIdentity))
	if err != nil {
		return etcdbackup.Identities{}, fmt.Errorf("read identities: %w", err)
	}
	return etcdbackup.ParseIdentities(data)
}

// run drills in every store that has the snapshot. The error joins what is not proven.
func (d *drilling) run(ctx context.Context) error {
	var errs []error
	found := false
	for _, store := range d.stores {
		catalog, err := d.catalog(ctx, store)
		mine := d.mine(ctx, store, catalog)
		if err == nil && d.due {
			var due bool
			if due, err = d.isDue(ctx, store, mine); err == nil && !due {
				found = true
				continue
			}
		}
		if err != nil {
			d.remember(store, "", drill.Reason(etcdbackup.Proof{}, err), err)
			errs = append(errs, err)
			continue
		}
		object := d.name
		if d.name == "latest" {
			newest, _ := mine.Newest(time.Now())
			object = newest.Object.Name
		}
		if !slices.ContainsFunc(catalog.Backups, func(m etcdbackup.Manifest) bool { return m.Object.Name == object }) {
			continue
		}
		found = true
		errs = append(errs, d.one(ctx, store, object))
	}
	if err := errors.Join(errs...); found || err != nil || d.due {
		return err
	}
	if d.name == "latest" {
		return errors.New("drill: there is no snapshot; `nodeagent snapshot save` takes one")
	}
	return fmt.Errorf("drill %s: no store has it; `nodeagent snapshot list` lists those there are", d.name)
}

func (d *drilling) one(ctx context.Context, store etcdbackup.Store, object string) error {
	p := newTransfer(d.app.stderr, object)
	d.options.Progress = func(doing string, done, total int64) { p.stage(doing, done, total) }
	proof, err := drill.Run(ctx, store, object, d.options)
	p.end()
	d.remember(store, object, drill.Reason(proof, err), err)
	if err == nil {
		d.lookAgain(ctx, store)
	}
	if err == nil || errors.Is(err, drill.ErrNotRecorded) {
		d.list = append(d.list, drilled{store.String(), proof.Proven.String(), proof})
	}
	if d.machine == nil && errors.Is(err, drill.ErrNotRecorded) && (errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS)) {
		fmt.Fprintf(d.app.stderr, "nodeagent: %v\n", err)
		return nil
	}
	return err
}

// catalog lists a store, in bounded time where it is a remote one.
func (d *drilling) catalog(ctx context.Context, store etcdbackup.Store) (etcdbackup.Catalog, error) {
	if d.machine == nil {
		return etcdbackup.List(ctx, store)
	}
	return d.machine.catalog(ctx, store)
}

// mine is what of a store may be its newest: in a remote one that of this host's cluster, since another's
// cannot be opened here, and proves nothing of this one.
func (d *drilling) mine(ctx context.Context, store etcdbackup.Store, catalog etcdbackup.Catalog) etcdbackup.Catalog {
	if d.machine == nil {
		return catalog
	}
	r := d.machine.remoteOf(store.String())
	if r == nil {
		return catalog
	}
	of := d.machine.ofCluster(ctx, r, catalog)
	catalog.Backups = slices.DeleteFunc(slices.Clone(catalog.Backups), func(b etcdbackup.Manifest) bool { return !of(b) })
	return catalog
}

// isDue says that what is this host's in a store has no proof, by whichever host, since about half the time between two drills
// ago: hosts begin within a tenth of it, and the first one's proof does for all.
func (d *drilling) isDue(ctx context.Context, store etcdbackup.Store, mine etcdbackup.Catalog) (bool, error) {
	if d.machine == nil || d.machine.cfg.Backup.Drill.Off() {
		return true, nil
	}
	ctx, cancel := d.machine.ask(ctx, store)
	defer cancel()
	proofs, err := etcdbackup.Proofs(ctx, store)
	if err != nil {
		return false, err
	}
	maps.DeleteFunc(proofs, func(object string, _ []etcdbackup.Proof) bool {
		return !slices.ContainsFunc(mine.Backups, func(b etcdbackup.Manifest) bool { return b.Object.Name == object })
	})
	now := time.Now()
	newest, found := etcdbackup.NewestProof(proofs, "", now)
	if !found {
		return true, nil
	}
	next := d.machine.cfg.Backup.NextDrill(d.machine.nodeName())
	if now.Sub(newest.Time) >= next(next(now)).Sub(next(now))/2 {
		return true, nil
	}
	d.lookAgain(ctx, store)
	return false, nil
}

// lookAgain remembers what a remote store holds, the proof among it.
func (d *drilling) lookAgain(ctx context.Context, store etcdbackup.Store) {
	if d.machine == nil {
		return
	}
	if r := d.machine.remoteOf(store.String()); r != nil {
		if err := d.machine.lookAgain(ctx, r); err != nil {
			fmt.Fprintf(d.app.stderr, "nodeagent: %v\n", err)
		}
	}
}

// remember keeps how a drill of this host's own stores ended, for status and metrics; whoever
// cannot write the state drills nevertheless.
func (d *drilling) remember(store etcdbackup.Store, object, reason string, err error) {
	if d.machine == nil {
		return
	}
	at := time.Now()
	d.machine.remember(func(s *agent.State) {
		s.Drills.Add(agent.DrillResult{At: at, Store: store.String(), Object: object, Reason: reason, Error: errorText(err)})
	})
}

func (d *drilling) table(w io.Writer) error {
	for _, p := range d.list {
		_, err := fmt.Fprintf(w, "%s: %s: %s\n", p.Store, p.Object.Name, p.Says)
		if r := p.Restored; err == nil && r != nil {
			_, err = fmt.Fprintf(w, "  revision %d, %d keys, KV hash %d, etcd %s; restored in %.1f s, %.1f s in all\n",
				r.Revision, r.Keys, r.KVHash, r.Etcd, r.Seconds, p.Seconds)
			for _, alarm := range r.Alarms {
				_, err = fmt.Fprintf(w, "  a cluster that is restored from it raises the alarm %s again\n", alarm)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}
