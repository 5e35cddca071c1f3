package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/host"
)

func (a *app) pruneCommand() *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove the snapshots that backup.retention does not keep, and say why the others stay",
		Long: `Prune removes from every store the snapshots of this host that backup.retention
does not keep, from a store that is not on this host those of the cluster, and the
oldest of those for which backup.maxDiskPercent leaves no room, and prints what stays,
why, and what goes. Every save and upload does so too, once its own snapshot is
verified; prune is for a policy that was changed. A store that fails stops no other;
the exit code is 1.

Before it removes anything it reads the newest snapshot of the store back, as
"nodeagent snapshot verify" does; where that is not good nothing is removed. The
newest one stays, whatever the policy, the newest that a drill has proven, and those
dated in the future.`,
		Example: `  nodeagent snapshot prune --dry-run
  nodeagent snapshot prune`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			m, err := a.machine()
			if err != nil {
				return err
			}
			list, err := a.prune(cmd.Context(), m, dryRun, time.Now())
			return errors.Join(err, print(a, list, func(w io.Writer) error { return pruneTable(w, list, dryRun) }))
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "remove nothing, only say what would be removed")
	return cmd
}

// prunedSnapshot is a snapshot and what became of it.
type prunedSnapshot struct {
	Store  string    `json:"store"`
	Name   string    `json:"name"`
	Time   time.Time `json:"time"`
	Size   int64     `json:"size"`
	Kept   bool      `json:"kept"`
	Reason string    `json:"reason"`
}

// prune prunes every store under the backup lock; with dryRun it only decides, and takes no
// lock. A store that fails stops no other.
func (a *app) prune(ctx context.Context, m *machine, dryRun bool, now time.Time) ([]prunedSnapshot, error) {
	list := []prunedSnapshot{}
	zone, err := m.cfg.Backup.Zone()
	if err != nil {
		return list, err
	}
	if !dryRun {
		unlock, err := m.lock(ctx, host.LockBackup, "snapshot prune")
		if err != nil {
			return list, err
		}
		defer unlock()
	}
	var errs []error
	for _, store := range m.stores() {
		mine, err := m.countedIn(ctx, store)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		req := etcdbackup.PruneRequest{
			Host: m.nodeName(), Now: now.In(zone), Retention: m.cfg.Backup.Retention, DryRun: dryRun,
			Mine: mine, Shared: m.remoteOf(store.String()) != nil,
			Check: func(newest etcdbackup.Manifest) error {
				_, err := a.readBack(ctx, m, store, newest.Object.Name, etcdbackup.Identities{})
				return err
			},
		}
		if local, is := store.(etcdbackup.Local); is {
			req.Room, req.MaxDiskPercent = local.Room, m.cfg.Backup.MaxDiskPercent
		}
		done, err := etcdbackup.Prune(ctx, store, req)
		errs = append(errs, err)
		for _, d := range done.Kept {
			list = append(list, prunedSnapshot{store.String(), d.Manifest.Object.Name, d.Manifest.Time, d.Manifest.Object.Size, true, d.Reason})
		}
		for _, d := range done.Removed {
			list = append(list, prunedSnapshot{store.String(), d.Manifest.Object.Name, d.Manifest.Time, d.Manifest.Object.Size, false, d.Reason})
		}
	}
	return list, errors.Join(errs...)
}

// countedIn says which backups of a store retention is about: in a store on this host its own, in others
// the cluster's.
func (m *machine) countedIn(ctx context.Context, store etcdbackup.Store) (func(etcdbackup.Manifest) bool, error) {
	r := m.remoteOf(store.String())
	if r == nil {
		return func(b etcdbackup.Manifest) bool { return b.Host == m.nodeName() }, nil
	}
	catalog, err := m.catalog(ctx, store)
	if err != nil {
		return nil, err
	}
	mine := m.surelyOfCluster(ctx, r, catalog)
	if mine == nil && len(catalog.Backups) > 0 {
		return nil, fmt.Errorf("prune %s: which of its backups are this cluster's cannot be told while etcd does not answer, and another cluster may have a host of this name; nothing is removed", store)
	}
	if mine == nil {
		mine = func(etcdbackup.Manifest) bool { return false }
	}
	return mine, nil
}

func pruneTable(w io.Writer, list []prunedSnapshot, dryRun bool) error {
	removed := "removed"
	if dryRun {
		removed = "would be removed"
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tTAKEN\tBYTES\tSTORE\tWHAT\tWHY")
	for _, s := range list {
		what := "kept"
		if !s.Kept {
			what = removed
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\t%s\n", s.Name, s.Time.Format(time.RFC3339), s.Size, s.Store, what, s.Reason)
	}
	return t.Flush()
}
