package etcdbackup

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Retention says which backups are kept. A backup that any of the rules keeps is kept, whatever
// the others say; so are the newest one, the newest that a drill has proven, and those dated in
// the future.
type Retention struct {
	// KeepLast is how many of the newest backups are kept.
	KeepLast int `yaml:"keepLast"`
	// KeepHourly is for how many hours the newest backup of the hour is kept. Here and below
	// only hours, days, weeks and months in which there is a backup count, newest first, and
	// they are those of timeZone.
	KeepHourly int `yaml:"keepHourly"`
	// KeepDaily is for how many days the newest backup of the day is kept.
	KeepDaily int `yaml:"keepDaily"`
	// KeepWeekly is for how many weeks, which begin on Monday, the newest backup of the week is
	// kept.
	KeepWeekly int `yaml:"keepWeekly"`
	// KeepMonthly is for how many months the newest backup of the month is kept.
	KeepMonthly int `yaml:"keepMonthly"`
	// KeepWithin is how long every backup is kept. A time of more than a day without a backup
	// counts as a day, so that a clock which jumps ahead makes nothing old.
	KeepWithin time.Duration `yaml:"keepWithin"`
}

// validate returns every mistake, each beginning with its field.
func (r Retention) validate() error {
	var errs []error
	for _, n := range r.rules() {
		if n.count < 0 {
			errs = append(errs, fmt.Errorf("retention.%s: %d is less than 0", n.name, n.count))
		}
	}
	if r.KeepWithin < 0 {
		errs = append(errs, fmt.Errorf("retention.keepWithin: %s is less than 0", r.KeepWithin))
	}
	if r == (Retention{}) {
		errs = append(errs, errors.New("retention: every rule is 0, so that no more than one backup would be kept"))
	}
	return errors.Join(errs...)
}

// rule keeps the newest backup of each of so many periods.
type rule struct {
	name   string
	count  int
	period func(time.Time) string // what the time's period is called
}

func (r Retention) rules() []rule {
	return []rule{
		{"keepLast", r.KeepLast, nil}, // each backup is a period of its own
		// With the offset: the hour that a clock goes back over is two.
		{"keepHourly", r.KeepHourly, func(t time.Time) string { return t.Format("2006-01-02 15h -0700") }},
		{"keepDaily", r.KeepDaily, func(t time.Time) string { return t.Format(time.DateOnly) }},
		{"keepWeekly", r.KeepWeekly, func(t time.Time) string {
			year, week := t.ISOWeek()
			return fmt.Sprintf("%d-W%02d", year, week)
		}},
		{"keepMonthly", r.KeepMonthly, func(t time.Time) string { return t.Format("2006-01") }},
	}
}

// longestGap is what a time without backups counts as, for KeepWithin, at most.
const longestGap = 24 * time.Hour

// Decision is a backup and why it is kept or removed.
type Decision struct {
	Manifest Manifest
	Reason   string // every reason, separated by commas
}

// Retain decides which backups are kept, newest first in both results. Periods are those of
// now's time zone. proven says which backups, by the name of their object, a drill has restored;
// nil is none.
//
// A backup dated after now was made while the clock was ahead, or the clock is behind: it is kept
// and takes no other's place, so that no jump of the clock makes a new backup look like an old
// one. The newest of the others, and the newest proven of them, are never removed, whatever the
// policy. What is kept does not depend on what has been removed already: to decide again changes
// nothing.
func Retain(backups []Manifest, policy Retention, now time.Time, proven func(object string) bool) (keep, remove []Decision) {
	sorted := newestFirst(backups)
	future := 0
	for future < len(sorted) && sorted[future].Time.After(now) {
		keep = append(keep, Decision{sorted[future], "dated in the future"})
		future++
	}
	past := sorted[future:]
	reasons := policy.reasons(past, now)
	if len(past) > 0 {
		reasons[0] = slices.Insert(reasons[0], 0, "the newest")
	}
	if i := slices.IndexFunc(past, func(m Manifest) bool { return proven != nil && proven(m.Object.Name) }); i >= 0 {
		reasons[i] = append(reasons[i], "the newest proven")
	}
	for i, m := range past {
		if len(reasons[i]) > 0 {
			keep = append(keep, Decision{m, strings.Join(reasons[i], ", ")})
		} else {
			remove = append(remove, Decision{m, "no rule keeps it"})
		}
	}
	return keep, remove
}

// reasons are the rules that keep each of the backups, which are sorted, the newest first, and
// not of the future.
func (r Retention) reasons(past []Manifest, now time.Time) [][]string {
	reasons := make([][]string, len(past))
	for _, rule := range r.rules() {
		last, n := "", 0
		for i, m := range past {
			period := strconv.Itoa(i + 1)
			if rule.period != nil {
				period = rule.period(m.Time.In(now.Location()))
			}
			if period != last && n < rule.count {
				reasons[i] = append(reasons[i], rule.name+" "+period)
				n++
			}
			last = period
		}
	}
	age, newer := time.Duration(0), now
	for i, m := range past {
		age += min(newer.Sub(m.Time), longestGap)
		newer = m.Time
		if r.KeepWithin > 0 && age <= r.KeepWithin {
			reasons[i] = append(reasons[i], "keepWithin "+r.KeepWithin.String())
		}
	}
	return reasons
}

func newestFirst(backups []Manifest) []Manifest {
	return slices.SortedFunc(slices.Values(backups), func(a, b Manifest) int {
		return cmp.Or(b.Time.Compare(a.Time), cmp.Compare(b.Snapshot.Revision, a.Snapshot.Revision), cmp.Compare(b.Object.Name, a.Object.Name))
	})
}
