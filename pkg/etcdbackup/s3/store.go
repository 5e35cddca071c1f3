// Package s3 keeps backups in a bucket of S3, or of a server that speaks its protocol.
//
// Every content goes up with its sha256, which the signature covers, and its CRC32C, which the server
// stores: one that arrives otherwise than it left is refused by the server. What comes back is
// checked by whoever reads it, with the manifest's sha256. Nothing is held in memory: parts are read
// where they lie, once for their sums and once to be sent.
package s3

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strings"
	"sync"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/encrypt"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/host"
)

// Store is a folder of a bucket. Only what lies directly in it belongs to the store.
type Store struct {
	host     *host.Host
	cfg      etcdbackup.S3Config
	endpoint *url.URL
	sse      encrypt.ServerSide // nil for none
	node     string
	prefix   string // of keys: empty, or with a slash at its end

	// Patience may be changed before the store is used.
	Patience Patience

	mu     sync.Mutex
	with   material // what client was made with
	client *minio.Core
	close  func() // the connections of client
}

var _ etcdbackup.Store = (*Store)(nil)

// New returns the store that cfg, which is valid, describes. Nothing is read or connected to yet:
// a store whose keys are missing fails when it is used. The node is the name of this host, whose
// unfinished uploads a later one of its own removes.
func New(h *host.Host, cfg etcdbackup.S3Config, node string) (*Store, error) {
	s := &Store{host: h, cfg: cfg, node: etcdbackup.HostInName(node), Patience: defaultPatience, close: func() {}}
	var err error
	if s.endpoint, err = url.Parse(cfg.Endpoint); err != nil {
		return nil, errors.New("endpoint of the store in S3: is no URL") // and may have a password in it
	}
	if s.sse, err = encryption(cfg.SSE); err != nil {
		return nil, fmt.Errorf("sse of %s: %w", s, err)
	}
	if cfg.Prefix != "" {
		s.prefix = cfg.Prefix + "/"
	}
	return s, nil
}

// encryption is what the server is asked for; nil is none.
func encryption(sse string) (encrypt.ServerSide, error) {
	switch sse {
	case "":
		return nil, nil
	case etcdbackup.SSEAES256:
		return encrypt.NewSSE(), nil
	}
	_, key, _ := strings.Cut(sse, etcdbackup.SSEKMS+":")
	return encrypt.NewSSEKMS(key, nil)
}

func (s *Store) String() string { return s.cfg.String() }

// key is where an object lies in the bucket.
func (s *Store) key(ctx context.Context, name string) (string, error) {
	if err := errors.Join(context.Cause(ctx), etcdbackup.CheckName(name)); err != nil {
		return "", err
	}
	return s.prefix + name, nil
}

// List returns what lies directly in the folder. Deeper folders, folders' own markers and keys that
// are no names of objects are left out.
func (s *Store) List(ctx context.Context) ([]etcdbackup.Object, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var objects []etcdbackup.Object
	err := s.try(ctx, s.Patience.Answer, func(ctx context.Context, client *minio.Core, progress func()) error {
		objects = nil
		for o := range client.ListObjectsIter(ctx, s.cfg.Bucket, minio.ListObjectsOptions{Prefix: s.prefix, MaxKeys: pageOfKeys}) {
			if o.Err != nil {
				return o.Err
			}
			progress()
			name, ours := strings.CutPrefix(o.Key, s.prefix)
			if ours && etcdbackup.CheckName(name) == nil {
				objects = append(objects, etcdbackup.Object{Name: name, Size: o.Size, Modified: o.LastModified})
			}
		}
		return nil
	})
	if err != nil {
		return nil, s.explain("list", err)
	}
	return objects, nil
}

// pageOfKeys is how many keys are asked for at a time, the most that S3 gives.
const pageOfKeys = 1000

// Delete removes an object. In a bucket that keeps versions it stays as an older one, which the
// bucket's lifecycle removes.
func (s *Store) Delete(ctx context.Context, name string) error {
	key, err := s.key(ctx, name)
	if err != nil {
		return err
	}
	err = s.try(ctx, s.Patience.Answer, func(ctx context.Context, client *minio.Core, _ func()) error {
		return client.RemoveObject(ctx, s.cfg.Bucket, key, minio.RemoveObjectOptions{})
	})
	switch {
	case err == nil || code(err) == minio.NoSuchKey:
		return nil
	case s.locked(ctx, key, err):
		return fmt.Errorf("delete %s from %s: %w: object lock or a legal hold keeps it", name, s, etcdbackup.ErrLocked)
	}
	return s.explain("delete "+name, err)
}

// locked says that the server refuses to delete an object because of object lock. Servers say so in
// words of their own, many as an AccessDenied; then the object itself is asked.
func (s *Store) locked(ctx context.Context, key string, err error) bool {
	switch code(err) {
	case "ObjectLocked":
		return true
	case minio.AccessDenied, "InvalidRequest", minio.MethodNotAllowed:
	default:
		return false
	}
	about, err := s.stat(ctx, key)
	if err != nil {
		return false
	}
	return about.Metadata.Get("X-Amz-Object-Lock-Mode") != "" || about.Metadata.Get("X-Amz-Object-Lock-Legal-Hold") == "ON"
}

// stat asks for an object; one that is not there is fs.ErrNotExist.
func (s *Store) stat(ctx context.Context, key string) (about minio.ObjectInfo, err error) {
	err = s.try(ctx, s.Patience.Answer, func(ctx context.Context, client *minio.Core, _ func()) error {
		about, err = client.StatObject(ctx, s.cfg.Bucket, key, minio.StatObjectOptions{})
		return err
	})
	if code(err) == minio.NoSuchKey {
		return about, fs.ErrNotExist
	}
	if code(err) == "" {
		return about, err
	}
	// An answer to HEAD has no words. The same to GET has; a list of at most one key costs little.
	whole := s.try(ctx, s.Patience.Answer, func(ctx context.Context, client *minio.Core, _ func()) error {
		for o := range client.ListObjectsIter(ctx, s.cfg.Bucket, minio.ListObjectsOptions{Prefix: key, MaxKeys: 1}) {
			return o.Err
		}
		return nil
	})
	if whole != nil {
		return about, whole
	}
	return about, err
}
