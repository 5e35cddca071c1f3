package agent

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/step"
)

// Drift that could not be mended for a while is mended once it can be; what is changed back again
// and again is left alone, whether that shows at once or at the next look.
func TestMendGivesUpOnlyOnWhatComesBack(t *testing.T) {
	for name, test := range map[string]struct {
		fails bool // to be applied, for the first looks
		back  bool // it is changed back before it is checked
		tries int  // of ten looks
	}{
		"a full disk":                {fails: true, tries: 10},
		"changed back at once":       {back: true, tries: flapLimit},
		"changed back after a while": {tries: flapLimit},
	} {
		t.Run(name, func(t *testing.T) {
			differs, tries := true, 0
			s := step.Step{
				Name: "etc/file",
				Check: func(context.Context) ([]step.Change, error) {
					if differs {
						return []step.Change{{Subject: "file", Have: "gone", Want: "there"}}, nil
					}
					return nil, nil
				},
				Apply: func(context.Context) error {
					tries++
					if test.fails {
						return syscall.ENOSPC
					}
					differs = test.back
					return nil
				},
			}
			var f Flapping
			look := func() Drift {
				return Mend(t.Context(), []step.Step{s}, func(string) bool { return true }, &f, time.Unix(1790000000, 0), nil)
			}
			for range 10 {
				differs = true
				look()
			}
			if tries != test.tries {
				t.Errorf("tried %d times, want %d", tries, test.tries)
			}
			if !test.fails {
				return
			}
			test.fails = false
			if d := look(); len(d.Corrected) != 1 || len(d.Flapping) != 0 {
				t.Errorf("once it can be done: %+v", d)
			}
		})
	}
}
