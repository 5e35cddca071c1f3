package etcdbackup_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
)

// named is a backup at a time, as far as retention looks at one.
func named(at time.Time) etcdbackup.Manifest {
	return etcdbackup.Manifest{Time: at, Object: etcdbackup.StoredObject{Name: at.UTC().Format("20060102T150405Z")}}
}

func at(hours ...int) (backups []etcdbackup.Manifest) {
	for _, h := range hours {
		backups = append(backups, named(noon.Add(time.Duration(h)*time.Hour)))
	}
	return backups
}

func show(decisions []etcdbackup.Decision) string {
	var s []string
	for _, d := range decisions {
		s = append(s, fmt.Sprintf("%d %s", int(d.Manifest.Time.Sub(noon)/time.Hour), d.Reason))
	}
	return strings.Join(s, "; ")
}

func TestRetain(t *testing.T) {
	type policy = etcdbackup.Retention
	for name, tt := range map[string]struct {
		backups      []etcdbackup.Manifest
		policy       policy
		proven       int // so many hours from noon
		keep, remove string
	}{
		"none":       {nil, policy{KeepLast: 2}, 0, "", ""},
		"fewer":      {at(-1), policy{KeepLast: 2}, 0, "-1 the newest, keepLast 1", ""},
		"any order":  {at(-3, -1, -2), policy{KeepLast: 2}, 0, "-1 the newest, keepLast 1; -2 keepLast 2", "-3 no rule keeps it"},
		"now counts": {at(0, -1), policy{KeepLast: 1}, 5, "0 the newest, keepLast 1", "-1 no rule keeps it"},
		"the future": {at(9, 8, 0, -1, -2), policy{KeepLast: 2}, 5,
			"9 dated in the future; 8 dated in the future; 0 the newest, keepLast 1; -1 keepLast 2", "-2 no rule keeps it"},
		"only future":  {at(9, 8), policy{KeepLast: 1}, 5, "9 dated in the future; 8 dated in the future", ""},
		"a bad policy": {at(-1, -2), policy{KeepLast: -3}, 5, "-1 the newest", "-2 no rule keeps it"},
		"proven":       {at(-1, -2, -3, -4), policy{KeepLast: 1}, -3, "-1 the newest, keepLast 1; -3 the newest proven", "-2 no rule keeps it; -4 no rule keeps it"},
		// A proof of one that the clock dated in the future spares none of the past.
		"proven, future": {at(2, -1, -2), policy{KeepLast: 1}, 2, "2 dated in the future; -1 the newest, keepLast 1", "-2 no rule keeps it"},
		"hourly": {[]etcdbackup.Manifest{named(noon.Add(-time.Minute)), named(noon.Add(-2 * time.Minute)), at(-1)[0], at(-5)[0], at(-6)[0]}, policy{KeepHourly: 3}, 5,
			"0 the newest, keepHourly 2026-11-21 11h +0000; -5 keepHourly 2026-11-21 07h +0000; -6 keepHourly 2026-11-21 06h +0000", "0 no rule keeps it; -1 no rule keeps it"},
		"daily": {at(-1, -2, -13, -14, -100, -200), policy{KeepDaily: 3}, 5,
			"-1 the newest, keepDaily 2026-11-21; -13 keepDaily 2026-11-20; -100 keepDaily 2026-11-17", "-2 no rule keeps it; -14 no rule keeps it; -200 no rule keeps it"},
		// The 21st is a Saturday: the week began at noon -132 h.
		"weekly": {at(-1, -132, -133, -300, -301), policy{KeepWeekly: 2}, 5,
			"-1 the newest, keepWeekly 2026-W47; -133 keepWeekly 2026-W46", "-132 no rule keeps it; -300 no rule keeps it; -301 no rule keeps it"},
		"the year's first week": {[]etcdbackup.Manifest{named(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)), named(time.Date(2025, 12, 29, 0, 0, 0, 0, time.UTC)), named(time.Date(2025, 12, 28, 0, 0, 0, 0, time.UTC))}, policy{KeepWeekly: 2}, 5,
			"-7788 the newest, keepWeekly 2026-W01; -7884 keepWeekly 2025-W52", "-7860 no rule keeps it"},
		"monthly": {at(-1, -500, -501, -1300), policy{KeepMonthly: 2}, 5,
			"-1 the newest, keepMonthly 2026-11; -500 keepMonthly 2026-10", "-501 no rule keeps it; -1300 no rule keeps it"},
		"within": {at(-1, -2, -3, -4), policy{KeepWithin: 3 * time.Hour}, 5,
			"-1 the newest, keepWithin 3h0m0s; -2 keepWithin 3h0m0s; -3 keepWithin 3h0m0s", "-4 no rule keeps it"},
		"within, after a long time without": {at(-8000, -8001, -8025, -8050), policy{KeepWithin: 50 * time.Hour}, 5,
			"-8000 the newest, keepWithin 50h0m0s; -8001 keepWithin 50h0m0s; -8025 keepWithin 50h0m0s", "-8050 no rule keeps it"},
		"several": {at(-1, -2, -13), policy{KeepLast: 1, KeepDaily: 2}, 5, "-1 the newest, keepLast 1, keepDaily 2026-11-21; -13 keepDaily 2026-11-20", "-2 no rule keeps it"},
	} {
		t.Run(name, func(t *testing.T) {
			proven := func(object string) bool { return object == at(tt.proven)[0].Object.Name }
			keep, remove := etcdbackup.Retain(tt.backups, tt.policy, noon, proven)
			if name == "none" || name == "fewer" || name == "any order" { // nil is none
				keep, remove = etcdbackup.Retain(tt.backups, tt.policy, noon, nil)
			}
			if show(keep) != tt.keep || show(remove) != tt.remove {
				t.Errorf("keeps %q and removes %q, want %q and %q", show(keep), show(remove), tt.keep, tt.remove)
			}
		})
	}
}

