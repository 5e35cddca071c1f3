package etcdbackup_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
)

func TestSlotOf(t *testing.T) {
	for name, tt := range map[string]struct {
		schedule, zone         string
		interval               time.Duration
		now, start, end, leads string
	}{
		"default":                          {"0 */6 * * *", "UTC", 0, "2026-11-21T15:07:00Z", "2026-11-21T12:00:00Z", "2026-11-21T18:00:00Z", "2026-11-21T12:06:00Z"},
		"at its start":                     {"0 */6 * * *", "UTC", 0, "2026-11-21T12:00:00Z", "2026-11-21T12:00:00Z", "2026-11-21T18:00:00Z", "2026-11-21T12:06:00Z"},
		"within its first second":          {"0 */6 * * *", "UTC", 0, "2026-11-21T12:00:00.3Z", "2026-11-21T12:00:00Z", "2026-11-21T18:00:00Z", "2026-11-21T12:06:00Z"},
		"at its very end":                  {"0 */6 * * *", "UTC", 0, "2026-11-21T17:59:59.9Z", "2026-11-21T12:00:00Z", "2026-11-21T18:00:00Z", "2026-11-21T12:06:00Z"},
		"minutely":                         {"* * * * *", "UTC", 0, "2026-11-21T12:00:30Z", "2026-11-21T12:00:00Z", "2026-11-21T12:01:00Z", "2026-11-21T12:00:12Z"},
		"in its zone":                      {"0 3 * * *", "Asia/Tokyo", 0, "2026-11-21T12:00:00Z", "2026-11-20T18:00:00Z", "2026-11-21T18:00:00Z", "2026-11-20T18:06:00Z"},
		"the end of a month":               {"0 0 31 * *", "UTC", 0, "2026-11-21T12:00:00Z", "2026-10-31T00:00:00Z", "2026-12-31T00:00:00Z", "2026-10-31T00:06:00Z"},
		"the end of February":              {"0 0 1 * *", "UTC", 0, "2027-02-28T23:59:59Z", "2027-02-01T00:00:00Z", "2027-03-01T00:00:00Z", "2027-02-01T00:06:00Z"},
		"29 February":                      {"0 0 29 2 *", "UTC", 0, "2026-11-21T12:00:00Z", "2024-02-29T00:00:00Z", "2028-02-29T00:00:00Z", "2024-02-29T00:06:00Z"},
		"every minute of one month":        {"* * * 1 *", "UTC", 0, "2026-11-21T12:00:00Z", "2026-01-31T23:59:00Z", "2027-01-01T00:00:00Z", "2026-02-01T00:05:00Z"},
		"weekly":                           {"@weekly", "UTC", 0, "2026-11-21T12:00:00Z", "2026-11-15T00:00:00Z", "2026-11-22T00:00:00Z", "2026-11-15T00:06:00Z"},
		"daily, a day of 23 hours":         {"@daily", "Europe/Berlin", 0, "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z", "2026-03-28T23:06:00Z"},
		"daily, a day of 25 hours":         {"@daily", "Europe/Berlin", 0, "2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z", "2026-10-24T22:06:00Z"},
		"the hour that spring skips":       {"30 2 * * *", "Europe/Berlin", 0, "2026-03-29T12:00:00Z", "2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z", "2026-03-29T01:36:00Z"},
		"the hour that comes twice, first": {"30 2 * * *", "Europe/Berlin", 0, "2026-10-25T00:45:00Z", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T00:36:00Z"},
		"the hour that comes twice, again": {"30 2 * * *", "Europe/Berlin", 0, "2026-10-25T01:45:00Z", "2026-10-25T01:30:00Z", "2026-10-26T01:30:00Z", "2026-10-25T01:36:00Z"},
		"an interval":                      {"0 0 1 1 *", "UTC", 6 * time.Hour, "2026-11-21T15:07:00Z", "2026-11-21T12:00:00Z", "2026-11-21T18:00:00Z", "2026-11-21T13:00:00Z"},
		"an interval knows no zone":        {"", "Asia/Kolkata", 24 * time.Hour, "2026-11-21T15:07:00Z", "2026-11-21T00:00:00Z", "2026-11-22T00:00:00Z", "2026-11-21T01:00:00Z"},
		"an interval, a day of 23 hours":   {"", "Europe/Berlin", 6 * time.Hour, "2026-03-29T04:00:00Z", "2026-03-29T00:00:00Z", "2026-03-29T06:00:00Z", "2026-03-29T01:00:00Z"},
		"@every":                           {"@every 90m", "UTC", 0, "2026-11-21T12:44:00Z", "2026-11-21T12:00:00Z", "2026-11-21T13:30:00Z", "2026-11-21T12:45:00Z"},
	} {
		t.Run(name, func(t *testing.T) {
			c := etcdbackup.Config{Schedule: tt.schedule, TimeZone: tt.zone, Interval: tt.interval, Jitter: 5 * time.Minute}
			now, err := time.Parse(time.RFC3339, tt.now)
			if err != nil {
				t.Fatal(err)
			}
			// The host's own zone, and its monotonic clock, say nothing.
			for _, now := range []time.Time{now, now.In(time.FixedZone("", -5*3600))} {
				s, err := c.SlotOf(now)
				if err != nil {
					t.Fatal(err)
				}
				for what, pair := range map[string][2]string{
					"start":  {s.Start.Format(time.RFC3339Nano), tt.start},
					"end":    {s.End.Format(time.RFC3339Nano), tt.end},
					"leader": {s.LeaderFrom.Format(time.RFC3339Nano), tt.leads},
				} {
					if pair[0] != pair[1] {
						t.Errorf("%s: %s, want %s", what, pair[0], pair[1])
					}
				}
			}
		})
	}
	for _, c := range []etcdbackup.Config{{Schedule: "nonsense", TimeZone: "UTC"}, {Schedule: "@every nonsense", TimeZone: "UTC"}, {Schedule: "0 0 31 2 *", TimeZone: "UTC"}} {
		if s, err := c.SlotOf(noon); err == nil {
			t.Errorf("%q has a slot: %+v", c.Schedule, s)
		}
	}
}

// Whatever the time: it lies in its slot, slots follow one another without a gap, and each host's
// turn to save, jitter included, lies in the slot that it is for. A clock that is set finds itself in
// another slot, and back in the same one.
func TestSlotsAreWhole(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, c := range []etcdbackup.Config{
		{Schedule: "*/7 * * * *", TimeZone: "Europe/Berlin"}, {Schedule: "0 */6 * * *", TimeZone: "America/New_York"},
		{Schedule: "30 2 * * *", TimeZone: "Europe/Berlin"}, {Schedule: "15 3 31 * 1", TimeZone: "Australia/Lord_Howe"},
		{Interval: 7 * time.Second, TimeZone: "UTC"}, {Schedule: "@every 1h10m", TimeZone: "UTC"},
	} {
		c.Jitter = 5 * time.Minute
		slotOf := func(now time.Time) etcdbackup.Slot {
			s, err := c.SlotOf(now)
			if err != nil {
				t.Fatalf("%q at %s: %v", c.Schedule, now, err)
			}
			if s.Start.After(now) || !s.End.After(now) || s.LeaderFrom.Before(s.Start) || !s.LeaderFrom.Before(s.End) {
				t.Fatalf("%q at %s: %+v", c.Schedule, now, s)
			}
			return s
		}
		for range 200 {
			now := noon.Add(time.Duration(random.Int64N(int64(2 * 366 * 24 * time.Hour))))
			s := slotOf(now)
			if again := slotOf(s.Start); again != s {
				t.Errorf("%q: the slot of the start of %+v is %+v", c.Schedule, s, again)
			}
			if next := slotOf(s.End); !next.Start.Equal(s.End) {
				t.Errorf("%q: after %+v comes %+v", c.Schedule, s, next)
			}
			if c.Interval == 0 && c.Schedule[0] != '@' {
				if due := c.NextOn("cp1")(s.Start.Add(s.End.Sub(s.Start) / 2)); slotOf(due).Start != s.End {
					t.Errorf("%q: the save of the slot from %s is due at %s", c.Schedule, s.End, due)
				}
			}
		}
	}
}
