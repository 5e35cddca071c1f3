package etcdbackup

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/klauspost/compress/zstd"
)

const (
	// zstdWindow bounds the memory of both sides. The fastest level finds little more with the 4 MiB that
	// it would take by itself.
	zstdWindow = 1 << 20
	// maxDecoder is what a frame may make a reader allocate. A file of somebody else's making
	// may ask for a larger window than ours; one that asks for more than this is refused.
	maxDecoder = 128 << 20
)

// wrapper makes the object of a plain stream, compressed and encrypted as its name will say:
// zstd inside age, since what is encrypted does not get smaller.
type wrapper struct {
	io.Writer
	closers []io.Closer // the outermost last
	out     *counted
}

// newWrapper writes the object to out, and counts and hashes it.
func newWrapper(out io.Writer, compress bool, to Recipients) (*wrapper, error) {
	w := &wrapper{out: &counted{to: out, hash: sha256.New()}}
	w.Writer = w.out
	if !to.Empty() {
		encrypted, err := to.encrypt(w.Writer)
		if err != nil {
			return nil, err
		}
		w.Writer, w.closers = encrypted, append(w.closers, encrypted)
	}
	if compress {
		// One goroutine: the next wrapper and the disk have theirs, and a node has other work.
		z, err := zstd.NewWriter(w.Writer, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
			zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(zstdWindow))
		if err != nil {
			return nil, fmt.Errorf("compress: %w", err)
		}
		w.Writer, w.closers = z, append([]io.Closer{z}, w.closers...)
	}
	return w, nil
}

// Close writes what is held back; the object is whole afterwards.
func (w *wrapper) Close() error {
	for _, c := range w.closers {
		if err := c.Close(); err != nil {
			return fmt.Errorf("end the object: %w", err)
		}
	}
	return nil
}

// object is what was written, once it is whole.
func (w *wrapper) object(name string) StoredObject {
	return StoredObject{Name: name, Size: w.out.size, SHA256: hex.EncodeToString(w.out.hash.Sum(nil))}
}

// counted passes on what it is written, and counts and hashes it.
type counted struct {
	to   io.Writer
	hash hash.Hash
	size int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.to.Write(p)
	c.hash.Write(p[:n])
	c.size += int64(n)
	return n, err
}

// Unwrap reads the snapshot inside an object, or the archive inside one of files, as the object's
// name says it was wrapped. Closing it does not close r. An object that is encrypted and that
// no identity decrypts is ErrNoIdentity.
func Unwrap(r io.Reader, compressed, encrypted bool, with Identities) (io.ReadCloser, error) {
	if encrypted {
		var err error
		if r, err = with.decrypt(r); err != nil {
			return nil, err
		}
	}
	if !compressed {
		return io.NopCloser(r), nil
	}
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxDecoder), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	return unzstd{z}, nil
}

// unzstd says what failed.
type unzstd struct{ z *zstd.Decoder }

func (u unzstd) Read(p []byte) (int, error) {
	n, err := u.z.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("decompress: %w", err)
	}
	return n, err
}

func (u unzstd) Close() error { u.z.Close(); return nil }
