package step_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nodeagent/nodeagent/pkg/step"
)

// waits is a step that waits for 10 s and is clean after some checks; errs are those of checks.
func waits(cleanAfter int, errs map[int]error) (step.Step, *int) {
	checks := 0
	return step.Step{Name: "node/ready", Wait: 10 * time.Second, Check: func(context.Context) ([]step.Change, error) {
		checks++
		if err := errs[checks]; err != nil {
			return nil, err
		}
		if checks > cleanAfter {
			return []step.Change{{Subject: "clock", Have: "slow", Want: "right", Manual: true}}, nil
		}
		return []step.Change{{Subject: "node", Have: strings.Repeat("not ", checks) + "ready", Want: "ready"}}, nil
	}}, &checks
}

func TestApplyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, checks := waits(3, map[int]error{2: errors.New("connection refused")})
		var told []string
		results, err := step.Apply(t.Context(), []step.Step{s}, func(e step.Event) {
			text := string(e.Stage)
			if e.Stage == step.Awaiting {
				text += " " + e.Result.Changes[0].Have
				if e.Result.Err != nil {
					text += " (" + e.Result.Err.Error() + ")"
				}
			}
			told = append(told, text)
		})
		if err != nil || results[0].Outcome != step.Applied {
			t.Fatalf("%v, %v", results, err)
		}
		want := "checking, awaiting not ready, awaiting not ready (connection refused), awaiting not not not ready, done"
		if got := strings.Join(told, ", "); got != want || *checks != 4 {
			t.Errorf("told %s\nwant %s, and %d checks", got, want, *checks)
		}
	})
}

func TestApplyWaitsNoLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := waits(1000, nil)
		began := time.Now()
		results, err := step.Apply(t.Context(), []step.Step{s}, nil)
		if !errors.Is(err, step.ErrNotYet) || !strings.Contains(err.Error(), "not ready") || results[0].Outcome != step.Failed {
			t.Errorf("%v, %v", results, err)
		}
		if took := time.Since(began); took != s.Wait {
			t.Errorf("it waited %s", took)
		}
	})
}

func TestApplyWaitsUntilCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := waits(1000, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if _, err := step.Apply(ctx, []step.Step{s}, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
	})
}

// A plan waits for nothing: it says what is waited for.
func TestPlanDoesNotWait(t *testing.T) {
	s, checks := waits(1000, nil)
	if r := step.Plan(t.Context(), []step.Step{s}, nil)[0]; r.Outcome != step.Differs || *checks != 1 {
		t.Errorf("%+v after %d checks", r, *checks)
	}
}

// A check that hangs until the time is over does not hide what was found before it.
func TestApplyWaitsOnAHangingCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		checks := 0
		s := step.Step{Name: "node/ready", Wait: 10 * time.Second, Check: func(ctx context.Context) ([]step.Change, error) {
			if checks++; checks > 2 {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return []step.Change{{Subject: "node", Have: "not ready", Want: "ready"}}, nil
		}}
		_, err := step.Apply(t.Context(), []step.Step{s}, nil)
		if !errors.Is(err, step.ErrNotYet) || !strings.Contains(err.Error(), "node: not ready") {
			t.Errorf("error %v", err)
		}
	})
}
