package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nodeagent/nodeagent/pkg/step"
)

// A subject that is corrected this often within this long is not drifting: something changes
// it back, and correcting it once more would only hide that.
const (
	flapLimit  = 3
	flapWindow = time.Hour
)

// Flapping remembers corrections. The zero value is ready to use.
type Flapping struct {
	mu   sync.Mutex
	done map[string][]time.Time // step and subject → when it was corrected
}

// Exhausted says whether the subject of a step has been corrected too often to be corrected at
// now once more.
func (f *Flapping) Exhausted(stepName, subject string, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.recent(stepName, subject, now)) >= flapLimit
}

// Corrected records a correction.
func (f *Flapping) Corrected(stepName, subject string, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.done == nil {
		f.done = map[string][]time.Time{}
	}
	f.done[stepName+"\x00"+subject] = append(f.recent(stepName, subject, now), now)
}

// recent are the corrections within the window. A clock that was set back leaves them in it.
func (f *Flapping) recent(stepName, subject string, now time.Time) []time.Time {
	return slices.DeleteFunc(slices.Clone(f.done[stepName+"\x00"+subject]), func(at time.Time) bool {
		return now.Sub(at) >= flapWindow
	})
}

// Drift is what one look at the host came to.
type Drift struct {
	Results   []step.Result // of every step; Applied where it was mended
	Corrected []Correction
	Flapping  []Correction // left alone, since they keep coming back
}

// Correction is one difference of one step.
type Correction struct {
	Step   string
	Change step.Change
}

// Mend checks every step and applies those that differ and are harmless, one at a time. It
// never applies one of whose changes one is disruptive, or flaps. A step that cannot be
// checked or mended is a Failed result and does not keep the others from being mended.
func Mend(ctx context.Context, steps []step.Step, harmless func(name string) bool, f *Flapping, now time.Time, observe func(step.Event)) Drift {
	var d Drift
	for _, s := range steps {
		result := step.Plan(ctx, []step.Step{s}, observe)[0]
		pending := result.Pending()
		if result.Outcome == step.Differs && harmless(s.Name) && !slices.ContainsFunc(pending, disruptive) {
			if flapping := d.flapping(s.Name, pending, f, now); len(flapping) > 0 {
				d.Flapping = append(d.Flapping, flapping...)
			} else {
				result = mend(ctx, s, f, now, observe)
				d.corrected(s.Name, result)
			}
		}
		d.Results = append(d.Results, result)
	}
	return d
}

func disruptive(c step.Change) bool { return c.Disruptive }

func (d *Drift) flapping(name string, pending []step.Change, f *Flapping, now time.Time) []Correction {
	var out []Correction
	for _, c := range pending {
		if f.Exhausted(name, c.Subject, now) {
			out = append(out, Correction{name, c})
		}
	}
	return out
}

func mend(ctx context.Context, s step.Step, f *Flapping, now time.Time, observe func(step.Event)) step.Result {
	results, err := step.Apply(ctx, []step.Step{s}, observe)
	if len(results) == 0 {
		return step.Result{Step: s.Name, Outcome: step.Failed, Err: fmt.Errorf("mend: %w", err)}
	}
	// One that could not be made corrects nothing: when its cause is gone, a full disk for one, it
	// is to be tried.
	if r := results[0]; r.Outcome == step.Applied || errors.Is(r.Err, step.ErrNotConverged) {
		for _, c := range r.Pending() {
			f.Corrected(s.Name, c.Subject, now)
		}
	}
	return results[0]
}

func (d *Drift) corrected(name string, r step.Result) {
	if r.Outcome != step.Applied {
		return
	}
	for _, c := range r.Pending() {
		d.Corrected = append(d.Corrected, Correction{name, c})
	}
}
