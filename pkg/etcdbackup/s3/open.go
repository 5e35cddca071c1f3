package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
)

const (
	// resumes is how often in a row a download is gone on with after it broke; one that has brought
	// worthwhile bytes since is not counted.
	resumes    = 5
	worthwhile = 1 << 20
)

// Open reads an object. A connection that breaks is replaced by one for the rest of the same object;
// content that ends before the size the server gave at first is an error, never the end.
func (s *Store) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	key, err := s.key(ctx, name)
	if err != nil {
		return nil, err
	}
	o := &object{store: s, ctx: ctx, name: name, key: key}
	if err := o.connect(); err != nil {
		return nil, o.explain(err)
	}
	return o, nil
}

// object is one being read.
type object struct {
	store     *Store
	ctx       context.Context
	name, key string

	etag     string
	size, at int64
	body     *answer // nil where it has to be connected to again
	broken   int     // how often since lastGood
	lastGood int64
	err      error // what every further Read returns
}

func (o *object) explain(err error) error {
	if code(err) == minio.NoSuchKey {
		return fmt.Errorf("open %s in %s: %w", o.name, o.store, fs.ErrNotExist)
	}
	return o.store.explain("read "+o.name, err)
}

// connect asks for what has not been read yet.
func (o *object) connect() error {
	var options minio.GetObjectOptions
	if o.at > 0 {
		options.Set("Range", fmt.Sprintf("bytes=%d-", o.at))
		if o.etag != "" {
			options.Set("If-Match", `"`+o.etag+`"`)
		}
	}
	return o.store.try(o.ctx, o.store.Patience.Answer, func(_ context.Context, client *minio.Core, _ func()) error {
		a := await(o.ctx, o.store.Patience.Stall) // it lives longer than this call
		defer a.timer.Stop()
		body, about, header, err := client.GetObject(a.ctx, o.store.cfg.Bucket, o.key, options)
		if err != nil {
			return a.end(err)
		}
		a.ReadCloser = body
		if err := o.begin(about, header); err != nil {
			return a.end(err)
		}
		o.body = a
		return nil
	})
}

// answer is the body of one, and the connection that it comes over.
type answer struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer // runs while the server is waited for, not while the reader is
}

// await begins to wait for an answer.
func await(ctx context.Context, limit time.Duration) *answer {
	a := &answer{}
	a.ctx, a.cancel = context.WithCancelCause(ctx)
	a.timer = time.AfterFunc(limit, func() { a.cancel(stalled(limit)) })
	return a
}

// end lets go of the connection; what it returns is why it ended, where there is a better reason than err.
func (a *answer) end(err error) error {
	if a.timer.Stop(); a.ctx.Err() != nil {
		err = context.Cause(a.ctx)
	}
	a.cancel(nil)
	if a.ReadCloser != nil {
		_ = a.Close() // nothing was written
	}
	return err
}

// begin looks whether an answer is what was asked for.
func (o *object) begin(about minio.ObjectInfo, header http.Header) error {
	if o.at == 0 {
		if about.Size < 0 {
			return errors.New("the server does not say how large it is")
		}
		o.size, o.etag = about.Size, about.ETag
		return nil
	}
	if want := fmt.Sprintf("bytes %d-%d/%d", o.at, o.size-1, o.size); !strings.EqualFold(header.Get("Content-Range"), want) || about.ETag != o.etag {
		return fmt.Errorf("the connection broke after %d of %d bytes, and the server does not give out the rest", o.at, o.size)
	}
	return nil
}

func (o *object) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for o.err == nil {
		if o.at == o.size {
			o.err = io.EOF
			break
		}
		n, err := o.read(p[:min(int64(len(p)), o.size-o.at)])
		if o.at += int64(n); o.at-o.lastGood >= worthwhile {
			o.broken, o.lastGood = 0, o.at
		}
		if err != nil {
			o.breaks(err)
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, o.err
}

func (o *object) read(p []byte) (int, error) {
	if o.body == nil {
		if err := o.connect(); err != nil {
			return 0, errFinal{err}
		}
	}
	o.body.timer.Reset(o.store.Patience.Stall)
	defer o.body.timer.Stop()
	return o.body.Read(p)
}

// errFinal is the error of a connection that could not be made again.
type errFinal struct{ error }

func (e errFinal) Unwrap() error { return e.error }

// breaks decides what becomes of a download that broke.
func (o *object) breaks(err error) {
	if o.body != nil {
		err = o.body.end(err)
		o.body = nil
	}
	var final errFinal
	switch {
	case o.ctx.Err() != nil:
		o.err = o.explain(context.Cause(o.ctx))
	case errors.As(err, &final):
		o.err = o.explain(err)
	case o.at == o.size:
	case o.broken == resumes:
		o.err = o.explain(fmt.Errorf("the connection broke %d times, at last after %d of %d bytes: %w", resumes+1, o.at, o.size, notTheEnd(err)))
	default:
		o.broken++
		if err := o.store.pause(o.ctx, o.broken); err != nil {
			o.err = o.explain(err)
		}
	}
}

// notTheEnd keeps a reader from taking a body's early end for the end of the object.
func notTheEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Close lets go of the connection.
func (o *object) Close() error {
	if o.err = fs.ErrClosed; o.body != nil {
		_ = o.body.end(nil) // nothing was written
		o.body = nil
	}
	return nil
}
