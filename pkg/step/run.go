package step

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Stage is what a runner is doing to a step.
type Stage string

// The stages, in the order a step goes through them. Plan goes from Checking to Done. A step
// that waits is Awaiting in place of Applying and Verifying.
const (
	Checking  Stage = "checking"
	Applying  Stage = "applying"
	Awaiting  Stage = "awaiting"
	Verifying Stage = "verifying"
	Done      Stage = "done"
)

// awaitInterval is between two checks of a step that waits.
const awaitInterval = 2 * time.Second

// Event is one thing that happened to one step, told as it happens. Events carry no time:
// whoever observes them has the clock.
type Event struct {
	Step         string
	Index, Total int // Index counts from 1
	Stage        Stage
	Beside       []string // the steps whose work goes on beside this one
	Result       Result   // of a Done event; of an Awaiting one the Changes that are waited for
}

// Plan checks every step and applies none. A step that cannot be checked is a Failed result,
// not the end of the plan; after ctx is done the remaining steps fail with its error.
// observe may be nil.
func Plan(ctx context.Context, steps []Step, observe func(Event)) []Result {
	results := make([]Result, 0, len(steps))
	for i, s := range steps {
		r := runner{observe: observe, index: i + 1, total: len(steps), step: s}
		results = append(results, r.plan(ctx))
	}
	return results
}

// Apply checks each step, applies it where it differs and checks it again. It stops at the
// first step that fails, is stopped by a preflight or still differs, and returns the results
// so far with that step's error, which names the step. Steps blocked on Boot are passed over.
// What a step does beside the others has ended when Apply returns. observe may be nil.
func Apply(ctx context.Context, steps []Step, observe func(Event)) ([]Result, error) {
	var results []Result
	besides := &beside{}
	defer besides.end()
	for i, s := range steps {
		r := runner{observe: observe, beside: besides, index: i + 1, total: len(steps), step: s}
		result := r.apply(ctx)
		results = append(results, result)
		if result.Err != nil && result.Outcome != Waiting {
			return results, fmt.Errorf("%s: %w", s.Name, result.Err)
		}
		if s.Beside != nil && result.Err == nil {
			besides.begin(ctx, s)
		}
	}
	return results, nil
}

type runner struct {
	observe      func(Event)
	beside       *beside // nil in a plan
	index, total int
	step         Step
}

func (r runner) tell(stage Stage, result Result) {
	if r.observe != nil {
		r.observe(Event{Step: r.step.Name, Index: r.index, Total: r.total, Stage: stage, Beside: r.beside.steps(), Result: result})
	}
}

func (r runner) done(result Result) Result {
	result.Step = r.step.Name
	r.tell(Done, result)
	return result
}

func (r runner) check(ctx context.Context, stage Stage) ([]Change, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	r.tell(stage, Result{})
	return r.step.Check(ctx)
}

func (r runner) plan(ctx context.Context) Result {
	changes, err := r.check(ctx, Checking)
	result := Result{Changes: changes, Err: err}
	var blocked Blocked
	switch {
	case errors.As(err, &blocked):
		result.Outcome = Waiting
	case err != nil:
		result.Outcome = Failed
	case len(result.Pending()) == 0:
		result.Outcome = Clean
	case r.step.Apply == nil && r.step.Wait == 0:
		result.Outcome = Stopped
	default:
		result.Outcome = Differs
	}
	return r.done(result)
}

func (r runner) apply(ctx context.Context) Result {
	changes, err := r.check(ctx, Checking)
	result := Result{Changes: changes, Outcome: Failed}
	var blocked Blocked
	if errors.As(err, &blocked) && blocked.On == Boot {
		result.Outcome, result.Err = Waiting, err
		return r.done(result)
	}
	if err != nil {
		result.Err = fmt.Errorf("check: %w", err)
		return r.done(result)
	}
	if len(result.Pending()) == 0 {
		result.Outcome = Clean
		return r.done(result)
	}
	if r.step.Apply == nil && r.step.Wait > 0 {
		return r.done(r.await(ctx, result))
	}
	if r.step.Apply == nil {
		result.Outcome, result.Err = Stopped, fmt.Errorf("%w: %s", ErrStopped, describe(result.Pending()))
		return r.done(result)
	}
	r.tell(Applying, Result{})
	if err := r.step.Apply(ctx); err != nil {
		result.Err = fmt.Errorf("apply: %w", err)
		return r.done(result)
	}
	left, err := r.check(ctx, Verifying)
	if err != nil {
		result.Err = fmt.Errorf("check after apply: %w", err)
		return r.done(result)
	}
	if pending := filter(left, false); len(pending) > 0 {
		result.Err = fmt.Errorf("%w: %s", ErrNotConverged, describe(pending))
		return r.done(result)
	}
	result.Outcome = Applied
	return r.done(result)
}

// await checks again and again until nothing is pending. A check that fails is not the end: what
// is waited for may be what it asks.
func (r runner) await(ctx context.Context, result Result) Result {
	ctx, cancel := context.WithTimeoutCause(ctx, r.step.Wait, fmt.Errorf("waited %s", r.step.Wait))
	defer cancel()
	tick := time.NewTicker(awaitInterval)
	defer tick.Stop()
	last := error(nil)
	for changes := result.Changes; ; {
		found := Result{Step: r.step.Name, Changes: changes, Err: last}
		r.tell(Awaiting, found)
		select {
		case <-ctx.Done():
			result.Err = fmt.Errorf("%w: %w: %s", ErrNotYet, context.Cause(ctx), found.Why())
			return result
		case <-tick.C:
		}
		now, err := r.step.Check(ctx)
		if err != nil && ctx.Err() != nil {
			continue // cut off: what was found before is the reason
		}
		if last = err; err != nil {
			continue
		}
		if changes = now; len(filter(changes, false)) == 0 {
			result.Outcome = Applied
			return result
		}
	}
}

func describe(changes []Change) string {
	words := make([]string, len(changes))
	for i, c := range changes {
		words[i] = c.String()
	}
	return strings.Join(words, "; ")
}
