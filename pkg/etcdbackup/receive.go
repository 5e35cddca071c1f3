package etcdbackup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/time/rate"
)

// ErrStalled is a member that stopped sending.
var ErrStalled = errors.New("etcd stopped sending")

func stalled(after time.Duration) error { return fmt.Errorf("%w: nothing for %s", ErrStalled, after) }

// receive writes the stream to every sink.
func (s *save) receive(ctx context.Context, sinks ...io.Writer) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(s.req.Stall, func() { cancel(stalled(s.req.Stall)) })
	defer watch.Stop()
	stream, err := s.source.Snapshot(ctx)
	if err != nil {
		return because(ctx, err)
	}
	defer func() { err = errors.Join(err, stream.Close()) }()
	wait := func(int) error { return nil }
	if s.limit > 0 {
		pace := rate.NewLimiter(rate.Limit(s.limit), bufferSize)
		wait = func(n int) error { return pace.WaitN(ctx, n) }
	}
	read := func(p []byte) (int, error) {
		watch.Reset(s.req.Stall)
		n, err := stream.Read(p)
		watch.Stop() // a slow disk is no stall of etcd's
		if err != nil && !errors.Is(err, io.EOF) {
			err = because(ctx, fmt.Errorf("read snapshot: %w", err))
		}
		if paced := wait(n); paced != nil && err == nil {
			err = because(ctx, paced)
		}
		if s.received += int64(n); s.req.Progress != nil {
			s.req.Progress(s.received, s.expected)
		}
		return n, err
	}
	return tee(read, cancel, sinks...)
}

// because prefers the reason ctx ended for to the error that its end led to.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("read snapshot: %w", cause)
	}
	return err
}
