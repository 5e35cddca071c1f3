package etcdbackup

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// PruneRequest says what to prune.
type PruneRequest struct {
	Host      string    // this one: what its saves and prunings left unfinished goes too
	Now       time.Time // its time zone is the one that days are of
	Retention Retention
	// Mine says which backups retention is about: the others are neither counted nor removed.
	// In a store that only this host uses they are the host's own, in a shared one the cluster's.
	Mine func(Manifest) bool
	// Room, unless it is nil, is that of a store on this host, of which its backups are to take at most
	// MaxDiskPercent, which is 0 for no limit.
	Room           func(context.Context) (Room, error)
	MaxDiskPercent int
	// DryRun decides and removes nothing.
	DryRun bool
	// Check, unless it is nil, is called before anything is removed with the newest of the
	// backups that are kept and not dated in the future. If it fails nothing is removed.
	Check func(Manifest) error
}

// Pruned is what pruning a store has done, or would do.
type Pruned struct {
	Kept    []Decision
	Removed []Decision // as many as were removed before an error
}

// Prune removes from a store what retention does not keep, and what is beyond its budget. A backup goes with its proofs, and
// its manifest goes first: what a crash leaves then is an orphan, never a manifest that promises
// an object which is gone. The caller holds the host's backup lock, and calls it only after a
// save that succeeded or with a Check that reads the newest backup.
func Prune(ctx context.Context, store Store, req PruneRequest) (Pruned, error) {
	c, err := List(ctx, store)
	if err != nil {
		return Pruned{}, err
	}
	if !req.DryRun {
		if err := removeOrphans(ctx, store, c, req.Host, req.Now); err != nil {
			return Pruned{}, fmt.Errorf("prune %s: %w", store, err)
		}
	}
	var mine []Manifest
	for _, m := range c.Backups {
		if req.Mine(m) {
			mine = append(mine, m)
		}
	}
	req.Now = settled(mine, req.Now)
	keep, remove, err := c.decide(ctx, mine, policy{req.Host, req.Now, req.Retention, req.Room, req.MaxDiskPercent})
	if err != nil {
		return Pruned{}, fmt.Errorf("prune %s: %w", store, err)
	}
	if req.DryRun || len(remove) == 0 {
		return Pruned{keep, remove}, nil
	}
	if req.Check != nil {
		newest, _ := Catalog{Backups: mine}.Newest(req.Now) // something is removed, so there is one
		if err := req.Check(newest); err != nil {
			return Pruned{Kept: keep}, fmt.Errorf("nothing is removed from %s, since its newest backup is not good: %w", store, err)
		}
	}
	done := Pruned{Kept: keep}
	for _, d := range remove {
		if err := removeBackup(ctx, store, c, d.Manifest); err != nil {
			return done, fmt.Errorf("prune %s: %w", store, err)
		}
		done.Removed = append(done.Removed, d)
	}
	return done, nil
}

// quickly is how far ahead of the clock saves in quick succession are dated: each takes the next
// second that is free.
const quickly = time.Minute

// settled is now, or the time of a backup that was dated ahead only because it was taken in quick
// succession: it is no backup of the future.
func settled(backups []Manifest, now time.Time) time.Time {
	at := now
	for _, m := range backups {
		if m.Time.After(at) && m.Time.Sub(now) <= quickly {
			at = m.Time.In(now.Location())
		}
	}
	return at
}

// orphanAge is how old an object without a manifest is before it is taken for a leftover, and
// not for one that is being published this moment.
const orphanAge = time.Hour

// tidy runs after a save: it removes what earlier saves of this host left unfinished, what
// retention does not keep, and what is beyond the store's budget. Nothing of another host is
// touched.
func tidy(ctx context.Context, store Local, req Request) (removed []Decision, err error) {
	c, err := List(ctx, store)
	if err != nil {
		return nil, err
	}
	if err := removeOrphans(ctx, store, c, req.Host, req.Now); err != nil {
		return nil, err
	}
	own := ownOf(c.Backups, req.Host)
	_, remove, err := c.decide(ctx, own, policy{req.Host, req.Now, req.Retention, store.Room, req.MaxDiskPercent})
	if err != nil {
		return nil, err
	}
	for _, d := range remove {
		if err := removeBackup(ctx, store, c, d.Manifest); err != nil {
			return removed, err
		}
		removed = append(removed, d)
	}
	return removed, nil
}

// policy is what decides of a store's backups: which are kept for their age, and of how much disk.
type policy struct {
	host      string // whose backups go for want of room
	now       time.Time
	retention Retention
	room      func(context.Context) (Room, error) // nil: it has no end
	percent   int                                 // of it; 0: all
}

// decide says which of the backups, which are of the catalog, are kept and which go. Those that it
// keeps for their age and has no budget for are among those that go.
func (c Catalog) decide(ctx context.Context, mine []Manifest, p policy) (keep, remove []Decision, err error) {
	keep, remove = Retain(mine, p.retention, p.now, c.bestProven(mine))
	left := slices.DeleteFunc(slices.Clone(c.Backups), func(m Manifest) bool { return among(remove, m) })
	over, err := overBudget(ctx, keep, left, c.spares(p.host, p.now), p)
	if err != nil {
		return nil, nil, err
	}
	keep = slices.DeleteFunc(keep, func(d Decision) bool { return among(over, d.Manifest) })
	return keep, append(remove, over...), nil
}

func among(decisions []Decision, m Manifest) bool {
	return slices.ContainsFunc(decisions, func(d Decision) bool { return d.Manifest.Object.Name == m.Object.Name })
}

// removeOrphans removes what belongs to no backup any more, or never did, of this host.
func removeOrphans(ctx context.Context, store Store, c Catalog, host string, now time.Time) error {
	for _, i := range c.Ignored {
		kind, name := classify(i.Name)
		if kind == foreign || i.Reason != reasonOrphan || name.Host != HostInName(host) || now.Sub(name.Time) < orphanAge {
			continue
		}
		if err := store.Delete(ctx, i.Name); err != nil {
			return err
		}
	}
	return nil
}
