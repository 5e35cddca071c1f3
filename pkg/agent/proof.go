package agent

import (
	"fmt"
	"slices"
)

// provenObject is what SnapshotStatus.Proven says of one that was not opened.
const provenObject = "object"

// Proof is how far its last proof goes, for people: "restored", "unchanged", or nothing.
func (s SnapshotStatus) Proof() string {
	if s.Proven == provenObject {
		return "unchanged"
	}
	return s.Proven
}

// Stores are those that snapshots lie in, in order.
func (s Status) Stores() (stores []string) {
	for _, b := range s.Snapshots {
		if !slices.Contains(stores, b.Store) {
			stores = append(stores, b.Store)
		}
	}
	return stores
}

// NewestProven is the newest of a store's snapshots that is proven.
func (s Status) NewestProven(store string) (SnapshotStatus, bool) {
	for _, b := range s.Snapshots {
		if b.Store == store && b.Proven != "" {
			return b, true
		}
	}
	return SnapshotStatus{}, false
}

// ProvenIn says which of a store's snapshots is proven, when it was, by whom, and how far that goes.
func (s Status) ProvenIn(store string) string {
	b, found := s.NewestProven(store)
	switch {
	case !found:
		return "none of them proven by a restore yet"
	case b.Proven == provenObject:
		return fmt.Sprintf("%s found unchanged %s by %s, and not opened: there is no identity", b.Name, Ago(b.ProvenAt, s.Now), b.ProvenBy)
	}
	return fmt.Sprintf("%s proven %s by %s, restored in %.1f s", b.Name, Ago(b.ProvenAt, s.Now), b.ProvenBy, b.RestoreSeconds)
}
