package bootstrap

import (
	"context"
	"sync"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
)

// ImagesBeginStep is the name of the step that begins the import of the archives.
const ImagesBeginStep = "images/begin"

// ImagesAhead makes two steps of Images. The first, for as soon as containerd runs, begins the
// import beside the steps that follow; it never has anything to report. The second, Images itself,
// waits for that import, fails with its error, and imports what is missing then. Without the first
// it does all by itself.
func ImagesAhead(h *host.Host, archives []string, installer string) (begin, join step.Step) {
	i := images{host: h, archives: archives, installer: installer, ahead: newAhead()}
	nothing := func(context.Context) ([]step.Change, error) { return nil, nil }
	return step.Step{Name: ImagesBeginStep, Check: nothing, Beside: i.begin},
		step.Step{Name: ImagesStep, Check: i.check, Apply: i.apply}
}

// begin imports what is missing, beside other steps. What keeps it from finding that out, the
// step "images" meets itself and says.
func (i images) begin(ctx context.Context) {
	if i.ahead.acquire(ctx) != nil {
		return // the run is over
	}
	defer i.ahead.release()
	i.ahead.set("", nil)
	missing, err := i.missing(ctx)
	if err != nil || len(missing) == 0 {
		return
	}
	i.ahead.set("goes on", nil)
	switch err := i.bring(ctx, missing); {
	case err == nil || ctx.Err() != nil: // ended with the run, whose error is another step's
		i.ahead.set("", nil)
	default:
		i.ahead.set("failed: "+err.Error(), err)
	}
}

// ahead is what the two steps know of each other.
type ahead struct {
	turn chan struct{} // holds a token while one of the two looks for what is missing and imports it

	mu  sync.Mutex
	is  string // how an import is that is to be joined; "" if there is none
	err error  // with which it failed
}

func newAhead() *ahead { return &ahead{turn: make(chan struct{}, 1)} }

// acquire waits until nobody imports: one archive is never imported twice at a time.
func (a *ahead) acquire(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case a.turn <- struct{}{}:
		return nil
	}
}

func (a *ahead) release() { <-a.turn }

func (a *ahead) set(is string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.is, a.err = is, err
}

// unjoined says how an import is that is to be waited for, or has failed; "" if there is none.
func (a *ahead) unjoined() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.is
}

// take is the error of an import that has failed, once.
func (a *ahead) take() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	err := a.err
	a.is, a.err = "", nil
	return err
}
