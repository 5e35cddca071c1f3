//go:build integration

package cluster_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
)

const (
	// once is a slot that lasts longer than the tests.
	once  = "interval: 87600h"
	often = "interval: 5s"
	kept  = 2 // of the cluster's backups in each store
)

// k3s: every server snapshots to the same bucket, and prunes what the others keep there. The program itself
// beside each member, with a directory and a bucket that they share.
func sharing(t *testing.T, c *cluster) {
	f := newFleet(t, c)
	began := c.revision(t)
	firstSlot(t, f, began)
	for i := 1; i <= members; i++ {
		f.daemons[i].stop(t)
	}
	f.plantAnothers(t)
	slotAfterSlot(t, f)
}

// In the first slot each member saves its own, and one of them to the stores that they share. The others,
// which have never uploaded anything, know when it did, and are started again without saving once more.
func firstSlot(t *testing.T, f *fleet, began int64) {
	for i := 1; i <= members; i++ {
		f.configure(t, i, once)
		f.start(t, i)
	}
	until(t, "the first slot to be saved and uploaded", func(context.Context) bool {
		for i := 1; i <= members; i++ {
			if len(f.names(t, f.own(i))) != 1 || f.spooled(t, i) > 0 {
				return false
			}
		}
		for _, s := range f.stores {
			if len(f.names(t, s)) != 1 || f.record(t, s).Uploaded.Backup == "" {
				return false
			}
		}
		return true
	})
	taken := f.record(t, f.stores[0]).Taken
	for i := 1; i <= members; i++ {
		if name(i) != taken.Host {
			f.daemons[i].stop(t)
			f.start(t, i)
			f.settled(t, i)
		}
		if got := len(f.names(t, f.own(i))); got != 1 {
			t.Errorf("%s has saved %d times to its own store in one slot", name(i), got)
		}
	}
	for _, s := range f.stores {
		if got := f.taken(t, s, began); len(got) != 1 || got[0].Taken != taken {
			t.Errorf("%s: the slot is taken by %+v", s.name, got)
		}
		if got := f.names(t, s); !slices.Equal(got, []string{taken.Backup}) {
			t.Errorf("%s has %q, and should have %s", s.name, got, taken.Backup)
		}
	}
}

func slotAfterSlot(t *testing.T, f *fleet) {
	const count = kept + 2
	began := f.revision(t)
	for i := 1; i <= members; i++ {
		f.configure(t, i, often)
		f.start(t, i)
	}
	until(t, "some slots of all members", func(context.Context) bool {
		for _, s := range f.stores {
			taken := f.taken(t, s, began)
			if len(taken) < count {
				return false
			}
			for i := 1; i <= members; i++ {
				told := f.lastSuccess(i, s)
				known := slices.ContainsFunc(taken, func(slot slot) bool { return slot.Taken.Saved.Unix() == told })
				if !known || len(f.names(t, f.own(i))) < kept {
					return false
				}
			}
		}
		return true
	})
	for i := 1; i <= members; i++ {
		f.configure(t, i, once)
		f.daemons[i].reload(t)
	}
	until(t, "everything to be uploaded", func(context.Context) bool {
		for i := 1; i <= members; i++ {
			if !f.rests(i) || f.spooled(t, i) > 0 {
				return false
			}
		}
		return true
	})
	last := f.record(t, f.stores[0]).Taken.Host
	var before []string
	for i := 1; i <= members; i++ {
		before = append(before, f.names(t, f.own(i))...)
		if name(i) != last {
			f.daemons[i].stop(t)
			f.checkLog(t, i)
			f.start(t, i)
			f.settled(t, i)
		}
		f.daemons[i].stop(t)
		f.checkLog(t, i)
	}
	var after []string
	for i := 1; i <= members; i++ {
		after = append(after, f.names(t, f.own(i))...)
	}
	if !slices.Equal(before, after) {
		t.Errorf("saved, or removed, by a daemon that was started again: before %q, then %q", before, after)
	}
	for _, s := range f.stores {
		f.checkStore(t, s, began)
	}
	if got := f.locks(t); len(got) != 0 {
		t.Errorf("left in the queue: %q", got)
	}
}

