package etcdbackup

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// RemoteStall is how long a remote store may take and give nothing.
const RemoteStall = time.Minute

// slowest is how many bytes a second a store writes down at least, once it has been given all of an
// object: a share may do so only at the end.
const slowest = 1 << 20

// Bounded is a store none of whose calls hangs: one in which nothing moves for that long is
// ErrNoAnswer, whether or not the store heeds its context, as the kernel does not for a share whose
// server is gone. Such a call may go on in the background; until it returns every other one is
// ErrNoAnswer too, so that they do not pile up. An object may take as long as it takes.
func Bounded(store Store, stall time.Duration) Store {
	return &bounded{Store: store, stall: stall}
}

type bounded struct {
	Store
	stall time.Duration
	hung  atomic.Int32 // calls that were given up and have not returned
}

func (b *bounded) List(ctx context.Context) ([]Object, error) {
	return within(ctx, b, nil, b.stall, b.Store.List, nil)
}

func (b *bounded) Delete(ctx context.Context, name string) error {
	_, err := within(ctx, b, nil, b.stall, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, b.Store.Delete(ctx, name)
	}, nil)
	return err
}

func (b *bounded) Put(ctx context.Context, name string, content *io.SectionReader) error {
	moved := &moving{from: content, size: content.Size(), told: make(chan struct{}, 1)}
	_, err := within(ctx, b, moved.told, b.stall, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, b.Store.Put(ctx, name, io.NewSectionReader(moved, 0, content.Size()))
	}, func() time.Duration {
		if moved.ended.Load() {
			return b.stall + time.Duration(content.Size()/slowest)*time.Second
		}
		return b.stall
	})
	return err
}

// Open's context is that of all that is read.
func (b *bounded) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	r, err := within(ctx, b, nil, b.stall, func(context.Context) (io.ReadCloser, error) {
		return b.Store.Open(ctx, name)
	}, nil)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	return &boundedReader{ctx: ctx, cancel: cancel, store: b, from: r}, nil
}

// grace is how long a call that is given up may take to return.
const grace = time.Second

// within calls do, and gives up when nothing is told on moved for as long as stall, or as
// allowed says then.
func within[T any](ctx context.Context, b *bounded, moved <-chan struct{}, stall time.Duration, do func(context.Context) (T, error), allowed func() time.Duration) (T, error) {
	var none T
	if ctx.Err() != nil {
		return none, context.Cause(ctx)
	}
	if b.hung.Load() > 0 {
		return none, fmt.Errorf("%w: a call from before hangs in it", ErrNoAnswer)
	}
	inner, cancel := context.WithCancel(ctx)
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := do(inner)
		done <- result{value, err}
	}()
	timer := time.NewTimer(stall)
	defer timer.Stop()
	for {
		select {
		case r := <-done:
			cancel()
			return r.value, r.err
		case <-moved:
			timer.Reset(allowed())
			continue
		case <-timer.C:
		case <-ctx.Done():
		}
		break
	}
	cancel()
	err := context.Cause(ctx)
	if err == nil {
		err = fmt.Errorf("%w for %s", ErrNoAnswer, stall)
	}
	timer.Reset(grace)
	select {
	case r := <-done:
		giveBack(r.value)
	case <-timer.C:
		b.hung.Add(1)
		go func() {
			r := <-done
			giveBack(r.value)
			b.hung.Add(-1)
		}()
	}
	return none, err
}

// giveBack closes what a call that was given up has opened.
func giveBack(value any) {
	if c, ok := value.(io.Closer); ok && c != nil {
		_ = c.Close() // nobody reads it
	}
}

// moving tells, without waiting, of everything that is read of an object.
type moving struct {
	from  io.ReaderAt
	size  int64
	ended atomic.Bool // its end was read
	told  chan struct{}
}

func (m *moving) ReadAt(p []byte, off int64) (int, error) {
	n, err := m.from.ReadAt(p, off)
	if off+int64(n) >= m.size {
		m.ended.Store(true)
	}
	select {
	case m.told <- struct{}{}:
	default:
	}
	return n, err
}

// boundedReader reads into a buffer of its own: a read that was given up may write to it later.
type boundedReader struct {
	ctx    context.Context //nolint:containedctx // of what was opened with it
	cancel context.CancelCauseFunc
	store  *bounded
	from   io.ReadCloser
	rest   []byte // was read and not given
	buffer []byte
	given  bool // up: from is read in the background, or never more
}

func (r *boundedReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		if err := r.more(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// more reads something, or is an error.
func (r *boundedReader) more() error {
	if r.given {
		return ErrNoAnswer
	}
	if r.buffer == nil {
		r.buffer = make([]byte, bufferSize)
	}
	buffer, from := r.buffer, r.from
	n, err := within(r.ctx, r.store, nil, r.store.stall, func(context.Context) (int, error) {
		for {
			n, err := from.Read(buffer)
			if n > 0 {
				return n, nil // an error comes again
			}
			if err != nil {
				return 0, err
			}
		}
	}, nil)
	if err != nil && err != io.EOF { //nolint:errorlint // an io.Reader's end is just that
		r.cancel(err)
		r.given = true
	}
	r.rest = buffer[:n]
	return err
}

func (r *boundedReader) Close() error {
	r.cancel(nil)
	if r.given {
		go func() { _ = r.from.Close() }() // may hang as the read does
		return nil
	}
	return r.from.Close()
}
