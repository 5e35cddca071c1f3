package etcdbackup

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
)

const (
	// bufferSize and buffers bound what a save holds of the stream, whatever its size. Several
	// let a slow disk, a hash and the network each have their own pace for a while.
	bufferSize = 256 << 10
	buffers    = 8
)

// buffer is a part of the stream while its sinks have still to take it.
type buffer struct {
	data    []byte
	pending atomic.Int32
}

// tee reads to the end and writes everything to each sink, in order, each in a goroutine of its
// own. The first sink that fails ends it: stop is told why, and is to make read return.
func tee(read func([]byte) (int, error), stop func(error), sinks ...io.Writer) error {
	free := make(chan *buffer, buffers)
	for range buffers {
		free <- &buffer{data: make([]byte, 0, bufferSize)}
	}
	var failed atomic.Bool
	var wait sync.WaitGroup
	feeds, errs := make([]chan *buffer, len(sinks)), make([]error, len(sinks))
	for i, sink := range sinks {
		feeds[i] = make(chan *buffer, buffers)
		wait.Go(func() {
			for b := range feeds[i] {
				if errs[i] == nil {
					if _, errs[i] = sink.Write(b.data); errs[i] != nil {
						failed.Store(true)
						stop(errs[i])
					}
				}
				if b.pending.Add(-1) == 0 {
					free <- b
				}
			}
		})
	}
	var err error
	for err == nil && !failed.Load() {
		b := <-free
		b.data, err = fill(b.data[:0], read)
		b.pending.Store(int32(len(sinks)))
		for _, feed := range feeds {
			feed <- b
		}
	}
	for _, feed := range feeds {
		close(feed)
	}
	wait.Wait()
	if sunk := errors.Join(errs...); sunk != nil {
		return sunk // it is why reading ended
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// fill reads until the buffer is full: etcd sends 32 KiB at a time.
func fill(p []byte, read func([]byte) (int, error)) ([]byte, error) {
	for len(p) < cap(p) {
		n, err := read(p[len(p):cap(p)])
		p = p[:len(p)+n]
		if err != nil {
			return p, err
		}
	}
	return p, nil
}
