package main

import (
	"context"

	"github.com/nodeagent/nodeagent/pkg/agent"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/drill"
)

// addProofs says of each snapshot of a store on the page when it was last proven and by whom, and
// what went wrong with the last drill.
func (m *machine) addProofs(ctx context.Context, s *agent.Status, store etcdbackup.Store, f *findings) {
	proofs, err := etcdbackup.Proofs(ctx, store)
	if err != nil {
		f.wrong("journalctl -u nodeagent", "%v", err)
		return
	}
	for i := range s.Snapshots {
		row := &s.Snapshots[i]
		if row.Store != store.String() {
			continue
		}
		of := map[string][]etcdbackup.Proof{row.Name: proofs[row.Name]}
		best, found := etcdbackup.NewestProof(of, etcdbackup.ProvenRestored, s.Now)
		if !found {
			best, _ = etcdbackup.NewestProof(of, "", s.Now)
		}
		row.Proven, row.ProvenAt, row.ProvenBy = string(best.Proven), best.Time, best.Host
		if best.Restored != nil {
			row.RestoreSeconds = best.Restored.Seconds
		}
	}
}

// addDrills makes a problem of a store's last drill that did not end well, unless one has since.
func (m *machine) addDrills(s *agent.Status, state agent.State, f *findings) {
	for _, store := range m.stores() {
		last := state.Drills.Of(store.String())
		switch last.Reason {
		case "", drill.ReasonRestored, drill.ReasonObject, drill.ReasonInterrupted:
			continue
		}
		if newest, found := s.NewestProven(last.Store); found && newest.ProvenAt.After(last.At) {
			continue
		}
		if last.Reason == drill.ReasonMemory || last.Reason == drill.ReasonSpace {
			f.warn("nodeagent snapshot drill", "no drill of the backups in %s since %s: %s", last.Store, agent.Ago(last.At, s.Now), last.Error)
			continue
		}
		f.wrong("journalctl -u "+drillUnit, "the drill of a backup failed %s: %s", agent.Ago(last.At, s.Now), last.Error)
	}
}
