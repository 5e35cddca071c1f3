package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
)

func (a *app) snapshotCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "snapshot", Short: "Take, list, verify and prune etcd snapshots", Args: cobra.NoArgs, RunE: needsCommand}
	cmd.AddCommand(
		&cobra.Command{
			Use:   "save",
			Short: "Take a snapshot of this host's etcd now, verify it and keep it",
			RunE:  func(cmd *cobra.Command, _ []string) error { return a.saveSnapshot(cmd) },
		},
		&cobra.Command{
			Use:   "list",
			Short: "List the verified snapshots in every store, the newest first",
			RunE:  func(cmd *cobra.Command, _ []string) error { return a.listSnapshots(cmd) },
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
	printErr := print(a, report.Manifest, func(w io.Writer) error {
		s := report.Manifest.Snapshot
		_, err := fmt.Fprintf(w, "%s: revision %d, %d keys, %d bytes\n", report.Manifest.Object.Name, s.Revision, s.Keys, s.Size)
		return err
	})
	if err != nil {
		return err
	}
	return printErr
}

// storedSnapshot is a backup and where it lies.
type storedSnapshot struct {
	Store string `json:"store"`
	etcdbackup.Manifest
}

func (a *app) listSnapshots(cmd *cobra.Command) error {
	m, err := a.machine()
	if err != nil {
		return err
	}
	list := []storedSnapshot{}
	for _, store := range m.stores() {
		catalog, err := etcdbackup.List(cmd.Context(), store)
		if err != nil {
			return err
		}
		for _, b := range catalog.Backups {
			list = append(list, storedSnapshot{store.String(), b})
		}
		for _, i := range catalog.Ignored {
			fmt.Fprintf(a.stderr, "nodeagent: %s: %s %s\n", store, i.Name, i.Reason)
		}
	}
	return print(a, list, func(w io.Writer) error {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "NAME\tTAKEN\tBYTES\tREVISION\tKEYS\tSTORE")
		for _, s := range list {
			fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%s\n", s.Object.Name, s.Time.Format(time.RFC3339), s.Snapshot.Size, s.Snapshot.Revision, s.Snapshot.Keys, s.Store)
		}
		return t.Flush()
	})
}
