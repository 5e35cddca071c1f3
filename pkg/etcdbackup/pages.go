package etcdbackup

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
)

// The file format of bbolt, version 2, as far as it is read here: fixed-size pages, of which the
// first two are meta pages; the valid one with the higher transaction id counts. A bucket is a
// tree of branch and leaf pages; a page that is too small goes on in the pages behind it, its
// overflow. A small bucket lies, as a page, in the value of its entry. Numbers are in the byte
// order of the machine that wrote the file, which for etcd is little-endian everywhere.
const (
	pageHeader    = 16
	branchElement = 16
	leafElement   = 16
	bucketHeader  = 16
	metaSize      = 64
	boltMagic     = 0xED0CDAED
	boltVersion   = 2
	noFreelist    = 1<<64 - 1 // the list of free pages is not in the file, as etcd has it
	maxDepth      = 64        // of a tree; one of etcd's has 5 levels at 8 GiB

	pageBranch, pageLeaf, pageFreelist = 1, 2, 0x10
	entryIsBucket                      = 1
)

// meta is what a meta page says of the database.
type meta struct {
	pageSize             int
	root, freelist, txid uint64
	pages                uint64 // so many pages are in use, or were
}

// size is the least size of a file that holds the database.
func (m meta) size() int64 { return int64(m.pages) * int64(m.pageSize) }

// metaAt reads the meta page at an offset; false when there is none, or a damaged one.
func metaAt(data []byte, offset int) (meta, bool) {
	if len(data) < offset+pageHeader+metaSize {
		return meta{}, false
	}
	b := data[offset+pageHeader:][:metaSize]
	sum := fnv.New64a()
	sum.Write(b[:56])
	m := meta{
		pageSize: int(binary.LittleEndian.Uint32(b[8:])),
		root:     binary.LittleEndian.Uint64(b[16:]),
		freelist: binary.LittleEndian.Uint64(b[32:]),
		pages:    binary.LittleEndian.Uint64(b[40:]),
		txid:     binary.LittleEndian.Uint64(b[48:]),
	}
	valid := binary.LittleEndian.Uint32(b) == boltMagic && binary.LittleEndian.Uint32(b[4:]) == boltVersion &&
		binary.LittleEndian.Uint64(b[56:]) == sum.Sum64() &&
		m.pageSize >= 1<<10 && m.pageSize <= 1<<16 && m.pageSize&(m.pageSize-1) == 0 && m.pages < 1<<40
	return m, valid
}

// readMeta finds the meta page that counts. copied says that both lead to the same tree: so they
// do in a copy that bbolt itself writes, which every snapshot is. In a file that it works on they
// do only after a transaction that changed nothing, which ends many a server's life.
func readMeta(data []byte) (m meta, copied bool, err error) {
	first, ok := metaAt(data, 0)
	var second meta
	var also bool
	if ok {
		second, also = metaAt(data, first.pageSize)
	} else {
		for at := 1 << 10; at <= 1<<16 && !also; at <<= 1 { // its offset is a page, whose size is not known
			second, also = metaAt(data, at)
		}
	}
	switch {
	case !ok && !also:
		return meta{}, false, errors.New("it is no database of bbolt, or both its meta pages are damaged")
	case ok && also:
		copied = first.txid == second.txid+1 && first.root == second.root && first.pages == second.pages
		if second.txid > first.txid {
			first = second
		}
	case also:
		first = second
	}
	return first, copied, nil
}

// visitor is told what is found, in the order of the keys. What it is given is valid during the
// call. The root is at depth 0, and what lies in a bucket in it at depth 1.
type visitor interface {
	bucket(name []byte, depth int) error                     // a bucket lies at depth
	entry(bucket []byte, depth int, key, value []byte) error // and so does an entry that is none
}

// pages walks the trees of a database and holds every page against what it has to be. It trusts
// no number in the file: whatever the file holds, the walk ends, and within the file.
type pages struct {
	data   []byte
	meta   meta
	seen   bitmap // pages that something refers to
	looked int
	visit  visitor
}

