package etcdbackup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

var errSink, errSource = errors.New("the sink fails"), errors.New("the source fails")

// stubborn takes its time for each write and fails after so many bytes; never when that is below 0.
type stubborn struct {
	bytes.Buffer
	random *rand.Rand
	pace   time.Duration
	limit  int
}

func (s *stubborn) Write(p []byte) (int, error) {
	time.Sleep(time.Duration(s.random.IntN(4)) * s.pace)
	if s.limit >= 0 && s.Len()+len(p) > s.limit {
		return 0, errSink
	}
	return s.Buffer.Write(p)
}

// source sends so many bytes, in pieces of any size, and then an error. Like a stream of etcd's it
// only hears of its end by ctx.
type source struct {
	ctx    context.Context //nolint:containedctx // what reads has none of its own
	random *rand.Rand
	pace   time.Duration
	data   []byte
	end    error // nil is silence
}

func (s *source) read(p []byte) (int, error) {
	select {
	case <-s.ctx.Done():
		return 0, context.Cause(s.ctx)
	case <-time.After(time.Duration(s.random.IntN(3)) * s.pace):
	}
	if len(s.data) == 0 && s.end == nil {
		<-s.ctx.Done()
		return 0, context.Cause(s.ctx)
	}
	n := copy(p, s.data[:min(len(s.data), 1+s.random.IntN(bufferSize))])
	if s.data = s.data[n:]; len(s.data) == 0 && s.end != nil {
		return n, s.end
	}
	return n, nil
}

// However sinks and source end, and in whatever order, tee ends, leaves no goroutine (synctest waits
// for them all, and finds a deadlock), and each sink that did not fail has what was read.
func TestTeeEnds(t *testing.T) {
	content := make([]byte, 12<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(content) // it never fails
	paces := []time.Duration{0, time.Second, 10 * time.Second}
	for seed := range uint64(120) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				random := rand.New(rand.NewPCG(seed, 1))
				ctx, stop := context.WithCancelCause(t.Context())
				defer stop(nil)
				from := &source{ctx: ctx, random: random, pace: paces[random.IntN(3)], data: content[:random.IntN(len(content))], end: io.EOF}
				want := error(nil)
				whole := from.data
				switch random.IntN(4) {
				case 0:
					from.end, want = errSource, errSource
				case 1: // silence, until somebody has had enough of it
					from.end, want = nil, context.Canceled
					time.AfterFunc(time.Hour, func() { stop(context.Canceled) })
				}
				var sinks []io.Writer
				fails, early := false, false
				for range 1 + random.IntN(3) {
					s := &stubborn{random: rand.New(rand.NewPCG(seed, uint64(len(sinks)))), pace: paces[random.IntN(3)], limit: -1}
					if random.IntN(3) == 0 {
						s.limit = random.IntN(len(content))
						fails, early = fails || s.limit < len(whole), early || s.limit < len(whole)-bufferSize
					}
					sinks = append(sinks, s)
				}
				began := time.Now()
				err := tee(from.read, stop, sinks...)
				if early && time.Since(began) >= time.Hour {
					t.Error("the source was not told of the sink that fails")
				}
				if fails && !errors.Is(err, errSink) || !fails && !errors.Is(err, want) {
					t.Errorf("sink fails %t: %v, want %v", fails, err, want)
				}
				for i, w := range sinks {
					s, ok := w.(*stubborn)
					if !ok || !bytes.HasPrefix(whole, s.Bytes()) || !fails && s.Len() != len(whole) {
						t.Errorf("sink %d has %d bytes, not the %d that were sent", i, s.Len(), len(whole))
					}
				}
			})
		})
	}
}
