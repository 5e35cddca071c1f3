package etcdbackup

import (
	"bytes"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// wire is a message as gRPC hands it over, cut at an offset.
func wire(data []byte, at int) mem.BufferSlice {
	return mem.BufferSlice{mem.SliceBuffer(data[:at]), mem.SliceBuffer(data[at:])}
}

// What is read of a message is what protobuf itself reads, wherever it was cut, and one buffer does for
// larger and smaller ones.
func TestChunk(t *testing.T) {
	header := &etcdserverpb.ResponseHeader{ClusterId: 1, MemberId: 2, Revision: 3, RaftTerm: 4}
	var c chunk
	for name, m := range map[string]*etcdserverpb.SnapshotResponse{
		"empty":         {},
		"no blob":       {Header: header, RemainingBytes: 1 << 40, Version: "3.6"},
		"blob":          {Blob: []byte("blob")},
		"all":           {Header: header, RemainingBytes: 7, Blob: bytes.Repeat([]byte("0123456789abcdef"), 2<<10), Version: "3.6"},
		"large, again":  {Header: header, Blob: bytes.Repeat([]byte("x"), 100<<10)},
		"small, behind": {Header: header, Blob: []byte("y")},
	} {
		data, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range []int{0, len(data) / 3, len(data)} {
			if err := (chunkCodec{}).Unmarshal(wire(data, at), &c); err != nil || !bytes.Equal(c.blob, m.Blob) {
				t.Errorf("%s, cut at %d: %d bytes, want %d (%v)", name, at, len(c.blob), len(m.Blob), err)
			}
		}
	}
	if err := (chunkCodec{}).Unmarshal(nil, &etcdserverpb.SnapshotResponse{}); err == nil {
		t.Error("another message is read")
	}
}

// Whatever comes, what protobuf refuses is refused, and what it reads is read alike.
func FuzzChunk(f *testing.F) {
	for _, m := range []*etcdserverpb.SnapshotResponse{{}, {RemainingBytes: 9, Blob: []byte("blob"), Version: "3.6"}} {
		data, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte{0x1a, 0xff, 0xff, 0xff, 0xff, 0x0f}) // a blob of 4 GiB that is not there
	f.Fuzz(func(t *testing.T, data []byte) {
		var c chunk
		err := (chunkCodec{}).Unmarshal(wire(data, len(data)/2), &c)
		var m etcdserverpb.SnapshotResponse
		if proto.Unmarshal(data, &m) == nil && (err != nil || !bytes.Equal(c.blob, m.Blob)) {
			t.Errorf("%x: %x, %v; protobuf reads %x", data, c.blob, err, m.Blob)
		}
	})
}
