package etcdbackup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// chunks is the stream of Maintenance.Snapshot, which etcd sends in messages of 32 KiB. It reads what
// the client's own Snapshot does, with a quarter of the processor time: that one copies each message into a
// buffer that is cleared first, then into one that is thrown away, and hands it through a pipe.
type chunks struct {
	stream grpc.ClientStream
	cancel context.CancelFunc
	now    chunk
	rest   []byte // of now, not read yet
}

// snapshot begins the stream on the client's one connection.
func snapshot(ctx context.Context, client *clientv3.Client) (*chunks, error) {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := etcdserverpb.NewMaintenanceClient(client.ActiveConnection()).
		Snapshot(ctx, &etcdserverpb.SnapshotRequest{}, grpc.ForceCodecV2(chunkCodec{}))
	if err != nil {
		cancel()
		return nil, clientv3.ContextError(ctx, err)
	}
	return &chunks{stream: stream, cancel: cancel}, nil
}

// Read returns io.EOF where etcd has ended the stream, be the snapshot whole or not.
func (c *chunks) Read(p []byte) (int, error) {
	for len(c.rest) == 0 {
		if err := c.stream.RecvMsg(&c.now); errors.Is(err, io.EOF) {
			return 0, io.EOF
		} else if err != nil {
			return 0, clientv3.ContextError(c.stream.Context(), err)
		}
		c.rest = c.now.blob
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// Close ends the stream, read to its end or not.
func (c *chunks) Close() error {
	c.cancel()
	return nil
}

// chunk is one SnapshotResponse, in a buffer that the next is read into.
type chunk struct{ wire, blob []byte }

// chunkCodec reads a SnapshotResponse into a chunk.
type chunkCodec struct{}

// Name is that of the wire format, which is protobuf's.
func (chunkCodec) Name() string { return "proto" }

// Marshal is called for the one request, a SnapshotRequest, which has no fields.
func (chunkCodec) Marshal(any) (mem.BufferSlice, error) { return nil, nil }

func (chunkCodec) Unmarshal(data mem.BufferSlice, v any) error {
	c, ok := v.(*chunk)
	if !ok {
		return fmt.Errorf("a message of a snapshot is read into %T", v)
	}
	c.wire = slices.Grow(c.wire[:0], data.Len())[:data.Len()]
	data.CopyTo(c.wire)
	return c.parse()
}

// blobField is that of SnapshotResponse.blob.
const blobField = 3

func (c *chunk) parse() error {
	c.blob = nil
	for rest := c.wire; len(rest) > 0; {
		number, kind, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return protowire.ParseError(n)
		}
		rest = rest[n:]
		if n = protowire.ConsumeFieldValue(number, kind, rest); n < 0 {
			return protowire.ParseError(n)
		}
		if number == blobField && kind == protowire.BytesType {
			c.blob, _ = protowire.ConsumeBytes(rest)
		}
		rest = rest[n:]
	}
	return nil
}
