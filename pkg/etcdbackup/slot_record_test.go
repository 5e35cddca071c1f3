package etcdbackup

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
)

var slotNoon = Slot{Start: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC), End: time.Date(2026, 11, 21, 18, 0, 0, 0, time.UTC)}

func TestSlotTaken(t *testing.T) {
	for name, tt := range map[string]struct {
		record time.Time
		want   bool
	}{
		"no record":                                {time.Time{}, false},
		"the slot before":                          {slotNoon.Start.Add(-6 * time.Hour), false},
		"a second before, by another schedule":     {slotNoon.Start.Add(-time.Second), false},
		"this slot":                                {slotNoon.Start, true},
		"a part of it, by another schedule":        {slotNoon.Start.Add(time.Hour), true},
		"the slot after: this clock is behind":     {slotNoon.End, true},
		"a year ahead: that clock was wrong":       {slotNoon.Start.AddDate(1, 0, 0), false},
		"two slots ahead: that clock was wrong":    {slotNoon.End.Add(6 * time.Hour), false},
		"a year back, by a clock that fell behind": {slotNoon.Start.AddDate(-1, 0, 0), false},
	} {
		if got := (SlotRecord{Slot: tt.record}).taken(slotNoon); got != tt.want {
			t.Errorf("%s: taken %t, want %t", name, got, tt.want)
		}
	}
}

func TestSlotRecordOfOtherVersions(t *testing.T) {
	const later = `{"version":1,"slot":"2026-11-21T06:00:00Z","taken":{"host":"cp2","backup":"b","revision":7,"saved":"2026-11-21T06:00:01Z","why":"new"},` +
		`"uploaded":{"host":"cp1","backup":"a","revision":5,"saved":"2026-11-21T00:00:01Z","uploaded":"2026-11-21T00:01:00Z"},"region":{"of":["a","later"]},"n":12345678901234567890}`
	written, err := changed(func(r *SlotRecord) {
		if r.Taken.Host != "cp2" || r.Taken.Revision != 7 || r.Uploaded.Backup != "a" || r.Uploaded.Uploaded.Minute() != 1 {
			t.Errorf("read %+v", r)
		}
		r.Slot, r.Taken = slotNoon.Start, SlotBackup{Host: "cp3", Backup: "c"}
	})([]byte(later))
	if err != nil {
		t.Fatal(err)
	}
	for _, kept := range []string{`"region":{"of":["a","later"]}`, `"n":12345678901234567890`, `"slot":"2026-11-21T12:00:00Z"`, `"host":"cp3"`, `"backup":"a"`} {
		if !strings.Contains(string(written), kept) {
			t.Errorf("%s is not in %s", kept, written)
		}
	}
	if strings.Contains(string(written), "cp2") {
		t.Errorf("who has taken the slot before is still in %s", written)
	}
	touch := func(r *SlotRecord) { r.Slot = slotNoon.Start }
	if _, err := changed(touch)([]byte(`{"version":2,"slots":[]}`)); !errors.Is(err, ErrLaterVersion) {
		t.Errorf("a record of a later version: %v", err)
	}
	// Nothing that lies there may stop the backups.
	for _, broken := range []string{"", "null", "[]", "{}", `{"version":"1"}`, `{"version":-1}`, `{"version":1,"slot":5}`, `{"version":1`, strings.Repeat(" ", maxSlotRecord) + "{}"} {
		if _, err := decodeSlotRecord([]byte(broken)); err == nil && broken != "" {
			t.Errorf("%.20q is read", broken)
		}
		data, err := changed(touch)([]byte(broken))
		if err != nil {
			t.Errorf("%.20q: %v", broken, err)
			continue
		}
		if r, err := decodeSlotRecord(data); err != nil || !r.taken(slotNoon) {
			t.Errorf("%.20q becomes %s", broken, data)
		}
	}
}

// What can be read can be written and reads the same; what nobody here knows is still there.
func FuzzSlotRecord(f *testing.F) {
	for _, seed := range []string{
		`{"version":1}`, `{"version":1,"slot":"2026-11-21T06:00:00Z","taken":{"host":"cp2","backup":"b","revision":7,"saved":"2026-11-21T06:00:01Z"}}`,
		`{"version":1,"uploaded":{"host":"cp1","backup":"a","revision":5,"saved":"2026-11-21T00:00:01Z","uploaded":"2026-11-21T00:01:00Z"},"more":1}`,
		`{"version":2}`, `null`, `{"version":1,"slot":null}`, `{"version":1,"taken":[]}`, `{"version":1,"slot":"0000-01-01T00:00:00Z"}`, `{"Version":1,"version":1,"SLOT":1}`,
		`{"version":1,"slot":"0001-01-01T00:00:00Z","taken":{"host":"x"}}`, `{"version":1,"slot":"0000-01-01T00:00:00+23:59"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decodeSlotRecord(data)
		if err != nil {
			return
		}
		written, err := r.encode()
		if err != nil {
			return // a time that JSON's form has no year for is read in another zone
		}
		again, err := decodeSlotRecord(written)
		if err != nil {
			t.Fatalf("%s is written %s: %v", data, written, err)
		}
		if !again.Slot.Equal(r.Slot) || again.Taken.Backup != r.Taken.Backup || again.Uploaded.Backup != r.Uploaded.Backup {
			t.Errorf("%s is written %s", data, written)
		}
		for name := range r.fields {
			if _, there := again.fields[name]; !there {
				t.Errorf("%s has lost %q", written, name)
			}
		}
		if !json.Valid(written) {
			t.Errorf("%s is no JSON", written)
		}
	})
}
