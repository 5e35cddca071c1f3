package bootstrap

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/step/steptest"
)

// slowCtr is a containerd whose imports go on until they are let go on or ended.
type slowCtr struct {
	mu      sync.Mutex
	fake    fakeCtr
	early   bool       // it names the images before it has unpacked them, as ctr does
	begun   []string   // imports
	running int        // imports at this time
	most    int        // at any time
	let     chan error // how the next import ends
}

func (s *slowCtr) exec(ctx context.Context, c host.Command) ([]byte, error) {
	archive := c.Args[len(c.Args)-1]
	if !strings.HasSuffix(archive, ".tar") {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.fake.exec(ctx, c)
	}
	s.mu.Lock()
	s.begun = append(s.begun, archive[strings.LastIndexByte(archive, '/')+1:])
	s.running++
	s.most = max(s.most, s.running)
	if s.early {
		_, _ = s.fake.exec(ctx, c)
	}
	s.mu.Unlock()
	var err error
	select {
	case <-ctx.Done():
		err = context.Cause(ctx)
	case err = <-s.let:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
	if err != nil || s.early {
		return nil, err
	}
	return s.fake.exec(ctx, c)
}

// slowImages are the two steps on a host with two archives, and a step between them that returns what
// between does.
func slowImages(t *testing.T, s *slowCtr, between func(context.Context) error) []step.Step {
	t.Helper()
	s.let = make(chan error)
	h := imagesHost(t, &s.fake)
	h.Exec = s.exec
	answering(t, h)
	begin, join := ImagesAhead(h, []string{"/a.tar", "/b.tar"}, "")
	applied := false
	middle := step.Step{Name: "packages", Check: func(context.Context) ([]step.Change, error) {
		if applied {
			return nil, nil
		}
		return []step.Change{{Subject: "kubelet", Have: "absent", Want: "there"}}, nil
	}, Apply: func(ctx context.Context) error {
		err := between(ctx)
		applied = err == nil
		return err
	}}
	return []step.Step{begin, middle, join}
}

// The import goes on beside the step between, is named while it does, and is joined: also when
// all images have their names already.
func TestImagesGoOnBeside(t *testing.T) {
	for _, early := range []bool{false, true} {
		s := &slowCtr{early: early}
		steps := slowImages(t, s, func(context.Context) error {
			s.let <- nil // the first archive is imported while this step is applied
			return nil
		})
		var besides []string
		joining := false
		results, err := step.Apply(t.Context(), steps, func(e step.Event) {
			if e.Step == ImagesStep && e.Stage == step.Applying {
				joining = true
				besides = e.Beside
				go func() { s.let <- nil }()
			}
		})
		if err != nil || results[0].Outcome != step.Clean || results[2].Outcome != step.Applied {
			t.Errorf("%+v, %v", results, err)
		}
		if !joining || !slices.Equal(besides, []string{ImagesBeginStep}) {
			t.Errorf("beside %q", besides)
		}
		if !slices.Equal(s.begun, []string{"a.tar", "b.tar"}) || s.most != 1 {
			t.Errorf("imported %q, %d at a time", s.begun, s.most)
		}
		// All is there: nothing is begun, and nothing reported.
		results, err = step.Apply(t.Context(), steps, nil)
		if err != nil || slices.ContainsFunc(results, func(r step.Result) bool { return r.Outcome != step.Clean }) || len(s.begun) != 2 {
			t.Errorf("%+v, %v, imported %q", results, err, s.begun)
		}
	}
}

// A failed import is the error of "images", with the archive's name; the next run tries again.
func TestImagesBesideFail(t *testing.T) {
	s := &slowCtr{early: true} // even where the images have their names
	steps := slowImages(t, s, func(context.Context) error { s.let <- errors.New("no space left on device"); return nil })
	results, err := step.Apply(t.Context(), steps, nil)
	wantError(t, err, "images: apply: import /a.tar: no space left on device")
	if len(results) != 3 || results[2].Outcome != step.Failed {
		t.Errorf("%+v", results)
	}
	s.mu.Lock()
	s.early, s.fake.images = false, nil
	s.mu.Unlock()
	go func() { s.let <- nil; s.let <- nil }()
	if _, err := step.Apply(t.Context(), steps, nil); err != nil {
		t.Error(err)
	}
	if !slices.Equal(s.begun, []string{"a.tar", "a.tar", "b.tar"}) || s.most != 1 {
		t.Errorf("imported %q, %d at a time", s.begun, s.most)
	}
}

// Whatever ends the run between the two ends the import before the run returns, and leaves no error
// behind; the next run begins it again.
func TestImagesBesideEnd(t *testing.T) {
	for name, cancelled := range map[string]bool{"a step fails": false, "the agent is stopped": true} {
		t.Run(name, func(t *testing.T) {
			s := &slowCtr{}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			fails := true
			steps := slowImages(t, s, func(ctx context.Context) error {
				switch {
				case !fails:
					return nil
				case cancelled:
					s.let <- nil
					cancel()
					return context.Cause(ctx)
				}
				s.let <- nil
				return errors.New("no network")
			})
			if results, err := step.Apply(ctx, steps, nil); err == nil || len(results) != 2 {
				t.Errorf("%+v, %v", results, err)
			}
			if s.running != 0 {
				t.Error("ctr still runs")
			}
			changes, err := steps[2].Check(t.Context())
			if err != nil || len(changes) != 1 || changes[0].Subject != "image r.io/b:1" {
				t.Errorf("%v, %v", changes, err)
			}
			if changes, err := steps[0].Check(t.Context()); err != nil || len(changes) > 0 {
				t.Errorf("reported twice: %v, %v", changes, err)
			}
			fails = false
			go func() { s.let <- nil }()
			if _, err := step.Apply(t.Context(), steps, nil); err != nil {
				t.Error(err)
			}
			if s.most != 1 {
				t.Errorf("%d imports at a time", s.most)
			}
		})
	}
}

// Where the import was never begun, or is begun too late, the step does it, and once.
func TestImagesBegunLate(t *testing.T) {
	s := &slowCtr{}
	steps := slowImages(t, s, nil)
	go func() { s.let <- nil; s.let <- nil }()
	steptest.Converges(t, host.New(t.TempDir()), steps[2])
	steps[0].Beside(t.Context())
	if !slices.Equal(s.begun, []string{"a.tar", "b.tar"}) {
		t.Errorf("imported %q", s.begun)
	}
	// Both at once: one of them imports, the other finds it done.
	s.fake.images, s.begun = nil, nil
	go func() { s.let <- nil; s.let <- nil }()
	var both sync.WaitGroup
	both.Go(func() { steps[0].Beside(t.Context()) })
	if err := steps[2].Apply(t.Context()); err != nil {
		t.Error(err)
	}
	both.Wait()
	if !slices.Equal(s.begun, []string{"a.tar", "b.tar"}) || s.most != 1 {
		t.Errorf("imported %q, %d at a time", s.begun, s.most)
	}
}
