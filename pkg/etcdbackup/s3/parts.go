package s3

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
)

// putParts sends an object in parts, which become one when all are there. What it leaves when it
// fails is removed, at once or by the next upload of this host.
func (s *Store) putParts(ctx context.Context, key string, content *io.SectionReader) (err error) {
	id, err := s.begin(ctx, key)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			s.abort(ctx, key, id)
		}
	}()
	s.sweep(ctx, key, id)
	size := partSize(content.Size())
	parts := make([]minio.CompletePart, (content.Size()+size-1)/size)
	if err := inParallel(ctx, len(parts), func(ctx context.Context, i int) error {
		from := int64(i) * size
		part, err := s.putPart(ctx, key, id, i+1, io.NewSectionReader(content, from, min(size, content.Size()-from)))
		parts[i] = part
		return err
	}); err != nil {
		return err
	}
	return s.complete(ctx, key, id, parts, content.Size())
}

func (s *Store) begin(ctx context.Context, key string) (id string, err error) {
	err = s.try(ctx, s.Patience.Answer, func(ctx context.Context, client *minio.Core, _ func()) error {
		id, err = client.NewMultipartUpload(ctx, s.cfg.Bucket, key, minio.PutObjectOptions{
			UserMetadata: map[string]string{algorithmHeader: "CRC32C"}, ServerSideEncryption: s.sse,
		})
		return err
	})
	return id, err
}

// putPart sends one part. A connection on which nothing moves any more is replaced by another one:
// what has arrived of a large object is worth that.
func (s *Store) putPart(ctx context.Context, key, id string, number int, content *io.SectionReader) (minio.CompletePart, error) {
	sums, err := sumsOf(content, 0, content.Size())
	if err != nil {
		return minio.CompletePart{}, err
	}
	var part minio.ObjectPart
	send := func() error {
		return s.try(ctx, s.Patience.Stall, func(ctx context.Context, client *minio.Core, progress func()) error {
			part, err = client.PutObjectPart(ctx, s.cfg.Bucket, key, id, number, newBody(content, 0, content.Size(), progress), content.Size(), minio.PutObjectPartOptions{
				Sha256Hex: sums.sha256, DisableContentSha256: true, CustomHeader: partHeader(sums),
			})
			return err
		})
	}
	if err = send(); errors.Is(err, errStalled) {
		err = send()
	}
	return minio.CompletePart{PartNumber: number, ETag: part.ETag, ChecksumCRC32C: part.ChecksumCRC32C}, err
}

// complete makes one object of the parts. Where the answer is lost the second try finds no upload;
// then the object says whether there was a first.
func (s *Store) complete(ctx context.Context, key, id string, parts []minio.CompletePart, size int64) error {
	err := s.try(ctx, s.Patience.Stall, func(ctx context.Context, client *minio.Core, _ func()) error {
		_, err := client.CompleteMultipartUpload(ctx, s.cfg.Bucket, key, id, parts, minio.PutObjectOptions{})
		return err
	})
	if code(err) != minio.NoSuchUpload {
		return err
	}
	if about, gone := s.stat(ctx, key); gone != nil || about.Size != size {
		return err
	}
	return nil
}

// inParallel calls do for 0 to n-1, a few at a time, until one fails or all are done. When it returns
// none is running any more.
func inParallel(ctx context.Context, n int, do func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan int)
	var running sync.WaitGroup
	for range min(threads, n) {
		running.Go(func() {
			for i := range next {
				if err := do(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
feed:
	for i := range n {
		select {
		case next <- i:
		case <-ctx.Done():
			break feed
		}
	}
	close(next)
	running.Wait()
	return context.Cause(ctx)
}

// abort removes the parts that have arrived, also for a caller that has given up. Where it fails too
// there is nothing to say beside why the upload did: a later upload removes them.
func (s *Store) abort(ctx context.Context, key, id string) {
	_ = s.try(context.WithoutCancel(ctx), s.Patience.Answer, func(ctx context.Context, client *minio.Core, _ func()) error {
		return client.AbortMultipartUpload(ctx, s.cfg.Bucket, key, id)
	})
}

// leftoverAge is how much older than the present one an upload of this host is before it is one that
// was not finished, and not one that a second process has under way.
const leftoverAge = 24 * time.Hour

// sweep removes what earlier uploads of this host have left: of the same object, whose only upload
// is the present one, and of others when they are old by the server's clock. A server that
// does not list uploads, or not to this key, keeps them until its lifecycle rule removes them.
func (s *Store) sweep(ctx context.Context, key, id string) {
	uploads := s.uploads(ctx)
	var now time.Time
	for _, u := range uploads {
		if u.UploadID == id {
			now = u.Initiated
		}
	}
	if now.IsZero() {
		return // not a list to go by
	}
	for _, u := range uploads {
		name, ours := strings.CutPrefix(u.Key, s.prefix)
		old := etcdbackup.HostOf(name) == s.node && now.Sub(u.Initiated) > leftoverAge
		if ours && u.UploadID != id && (u.Key == key || old) {
			s.abort(ctx, u.Key, u.UploadID)
		}
	}
}

// uploads are the unfinished ones in the folder, none if the server does not tell.
func (s *Store) uploads(ctx context.Context) []minio.ObjectMultipartInfo {
	var all []minio.ObjectMultipartInfo
	_ = s.try(ctx, s.Patience.Answer, func(ctx context.Context, client *minio.Core, progress func()) error {
		all = nil
		var key, id string
		for range maxPages {
			page, err := client.ListMultipartUploads(ctx, s.cfg.Bucket, s.prefix, key, id, "/", pageOfKeys)
			if err != nil {
				return err
			}
			progress()
			all = append(all, page.Uploads...)
			if key, id = page.NextKeyMarker, page.NextUploadIDMarker; !page.IsTruncated || key == "" {
				return nil
			}
		}
		return fs.ErrInvalid // a list without an end
	})
	return all
}

const maxPages = 100
