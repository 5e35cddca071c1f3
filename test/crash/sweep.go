package crash

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// A Trial is a machine, fresh, with the program that is killed on it.
type Trial struct {
	Command Command
	// Check looks at what a run has left and may go on from there: run the program again, to
	// see that it converges. It is called for a run that was killed and for one that was not.
	Check func(t *testing.T, r Result)
}

const (
	// maxPoints is more than any program under test needs; a sweep that gets there has none
	// that ends.
	maxPoints = 2000
	// maxTime is what one run may take.
	maxTime = 2 * time.Minute
)

// Sweep runs a program to its end once, then kills it at each of its calls that count, every
// time in a fresh trial and, named after the call's number, in a subtest of its own. Trials run
// side by side. It returns the number of points, and fails t if the program does not end by
// itself with the exit code 0 when it is left alone.
func Sweep(t *testing.T, fresh func(t *testing.T) Trial) (points int) {
	t.Helper()
	r := try(t, fresh, 0)
	if r.ExitCode != 0 {
		t.Fatalf("left alone the program exits %d:\n%s", r.ExitCode, r.Output)
	}
	points = r.Calls
	if points == 0 || points > maxPoints {
		t.Fatalf("left alone the program makes %d calls that count: between 1 and %d can be swept", points, maxPoints)
	}
	t.Run("killed", func(t *testing.T) {
		for n := 1; n <= points; n++ {
			t.Run(fmt.Sprintf("%03d", n), func(t *testing.T) {
				t.Parallel()
				try(t, fresh, n)
			})
		}
	})
	// A program of several threads may make more calls at another time.
	for more := true; more && points < maxPoints; {
		more = false
		t.Run(fmt.Sprintf("killed/%03d", points+1), func(t *testing.T) { more = try(t, fresh, points+1).Killed })
		if more {
			points++
		}
	}
	return points
}

func try(t *testing.T, fresh func(t *testing.T) Trial, n int) Result {
	t.Helper()
	trial := fresh(t)
	ctx, cancel := context.WithTimeout(t.Context(), maxTime)
	defer cancel()
	r, err := Run(ctx, trial.Command, n)
	if err != nil {
		t.Fatalf("%v\n%s", err, r.Output)
	}
	if r.Killed {
		t.Logf("killed in place of call %d: %s", r.Calls, r.Log[len(r.Log)-1])
	}
	trial.Check(t, r)
	return r
}
