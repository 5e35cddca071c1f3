package crash_test

import (
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/test/crash"
)

// apply on a machine image, killed at every point: what is the user's is as it was or as it is
// to be, and the next run ends where one that nobody killed ends.
func TestApply(t *testing.T) {
	for _, test := range []struct{ name, archive, umask string }{
		{"own files", "own-files", ""},
		{"bare image with the unit's umask", "bare", "077"}, // see deploy/systemd
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			whole := newMachine(t, test.archive, test.umask)
			before := whole.tree()
			whole.does(0, "apply")
			whole.does(0, "plan")
			after := whole.tree()
			if len(after) < len(before)+5 {
				t.Fatalf("apply has done next to nothing: %q", after.Differences(before))
			}
			for path, was := range before {
				is, stays := after[path]
				if stays && (is.Mode != was.Mode || is.UID != was.UID || is.GID != was.GID) {
					t.Errorf("%s was %s and is %s", path, was, is)
				}
			}
			points := crash.Sweep(t, func(t *testing.T) crash.Trial {
				m := newMachine(t, test.archive, test.umask)
				return crash.Trial{Command: m.nodeagent("apply"), Check: func(t *testing.T, r crash.Result) {
					m.t = t
					oldOrNew(t, m.tree(), before, after)
					m.converges(after)
				}}
			})
			t.Logf("killed at %d points", points)
		})
	}
}

// converges runs apply once more, after which the machine has to be as it is to be, with
// nothing left over.
func (m machine) converges(want crash.Tree) {
	m.t.Helper()
	m.does(0, "apply")
	if plan := m.does(0, "plan"); !strings.Contains(plan, "nothing to change") {
		m.t.Errorf("the plan after it says\n%s", plan)
	}
	for _, d := range m.tree().Differences(want) {
		m.t.Errorf("after another apply %s", d)
	}
}

// Killed again and again, it still gets on, and what it leaves does not pile up.
func TestApplyInACrashLoop(t *testing.T) {
	whole := newMachine(t, "own-files", "")
	before := whole.tree()
	whole.does(0, "apply")
	after := whole.tree()

	m := newMachine(t, "own-files", "")
	const atOnce = 12 // calls: enough to take the lock and to write one file
	for runs := 1; ; runs++ {
		r := run(t, m.nodeagent("apply"), atOnce)
		have := m.tree()
		oldOrNew(t, have, before, after)
		left := 0
		for path := range have {
			if litter(path) {
				left++
			}
		}
		if left > 1 {
			t.Errorf("run %d: %d temporary files are about", runs, left)
		}
		if !r.Killed {
			t.Logf("done after %d runs", runs)
			break
		}
		if runs == 100 {
			t.Fatal("100 runs, and not yet done")
		}
	}
	m.converges(after)
}
