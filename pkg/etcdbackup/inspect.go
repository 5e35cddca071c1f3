package etcdbackup

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protowire"
)

// Content is what the database in a snapshot holds.
type Content struct {
	// Revision is the newest, as etcd would have it that started from the snapshot.
	Revision int64 `json:"revision"`
	// CompactRevision is the one that was compacted last; -1 when none was, as etcd has it. A
	// compaction that was not completed counts: etcd goes on with it when it starts.
	CompactRevision int64 `json:"compactRevision"`
	// Keys is how many keys exist at Revision: what a range over all of them counts.
	Keys int `json:"keys"`
	// Rows is how many changes of keys the database holds, the last of each key and older ones.
	Rows int `json:"rows"`
	// KVHash is what Maintenance.HashKV of an etcd with this content answers for Revision and
	// CompactRevision (`etcdctl endpoint hashkv`). Where Revision itself was compacted a
	// running member may answer from memory instead, for an earlier CompactRevision, which its
	// answer names; asked for revision 0 it does not.
	KVHash uint32 `json:"kvHash"`
	// StorageVersion is of the database; "" before etcd 3.6.
	StorageVersion string `json:"storageVersion,omitempty"`
}

// Inspect reads the database of a snapshot of so many bytes, its trailer included, and does not
// change it. The file is one that nobody writes to; it may have been unlinked, and the offset it
// is read at stays. Every page is held against what it has to be, as bbolt's own Check would,
// and every row is read as etcd does when it starts. It is called after the trailer was checked:
// what it finds was broken in etcd already.
//
// It reads the file once in order, so that it is in the page cache, and then maps it: memory of
// its own is below 40 MiB however large the database is.
//
// bbolt itself is not used. On just the damage that is looked for its cursors never end and its
// Check, which `etcdutl snapshot status` calls, faults in goroutines where nobody can catch it
// and keeps a map of all pages.
func Inspect(ctx context.Context, f *os.File, size int64) (Content, error) {
	if err := readAhead(ctx, f, size); err != nil {
		return Content{}, err
	}
	c, _, err := inspectMapped(ctx, f, size-sha256.Size, true)
	return c, err
}

// readAhead reads the file once, in order: the pages of a tree lie anywhere in it, and asking a
// disk for one after the other takes some fifteen times as long.
func readAhead(ctx context.Context, f *os.File, size int64) error {
	return copyUntil(ctx, io.Discard, io.NewSectionReader(f, 0, size))
}

// inspectMapped inspects a database of so many bytes. Where exact is set the file ends with its
// last page; etcd's own file may have room behind it. copied is as readMeta has it.
func inspectMapped(ctx context.Context, f *os.File, size int64, exact bool) (c Content, copied bool, err error) {
	if info, err := f.Stat(); err != nil {
		return Content{}, false, err
	} else if info.Size() < size || size <= 0 {
		return Content{}, false, fmt.Errorf("the file has %d bytes, too few for the database", info.Size())
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return Content{}, false, fmt.Errorf("map %s: %w", f.Name(), err)
	}
	defer func() { err = errors.Join(err, unix.Munmap(data)) }()
	// A disk that fails to read, or somebody who truncates the file, is a fault in the map.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = errors.Join(fmt.Errorf("the database cannot be read: %v", r), err)
		}
	}()
	m, copied, err := readMeta(data)
	if err != nil {
		return Content{}, copied, err
	}
	if exact && m.size() != size {
		return Content{}, copied, fmt.Errorf("the database has %d bytes, and there are %d", m.size(), size)
	}
	c, err = inspection{data: data, meta: m, most: mostKeys}.run(ctx)
	return c, copied, err
}

// inspection reads the rows of a database.
type inspection struct {
	data []byte
	meta meta
	most int // keys that are remembered at a time
}

// mostKeys take up to 25 MiB.
const mostKeys = 500_000

