package etcdbackup_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
)

// unlinked is a file that has no name and holds data.
func unlinked(t testing.TB, data []byte) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("snapshot", 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "snapshot")
	t.Cleanup(func() { _ = f.Close() })
	if _, err := f.Write(data); err != nil {
		t.Fatal(err)
	}
	return f
}

func inspect(t testing.TB, data []byte) (etcdbackup.Content, error) {
	t.Helper()
	return etcdbackup.Inspect(t.Context(), unlinked(t, data), int64(len(data)))
}

// recorded are the snapshots of several versions of etcd in testdata; its README says whence.
func recorded(t testing.TB) []string {
	t.Helper()
	paths, err := filepath.Glob("testdata/snapshots/*.db.gz")
	if err != nil || len(paths) < 20 {
		t.Fatalf("%d snapshots, %v", len(paths), err)
	}
	return paths
}

func unpack(t testing.TB, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Snapshots that etcdctl 3.4, 3.5, 3.6 and 3.7 saved, each of its own server: what is read in
// them is what the server said of itself.
func TestSnapshotsOfEveryVersion(t *testing.T) {
	for _, path := range recorded(t) {
		base := strings.TrimSuffix(path, ".db.gz")
		t.Run(filepath.Base(base), func(t *testing.T) {
			data, err := os.ReadFile(base + ".json")
			if err != nil {
				t.Fatal(err)
			}
			var want etcdbackup.Content
			if err := json.Unmarshal(data, &want); err != nil {
				t.Fatal(err)
			}
			got, err := inspect(t, unpack(t, path))
			if err != nil {
				t.Fatal(err)
			}
			if (got.StorageVersion != "") != (filepath.Base(base) >= "3.6") {
				t.Errorf("storage version %q", got.StorageVersion)
			}
			want.Rows, want.StorageVersion = got.Rows, got.StorageVersion // the server does not tell
			if got != want {
				t.Errorf("read %+v, the server said %+v", got, want)
			}
			if got.Rows < got.Keys {
				t.Errorf("%d rows, %d keys", got.Rows, got.Keys)
			}
		})
	}
}

// Whatever happened in a cluster, what is read in its snapshot is what its server says of itself.
func TestContentIsWhatTheServerSays(t *testing.T) {
	client := etcdClient(t)
	random := rand.New(rand.NewPCG(3, 4))
	key := func() string { return fmt.Sprintf("/random/%02d", random.IntN(40)) }
	for round := range 60 {
		for range random.IntN(30) {
			var err error
			switch random.IntN(8) {
			case 0, 1:
				_, err = client.Delete(t.Context(), key(), clientv3.WithRange(key()))
			case 2:
				_, err = client.Txn(t.Context()).Then(clientv3.OpPut(key()+"a", "t"), clientv3.OpDelete(key()), clientv3.OpPut(key()+"b", "t")).Commit()
			default:
				_, err = client.Put(t.Context(), key(), strings.Repeat("v", random.IntN(9000)))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if random.IntN(3) == 0 {
			compact(t, client, int64(random.IntN(4)))
		}
		got, err := inspect(t, genuine(t))
		if err != nil {
			t.Fatal(err)
		}
		all, err := client.Get(t.Context(), "\x00", clientv3.WithFromKey(), clientv3.WithCountOnly())
		if err != nil {
			t.Fatal(err)
		}
		hash, err := client.HashKV(t.Context(), client.Endpoints()[0], 0)
		if err != nil {
			t.Fatal(err)
		}
		want := got
		want.Revision, want.CompactRevision = all.Header.Revision, hash.CompactRevision
		want.Keys, want.KVHash = int(all.Count), hash.Hash
		if got != want {
			t.Fatalf("round %d: read %+v, the server says %+v", round, got, want)
		}
	}
}

// compact compacts so many revisions before the newest, if that is not compacted yet.
func compact(t *testing.T, client *clientv3.Client, before int64) {
	t.Helper()
	head, err := client.Get(t.Context(), "x")
	if err == nil {
		_, err = client.Compact(t.Context(), head.Header.Revision-before, clientv3.WithCompactPhysical())
	}
	if err != nil && !strings.Contains(err.Error(), "has been compacted") {
		t.Fatal(err)
	}
}

// bbolt reads the same rows, and its Check finds nothing, in what Inspect finds nothing in: here
// with nested pages of all sizes, with and without a list of free pages.
func TestInspectAgreesWithBbolt(t *testing.T) {
	for _, listed := range []bool{false, true} {
		for seed := range uint64(12) {
			t.Run(fmt.Sprintf("%v-%d", listed, seed), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "db")
				data := writeDatabase(t, path, seed, listed)
				got, err := inspect(t, withTrailer(data))
				if err != nil {
					t.Fatal(err)
				}
				if rows := bboltRows(t, path); got.Rows != rows || rows == 0 {
					t.Errorf("%d rows, bbolt reads %d", got.Rows, rows)
				}
			})
		}
	}
}

// writeDatabase has bbolt make a database with the buckets of etcd and many rows, and returns
// the copy of it that a snapshot would be.
func writeDatabase(t *testing.T, path string, seed uint64, listed bool) []byte {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 1))
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true, NoFreelistSync: !listed, PageSize: 4096 << (seed % 2)})
	if err != nil {
		t.Fatal(err)
	}
	revision := uint64(1)
	for range 10 {
		err = errors.Join(err, db.Update(func(tx *bbolt.Tx) error {
			key, err1 := tx.CreateBucketIfNotExists([]byte("key"))
			meta, err2 := tx.CreateBucketIfNotExists([]byte("meta"))
			err := errors.Join(err1, err2)
			for range random.IntN(400) {
				revision++
				value := append([]byte{10, 1, byte('a' + random.IntN(20))}, 42, 0)
				if n := random.IntN(60); n < 3 { // some 20000 bytes go on in overflow pages
					value = append(value[:3], append(append([]byte{42}, binary.AppendUvarint(nil, uint64(n)*9000)...), make([]byte, n*9000)...)...)
				}
				err = errors.Join(err, key.Put(row(revision), value))
			}
			for range random.IntN(300) {
				err = errors.Join(err, key.Delete(row(1+random.Uint64N(revision))))
			}
			return errors.Join(err, key.Put(row(1), []byte{10, 1, 'a'}), meta.Put([]byte("term"), make([]byte, 8)))
		}))
	}
	var copied bytes.Buffer
	err = errors.Join(err, db.View(func(tx *bbolt.Tx) error {
		_, err := tx.WriteTo(&copied)
		return err
	}), db.Close())
	if err != nil {
		t.Fatal(err)
	}
	return copied.Bytes()
}

