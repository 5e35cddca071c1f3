package etcdbackup

import (
	"context"
	"fmt"
)

// Room is what a store has left.
type Room struct {
	// Size is that of the store's filesystem, 0 where there is no such limit, as in a bucket.
	Size int64
	// Free is what backups may still take of it: its reserve is not among it.
	Free int64
}

// makeRoom says how much to reserve for the object of a database of so many bytes, and sees to
// it that the store has as much, and has the room for a scratch file beside it: that may lie on
// the same filesystem. Where it has not, it removes the oldest backups of this host,
// as far as that is enough and never the newest one or the newest proven; where even that would not be enough it
// removes none, and the error is ErrNoSpace.
func (t *target) makeRoom(ctx context.Context, req Request, size int64, scratch bool) (need int64, err error) {
	room, err := t.Room(ctx)
	if err != nil {
		return 0, err
	}
	c, err := List(ctx, t.Local)
	if err != nil {
		return 0, err
	}
	need = expectedSize(c, req, size) + margin
	all := need
	if scratch {
		all += size
	}
	if room.Size == 0 || room.Free >= all {
		return need, nil
	}
	var remove []Manifest
	free := room.Free
	spared := c.spares(req.Host, req.Now)
	own := ownOf(c.Backups, req.Host)
	for i := len(own) - 1; i >= 0 && free < all; i-- { // the oldest first
		if m := own[i]; !spared(m) && !m.Time.After(req.Now) {
			remove = append(remove, m)
			free += m.Object.Size
		}
	}
	if free < all {
		return 0, fmt.Errorf("%w: %s", ErrNoSpace, Shortage(all, room.Free))
	}
	for _, m := range remove {
		if err := removeBackup(ctx, t.Local, c, m); err != nil {
			return 0, err
		}
		t.report.Removed = append(t.report.Removed, Decision{m, "room for the next"})
	}
	return need, nil
}

// Shortage says how many bytes are needed and how many are free, for people.
func Shortage(need, free int64) string {
	const mib = 1 << 20
	return fmt.Sprintf("%d MiB are needed, %d MiB are free beside what is reserved", (need+mib-1)/mib, max(free, 0)/mib)
}

// expectedSize is how large the object of a database of so many bytes gets, by the newest backup
// that was wrapped the same way; it is the database's own size where there is none to go by.
func expectedSize(c Catalog, req Request, size int64) int64 {
	for _, m := range c.Backups {
		name, err := ParseName(m.Object.Name)
		if err != nil || name.Compressed != req.Compress {
			continue
		}
		ratio := float64(m.Object.Size) / float64(m.Snapshot.Size)
		return min(int64(ratio*1.2*float64(size)), size)
	}
	return size
}

// overBudget are those of the kept backups, newest first, that have to go for all that retention
// leaves in the store to take at most so many percent of its filesystem: the oldest of this
// host's, and never one that spared says.
func overBudget(ctx context.Context, kept []Decision, all []Manifest, spared func(Manifest) bool, p policy) ([]Decision, error) {
	if p.room == nil || p.percent == 0 {
		return nil, nil
	}
	room, err := p.room(ctx)
	if err != nil || room.Size == 0 {
		return nil, err
	}
	var taken int64
	for _, m := range all {
		taken += m.size()
	}
	budget := room.Size / 100 * int64(p.percent)
	var remove []Decision
	for i := len(kept) - 1; i >= 0 && taken > budget; i-- {
		if m := kept[i].Manifest; m.Host == p.host && !spared(m) && !m.Time.After(p.now) {
			remove = append(remove, Decision{m, fmt.Sprintf("over maxDiskPercent, %d MiB", budget>>20)})
			taken -= m.size()
		}
	}
	return remove, nil
}

// ownOf are the backups of a host, in the order they are given.
func ownOf(backups []Manifest, host string) []Manifest {
	var own []Manifest
	for _, m := range backups {
		if m.Host == host {
			own = append(own, m)
		}
	}
	return own
}

// removeBackup removes a backup, and all that belongs to it. The manifest first: what a crash
// leaves then are orphans, never a manifest that promises an object which is gone.
func removeBackup(ctx context.Context, store Store, c Catalog, m Manifest) error {
	names := append([]string{ManifestName(m.Object.Name)}, m.objects()...)
	for _, name := range append(names, c.Proofs[m.Object.Name]...) {
		if err := store.Delete(ctx, name); err != nil {
			return err
		}
	}
	return nil
}