func (n inspection) run(ctx context.Context) (Content, error) {
	live := newLive(n.most)
	var s scan
	for more := true; more; more = live.next() {
		s = newScan(live.row)
		if err := n.walk(ctx, &s); err != nil {
			return Content{}, err
		}
	}
	if !s.keyed || !s.meta {
		return Content{}, errors.New("the database is not etcd's: a bucket is missing")
	}
	hash := newKVHash(s.compacted, live.newest)
	hashed := newScan(hash.row)
	if err := n.walk(ctx, &hashed); err != nil {
		return Content{}, err
	}
	return Content{
		Revision: max(s.revision, s.compacted, 1), CompactRevision: s.compacted,
		Keys: live.keys(), Rows: s.rows, KVHash: hash.sum, StorageVersion: s.storageVersion,
	}, nil
}

func (n inspection) walk(ctx context.Context, s *scan) error {
	p := pages{data: n.data, meta: n.meta, visit: s}
	return p.check(ctx)
}

// scan reads what the buckets of etcd hold.
type scan struct {
	row func(r row) error

	rows           int
	revision       int64
	compacted      int64
	storageVersion string
	keyed, meta    bool // the buckets that every database of etcd has are there
}

func newScan(each func(row) error) scan { return scan{row: each, compacted: -1} }

func (s *scan) bucket(name []byte, depth int) error {
	if depth != 0 {
		return fmt.Errorf("the database is not etcd's: bucket %q is in another", name)
	}
	s.keyed = s.keyed || string(name) == "key"
	s.meta = s.meta || string(name) == "meta"
	return nil
}

func (s *scan) entry(bucket []byte, depth int, key, value []byte) error {
	if depth != 1 {
		return errors.New("the database is not etcd's: an entry is in no bucket")
	}
	switch string(bucket) {
	case "meta":
		return s.metaEntry(key, value)
	case "key":
		return s.change(key, value)
	}
	return nil
}

func (s *scan) metaEntry(key, value []byte) error {
	switch string(key) {
	case "storageVersion":
		s.storageVersion = string(value)
	case "finishedCompactRev", "scheduledCompactRev":
		r, err := parseRow(value)
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		s.compacted = max(s.compacted, r.main)
	}
	return nil
}

// row is one change of a key, an entry of the bucket "key": its own key is the revision, with a
// "t" behind it where the key was deleted, and its value a KeyValue.
type row struct {
	number     int // from 0, in the order of revisions
	main       int64
	tombstone  bool
	name       []byte // of the key
	key, value []byte // as they are stored
}

func parseRow(key []byte) (row, error) {
	r := row{key: key, tombstone: len(key) == 18 && key[17] == 't'}
	if len(key) != 17 && !r.tombstone || key[8] != '_' {
		return r, fmt.Errorf("%x is no revision", key)
	}
	main, sub := binary.BigEndian.Uint64(key), binary.BigEndian.Uint64(key[9:])
	if main == 0 || main > 1<<63-1 || sub > 1<<63-1 {
		return r, fmt.Errorf("%x is no revision", key)
	}
	r.main = int64(main)
	return r, nil
}

func (s *scan) change(key, value []byte) error {
	r, err := parseRow(key)
	if err != nil {
		return err
	}
	r.number, r.value = s.rows, value
	if r.name, err = keyOf(value); err != nil {
		return fmt.Errorf("revision %d: %w", r.main, err)
	}
	s.rows++
	s.revision = r.main
	return s.row(r)
}

// keyOf returns the field "key" of a KeyValue, which has to be one that etcd can decode, without
// decoding, and so copying, its value. An empty message is fine, and its key is empty: with
// `--bump-revision` etcdutl puts one into what it restores.
func keyOf(value []byte) (key []byte, err error) {
	for len(value) > 0 {
		number, kind, n := protowire.ConsumeTag(value)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		value = value[n:]
		want := protowire.VarintType // revisions, version, lease
		if number == 1 || number == 5 {
			want = protowire.BytesType // key, value
		}
		if number <= 6 && kind != want {
			return nil, fmt.Errorf("field %d of its KeyValue is of kind %d", number, kind)
		}
		if n = protowire.ConsumeFieldValue(number, kind, value); n < 0 {
			return nil, protowire.ParseError(n)
		}
		if number == 1 {
			key, _ = protowire.ConsumeBytes(value)
		}
		value = value[n:]
	}
	return key, nil
}
