package step

import (
	"context"
	"slices"
	"sync"
)

// beside is the work that goes on beside the steps of one run. begin and end are for the
// goroutine of the run alone.
type beside struct {
	works  sync.WaitGroup
	cancel []context.CancelFunc

	mu    sync.Mutex
	names []string // of the steps whose work goes on
}

func (b *beside) begin(ctx context.Context, s Step) {
	ctx, cancel := context.WithCancel(ctx)
	b.cancel = append(b.cancel, cancel)
	b.mu.Lock()
	b.names = append(b.names, s.Name)
	b.mu.Unlock()
	b.works.Go(func() {
		s.Beside(ctx)
		b.mu.Lock()
		defer b.mu.Unlock()
		at := slices.Index(b.names, s.Name)
		b.names = slices.Delete(b.names, at, at+1)
	})
}

// end ends what goes on, and returns when it has ended.
func (b *beside) end() {
	for _, cancel := range b.cancel {
		cancel()
	}
	b.works.Wait()
}

// steps are those whose work goes on.
func (b *beside) steps() []string {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.names)
}
