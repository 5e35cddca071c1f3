// Package etcdbackup takes backups of etcd, verifies each before it exists, and keeps them by
// policy. A backup is an object and its manifest; the manifest, written last, is its commit
// record: an object without one is no backup.
package etcdbackup

import (
	"context"
	"errors"
	"io"
	"os"
	"time"
)

// Store is a flat set of named objects. It knows nothing of backups. All names given to it
// are plain file names (no separator, no dot in front); it refuses others.
type Store interface {
	// String says where the store is, for operators: "file /var/lib/nodeagent/backups".
	String() string
	// List returns every object, and nothing that is not committed. A store that nothing
	// was ever written to is empty.
	List(ctx context.Context) ([]Object, error)
	// Open reads an object. One that is not there is fs.ErrNotExist.
	Open(ctx context.Context, name string) (io.ReadCloser, error)
	// Put makes an object of all of content, durably: it is not there before it is complete. A name
	// that is taken is fs.ErrExist. Content may be read more than once, and at several places at once.
	Put(ctx context.Context, name string, content *io.SectionReader) error
	// Delete removes an object, durably. One that is not there is fine.
	Delete(ctx context.Context, name string) error
}

// Local is a Store on this host. Snapshots are saved to such: an object can be begun before its
// name is known, which a snapshot's is once it has been verified. What its Open returns is an
// io.ReaderAt too.
type Local interface {
	Store
	// Room says how much may still be stored.
	Room(ctx context.Context) (Room, error)
	// Create begins an object of about size bytes. Where there is no room for it the error
	// is ErrNoSpace. What earlier processes of this host left unfinished is removed.
	Create(ctx context.Context, size int64) (Draft, error)
}

// Draft is an object being written, of which nothing is in the store before Commit. Exactly one of
// Commit and Abort ends it; Abort after either does nothing, so that it can be deferred.
type Draft interface {
	io.Writer
	// File is the local file that holds what has been written, so that it can be verified
	// before it is committed; nil where there is none. It may be read, not changed.
	File() *os.File
	// Commit makes the object durable and then visible by its name. A name that is taken is
	// fs.ErrExist, and the draft is gone in any case.
	Commit(ctx context.Context, name string) error
	// Abort leaves nothing.
	Abort() error
}

// Object is one object of a store.
type Object struct {
	Name string
	Size int64
	// Modified is when it was put, by the store's own clock; zero where that is not known.
	Modified time.Time
}

// ErrNoSpace is the refusal to begin an object that would not fit.
var ErrNoSpace = errors.New("not enough free space")

// What stores refuse for. They wrap the error that says so in the store's own words.
var (
	// ErrLocked is an object that the store does not let be removed yet, as under object lock.
	ErrLocked = errors.New("the store does not let it be removed")
	// ErrDenied is a request that the store does not allow: wrong keys, or rights that are missing.
	ErrDenied = errors.New("the store denies it")
	// ErrNoStore is a store that is not there: no such bucket, a share that is not mounted.
	ErrNoStore = errors.New("the store is not there")
	// ErrNoAnswer is a store that has taken and given nothing for a while.
	ErrNoAnswer = errors.New("the store does not answer")
)
