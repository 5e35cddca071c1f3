package etcdbackup

import (
	"context"
	"fmt"
	"io"
	"strconv"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Source is an etcd member that a snapshot is taken from.
type Source interface {
	// Describe says what the member is and how large its database is on disk.
	Describe(ctx context.Context) (m Member, size int64, err error)
	// Snapshot streams a snapshot, trailer included. Reading ends with ctx's error when ctx
	// is done.
	Snapshot(ctx context.Context) (io.ReadCloser, error)
}

// FromClient is the member that client is connected to. The client has one endpoint, since a
// snapshot is of one member.
func FromClient(client *clientv3.Client) Source { return member{client} }

type member struct{ client *clientv3.Client }

func (m member) Describe(ctx context.Context) (Member, int64, error) {
	endpoints := m.client.Endpoints()
	if len(endpoints) != 1 {
		return Member{}, 0, fmt.Errorf("ask etcd for its status: %d endpoints given, not one", len(endpoints))
	}
	status, err := m.client.Status(ctx, endpoints[0])
	if err != nil {
		return Member{}, 0, fmt.Errorf("ask etcd for its status: %w", err)
	}
	if status.IsLearner {
		return Member{}, 0, fmt.Errorf("member %x is a learner, which may lag far behind: save on a voting member", status.Header.MemberId)
	}
	return Member{
		ClusterID:      strconv.FormatUint(status.Header.ClusterId, 16),
		MemberID:       strconv.FormatUint(status.Header.MemberId, 16),
		Version:        status.Version,
		StorageVersion: status.StorageVersion,
	}, status.DbSize, nil
}

func (m member) Snapshot(ctx context.Context) (io.ReadCloser, error) {
	response, err := m.client.SnapshotWithVersion(ctx)
	if err != nil {
		return nil, fmt.Errorf("open snapshot stream: %w", err)
	}
	return response.Snapshot, nil
}
