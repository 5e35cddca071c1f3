package etcdbackup_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
)

func TestValidate(t *testing.T) {
	type config = etcdbackup.Config
	file := func(dirs ...string) (stores []etcdbackup.StoreConfig) {
		for _, d := range dirs {
			stores = append(stores, etcdbackup.StoreConfig{File: &etcdbackup.FileConfig{Dir: d}})
		}
		return stores
	}
	for name, tt := range map[string]struct {
		change func(*config)
		want   []string // beginnings of the error's lines
	}{
		"default":               {func(*config) {}, nil},
		"descriptor":            {func(c *config) { c.Schedule = "@daily" }, nil},
		"every":                 {func(c *config) { c.Schedule = "@every 30s" }, nil},
		"Sunday as 7":           {func(c *config) { c.Schedule = "0 3 * * 7" }, nil},
		"leap day":              {func(c *config) { c.Schedule = "0 0 29 2 *" }, nil},
		"zone":                  {func(c *config) { c.TimeZone = "Europe/Berlin" }, nil},
		"interval":              {func(c *config) { c.Interval = time.Second }, nil},
		"interval, no schedule": {func(c *config) { c.Interval, c.Schedule = time.Hour, "" }, nil},
		"two stores":            {func(c *config) { c.Stores = file("/a", "/b") }, nil},
		"empty schedule":        {func(c *config) { c.Schedule = "" }, []string{"schedule: "}},
		"six fields":            {func(c *config) { c.Schedule = "0 0 * * * *" }, []string{"schedule: "}},
		"minute 60":             {func(c *config) { c.Schedule = "60 * * * *" }, []string{"schedule: "}},
		"February 30":           {func(c *config) { c.Schedule = "0 0 30 2 *" }, []string{"schedule: "}},
		"zone in the schedule":  {func(c *config) { c.Schedule = "TZ=UTC 0 0 * * *" }, []string{"schedule: "}},
		"bare zone":             {func(c *config) { c.Schedule = "CRON_TZ=" }, []string{"schedule: "}},
		"unknown zone":          {func(c *config) { c.TimeZone = "Mars/Olympus" }, []string{"timeZone: "}},
		"zone outside":          {func(c *config) { c.TimeZone = "../etc/passwd" }, []string{"timeZone: "}},
		"no zone":               {func(c *config) { c.TimeZone = "" }, []string{"timeZone: "}},
		"short interval":        {func(c *config) { c.Interval = time.Millisecond }, []string{"interval: "}},
		"a rate":                {func(c *config) { c.Rate = "50MiB" }, nil},
		"no rate":               {func(c *config) { c.Rate = "" }, []string{"rate: "}},
		"a rate of nothing":     {func(c *config) { c.Rate = "0MiB" }, []string{"rate: "}},
		"a rate without a unit": {func(c *config) { c.Rate = "50" }, []string{"rate: "}},
		"negative jitter":       {func(c *config) { c.Jitter = -time.Second }, []string{"jitter: "}},
		"negative interval":     {func(c *config) { c.Interval = -time.Hour }, []string{"interval: "}},
		"no store":              {func(c *config) { c.Stores = nil }, []string{"stores: "}},
		"a store of no kind":    {func(c *config) { c.Stores = append(c.Stores, etcdbackup.StoreConfig{}) }, []string{"stores[1]: "}},
		"no directory":          {func(c *config) { c.Stores = file("") }, []string{"stores[0].file.dir: "}},
		"a relative directory":  {func(c *config) { c.Stores = file("/a", "b") }, []string{"stores[1].file.dir: "}},
		"an unclean directory":  {func(c *config) { c.Stores = file("/a/") }, []string{"stores[0].file.dir: "}},
		"the root":              {func(c *config) { c.Stores = file("/") }, []string{"stores[0].file.dir: "}},
		"one directory twice":   {func(c *config) { c.Stores = file("/a", "/a") }, []string{"stores[1]: "}},
		"nothing kept":          {func(c *config) { c.Retention.KeepLast = 0 }, []string{"retention: "}},
		"kept by days alone":    {func(c *config) { c.Retention = etcdbackup.Retention{KeepDaily: 1} }, nil},
		"negative rules":        {func(c *config) { c.Retention = etcdbackup.Retention{KeepWeekly: -1, KeepWithin: -1} }, []string{"retention.keepWeekly: ", "retention.keepWithin: "}},
		"several mistakes":      {func(c *config) { c.Schedule, c.Stores, c.Retention.KeepLast = "x", nil, -1 }, []string{"schedule: ", "stores: ", "retention.keepLast: "}},
	} {
		t.Run(name, func(t *testing.T) {
			c := etcdbackup.DefaultConfig()
			tt.change(&c)
			err := c.Validate()
			var lines []string
			if err != nil {
				lines = strings.Split(err.Error(), "\n")
			}
			if len(lines) != len(tt.want) {
				t.Fatalf("%d errors, want %d: %v", len(lines), len(tt.want), err)
			}
			for i, want := range tt.want {
				if !strings.HasPrefix(lines[i], want) {
					t.Errorf("%q does not begin with %q", lines[i], want)
				}
			}
			from := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
			if err == nil && !c.NextOn("cp1")(from).After(from) {
				t.Errorf("valid, and next after %s is %s", from, c.NextOn("cp1")(from))
			}
		})
	}
}