// check walks the whole database. Only visit reads values.
func (p *pages) check(ctx context.Context) error {
	if p.meta.size() > int64(len(p.data)) {
		return fmt.Errorf("it is cut off: its pages take %d bytes, and there are %d", p.meta.size(), len(p.data))
	}
	p.seen = newBitmap(int(p.meta.pages))
	p.seen.set(0)
	p.seen.set(1)
	if err := p.bucket(ctx, p.meta.root, nil, 0); err != nil {
		return err
	}
	if p.meta.freelist == noFreelist {
		return nil // every page that nothing refers to is free
	}
	return p.free()
}

// page is a page and its overflow, as bytes that begin with its header, marked as seen.
func (p *pages) page(id uint64) ([]byte, error) {
	if id < 2 || id >= p.meta.pages {
		return nil, fmt.Errorf("page %d is referred to, and there are %d", id, p.meta.pages)
	}
	size := uint64(p.meta.pageSize)
	b := p.data[id*size:]
	if own := binary.LittleEndian.Uint64(b); own != id {
		return nil, fmt.Errorf("page %d says it is page %d", id, own)
	}
	last := id + uint64(binary.LittleEndian.Uint32(b[12:]))
	if last >= p.meta.pages {
		return nil, fmt.Errorf("page %d goes on to page %d, and there are %d", id, last, p.meta.pages)
	}
	for i := id; i <= last; i++ {
		if p.seen.get(int(i)) {
			return nil, fmt.Errorf("page %d is referred to twice", i)
		}
		p.seen.set(int(i))
	}
	return b[:(last-id+1)*size], nil
}

// span is the range that the keys of a subtree lie in: from, if not nil, and below to, if not nil.
type span struct{ from, to []byte }

func (p *pages) bucket(ctx context.Context, root uint64, name []byte, depth int) error {
	if depth > maxDepth {
		return errors.New("buckets are nested too deeply")
	}
	return p.tree(ctx, root, span{}, 0, name, depth)
}

func (p *pages) tree(ctx context.Context, id uint64, keys span, level int, name []byte, depth int) error {
	if p.looked++; p.looked%256 == 0 && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if level > maxDepth {
		return fmt.Errorf("page %d lies too deep in its tree", id)
	}
	b, err := p.page(id)
	if err != nil {
		return err
	}
	switch flags := binary.LittleEndian.Uint16(b[8:]); flags {
	case pageBranch:
		err = p.branch(ctx, b, keys, level, name, depth)
	case pageLeaf:
		err = p.leaf(ctx, b, keys, name, depth)
	default:
		err = fmt.Errorf("it is neither branch nor leaf, but of kind %#x", flags)
	}
	if err != nil {
		var at *damage
		if !errors.As(err, &at) && ctx.Err() == nil {
			err = &damage{id, err}
		}
	}
	return err
}

// damage names the page, the innermost, in which something is wrong.
type damage struct {
	page uint64
	err  error
}

func (d *damage) Error() string { return fmt.Sprintf("page %d: %v", d.page, d.err) }
func (d *damage) Unwrap() error { return d.err }

var errBounds = errors.New("an entry reaches beyond it")

// part is n bytes of b from an offset that is not to be trusted.
func part(b []byte, offset, n uint64) ([]byte, error) {
	if offset > uint64(len(b)) || n > uint64(len(b))-offset {
		return nil, errBounds
	}
	return b[offset : offset+n : offset+n], nil
}

// inOrder checks a key against the one before it and the span of its subtree.
func (s span) inOrder(last, key []byte) error {
	switch {
	case len(key) == 0:
		return errors.New("a key is empty")
	case last != nil && bytes.Compare(last, key) >= 0:
		return errors.New("its keys are out of order")
	case last == nil && s.from != nil && bytes.Compare(key, s.from) < 0, s.to != nil && bytes.Compare(key, s.to) >= 0:
		return errors.New("a key is not in the range that its parent names")
	}
	return nil
}