// checkStore holds what a shared store has against the slots that were taken.
func (f *fleet) checkStore(t *testing.T, s store, began int64) {
	t.Helper()
	slots, hosts := map[time.Time]string{}, map[string]int{}
	var want []string
	for _, slot := range f.taken(t, s, began) {
		if by := slots[slot.Slot]; by != "" {
			t.Errorf("%s: the slot of %s is taken by %s, and by %s", s.name, slot.Slot, by, slot.Taken.Backup)
		}
		if slot.Taken.Saved.Before(slot.Slot) {
			t.Errorf("%s: %s was saved before its slot, %s", s.name, slot.Taken.Backup, slot.Slot)
		}
		slots[slot.Slot] = slot.Taken.Backup
		hosts[slot.Taken.Host]++
		want = append(want, slot.Taken.Backup)
	}
	t.Logf("%s: slots taken by %v", s.name, hosts)
	slices.Sort(want)
	want = append(want[len(want)-kept:], f.anothers)
	slices.Sort(want)
	if got := f.names(t, s); !slices.Equal(got, want) {
		t.Errorf("%s has\n%q, and should have\n%q", s.name, got, want)
	}
	for _, name := range f.names(t, s) {
		if _, err := etcdbackup.Verify(t.Context(), s.files, name, etcdbackup.Identities{}); err != nil {
			t.Error(err)
		}
	}
}

// checkLog holds what a daemon that has ended says against itself: in each turn it saves to its own store,
// and to each shared one, or says why not.
func (f *fleet) checkLog(t *testing.T, i int) {
	t.Helper()
	log := f.daemons[i].log.String()
	if strings.Contains(log, "level=ERROR") || strings.Contains(log, "not kept apart") {
		t.Errorf("%s says %s", name(i), log)
	}
	count := func(what, store string) (n int) {
		for line := range strings.Lines(log) {
			if strings.Contains(line, what) && strings.Contains(line, "store="+fmt.Sprintf("%q", store)) {
				n++
			}
		}
		return n
	}
	own := count("snapshot saved", "file "+ownDir)
	for _, s := range f.stores {
		turns := count("snapshot saved", s.name) + count("is not saved to a store by this host", s.name)
		if own != turns && own != turns-1 { // the last may have been stopped
			t.Errorf("%s: %d turns at %s, %d saves to its own store: %s", name(i), turns, s.name, own, log)
		}
	}
}

// plantAnothers puts a backup of another cluster, older than all, where this one's lie.
func (f *fleet) plantAnothers(t *testing.T) {
	t.Helper()
	for _, s := range f.stores {
		ours := f.names(t, s)[0]
		manifest, err := os.ReadFile(filepath.Join(s.path, etcdbackup.ManifestName(ours)))
		if err != nil {
			t.Fatal(err)
		}
		m, err := etcdbackup.DecodeManifest(manifest)
		if err != nil {
			t.Fatal(err)
		}
		object, err := os.ReadFile(filepath.Join(s.path, ours))
		if err != nil {
			t.Fatal(err)
		}
		m.Time, m.Cluster.ID, m.Files = m.Time.Add(-time.Hour), strings.Repeat("ab", len(m.Cluster.ID)/2), nil
		m.Object.Name = etcdbackup.Name{Time: m.Time, Host: m.Host, Revision: m.Snapshot.Revision, Compressed: true, Encrypted: true}.String()
		if manifest, err = json.Marshal(m); err != nil {
			t.Fatal(err)
		}
		for name, data := range map[string][]byte{m.Object.Name: object, etcdbackup.ManifestName(m.Object.Name): manifest} {
			if err := os.WriteFile(filepath.Join(s.path, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		f.anothers = m.Object.Name
	}
}
