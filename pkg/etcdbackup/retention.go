package etcdbackup

import (
	"cmp"
	"slices"
	"time"
)

// Decision is a backup and why it is kept or removed.
type Decision struct {
	Manifest Manifest
	Reason   string
}

// Retain decides which backups are kept, newest first in both results. A backup dated after
// now was made while the clock was ahead, or the clock is behind: it is kept and takes no
// other's place, so that no jump of the clock makes a new backup look like an old one. The
// newest of the others is never removed, whatever the policy.
func Retain(backups []Manifest, policy Retention, now time.Time) (keep, remove []Decision) {
	counted := 0
	for _, m := range newestFirst(backups) {
		switch {
		case m.Time.After(now):
			keep = append(keep, Decision{m, "dated in the future"})
		case counted < max(policy.KeepLast, 1):
			counted++
			keep = append(keep, Decision{m, "keepLast"})
		default:
			remove = append(remove, Decision{m, "older than keepLast"})
		}
	}
	return keep, remove
}

func newestFirst(backups []Manifest) []Manifest {
	return slices.SortedFunc(slices.Values(backups), func(a, b Manifest) int {
		return cmp.Or(b.Time.Compare(a.Time), cmp.Compare(b.Snapshot.Revision, a.Snapshot.Revision), cmp.Compare(b.Object.Name, a.Object.Name))
	})
}
