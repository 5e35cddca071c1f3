package etcdbackup

import (
	"fmt"
	"sort"
	"strings"
	"time"
)

// Slot is the time from one date of the schedule to the next. In each of them one backup is due to a
// store that the members of a cluster share. Hosts of the same configuration have the same slots.
type Slot struct {
	Start, End time.Time
	// LeaderFrom is when the member that leads may take it: by then the others have had their chance.
	LeaderFrom time.Time
}

// leaderMargin is how long after the last host's jitter the leader waits, at most.
const leaderMargin = time.Minute

// longestLead is how long the leader waits at most: what is late by more is overdue by the alert.
const longestLead = time.Hour

// SlotOf is the slot that now lies in: of the schedule without jitter, in its time zone, or, where
// there is an interval, the multiple of it. It is an error if c is invalid.
func (c Config) SlotOf(now time.Time) (Slot, error) {
	interval, err := c.every()
	if err != nil {
		return Slot{}, fmt.Errorf("find the slot: %w", err)
	}
	if interval > 0 {
		// Hosts come at any time of the interval.
		start := now.Truncate(interval).UTC()
		return Slot{Start: start, End: start.Add(interval), LeaderFrom: start.Add(min(interval/2, longestLead))}, nil
	}
	next, err := c.cron()
	if err != nil {
		return Slot{}, fmt.Errorf("find the slot: %w", err)
	}
	start, found := latest(next, now)
	end := next(start)
	if !found || end.IsZero() {
		return Slot{}, fmt.Errorf("find the slot: schedule: %q: its dates are years away from %s", c.Schedule, now.Format(time.RFC3339))
	}
	s := Slot{Start: start.UTC(), End: end.UTC()}
	part := s.End.Sub(s.Start) / jitterPart
	s.LeaderFrom = s.Start.Add(min(c.Jitter, part) + min(leaderMargin, part))
	return s, nil
}

// every is the interval of c, 0 where it has a schedule of dates. @every is an interval too.
func (c Config) every() (time.Duration, error) {
	if c.Interval > 0 || !strings.HasPrefix(c.Schedule, everyDescriptor) {
		return c.Interval, nil
	}
	schedule, err := c.parse()
	if err != nil {
		return 0, err
	}
	epoch := time.Unix(0, 0)
	return schedule.Next(epoch).Sub(epoch), nil
}

// longestYears is how far back a date may lie: 29 February comes once in eight years at worst.
const longestYears = 10 * 366 * 24 * time.Hour

// latest is the last date that is not after now.
func latest(next func(time.Time) time.Time, now time.Time) (time.Time, bool) {
	// Whether a date lies between so many seconds ago and now.
	within := func(seconds int) bool {
		date := next(now.Add(-time.Duration(seconds) * time.Second))
		return !date.IsZero() && !date.After(now)
	}
	most := 1
	for !within(most) {
		if most *= 2; time.Duration(most)*time.Second > longestYears {
			return time.Time{}, false
		}
	}
	least := sort.Search(most, within)
	return next(now.Add(-time.Duration(least) * time.Second)), true
}
