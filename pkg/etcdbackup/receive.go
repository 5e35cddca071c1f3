package etcdbackup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// ErrStalled is a member that stopped sending.
var ErrStalled = errors.New("etcd stopped sending")

func stalled(after time.Duration) error { return fmt.Errorf("%w: nothing for %s", ErrStalled, after) }

// receive writes the stream to the digest and every live target. A target that cannot be
// written fails alone; without any left the stream is dropped.
func (s *save) receive(ctx context.Context, digest io.Writer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(s.req.Stall, func() { cancel(stalled(s.req.Stall)) })
	defer watch.Stop()
	stream, err := s.source.Snapshot(ctx)
	if err != nil {
		return because(ctx, err)
	}
	buf := make([]byte, 1<<20)
	for {
		n, err := stream.Read(buf)
		if n > 0 {
			watch.Stop() // a slow disk is no stall of etcd's
			if _, err := digest.Write(buf[:n]); err != nil {
				return errors.Join(err, stream.Close())
			}
			if s.write(buf[:n]); len(s.live()) == 0 {
				return stream.Close()
			}
			watch.Reset(s.req.Stall)
		}
		if errors.Is(err, io.EOF) {
			return stream.Close()
		}
		if err != nil {
			return errors.Join(because(ctx, fmt.Errorf("read snapshot: %w", err)), stream.Close())
		}
	}
}

func (s *save) write(p []byte) {
	for _, t := range s.live() {
		if _, err := t.draft.Write(p); err != nil {
			t.fail(err)
		}
	}
}

// because prefers the reason ctx ended for to the error that its end led to.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("read snapshot: %w", cause)
	}
	return err
}
