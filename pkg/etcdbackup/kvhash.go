package etcdbackup

import (
	"errors"
	"hash/crc32"
	"hash/maphash"
	"math"
	"math/bits"
)

// live finds the last row of every key that exists. It remembers only the keys of one range of
// hashes at a time, as many as it may: a database with more of them is walked more than once.
type live struct {
	most     int
	seeds    [2]maphash.Seed
	from, to uint64 // this walk takes the keys whose hash lies here
	last     map[[2]uint64]uint32
	newest   bitmap // the rows, by number, that are the last of a key that exists
	unnamed  bool   // the empty key exists
}

func newLive(most int) *live {
	return &live{
		most: most, seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
		to: math.MaxUint64, last: map[[2]uint64]uint32{},
	}
}

// next begins the walk after this one; false when there is none to come.
func (l *live) next() bool {
	if l.to == math.MaxUint64 {
		return false
	}
	l.from, l.to = l.to+1, math.MaxUint64
	clear(l.last)
	return true
}

func (l *live) row(r row) error {
	if r.number > math.MaxUint32 {
		return errors.New("it has too many rows")
	}
	if len(r.name) == 0 {
		l.unnamed = !r.tombstone
	}
	l.newest = l.newest.room(r.number)
	// Two hashes of 64 bits under random seeds: no two keys share both.
	id := [2]uint64{maphash.Bytes(l.seeds[0], r.name), maphash.Bytes(l.seeds[1], r.name)}
	if id[0] < l.from || id[0] > l.to {
		return nil
	}
	if before, there := l.last[id]; there {
		l.newest.clear(int(before))
	}
	if r.tombstone {
		delete(l.last, id)
		return nil
	}
	l.last[id] = uint32(r.number)
	l.newest.set(r.number)
	for len(l.last) > l.most && l.from < l.to {
		l.halve()
	}
	return nil
}

// halve leaves the upper half of the range to the next walk.
func (l *live) halve() {
	l.to = l.from + (l.to-l.from)/2
	for id, number := range l.last {
		if id[0] > l.to {
			delete(l.last, id)
			l.newest.clear(int(number))
		}
	}
}

// keys are those that a range over all keys returns; it begins behind the empty one.
func (l *live) keys() int {
	n := l.newest.count()
	if l.unnamed {
		n--
	}
	return n
}

func (b bitmap) room(i int) bitmap {
	for i/64 >= len(b) {
		b = append(b, 0)
	}
	return b
}

func (b bitmap) count() (n int) {
	for _, word := range b {
		n += bits.OnesCount64(word)
	}
	return n
}

// kvHash is etcd's hash of the rows of a database at its newest revision: all that came after
// the compaction, and of what came before only what is a key's last. So it is the same whether
// or not the compaction has removed the others yet.
type kvHash struct {
	compacted int64
	newest    bitmap
	any       bool // newest is not empty; where it is, etcd hashes all that is there
	table     *crc32.Table
	sum       uint32
}

func newKVHash(compacted int64, newest bitmap) *kvHash {
	table := crc32.MakeTable(crc32.Castagnoli)
	return &kvHash{
		compacted: compacted, newest: newest, any: newest.count() > 0,
		table: table, sum: crc32.Update(0, table, []byte("key")), // the name of the bucket
	}
}

func (h *kvHash) row(r row) error {
	if r.main <= h.compacted && h.any && !h.newest.get(r.number) {
		return nil
	}
	if r.main == h.compacted && r.tombstone { // versions before 3.4.34 and 3.5.16 have removed it
		return nil
	}
	h.sum = crc32.Update(crc32.Update(h.sum, h.table, r.key), h.table, r.value)
	return nil
}
