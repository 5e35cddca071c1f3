package main

import (
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/agent"
	"github.com/nodeagent/nodeagent/pkg/step"
)

// How long a step's last apply took is remembered, however many checks there have been since.
func TestRecordStepKeepsTheApply(t *testing.T) {
	m := liveMachine(t, "127.0.0.1:1")
	s, page := liveSession(t, m)
	now := time.Now()
	applied := stopwatch{began: now, applying: now, took: 5 * time.Second, apply: 4 * time.Second}
	s.recordStep(step.Result{Step: "kernel/swap", Outcome: step.Applied}, applied)
	s.recordStep(step.Result{Step: "kernel/swap", Outcome: step.Clean}, stopwatch{began: now, took: time.Second})
	want := func(words ...string) {
		t.Helper()
		text := page()
		wantAll(t, text, words...)
		state, err := agent.LoadState(m.host)
		if got := state.Steps["kernel/swap"]; err != nil || !strings.Contains(text, "nodeagent_step_apply_duration_seconds{step=\"kernel/swap\"} "+strings.TrimSuffix(got.ApplyTook.String(), "s")) {
			t.Errorf("%+v, %v in\n%s", got, err, text)
		}
	}
	want(`nodeagent_step_apply_duration_seconds{step="kernel/swap"} 4`, `nodeagent_step_duration_seconds{step="kernel/swap"} 1`,
		`nodeagent_step_applies_total{result="success",step="kernel/swap"} 1`)
	applied.apply = 7 * time.Second
	s.recordStep(step.Result{Step: "kernel/swap", Outcome: step.Failed}, applied)
	want(`nodeagent_step_apply_duration_seconds{step="kernel/swap"} 7`, `nodeagent_step_applies_total{result="failure",step="kernel/swap"} 1`)

	again, page := liveSession(t, m)
	again.announce(nil)
	wantAll(t, page(), `nodeagent_step_apply_duration_seconds{step="kernel/swap"} 7`, `nodeagent_step_applies_total{result="success",step="kernel/swap"} 0`,
		`nodeagent_step_applies_total{result="failure",step="kubeadm/certs"} 0`)
}

func TestStopwatch(t *testing.T) {
	at := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		stages      []step.Stage // a second apart
		took, apply time.Duration
		applied     bool
	}{
		"a check":          {[]step.Stage{step.Checking, step.Done}, time.Second, 0, false},
		"an apply":         {[]step.Stage{step.Checking, step.Applying, step.Verifying, step.Done}, 3 * time.Second, time.Second, true},
		"one that fails":   {[]step.Stage{step.Checking, step.Applying, step.Done}, 2 * time.Second, time.Second, true},
		"a wait":           {[]step.Stage{step.Checking, step.Awaiting, step.Awaiting, step.Awaiting, step.Done}, 4 * time.Second, 3 * time.Second, true},
		"the one after it": {[]step.Stage{step.Checking, step.Applying, step.Verifying, step.Done, step.Checking, step.Done}, time.Second, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			var w stopwatch
			for i, stage := range test.stages {
				w.observe(step.Event{Stage: stage}, at.Add(time.Duration(i)*time.Second))
			}
			if w.took != test.took || w.apply != test.apply || w.applied() != test.applied {
				t.Errorf("%+v", w)
			}
		})
	}
}
