package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/agent"
)

// A clock that is wrong by years is named before the certificates that it makes look bad.
func TestStatusNamesTheClock(t *testing.T) {
	l := newLive(t)
	now := time.Now()
	yes := func() (bool, error) { return true, nil }
	no := func() (bool, error) { return false, nil }
	unknown := func() (bool, error) { return false, errors.New("read clock state: no") }
	for name, tt := range map[string]struct {
		at     time.Time
		synced func() (bool, error)
		want   string // the first problem, "" if none names the clock
	}{
		"right":               {now.Add(time.Hour), no, ""},
		"ahead":               {now.AddDate(2, 0, 0), no, ", and nothing keeps it right: /"},
		"ahead, as it should": {now.AddDate(2, 0, 0), yes, ""},
		"nobody knows":        {now.AddDate(2, 0, 0), unknown, "is not known: read clock state: no"},
		"behind":              {now.AddDate(-2, 0, 0), no, "is the clock behind?"},
		"behind and kept so":  {now.AddDate(-2, 0, 0), yes, "is the clock behind?"},
	} {
		t.Run(name, func(t *testing.T) {
			l.synced = tt.synced
			s := l.status(t.Context(), tt.at)
			var named []agent.Problem
			for _, p := range s.Problems {
				if strings.HasPrefix(p.What, "the clock says "+tt.at.UTC().Format(time.DateTime)+" UTC") {
					named = append(named, p)
				}
			}
			switch {
			case tt.want == "" && len(named) > 0:
				t.Errorf("names the clock: %+v", named)
			case tt.want != "" && (len(named) != 1 || !strings.Contains(named[0].What, tt.want) || named[0].Remedy != "timedatectl"):
				t.Errorf("%+v, want one that says %q", named, tt.want)
			case tt.want != "" && named[0].Severity == agent.Error && s.Problems[0] != named[0]:
				t.Errorf("the clock comes after %+v", s.Problems[0])
			}
		})
	}
	page(t, l.status(t.Context(), now.AddDate(-2, 0, 0))) // with certificates that are not valid yet
}

// A snapshot that a clock which was ahead has dated is told, and is not the newest.
func TestStatusOfSnapshotsFromTheFuture(t *testing.T) {
	s := agent.Status{Now: time.Unix(1_700_000_000, 0)}
	s.Snapshots = []agent.SnapshotStatus{{Taken: s.Now.AddDate(1, 0, 0)}, {Taken: s.Now.AddDate(0, 0, -1)}}
	got := clockProblems(s, func() (bool, error) { return true, nil })
	if len(got) != 1 || got[0].Severity != agent.Warning || !strings.Contains(got[0].What, ": 1 of the snapshots were taken later;") {
		t.Errorf("%+v", got)
	}
	if clockProblems(agent.Status{Now: s.Now}, func() (bool, error) { return true, nil }) == nil {
		t.Error("no list of problems, which is null in JSON")
	}
}