func bboltRows(t *testing.T, path string) (rows int) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, PreLoadFreelist: true})
	if err != nil {
		t.Fatal(err)
	}
	err = db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			t.Error(err)
		}
		rows = tx.Bucket([]byte("key")).Stats().KeyN
		return nil
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	return rows
}

// What bbolt's Check finds is found, and named, and what makes bbolt itself fault or never end.
func TestInspectNamesTheDamage(t *testing.T) {
	for name, tt := range map[string]struct {
		listed bool
		damage func(b []byte, leaf, branch int) // offsets of pages
		want   string
	}{
		"a page twice":     {false, func(b []byte, _, branch int) { copy(b[branch+16+24:][:8], b[branch+16+8:][:8]) }, "is referred to twice"},
		"a circle":         {false, func(b []byte, _, branch int) { copy(b[branch+16+24:][:8], b[branch:][:8]) }, "is referred to twice"},
		"beyond the end":   {false, func(b []byte, _, branch int) { b[branch+16+8+5] = 1 }, "is referred to, and there are"},
		"another page":     {false, func(b []byte, leaf, _ int) { b[leaf]++ }, "says it is page"},
		"of another kind":  {false, func(b []byte, leaf, _ int) { b[leaf+8] = 7 }, "neither branch nor leaf"},
		"a long overflow":  {false, func(b []byte, leaf, _ int) { b[leaf+15] = 1 }, "goes on to page"},
		"too many entries": {false, func(b []byte, leaf, _ int) { b[leaf+11] = 0xff }, ""},
		"an empty branch":  {false, func(b []byte, _, branch int) { b[branch+10], b[branch+11] = 0, 0 }, "leads nowhere"},
		"a later parent": {false, func(b []byte, _, branch int) {
			e := b[branch+16+16:] // its second entry
			e[binary.LittleEndian.Uint32(e)+16] = 1
		}, "is not in the range that its parent names"},
		"a key too long":    {false, func(b []byte, leaf, _ int) { b[leaf+16+10] = 0xff }, "an entry reaches beyond it"},
		"no key":            {false, func(b []byte, leaf, _ int) { b[leaf+16+8] = 0 }, ""},
		"no revision":       {false, func(b []byte, leaf, _ int) { b[leaf+32+8] = 16 }, "is no revision"},
		"a row not decoded": {false, func(b []byte, leaf, _ int) { p := b[leaf+16:]; at := binary.LittleEndian.Uint32(p[4:]); p[at+17] = 11 }, "of its KeyValue"},
		"a bucket nowhere":  {false, func(b []byte, leaf, _ int) { b[leaf+16] = 1 }, "is in another"},
		"a page lost":       {true, func(b []byte, _, _ int) { freelist(b)[10]-- }, "is neither in use nor free"},
		"free and in use":   {true, func(b []byte, leaf, _ int) { copy(freelist(b)[16:24], b[leaf:]) }, "is free and is not"},
		"free twice":        {true, func(b []byte, _, _ int) { copy(freelist(b)[16:24], freelist(b)[24:]) }, "is free and is not"},
	} {
		t.Run(name, func(t *testing.T) {
			data := writeDatabase(t, filepath.Join(t.TempDir(), "db"), 4, tt.listed)
			leaf, branch := 0, 0
			for at := 8192; at < len(data); at += 4096 {
				own := binary.LittleEndian.Uint64(data[at:]) == uint64(at/4096)
				switch {
				case own && data[at+8] == 2 && data[at+10] > 20 && inUse(data, uint64(at/4096)):
					leaf = at
				case own && data[at+8] == 1 && inUse(data, uint64(at/4096)):
					branch = at
				}
			}
			if leaf == 0 || branch == 0 {
				t.Fatal("no such pages")
			}
			if _, err := inspect(t, withTrailer(data)); err != nil {
				t.Fatal(err)
			}
			tt.damage(data, leaf, branch)
			if _, err := inspect(t, withTrailer(data)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

// inUse says that a page is in the tree of the bucket "key": its branch, or named there.
func inUse(data []byte, id uint64) bool {
	f := binary.LittleEndian.Uint64(data[16+16:]) // the root of the database
	root := data[f*4096:]
	e := root[16:] // its first bucket is "key"
	value := e[binary.LittleEndian.Uint32(e[4:])+3:]
	top := binary.LittleEndian.Uint64(value)
	if id == top {
		return true
	}
	page := data[top*4096:]
	for i := range int(binary.LittleEndian.Uint16(page[10:])) {
		if binary.LittleEndian.Uint64(page[16+i*16+8:]) == id {
			return true
		}
	}
	return false
}

func freelist(data []byte) []byte { return data[binary.LittleEndian.Uint64(data[16+32:])*4096:] }

// Inspect goes on with an unlinked file, leaves its offset alone and ends when it is told to.
func TestInspectEnds(t *testing.T) {
	data := genuine(t)
	f := unlinked(t, data)
	if _, err := f.Seek(7, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := etcdbackup.Inspect(ctx, f, int64(len(data))); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
	if _, err := etcdbackup.Inspect(t.Context(), f, int64(len(data))); err != nil {
		t.Error(err)
	}
	if at, err := f.Seek(0, io.SeekCurrent); err != nil || at != 7 {
		t.Errorf("the offset is %d, %v", at, err)
	}
}

// Whatever is in the file, Inspect returns, soon, and with no more memory than it may have.
func FuzzInspect(f *testing.F) {
	for i := range recorded(f) {
		f.Add(uint(i), []byte{}, true)
		f.Add(uint(i), []byte("\x02\x00\x00\x0a\x01\x03\x00\x10\x02\x04\x00\x18\x02"), true)
		f.Add(uint(i), []byte("\x00\x00\x20\x09"), false)
	}
	var originals [][]byte
	for _, path := range recorded(f) {
		originals = append(originals, unpack(f, path))
	}
	f.Fuzz(func(t *testing.T, which uint, damage []byte, sealed bool) {
		data := bytes.Clone(originals[which%uint(len(originals))])
		for ; len(damage) >= 4; damage = damage[4:] { // page, offset in it, byte
			at := int(damage[0])*4096 + int(binary.BigEndian.Uint16(damage[1:]))%4096
			data[at%len(data)] = damage[3]
		}
		if sealed { // a meta page that fails its own hash hides all that follows
			seal(data)
		}
		began := time.Now()
		if _, err := inspect(t, data); err != nil && err.Error() == "" {
			t.Error("an error without a text")
		}
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

func seal(data []byte) {
	for at := 0; at < 8192 && at+80 <= len(data); at += 4096 {
		sum := fnv.New64a()
		sum.Write(data[at+16:][:56])
		binary.LittleEndian.PutUint64(data[at+16+56:], sum.Sum64())
	}
}
