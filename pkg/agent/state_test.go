package agent

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeagent/nodeagent/pkg/step"
)

func TestStateRoundTrip(t *testing.T) {
	h := tree(t, nil)
	at := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	want := State{
		Version: 1,
		Steps: map[string]StepState{"kernel/swap": {
			Outcome: step.Differs, Changes: []step.Change{{Subject: "swap", Have: "on", Want: "off", Disruptive: true}}, Error: "x", At: at, Took: time.Second, ApplyTook: time.Minute,
		}},
		Jobs: map[string]JobState{"snapshot": {LastRun: at, LastSuccess: at.Add(-time.Hour), Error: "y", Next: at.Add(time.Hour)}, "fresh": {}},
	}
	if err := UpdateState(t.Context(), h, func(s *State) { *s = want }); err != nil {
		t.Fatal(err)
	}
	got, err := LoadState(h)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	info, err := h.Stat(StateFile)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// The daemon and commands write side by side, each through its own open file: no update is lost.
func TestStateLosesNoUpdate(t *testing.T) {
	h := tree(t, nil)
	const writers, each = 4, 10
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				err := UpdateState(t.Context(), h, func(s *State) { s.Jobs[fmt.Sprintf("%d/%d", w, i)] = JobState{} })
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	got, err := LoadState(h)
	if err != nil || len(got.Jobs) != writers*each {
		t.Errorf("%d of %d updates are there, %v", len(got.Jobs), writers*each, err)
	}
}

// A state that cannot be read is empty, says why, and is mended by the next update.
func TestBrokenState(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"no JSON":       {"{", "read state: /var/lib/nodeagent/state.json: unexpected end"},
		"empty":         {"", "unexpected end"},
		"later version": {`{"version": 2, "steps": {}, "jobs": {}}`, "version 2 is not 1"},
		"nulls":         {`{"version": 1, "steps": null, "jobs": null}`, "state.json"},
		"another shape": {`{"version": 1, "steps": []}`, "cannot unmarshal"},
	} {
		t.Run(name, func(t *testing.T) {
			h := tree(t, map[string]string{"var/lib/nodeagent/state.json": test.text})
			state, err := LoadState(h)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error that says %q", err, test.want)
			}
			if state.Version != 1 || state.Steps == nil || state.Jobs == nil || len(state.Steps)+len(state.Jobs) != 0 {
				t.Errorf("got %+v, want an empty state", state)
			}
			if err := UpdateState(t.Context(), h, func(s *State) { s.Jobs["j"] = JobState{} }); err != nil {
				t.Fatal(err)
			}
			if state, err := LoadState(h); err != nil || len(state.Jobs) != 1 {
				t.Errorf("after an update: %+v, %v", state, err)
			}
		})
	}
}

func TestStateLockHeld(t *testing.T) {
	h := tree(t, nil)
	unlock, err := h.TryLock("state", "a test")
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := UpdateState(ctx, h, func(*State) { t.Error("changed without the lock") }); err == nil || !strings.Contains(err.Error(), "a test") {
		t.Errorf("got %v, want who holds the lock", err)
	}
}

// pulse is a watchdog that counts.
type pulse struct {
	interval time.Duration
	fed      int
	err      error
}

func (p *pulse) WatchdogInterval() time.Duration { return p.interval }
func (p *pulse) Watchdog() error                 { p.fed++; return p.err }

func TestFeedWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute+time.Second)
		defer cancel()
		began := time.Now()
		// Not healthy from the third to the fifth minute.
		healthy := func() error {
			if d := time.Since(began); d >= 3*time.Minute && d < 5*time.Minute {
				return context.Canceled
			}
			return nil
		}
		p := &pulse{interval: time.Minute}
		if err := FeedWatchdog(ctx, p, healthy); err != nil || p.fed != 9 {
			t.Errorf("fed %d times in ten minutes, want 9: %v", p.fed, err)
		}
		if err := FeedWatchdog(t.Context(), &pulse{}, healthy); err != nil {
			t.Errorf("nobody waits: %v", err)
		}
		gone := fmt.Errorf("gone")
		if err := FeedWatchdog(t.Context(), &pulse{interval: time.Minute, err: gone}, healthy); err != gone { //nolint:errorlint // this very error
			t.Errorf("got %v", err)
		}
	})
}