// A day is one of the time zone, also where it has 23 or 25 hours, and the hour that the clock
// goes back over is two.
func TestRetainInTimeZone(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		day   time.Time
		hours int
	}{
		"summer begins": {time.Date(2026, 3, 29, 0, 0, 0, 0, berlin), 23},
		"summer ends":   {time.Date(2026, 10, 25, 0, 0, 0, 0, berlin), 25},
	} {
		t.Run(name, func(t *testing.T) {
			var backups []etcdbackup.Manifest
			for h := -24; h < tt.hours+24; h++ { // the day before, the day, the day after
				backups = append(backups, named(tt.day.Add(time.Duration(h)*time.Hour+30*time.Minute).UTC()))
			}
			now := backups[len(backups)-1].Time.In(berlin)
			keep, _ := etcdbackup.Retain(backups, etcdbackup.Retention{KeepDaily: 9}, now, nil)
			var kept []string
			for _, k := range keep {
				kept = append(kept, k.Manifest.Time.In(berlin).Format("02 15:04"))
			}
			want := []string{tt.day.AddDate(0, 0, 1).Format("02") + " 23:30", tt.day.Format("02") + " 23:30", tt.day.AddDate(0, 0, -1).Format("02") + " 23:30"}
			if !slices.Equal(kept, want) {
				t.Errorf("kept %q, want %q", kept, want)
			}
			if keep, remove := etcdbackup.Retain(backups, etcdbackup.Retention{KeepHourly: len(backups)}, now, nil); len(remove) != 0 {
				t.Errorf("keeps the hours %s, removes %s", show(keep), show(remove))
			}
		})
	}
}

// A clock that jumps a year ahead, with a backup taken there, costs no more than a day would have
// that passed: each rule moves on by one. One that jumps back costs nothing.
func TestRetainWhenTheClockJumps(t *testing.T) {
	policy := etcdbackup.Retention{KeepLast: 4, KeepDaily: 3, KeepWeekly: 2, KeepWithin: 48 * time.Hour}
	var backups []etcdbackup.Manifest
	for h := range 200 {
		backups = append(backups, at(-6*h)...)
	}
	decisions, _ := etcdbackup.Retain(backups, policy, noon, nil)
	backups = nil
	for _, d := range decisions {
		backups = append(backups, d.Manifest)
	}
	const year = 365 * 24 * time.Hour
	for name, jump := range map[string]time.Duration{"ahead": year, "back": -year} {
		now := noon.Add(jump)
		after := append([]etcdbackup.Manifest{named(now)}, backups...)
		keep, remove := etcdbackup.Retain(after, policy, now, nil)
		if aDay := 4 + 3; len(remove) > aDay || jump < 0 && len(remove) > 0 {
			t.Errorf("%s: keeps %s, removes %s", name, show(keep), show(remove))
		}
		for _, d := range remove {
			if noon.Sub(d.Manifest.Time) <= 24*time.Hour {
				t.Errorf("%s: removes %s of the last day", name, show(remove))
			}
		}
		// The clock is set right and the next backup is taken.
		again := append(after, named(noon.Add(6*time.Hour)))
		if keep, remove = etcdbackup.Retain(again, policy, noon.Add(6*time.Hour), nil); len(remove) > 4+3 {
			t.Errorf("%s and right again: keeps %s, removes %s", name, show(keep), show(remove))
		}
	}
}

