package agent

import (
	"errors"
	"slices"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/step/steptest"
)

// The marks and the state are written where no other user's link leads.
func TestLinks(t *testing.T) {
	paths := steptest.Attack(t, func(t *testing.T) (string, func() error) {
		h := tree(t, map[string]string{"/etc/machine-id": thisMachine + "\n"})
		return h.Root, func() error {
			return errors.Join(
				UpdateState(t.Context(), h, func(s *State) { s.Steps["a/b"] = StepState{Outcome: "clean"} }),
				BeginBootstrap(h), CompleteBootstrap(h, "applied"))
		}
	})
	for _, want := range []string{"var/lib/nodeagent/state.json", "var/lib/nodeagent/bootstrapped", "var/lib/nodeagent/.bootstrapped.nodeagent", "run/nodeagent/state.lock"} {
		if !slices.Contains(paths, want) {
			t.Errorf("%s is not among %q", want, paths)
		}
	}
}
