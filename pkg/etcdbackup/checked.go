package etcdbackup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
	"sync/atomic"
)

// checked is a local object that was read whole once and is what its manifest says by its sha256. What
// is read of it after that is compared, part by part, with what was read then: nothing else leaves it.
type checked struct {
	from io.ReaderAt
	name string
	size int64
	sums []uint32 // of its parts, by CRC-32C

	mu   sync.Mutex
	part int64 // that part holds; -1: none
	data []byte
}

// checkedPart is the size of a part: four bytes are remembered of each.
const checkedPart = 64 << 10

// newChecked reads an object whole. What is not as its manifest says is ErrDamaged.
func newChecked(ctx context.Context, from io.ReaderAt, want StoredObject) (*checked, error) {
	c := &checked{from: from, name: want.Name, size: want.Size, part: -1, data: make([]byte, checkedPart)}
	whole := sha256.New()
	// One byte more than it is to have, so that a longer one is seen.
	r := io.NewSectionReader(from, 0, want.Size+1)
	size := int64(0)
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		n, err := io.ReadFull(r, c.data)
		size += int64(n)
		whole.Write(c.data[:n]) // never fails
		if n > 0 {
			c.sums = append(c.sums, crc32.Checksum(c.data[:n], crc32.MakeTable(crc32.Castagnoli)))
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%w: read %s in the spool: %w", ErrDamaged, want.Name, err)
		}
	}
	if sum := hex.EncodeToString(whole.Sum(nil)); size != want.Size || sum != want.SHA256 {
		return nil, fmt.Errorf("%w: %s in the spool has %d bytes with sha256 %s, which are not the %d with %s of its manifest", ErrDamaged, want.Name, size, sum, want.Size, want.SHA256)
	}
	return c, nil
}

// ReadAt may be called at several places at once.
func (c *checked) ReadAt(p []byte, off int64) (n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n < len(p) {
		at := off + int64(n)
		if at >= c.size {
			return n, io.EOF
		}
		if err := c.load(at / checkedPart); err != nil {
			return n, err
		}
		begin := c.part * checkedPart
		n += copy(p[n:], c.data[at-begin:min(checkedPart, c.size-begin)])
	}
	return n, nil
}

// load reads a part and compares it.
func (c *checked) load(part int64) error {
	if part == c.part {
		return nil
	}
	c.part = -1
	begin := part * checkedPart
	data := c.data[:min(checkedPart, c.size-begin)]
	if _, err := io.ReadFull(io.NewSectionReader(c.from, begin, int64(len(data))), data); err != nil {
		return fmt.Errorf("%w: read %s in the spool: %w", ErrDamaged, c.name, err)
	}
	if crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)) != c.sums[part] {
		return fmt.Errorf("%w: %s in the spool has changed while it was uploaded", ErrDamaged, c.name)
	}
	c.part = part
	return nil
}

// toldAt tells how much has been read in all.
type toldAt struct {
	from io.ReaderAt
	read atomic.Int64
	done func(read int64)
}

func (t *toldAt) ReadAt(p []byte, off int64) (int, error) {
	n, err := t.from.ReadAt(p, off)
	t.done(t.read.Add(int64(n)))
	return n, err
}
