package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/nodeagent/nodeagent/pkg/agent"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
)

func (a *app) snapshotCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "snapshot", Short: "Take, list, verify and prune etcd snapshots", Args: cobra.NoArgs, RunE: needsCommand}
	cmd.AddCommand(
		&cobra.Command{
			Use:   "save",
			Short: "Take a snapshot of this host's etcd now, verify it and keep it",
			Long: `Save takes a snapshot of this host's etcd, verifies it and keeps it in every store
of backup.stores. To a store that is not on this host it is uploaded at once, and
everything else that waits for that; where this fails it waits on this host, and the
daemon goes on trying. What became of it is printed for each store: saved, uploaded,
waiting, or not saved. The exit code is 1 when that is not saved or uploaded for all.`,
			Example: `  nodeagent snapshot save
  nodeagent snapshot save -o json`,
			RunE: func(cmd *cobra.Command, _ []string) error { return a.saveSnapshot(cmd) },
		},
		&cobra.Command{
			Use:   "list",
			Short: "List the verified snapshots in every store, the newest first",
			Long: `List lists the verified snapshots in every store, the newest first, and those that
wait on this host to be uploaded. A store that cannot be asked is told of on
standard error; the others are listed, and the exit code is 1.`,
			RunE: func(cmd *cobra.Command, _ []string) error { return a.listSnapshots(cmd) },
		},
		a.verifyCommand(),
		a.pruneCommand(),
		a.drillCommand(),
	)
	return cmd
}

func (a *app) machine() (*machine, error) {
	h := a.host()
	cfg, err := a.loadConfig(h)
	if err != nil {
		return nil, err
	}
	m, err := newMachine(h, cfg)
	if err != nil {
		return nil, err
	}
	m.patience = a.lockTimeout
	m.waiting = func(holder string) { fmt.Fprintf(a.stderr, "waiting for %s\n", holder) }
	m.remember = func(change func(*agent.State)) {
		if err := agent.UpdateState(context.Background(), h, change); err != nil {
			fmt.Fprintf(a.stderr, "nodeagent: what was done is not remembered: %v\n", err)
		}
	}
	return m, nil
}

func (a *app) saveSnapshot(cmd *cobra.Command) error {
	m, err := a.machine()
	if err != nil {
		return err
	}
	p := newTransfer(a.stderr, "snapshot")
	report, err := m.save(cmd.Context(), "snapshot save", time.Now(), func(req *etcdbackup.Request) {
		req.Rate = etcdbackup.Rate{} // whoever waits for it wants it now
		req.Progress = p.observe
	})
	p.end()
	if len(report.Stores) == 0 || !report.Saved() {
		return err
	}
	saved := savedSnapshot{report.Manifest, m.results(report)}
	var progress func(object string, done, total int64)
	if len(m.remotes) == 1 { // lines of several would write over each other
		p = newTransfer(a.stderr, "upload")
		progress = func(_ string, done, total int64) { p.observe(done, total) }
	}
	untold, uploadErr := m.uploadAll(cmd.Context(), saved.Object.Name, saved.Stores, progress)
	p.end()
	if untold != nil {
		fmt.Fprintf(a.stderr, "nodeagent: other members are not told: %v\n", untold)
	}
	return errors.Join(err, uploadErr, print(a, saved, saved.table))
}

// savedSnapshot is a backup and what became of it in each store.
type savedSnapshot struct {
	etcdbackup.Manifest
	Stores []storeResult `json:"stores"`
}

func (s savedSnapshot) table(w io.Writer) error {
	_, err := fmt.Fprintf(w, "%s: revision %d, %d keys, %d bytes\n", s.Object.Name, s.Snapshot.Revision, s.Snapshot.Keys, s.Snapshot.Size)
	for _, store := range s.Stores {
		if err == nil {
			_, err = fmt.Fprintf(w, "  %s\n", store)
		}
	}
	return err
}

// storedSnapshot is a backup and where it lies.
type storedSnapshot struct {
	Store   string `json:"store"`
	Waiting bool   `json:"waiting"` // on this host, to be uploaded to the store
	etcdbackup.Manifest
}

func (a *app) listSnapshots(cmd *cobra.Command) error {
	m, err := a.machine()
	if err != nil {
		return err
	}
	list := []storedSnapshot{}
	var errs []error
	add := func(name string, store etcdbackup.Store, waiting bool) {
		catalog, err := m.catalog(cmd.Context(), store)
		errs = append(errs, err)
		for _, b := range catalog.Backups {
			list = append(list, storedSnapshot{name, waiting, b})
		}
		for _, i := range catalog.Ignored {
			fmt.Fprintf(a.stderr, "nodeagent: %s: %s %s\n", store, i.Name, i.Reason)
		}
	}
	for _, store := range m.stores() {
		add(store.String(), store, false)
	}
	for _, r := range m.remotes {
		add(r.String(), r.spool, true)
	}
	printErr := print(a, list, func(w io.Writer) error {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "NAME\tTAKEN\tBYTES\tREVISION\tKEYS\tSTORE")
		for _, s := range list {
			where := s.Store
			if s.Waiting {
				where = "waits to be uploaded to " + where
			}
			fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%s\n", s.Object.Name, s.Time.Format(time.RFC3339), s.Snapshot.Size, s.Snapshot.Revision, s.Snapshot.Keys, where)
		}
		return t.Flush()
	})
	return errors.Join(append(errs, printErr)...)
}