func TestNext(t *testing.T) {
	for name, tt := range map[string]struct {
		schedule, zone string
		interval       time.Duration
		after, want    string
	}{
		"default":                       {"0 */6 * * *", "UTC", 0, "2026-11-21T12:00:00Z", "2026-11-21T18:00:00Z"},
		"seconds are dropped":           {"* * * * *", "UTC", 0, "2026-11-21T12:00:30.5Z", "2026-11-21T12:01:00Z"},
		"in its zone":                   {"0 3 * * *", "Asia/Tokyo", 0, "2026-11-21T12:00:00Z", "2026-11-21T18:00:00Z"},
		"daily, in its zone":            {"@daily", "Asia/Tokyo", 0, "2026-11-21T12:00:00Z", "2026-11-21T15:00:00Z"},
		"the hour that spring skips":    {"30 2 * * *", "Europe/Berlin", 0, "2026-03-28T12:00:00Z", "2026-03-29T01:30:00Z"},
		"either day field, as crontab":  {"0 0 1 * 1", "UTC", 0, "2026-11-21T12:00:00Z", "2026-11-23T00:00:00Z"},
		"an interval replaces schedule": {"0 0 1 1 *", "UTC", 5 * time.Second, "2026-11-21T12:00:00.25Z", "2026-11-21T12:00:05.25Z"},
	} {
		t.Run(name, func(t *testing.T) {
			c := etcdbackup.Config{Schedule: tt.schedule, TimeZone: tt.zone, Interval: tt.interval}
			after, err := time.Parse(time.RFC3339, tt.after)
			if err != nil {
				t.Fatal(err)
			}
			if got := c.NextOn("cp1")(after).UTC().Format(time.RFC3339Nano); got != tt.want {
				t.Errorf("next is %s, want %s", got, tt.want)
			}
		})
	}
	if got := (etcdbackup.Config{Schedule: "nonsense", TimeZone: "UTC"}).NextOn("cp1")(noon); !got.IsZero() {
		t.Errorf("an invalid schedule has a next time: %s", got)
	}
}

// Each host saves later by its own part of the jitter, the same at every slot; no slot is left out,
// none taken twice, and the hosts are spread.
func TestJitter(t *testing.T) {
	c := etcdbackup.Config{Schedule: "0 * * * *", TimeZone: "UTC", Jitter: 5 * time.Minute}
	delays := map[string]time.Duration{}
	var least, most time.Duration = time.Hour, 0
	for i := range 100 {
		host := fmt.Sprintf("cp%d", i)
		next := c.NextOn(host)
		at := noon
		for hour := range 24 {
			at = next(at.Add(3 * time.Second)) // a save takes its time
			delay := at.Sub(noon.Add(time.Duration(hour) * time.Hour))
			if first, known := delays[host]; known && delay != first || delay < 0 || delay > 5*time.Minute {
				t.Fatalf("%s: slot %d comes %s late, the first came %s late", host, hour, delay, first)
			}
			if hour == 0 && delay <= 3*time.Second { // this slot was over when it was asked for
				delay = at.Sub(noon.Add(time.Hour))
			}
			delays[host] = delay
		}
		least, most = min(least, delays[host]), max(most, delays[host])
	}
	if least > time.Minute || most < 4*time.Minute {
		t.Errorf("a hundred hosts are between %s and %s late", least, most)
	}
	minutely := etcdbackup.Config{Schedule: "* * * * *", TimeZone: "UTC", Jitter: time.Hour}
	hourly := etcdbackup.Config{Interval: time.Hour, Jitter: time.Hour}
	for host := range delays {
		if late := minutely.NextOn(host)(noon.Add(30 * time.Second)).Sub(noon.Add(time.Minute)); late < 0 || late > 6*time.Second {
			t.Errorf("%s: a minutely slot comes %s late", host, late)
		}
		if gap := hourly.NextOn(host)(noon).Sub(noon); gap > time.Hour || gap < 54*time.Minute {
			t.Errorf("%s: an interval of an hour is %s", host, gap)
		}
	}
}
