package step_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeagent/nodeagent/pkg/step"
)

var (
	pending = step.Change{Subject: "swap", Have: "on", Want: "off"}
	finding = step.Change{Subject: "boot", Have: "other", Want: "ours", Manual: true}
	errBoom = errors.New("boom")
)

// found is one answer of a Check.
type found struct {
	changes []step.Change
	err     error
}

// scripted is a step whose Check gives one answer after the other, the last one again and
// again, and whose Apply ends in applyErr. It notes what is called.
func scripted(name string, calls *[]string, applyErr error, answers ...found) step.Step {
	asked := 0
	return step.Step{
		Name: name,
		Check: func(context.Context) ([]step.Change, error) {
			*calls = append(*calls, "check "+name)
			a := answers[min(asked, len(answers)-1)]
			asked++
			return a.changes, a.err
		},
		Apply: func(context.Context) error {
			*calls = append(*calls, "apply "+name)
			return applyErr
		},
	}
}

func preflight(name string, calls *[]string, answers ...found) step.Step {
	s := scripted(name, calls, nil, answers...)
	s.Apply = nil
	return s
}

func differs(changes ...step.Change) found { return found{changes: changes} }

func blocked(on string) found { return found{err: fmt.Errorf("look: %w", step.Blocked{On: on})} }

// line is an event on one line.
func line(e step.Event) string {
	if e.Stage != step.Done {
		return fmt.Sprintf("%d/%d %s %s", e.Index, e.Total, e.Step, e.Stage)
	}
	return fmt.Sprintf("%d/%d %s done: %s %s, %d pending, %d findings, %v",
		e.Index, e.Total, e.Step, e.Result.Step, e.Result.Outcome, len(e.Result.Pending()), len(e.Result.Findings()), e.Result.Err)
}

func want(t *testing.T, what string, want, have []string) {
	t.Helper()
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("%s (- wanted, + had):\n%s", what, diff)
	}
}

func TestPlanGoesThroughEveryStepAndAppliesNone(t *testing.T) {
	var calls, events []string
	steps := []step.Step{
		scripted("clean", &calls, nil, differs()),
		scripted("differs", &calls, nil, differs(pending, finding)),
		scripted("manual", &calls, nil, differs(finding)),
		scripted("broken", &calls, nil, found{err: errBoom}),
		scripted("after", &calls, nil, blocked("packages")),
		preflight("stopped", &calls, differs(pending)),
		preflight("noted", &calls, differs(finding)),
	}
	results := step.Plan(t.Context(), steps, func(e step.Event) { events = append(events, line(e)) })
	want(t, "calls", []string{"check clean", "check differs", "check manual", "check broken", "check after", "check stopped", "check noted"}, calls)
	want(t, "events", []string{
		"1/7 clean checking", "1/7 clean done: clean clean, 0 pending, 0 findings, <nil>",
		"2/7 differs checking", "2/7 differs done: differs differs, 1 pending, 1 findings, <nil>",
		"3/7 manual checking", "3/7 manual done: manual clean, 0 pending, 1 findings, <nil>",
		"4/7 broken checking", "4/7 broken done: broken failed, 0 pending, 0 findings, boom",
		"5/7 after checking", "5/7 after done: after waiting, 0 pending, 0 findings, look: not known before packages",
		"6/7 stopped checking", "6/7 stopped done: stopped stopped, 1 pending, 0 findings, <nil>",
		"7/7 noted checking", "7/7 noted done: noted clean, 0 pending, 1 findings, <nil>",
	}, events)
	var outcomes []string
	for _, r := range results {
		outcomes = append(outcomes, r.Step+" "+string(r.Outcome))
	}
	want(t, "results", []string{"clean clean", "differs differs", "manual clean", "broken failed", "after waiting", "stopped stopped", "noted clean"}, outcomes)
	if !errors.Is(results[3].Err, errBoom) {
		t.Errorf("the error of a step that could not be checked is %v", results[3].Err)
	}
	var b step.Blocked
	if !errors.As(results[4].Err, &b) || b.On != "packages" {
		t.Errorf("the error of a blocked step is %v", results[4].Err)
	}
}

func TestApplyInOrder(t *testing.T) {
	var calls, events []string
	steps := []step.Step{
		preflight("preflight", &calls, differs(finding)),
		scripted("clean", &calls, errBoom, differs(finding)),
		scripted("baked", &calls, errBoom, blocked(step.Boot)),
		scripted("mended", &calls, nil, differs(pending, finding), differs(finding)),
	}
	results, err := step.Apply(t.Context(), steps, func(e step.Event) { events = append(events, line(e)) })
	if err != nil {
		t.Fatal(err)
	}
	want(t, "calls", []string{"check preflight", "check clean", "check baked", "check mended", "apply mended", "check mended"}, calls)
	want(t, "events", []string{
		"1/4 preflight checking", "1/4 preflight done: preflight clean, 0 pending, 1 findings, <nil>",
		"2/4 clean checking", "2/4 clean done: clean clean, 0 pending, 1 findings, <nil>",
		"3/4 baked checking", "3/4 baked done: baked waiting, 0 pending, 0 findings, look: not known before boot",
		"4/4 mended checking", "4/4 mended applying", "4/4 mended verifying",
		"4/4 mended done: mended applied, 1 pending, 1 findings, <nil>",
	}, events)
	if len(results) != len(steps) {
		t.Errorf("%d results for %d steps", len(results), len(steps))
	}
}

