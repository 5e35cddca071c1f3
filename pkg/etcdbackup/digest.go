package etcdbackup

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
)

// ErrTrailer is a snapshot that does not end in the sha256 of what precedes it: it was cut
// off, or a byte of it changed.
var ErrTrailer = errors.New("the snapshot does not match the sha256 at its end")

// digest is written a snapshot and checks it against the sha256 that etcd sends last. It
// hashes once: the last 32 bytes are withheld until it is certain that they are the trailer.
type digest struct {
	hash hash.Hash
	tail []byte // at most sha256.Size
	size int64
}

func newDigest() *digest { return &digest{hash: sha256.New()} }

// Write takes the next bytes; it never fails.
func (d *digest) Write(p []byte) (int, error) {
	d.size += int64(len(p))
	if len(p) >= sha256.Size {
		d.hash.Write(d.tail)
		d.hash.Write(p[:len(p)-sha256.Size])
		d.tail = append(d.tail[:0], p[len(p)-sha256.Size:]...)
		return len(p), nil
	}
	d.tail = append(d.tail, p...)
	if over := len(d.tail) - sha256.Size; over > 0 {
		d.hash.Write(d.tail[:over])
		d.tail = append(d.tail[:0], d.tail[over:]...)
	}
	return len(p), nil
}

// finish checks the trailer and returns the sha256 of everything, trailer included.
func (d *digest) finish() (sum string, err error) {
	switch {
	case d.size == 0:
		err = fmt.Errorf("%w: it is empty", ErrTrailer)
	case d.size%512 != sha256.Size:
		err = fmt.Errorf("%w: %d bytes are no whole pages and a trailer", ErrTrailer, d.size)
	case !bytes.Equal(d.hash.Sum(nil), d.tail):
		err = ErrTrailer
	}
	d.hash.Write(d.tail)
	d.tail = d.tail[:0]
	return hex.EncodeToString(d.hash.Sum(nil)), err
}
