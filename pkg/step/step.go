// Package step is the unit of desired host state: a value that can say how the host differs
// from what is wanted and make it so, and the two runners over a slice of them, Plan and Apply.
//
// It imports nothing of ours. Everything the agent does to a host is a Step, so that plan,
// preflight, apply and drift are the same code looked at from four sides.
package step

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Step is one piece of desired host state.
type Step struct {
	// Name is "area/thing", as in "kernel/sysctl". It appears in flags, logs, state and
	// metrics, and is never renamed once released.
	Name string

	// Check tells how the host differs from what is wanted. It never modifies the host.
	// It may return Blocked when it cannot tell before another step is applied.
	Check func(context.Context) ([]Change, error)

	// Apply makes the host so. It is repeatable, and after a crash at any point a second
	// run converges. A nil Apply is a preflight: it reports and stops, it mends nothing.
	Apply func(context.Context) error

	// Wait makes a step without an Apply one that waits: what differs goes away without it (a
	// program starts, a node becomes ready). Check is asked again until it finds nothing, or
	// for so long; what it finds meanwhile is told, so it says why.
	Wait time.Duration

	// Beside is slow work that the runner Apply begins once the step itself is as wanted, and does
	// not wait for: it goes on beside the steps that come after, one of which joins it and tells
	// what became of it. Its ctx ends when the run ends, and the run ends only after it has. Plan
	// never begins it.
	Beside func(context.Context)
}

// Change is one difference between the host and what is wanted, in words for operators.
// It never holds a secret.
type Change struct {
	Subject string `json:"subject"` // what differs: a file, a sysctl, a unit
	Have    string `json:"have"`    // how it is
	Want    string `json:"want"`    // how it is to be
	// Disruptive says that making it so restarts containerd, kubelet or a static pod.
	Disruptive bool `json:"disruptive,omitempty"`
	// Manual says that only a person can mend it. It is reported as a finding, and Apply is
	// not blamed for it.
	Manual bool `json:"manual,omitempty"`
}

// String is the change on one line: `net.ipv4.ip_forward: "0" → "1"`.
func (c Change) String() string {
	return fmt.Sprintf("%s: %q → %q", c.Subject, c.Have, c.Want)
}

// Boot is what a step is blocked on when the tree it is applied to is not a running machine
// (`--root`): Apply reports such a step and goes on.
const Boot = "boot"

// Blocked is the error of a Check that cannot tell yet: the step named On (or Boot) must be
// done first. Plan reports it and goes on; Apply treats it as a failure, since by the time it
// gets there that step has been applied.
type Blocked struct{ On string }

func (b Blocked) Error() string { return "not known before " + b.On }

// ErrNotConverged is the failure of a step whose Apply succeeded and whose Check still finds
// differences afterwards.
var ErrNotConverged = errors.New("still differs after apply")

// ErrNotYet is the failure of a step that waits, when its time is over.
var ErrNotYet = errors.New("is not yet as it should be")

// ErrStopped is the failure of a preflight step: it differs and has no Apply.
var ErrStopped = errors.New("preflight stops here")

// Outcome is how a step ended.
type Outcome string

// The outcomes. Clean: nothing to do. Differs: Plan would have it applied. Applied: it was
// changed and then checked clean. Waiting: blocked on another step, or on a boot. Stopped: a
// preflight found something that is in the way. Failed: see Result.Err.
const (
	Clean   Outcome = "clean"
	Differs Outcome = "differs"
	Applied Outcome = "applied"
	Waiting Outcome = "waiting"
	Stopped Outcome = "stopped"
	Failed  Outcome = "failed"
)

// Result is what became of one step. Changes are those found before Apply, findings
// (Change.Manual) among them.
type Result struct {
	Step    string
	Outcome Outcome
	Changes []Change
	Err     error
}

// Findings are the changes that only a person can mend.
func (r Result) Findings() []Change { return filter(r.Changes, true) }

// Pending are the changes that Apply is for.
func (r Result) Pending() []Change { return filter(r.Changes, false) }

// Why is what is waited for, on one line: the pending changes as they are, or the error.
func (r Result) Why() string {
	if r.Err != nil {
		return r.Err.Error()
	}
	words := make([]string, 0, len(r.Changes))
	for _, c := range r.Pending() {
		words = append(words, c.Subject+": "+c.Have)
	}
	return strings.Join(words, "; ")
}

func filter(changes []Change, manual bool) []Change {
	var out []Change
	for _, c := range changes {
		if c.Manual == manual {
			out = append(out, c)
		}
	}
	return out
}

// Select returns the steps named by only (all when empty) less those named by skip, in their
// order. A name is a step's, or an area before the slash. A name that is nobody's is an error.
func Select(steps []Step, only, skip []string) ([]Step, error) {
	matches := func(s Step, name string) bool {
		return s.Name == name || len(s.Name) > len(name) && s.Name[:len(name)] == name && s.Name[len(name)] == '/'
	}
	for _, name := range append(append([]string{}, only...), skip...) {
		known := false
		for _, s := range steps {
			known = known || matches(s, name)
		}
		if !known {
			return nil, fmt.Errorf("select steps: no step %q", name)
		}
	}
	named := func(s Step, names []string) bool {
		for _, n := range names {
			if matches(s, n) {
				return true
			}
		}
		return false
	}
	var out []Step
	for _, s := range steps {
		if (len(only) == 0 || named(s, only)) && !named(s, skip) {
			out = append(out, s)
		}
	}
	return out, nil
}
