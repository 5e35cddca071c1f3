package etcdbackup

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime/debug"

	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/encoding/protowire"
)

// content is what a snapshot holds.
type content struct {
	revision       int64
	keys           int    // live ones
	storageVersion string // "" before etcd 3.6
}

// inspect reads every entry of the database in a snapshot file of so many bytes, which it
// opens read-only and does not change. It is called after the trailer was checked: what it
// finds was broken in etcd already.
//
// bbolt's own Check, which `etcdutl snapshot status` calls, is not used: it works in goroutines
// whose panics and faults, on just the damage it looks for, nobody can catch. A walk in this
// goroutine that demands ascending keys finds the same: etcd stores no free list to compare.
func inspect(path string, size int64) (c content, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // the file is mapped
	defer func() {
		if r := recover(); r != nil {
			err = errors.Join(fmt.Errorf("the database is broken: %v", r), err)
		}
	}()
	db, err := bbolt.Open(path, 0o400, &bbolt.Options{ReadOnly: true})
	if err != nil {
		return content{}, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	err = db.View(func(tx *bbolt.Tx) error {
		if want := tx.Size() + sha256.Size; want != size {
			return fmt.Errorf("the database and its trailer are %d bytes, the file has %d", want, size)
		}
		c, err = walk(tx)
		return err
	})
	return c, err
}

func walk(tx *bbolt.Tx) (content, error) {
	var c content
	meta, key := tx.Bucket([]byte("meta")), tx.Bucket([]byte("key"))
	if meta == nil || key == nil {
		return content{}, errors.New("the database is not etcd's: a bucket is missing")
	}
	c.storageVersion = string(meta.Get([]byte("storageVersion")))
	err := tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
		live := map[string]struct{}{}
		var last []byte
		err := b.ForEach(func(k, v []byte) error {
			if bytes.Compare(last, k) >= 0 {
				return errors.New("its keys are out of order")
			}
			last = k
			if string(name) != "key" {
				return nil
			}
			return c.add(live, k, v)
		})
		if err != nil {
			return fmt.Errorf("bucket %q: %w", name, err)
		}
		c.keys += len(live)
		return nil
	})
	return c, err
}

// add takes one row of the key bucket: the key is the revision, with a "t" at its end where the
// value, a KeyValue, was deleted.
func (c *content) add(live map[string]struct{}, row, value []byte) error {
	tombstone := len(row) == 18 && row[17] == 't'
	if len(row) != 17 && !tombstone || row[8] != '_' {
		return fmt.Errorf("%x is no revision", row)
	}
	revision := binary.BigEndian.Uint64(row)
	if revision == 0 || revision > 1<<63-1 {
		return fmt.Errorf("%x is no revision", row)
	}
	c.revision = int64(revision)
	name, err := keyOf(value)
	if err != nil {
		return fmt.Errorf("revision %d: %w", revision, err)
	}
	if tombstone {
		delete(live, string(name))
	} else {
		live[string(name)] = struct{}{}
	}
	return nil
}

// keyOf returns the field "key" of a KeyValue without decoding, and so copying, its value.
func keyOf(value []byte) ([]byte, error) {
	for len(value) > 0 {
		number, kind, n := protowire.ConsumeTag(value)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		value = value[n:]
		if number == 1 && kind == protowire.BytesType {
			key, n := protowire.ConsumeBytes(value)
			return key, protowire.ParseError(n)
		}
		if n = protowire.ConsumeFieldValue(number, kind, value); n < 0 {
			return nil, protowire.ParseError(n)
		}
		value = value[n:]
	}
	return nil, errors.New("no key in it")
}
