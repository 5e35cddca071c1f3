package agent

import "time"

// RemoteState is what is remembered of a store that is not on this host, which nobody who wants to know
// how the host is waits for: what it held when it was last asked, and how uploads to it ended.
type RemoteState struct {
	Asked  time.Time       `json:"asked,omitzero"` // when it last answered
	Stored int             `json:"stored"`         // the backups of this cluster that it held then
	Newest *SnapshotStatus `json:"newest,omitempty"`
	Best   *SnapshotStatus `json:"best,omitempty"` // the newest that is proven
	Keys   int64           `json:"keys,omitempty"` // in the newest

	Restored       time.Time `json:"restored,omitzero"` // the newest proof of each kind
	Object         time.Time `json:"object,omitzero"`
	DrillSeconds   float64   `json:"drillSeconds,omitempty"`
	RestoreSeconds float64   `json:"restoreSeconds,omitempty"`

	Attempt  time.Time      `json:"attempt,omitzero"`  // when an upload last ended, or the store was last asked
	Uploaded time.Time      `json:"uploaded,omitzero"` // when an upload last ended with nothing left
	Reason   string         `json:"reason,omitempty"`  // why the last attempt failed, in a word; empty when it did not
	Error    string         `json:"error,omitempty"`   // and in a sentence
	Results  map[string]int `json:"results,omitempty"` // how many uploads, by how they ended
}

// Proven is when the store's newest proof was made, of any kind.
func (r RemoteState) Proven() time.Time {
	if r.Object.After(r.Restored) {
		return r.Object
	}
	return r.Restored
}

// Remote changes what is remembered of a store.
func (s *State) Remote(store string, change func(*RemoteState)) {
	if s.Remotes == nil {
		s.Remotes = map[string]RemoteState{}
	}
	r := s.Remotes[store]
	change(&r)
	s.Remotes[store] = r
}
