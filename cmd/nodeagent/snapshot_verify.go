package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
)

func (a *app) verifyCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "verify [name...]",
		Short: "Read snapshots back and hold them against their manifests: the newest, or those named",
		Long: `Verify reads snapshots back from every store that has them: each is to have the
size and the hash of its manifest, and to match the trailer that etcd wrote. Without
a name it is the newest of each store. One that is not so is named on standard
error, and the exit code is 1.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, names []string) error {
			if all && len(names) > 0 {
				return usageError{errors.New("--all is given, and names are too")}
			}
			m, err := a.machine()
			if err != nil {
				return err
			}
			list, err := m.verify(cmd.Context(), names, all)
			printErr := print(a, list, func(w io.Writer) error {
				for _, s := range list {
					if _, err := fmt.Fprintf(w, "%s: %s: revision %d, %d keys, %d bytes, sha256 as in its manifest\n",
						s.Store, s.Object.Name, s.Snapshot.Revision, s.Snapshot.Keys, s.Object.Size); err != nil {
						return err
					}
				}
				return nil
			})
			return errors.Join(err, printErr)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "every snapshot of every store")
	return cmd
}

// verify reads back the named snapshots, all of them, or the newest of each store. It returns
// those that are good; the error names the others, and names that no store has.
func (m *machine) verify(ctx context.Context, names []string, all bool) ([]storedSnapshot, error) {
	good := []storedSnapshot{}
	var errs []error
	found := map[string]bool{}
	for _, store := range m.stores() {
		catalog, err := etcdbackup.List(ctx, store)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		wanted := map[string]bool{}
		for _, name := range names {
			wanted[name] = true
		}
		for i, b := range catalog.Backups {
			if !all && !wanted[b.Object.Name] && (len(names) > 0 || i > 0) {
				continue
			}
			found[b.Object.Name] = true
			verified, err := etcdbackup.Verify(ctx, store, b.Object.Name, etcdbackup.Identities{})
			if err != nil {
				errs = append(errs, err)
				continue
			}
			good = append(good, storedSnapshot{store.String(), verified.Manifest})
		}
	}
	for _, name := range names {
		if !found[name] {
			errs = append(errs, fmt.Errorf("verify %s: no store has it; `nodeagent snapshot list` lists those there are", name))
		}
	}
	if len(names) == 0 && len(found) == 0 && len(errs) == 0 {
		errs = append(errs, errors.New("verify: there is no snapshot; `nodeagent snapshot save` takes one"))
	}
	return good, errors.Join(errs...)
}
