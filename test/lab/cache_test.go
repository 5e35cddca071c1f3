package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// testArtefact counts how often it is made.
func testArtefact(input string, made *int, fail error) artefact {
	return artefact{
		name:   "thing",
		inputs: func(_ *lab, w io.Writer) error { _, err := fmt.Fprint(w, input); return err },
		make: func(_ context.Context, _ *lab, dir string, _ map[string]string) error {
			*made++
			return errors.Join(os.WriteFile(filepath.Join(dir, "file"), []byte(input), 0o600), fail)
		},
	}
}

func TestBuild(t *testing.T) {
	l := &lab{cache: t.TempDir(), log: io.Discard}
	made := 0
	var first string
	t.Run("many callers, one build", func(t *testing.T) {
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if _, err := l.build(t.Context(), testArtefact("1", &made, nil)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		var err error
		if first, err = l.build(t.Context(), testArtefact("1", &made, nil)); err != nil || made != 1 {
			t.Errorf("made %d times, %v", made, err)
		}
	})
	t.Run("other inputs, another directory", func(t *testing.T) {
		other, err := l.build(t.Context(), testArtefact("2", &made, nil))
		if err != nil || other == first || made != 2 {
			t.Errorf("%s and %s, made %d times, %v", first, other, made, err)
		}
	})
	t.Run("a failed build leaves nothing and is tried again", func(t *testing.T) {
		broken := errors.New("broken")
		if dir, err := l.build(t.Context(), testArtefact("3", &made, broken)); !errors.Is(err, broken) {
			t.Errorf("%s, %v", dir, err)
		}
		if _, err := l.build(t.Context(), testArtefact("3", &made, nil)); err != nil || made != 4 {
			t.Errorf("made %d times, %v", made, err)
		}
	})
	t.Run("what is long unused goes with the next build", func(t *testing.T) {
		old := time.Now().Add(-2 * keep)
		if err := os.Chtimes(first, old, old); err != nil {
			t.Fatal(err)
		}
		if _, err := l.build(t.Context(), testArtefact("4", &made, nil)); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(first); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is there: %v", first, err)
		}
	})
	t.Run("a waiter gives up with its context", func(t *testing.T) {
		unlock, err := lockFile(t.Context(), filepath.Join(l.cache, "thing.lock"))
		if err != nil {
			t.Fatal(err)
		}
		defer unlock()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if _, err := l.build(ctx, testArtefact("5", &made, nil)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}