func randomPolicy(random *rand.Rand) etcdbackup.Retention {
	n := func() int { return max(random.IntN(8)-3, -1) }
	return etcdbackup.Retention{
		KeepLast: n(), KeepHourly: n(), KeepDaily: n(), KeepWeekly: n(), KeepMonthly: n(),
		KeepWithin: time.Duration(n()) * 20 * time.Hour,
	}
}

func names(decisions []etcdbackup.Decision) (out []string) {
	for _, d := range decisions {
		out = append(out, d.Manifest.Object.Name)
	}
	return out
}

func manifests(decisions []etcdbackup.Decision) (out []etcdbackup.Manifest) {
	for _, d := range decisions {
		out = append(out, d.Manifest)
	}
	return out
}

// Whatever the backups, the policy, the zone and the time.
func TestRetainProperties(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var zones []*time.Location
	for _, name := range []string{"UTC", "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia"} {
		zone, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		zones = append(zones, zone)
	}
	for range 5000 {
		var backups []etcdbackup.Manifest
		step := []int{1, 5, 30, 500, 9000}[random.IntN(5)] // hours between two, about
		for range random.IntN(40) {
			backups = append(backups, at(random.IntN(45*step)-40*step)...)
		}
		policy, now := randomPolicy(random), noon.In(zones[random.IntN(len(zones))])
		proven := func(object string) bool { return object[len(object)-3] == '0' && object[7]%3 == 0 }
		before := slices.Clone(backups)
		keep, remove := etcdbackup.Retain(backups, policy, now, proven)
		fail := func(format string, args ...any) {
			t.Fatalf("%s: %+v keeps %s, removes %s", fmt.Sprintf(format, args...), policy, show(keep), show(remove))
		}
		if !reflect.DeepEqual(before, backups) {
			fail("it reordered its input")
		}
		if len(keep)+len(remove) != len(backups) {
			fail("%d of %d decided", len(keep)+len(remove), len(backups))
		}
		if len(backups) > 0 && len(keep) == 0 {
			fail("nothing is kept")
		}
		isProven := func(d etcdbackup.Decision) bool {
			return proven(d.Manifest.Object.Name) && !d.Manifest.Time.After(now)
		}
		for _, r := range remove {
			newer := func(d etcdbackup.Decision) bool {
				return !d.Manifest.Time.After(now) && !d.Manifest.Time.Before(r.Manifest.Time)
			}
			if r.Manifest.Time.After(now) || !slices.ContainsFunc(keep, newer) {
				fail("the newest goes")
			}
			if isProven(r) && !slices.ContainsFunc(keep, func(d etcdbackup.Decision) bool { return newer(d) && isProven(d) }) {
				fail("the newest proven goes")
			}
		}
		// Decided again, also on what was kept, the same is kept.
		if again, more := etcdbackup.Retain(manifests(keep), policy, now, proven); len(more) > 0 || !slices.Equal(names(again), names(keep)) {
			fail("then removes %s too", show(more))
		}
		// A policy that keeps more of anything keeps all that this one does.
		wider := policy
		extra := randomPolicy(random)
		wider.KeepLast, wider.KeepHourly, wider.KeepDaily = max(policy.KeepLast, extra.KeepLast), max(policy.KeepHourly, extra.KeepHourly), max(policy.KeepDaily, extra.KeepDaily)
		wider.KeepWeekly, wider.KeepMonthly = max(policy.KeepWeekly, extra.KeepWeekly), max(policy.KeepMonthly, extra.KeepMonthly)
		wider.KeepWithin = max(policy.KeepWithin, extra.KeepWithin)
		wide, _ := etcdbackup.Retain(backups, wider, now, proven)
		for _, name := range names(keep) {
			if !slices.Contains(names(wide), name) {
				fail("%+v does not keep %s", wider, name)
			}
		}
		// What is removed is older than each of the newest that keepLast names.
		if policy.KeepLast > 0 && len(remove) > 0 && len(keep) < min(policy.KeepLast, len(backups)) {
			fail("fewer than keepLast are left")
		}
	}
}

// The newest is the one that the schedule goes on from: never one of the future.
func TestNewest(t *testing.T) {
	for _, tt := range []struct {
		backups []etcdbackup.Manifest
		want    string
	}{{nil, "none"}, {at(9, 8), "none"}, {at(9, 0, -1), "0"}, {at(9, -1, -2), "-1"}} {
		got := "none"
		if m, there := (etcdbackup.Catalog{Backups: tt.backups}).Newest(noon); there {
			got = fmt.Sprint(int(m.Time.Sub(noon) / time.Hour))
		}
		if got != tt.want {
			t.Errorf("of %d: %s, want %s", len(tt.backups), got, tt.want)
		}
	}
}
