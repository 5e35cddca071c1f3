package etcdbackup

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"strings"
	"time"

	"github.com/netresearch/go-cron"
)

// NextOn is when, on a host of that name, the backup after one at a time is due: by the schedule,
// and later by the host's share of the jitter, which is always the same, so that the members of a
// cluster do not all save at once. The time is zero if c is invalid.
func (c Config) NextOn(host string) func(after time.Time) time.Time {
	share := shareOf(host)
	if c.Interval > 0 {
		// Earlier, not later: nobody who asks for an hour is to have a gap of more.
		period := c.Interval - time.Duration(share*float64(min(c.Jitter, c.Interval/jitterPart)))
		return func(after time.Time) time.Time { return after.Add(period) }
	}
	schedule, err := c.cron()
	if err != nil {
		return func(time.Time) time.Time { return time.Time{} }
	}
	if strings.HasPrefix(c.Schedule, everyDescriptor) { // counts from whenever it is asked
		return schedule
	}
	return func(after time.Time) time.Time {
		for slot := schedule(after.Add(-c.Jitter - time.Second)); ; {
			next := schedule(slot)
			delay := time.Duration(share * float64(min(c.Jitter, next.Sub(slot)/jitterPart)))
			if due := slot.Add(delay); due.After(after) {
				return due
			}
			slot = next
		}
	}
}

// everyDescriptor is how an interval is written in Schedule.
const everyDescriptor = "@every"

// jitterPart bounds the jitter to a part of the time between two backups.
const jitterPart = 10

// shareOf is a number from 0 to less than 1 that a host's name makes, evenly over names.
func shareOf(host string) float64 {
	h := fnv.New64a()
	h.Write([]byte(host)) // never fails
	// The last byte alone barely changes the upper bits of this hash: they are mixed once more.
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return float64(x>>11) / math.Exp2(53)
}

// Zone is the time zone of the schedule and of retention.
func (c Config) Zone() (*time.Location, error) {
	if c.TimeZone == "" {
		return nil, errors.New("timeZone: is empty: write Local, UTC or a name such as Europe/Berlin")
	}
	zone, err := time.LoadLocation(c.TimeZone)
	if err != nil {
		return nil, fmt.Errorf("timeZone: %w", err)
	}
	return zone, nil
}

// cron returns the schedule as a function from a time to the next one, in the time zone.
func (c Config) cron() (next func(time.Time) time.Time, err error) {
	schedule, err := c.parse()
	if err != nil {
		return nil, err
	}
	zone, err := c.Zone()
	if err != nil {
		return nil, err
	}
	// A schedule that names no zone itself is read in the zone of the time it is asked about.
	next = func(after time.Time) time.Time { return schedule.Next(after.In(zone)) }
	// Any moment does to find out that a date never comes: the search spans years.
	if next(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return nil, fmt.Errorf("schedule: %q: no such date ever comes", c.Schedule)
	}
	return next, nil
}

func (c Config) parse() (cron.Schedule, error) {
	if strings.Contains(c.Schedule, "TZ=") {
		return nil, fmt.Errorf("schedule: %q: the time zone belongs in timeZone", c.Schedule)
	}
	parser, err := cron.TryNewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor | cron.DowOrDom)
	if err != nil {
		return nil, fmt.Errorf("schedule: %w", err)
	}
	schedule, err := parser.Parse(c.Schedule)
	if err != nil {
		return nil, fmt.Errorf("schedule: %w", err)
	}
	return schedule, nil
}