func TestApplyStopsAtTheFirstFailure(t *testing.T) {
	tests := map[string]struct {
		bad   func(calls *[]string) step.Step
		calls []string
		out   step.Outcome
		is    error
		says  string
	}{
		"cannot be checked": {
			func(calls *[]string) step.Step { return scripted("bad", calls, nil, found{err: errBoom}) },
			[]string{"check bad"}, step.Failed, errBoom, "bad: check: boom",
		},
		"blocked on a step that is done": {
			func(calls *[]string) step.Step { return scripted("bad", calls, nil, blocked("packages")) },
			[]string{"check bad"}, step.Failed, step.Blocked{On: "packages"}, "bad: check: look: not known before packages",
		},
		"preflight": {
			func(calls *[]string) step.Step { return preflight("bad", calls, differs(pending, finding)) },
			[]string{"check bad"}, step.Stopped, step.ErrStopped, `bad: preflight stops here: swap: "on" → "off"`,
		},
		"apply fails": {
			func(calls *[]string) step.Step { return scripted("bad", calls, errBoom, differs(pending)) },
			[]string{"check bad", "apply bad"}, step.Failed, errBoom, "bad: apply: boom",
		},
		"does not converge": {
			func(calls *[]string) step.Step {
				return scripted("bad", calls, nil, differs(pending), differs(pending, finding))
			},
			[]string{"check bad", "apply bad", "check bad"}, step.Failed, step.ErrNotConverged, `bad: still differs after apply: swap: "on" → "off"`,
		},
		"cannot be checked afterwards": {
			func(calls *[]string) step.Step {
				return scripted("bad", calls, nil, differs(pending), found{err: errBoom})
			},
			[]string{"check bad", "apply bad", "check bad"}, step.Failed, errBoom, "bad: check after apply: boom",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var calls []string
			var last step.Event
			steps := []step.Step{test.bad(&calls), scripted("next", &calls, nil, differs(pending))}
			results, err := step.Apply(t.Context(), steps, func(e step.Event) { last = e })
			want(t, "calls", test.calls, calls)
			if err == nil || err.Error() != test.says || !errors.Is(err, test.is) {
				t.Errorf("error %v, want %q, a %v", err, test.says, test.is)
			}
			if len(results) != 1 || results[0].Step != "bad" || results[0].Outcome != test.out || !errors.Is(results[0].Err, test.is) {
				t.Errorf("results %+v, want one that is %s", results, test.out)
			}
			if last.Stage != step.Done || last.Result.Outcome != test.out {
				t.Errorf("the last event is %+v", last)
			}
		})
	}
}

func TestCancelled(t *testing.T) {
	why := errors.New("host shuts down")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	var calls []string
	steps := []step.Step{scripted("one", &calls, nil, differs(pending)), scripted("two", &calls, nil, differs(pending))}

	results := step.Plan(ctx, steps, nil)
	if len(results) != 2 || results[0].Outcome != step.Failed || results[1].Outcome != step.Failed || !errors.Is(results[1].Err, why) {
		t.Errorf("plan: %+v, want both failed because %v", results, why)
	}
	results, err := step.Apply(ctx, steps, nil)
	if !errors.Is(err, why) || len(results) != 1 || results[0].Outcome != step.Failed {
		t.Errorf("apply: %+v, %v, want the first failed because %v", results, err, why)
	}
	want(t, "calls", nil, calls)
}

func TestCancelledDuringApplyIsNoSuccess(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var calls []string
	s := scripted("one", &calls, nil, differs(pending), differs())
	apply := s.Apply
	s.Apply = func(ctx context.Context) error { cancel(); return apply(ctx) }
	results, err := step.Apply(ctx, []step.Step{s, scripted("two", &calls, nil, differs(pending))}, nil)
	if !errors.Is(err, context.Canceled) || len(results) != 1 || results[0].Outcome != step.Failed {
		t.Errorf("apply: %+v, %v, want the first failed and cancelled", results, err)
	}
	want(t, "calls", []string{"check one", "apply one"}, calls)
}

func TestSelect(t *testing.T) {
	var steps []step.Step
	for _, name := range []string{"preflight", "kernel/swap", "kernel/sysctl", "kernels", "kubeadm/init"} {
		steps = append(steps, step.Step{Name: name})
	}
	tests := map[string]struct {
		only, skip, want []string
		err              string
	}{
		"all":              {want: []string{"preflight", "kernel/swap", "kernel/sysctl", "kernels", "kubeadm/init"}},
		"one":              {only: []string{"kernel/sysctl"}, want: []string{"kernel/sysctl"}},
		"area":             {only: []string{"kernel"}, want: []string{"kernel/swap", "kernel/sysctl"}},
		"order is theirs":  {only: []string{"kubeadm", "preflight"}, want: []string{"preflight", "kubeadm/init"}},
		"skip":             {skip: []string{"kernel", "preflight"}, want: []string{"kernels", "kubeadm/init"}},
		"skip of only":     {only: []string{"kernel"}, skip: []string{"kernel/swap"}, want: []string{"kernel/sysctl"}},
		"skip all":         {only: []string{"kernel"}, skip: []string{"kernel"}},
		"unknown":          {only: []string{"kernel", "swap"}, err: `select steps: no step "swap"`},
		"unknown to skip":  {skip: []string{"kernel/"}, err: `select steps: no step "kernel/"`},
		"empty is no step": {only: []string{""}, err: `select steps: no step ""`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			selected, err := step.Select(steps, test.only, test.skip)
			if fmt.Sprint(err) != test.err && (err != nil || test.err != "") {
				t.Errorf("error %v, want %q", err, test.err)
			}
			var names []string
			for _, s := range selected {
				names = append(names, s.Name)
			}
			want(t, "selected", test.want, names)
		})
	}
}
