// Package steptest holds the test that every step has to pass.
package steptest

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
)

// Converges fails t unless the step, on a host that differs, keeps the promise of every step:
// Check finds changes and modifies nothing; Apply makes them so; Check then finds none but
// those that only a person can mend; a second Apply changes nothing at all, down to the times
// and inodes of files. "Nothing" is judged by the tree under h.Root, which is to be a test's
// own directory.
func Converges(t testing.TB, h *host.Host, s step.Step) {
	t.Helper()
	if err := converges(t.Context(), h.Root, s); err != nil {
		t.Fatalf("%s does not converge: %v", s.Name, err)
	}
}

func converges(ctx context.Context, root string, s step.Step) error {
	if s.Apply == nil {
		return errors.New("it has no Apply")
	}
	before, err := check(ctx, root, s)
	if err != nil {
		return fmt.Errorf("first check: %w", err)
	}
	if len(before) == 0 {
		return errors.New("the first check found nothing to apply: give it a host that differs")
	}
	if err := s.Apply(ctx); err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	if err := clean(ctx, root, s); err != nil {
		return fmt.Errorf("after apply: %w", err)
	}
	tree, err := snapshot(root)
	if err != nil {
		return err
	}
	if err := s.Apply(ctx); err != nil {
		return fmt.Errorf("second apply: %w", err)
	}
	if err := tree.unchanged(root); err != nil {
		return fmt.Errorf("second apply: %w", err)
	}
	if err := clean(ctx, root, s); err != nil {
		return fmt.Errorf("after second apply: %w", err)
	}
	return nil
}

// check runs Check, which is to leave the tree alone, and returns the changes that Apply is for.
func check(ctx context.Context, root string, s step.Step) ([]step.Change, error) {
	tree, err := snapshot(root)
	if err != nil {
		return nil, err
	}
	changes, err := s.Check(ctx)
	if err := errors.Join(err, tree.unchanged(root)); err != nil {
		return nil, err
	}
	for _, c := range changes {
		if c.Subject == "" || c.Have == c.Want {
			return nil, fmt.Errorf("a change that tells an operator nothing: %+v", c)
		}
	}
	return step.Result{Changes: changes}.Pending(), nil
}

func clean(ctx context.Context, root string, s step.Step) error {
	left, err := check(ctx, root, s)
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	if len(left) > 0 {
		return fmt.Errorf("check still finds %v", left)
	}
	return nil
}