func (p *pages) branch(ctx context.Context, b []byte, keys span, level int, name []byte, depth int) error {
	count := uint64(binary.LittleEndian.Uint16(b[10:]))
	if count == 0 {
		return errors.New("it is a branch and leads nowhere")
	}
	var from []byte // of the child before
	var child uint64
	for i := range count {
		e, err := part(b, pageHeader+i*branchElement, branchElement)
		if err != nil {
			return err
		}
		at := pageHeader + i*branchElement + uint64(binary.LittleEndian.Uint32(e))
		key, err := part(b, at, uint64(binary.LittleEndian.Uint32(e[4:])))
		if err != nil {
			return err
		}
		if err := keys.inOrder(from, key); err != nil {
			return err
		}
		if i > 0 {
			if err := p.tree(ctx, child, span{from, key}, level+1, name, depth); err != nil {
				return err
			}
		}
		from, child = key, binary.LittleEndian.Uint64(e[8:])
	}
	return p.tree(ctx, child, span{from, keys.to}, level+1, name, depth)
}

func (p *pages) leaf(ctx context.Context, b []byte, keys span, name []byte, depth int) error {
	var last []byte
	for i := range uint64(binary.LittleEndian.Uint16(b[10:])) {
		e, err := part(b, pageHeader+i*leafElement, leafElement)
		if err != nil {
			return err
		}
		at := pageHeader + i*leafElement + uint64(binary.LittleEndian.Uint32(e[4:]))
		key, err := part(b, at, uint64(binary.LittleEndian.Uint32(e[8:])))
		if err != nil {
			return err
		}
		value, err := part(b, at+uint64(len(key)), uint64(binary.LittleEndian.Uint32(e[12:])))
		if err != nil {
			return err
		}
		if err := keys.inOrder(last, key); err != nil {
			return err
		}
		last = key
		if binary.LittleEndian.Uint32(e)&entryIsBucket == 0 {
			err = p.visit.entry(name, depth, key, value)
		} else {
			err = p.child(ctx, key, value, depth)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// child is a bucket in a bucket: a tree of its own, or a leaf page right in the value.
func (p *pages) child(ctx context.Context, name, value []byte, depth int) error {
	if err := p.visit.bucket(name, depth); err != nil {
		return err
	}
	if len(value) < bucketHeader {
		return fmt.Errorf("bucket %q: %w", name, errBounds)
	}
	if root := binary.LittleEndian.Uint64(value); root != 0 {
		return p.bucket(ctx, root, name, depth+1)
	}
	inline := value[bucketHeader:]
	if len(inline) < pageHeader || binary.LittleEndian.Uint16(inline[8:]) != pageLeaf || depth > maxDepth {
		return fmt.Errorf("bucket %q: the page in its entry is broken", name)
	}
	return p.leaf(ctx, inline, span{}, name, depth+1)
}

// free holds the list of free pages against those that were seen: each page is one or the other.
func (p *pages) free() error {
	b, err := p.page(p.meta.freelist)
	if err != nil {
		return fmt.Errorf("the list of free pages: %w", err)
	}
	if binary.LittleEndian.Uint16(b[8:]) != pageFreelist {
		return fmt.Errorf("page %d is not the list of free pages", p.meta.freelist)
	}
	count, ids := uint64(binary.LittleEndian.Uint16(b[10:])), b[pageHeader:]
	if count == 0xffff && len(ids) >= 8 { // too many for the header: the first entry is their number
		count, ids = binary.LittleEndian.Uint64(ids), ids[8:]
	}
	if count > uint64(len(ids))/8 {
		return fmt.Errorf("the list of free pages: %w", errBounds)
	}
	for i := range count {
		id := binary.LittleEndian.Uint64(ids[i*8:])
		if id < 2 || id >= p.meta.pages || p.seen.get(int(id)) {
			return fmt.Errorf("page %d is free and is not: it is beyond the end, in use, or free twice", id)
		}
		p.seen.set(int(id))
	}
	for id := range int(p.meta.pages) {
		if !p.seen.get(id) {
			return fmt.Errorf("page %d is neither in use nor free", id)
		}
	}
	return nil
}

// bitmap is a set of small numbers.
type bitmap []uint64

func newBitmap(n int) bitmap { return make(bitmap, (n+63)/64) }

func (b bitmap) get(i int) bool { return b[i/64]>>(i%64)&1 == 1 }
func (b bitmap) set(i int)      { b[i/64] |= 1 << (i % 64) }
func (b bitmap) clear(i int)    { b[i/64] &^= 1 << (i % 64) }
