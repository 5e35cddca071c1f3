package etcdbackup

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Source is an etcd member that a snapshot is taken from.
type Source interface {
	// Describe says what the member and its cluster are. One that a snapshot is not to be taken
	// of is an error.
	Describe(ctx context.Context) (Description, error)
	// Snapshot streams a snapshot, trailer included. Reading ends with ctx's error when ctx
	// is done.
	Snapshot(ctx context.Context) (io.ReadCloser, error)
}

// Description is what there is to know of a member before a snapshot.
type Description struct {
	Member  Member
	Cluster Cluster
	Size    int64 // of its database on disk, free pages included, which a snapshot has too
	Quota   int64 // of that size; 0 where etcd does not tell, as before 3.6
	// WithoutQuorum says that the member knows of no leader.
	WithoutQuorum bool
}

// FromClient is the member that client is connected to. The client has one endpoint, since a
// snapshot is of one member. caFingerprint, which may be empty, identifies a cluster that is no
// Kubernetes: the sha256, in hexadecimal, of the certificate that the server's is verified with.
func FromClient(client *clientv3.Client, caFingerprint string) Source {
	return member{client: client, ca: caFingerprint}
}

type member struct {
	client *clientv3.Client
	ca     string
}

func (m member) Describe(ctx context.Context) (Description, error) {
	endpoints := m.client.Endpoints()
	if len(endpoints) != 1 {
		return Description{}, fmt.Errorf("ask etcd for its status: %d endpoints given, not one", len(endpoints))
	}
	status, err := m.client.Status(ctx, endpoints[0])
	if err != nil {
		return Description{}, fmt.Errorf("ask etcd for its status: %w", err)
	}
	if status.IsLearner {
		return Description{}, learnerError(status.Header.MemberId)
	}
	peers, err := m.peers(ctx)
	if err != nil {
		return Description{}, err
	}
	cluster, err := m.cluster(ctx)
	if err != nil {
		return Description{}, err
	}
	return Description{
		Member: Member{
			ClusterID:      strconv.FormatUint(status.Header.ClusterId, 16),
			MemberID:       strconv.FormatUint(status.Header.MemberId, 16),
			Version:        status.Version,
			StorageVersion: status.StorageVersion,
			Members:        peers,
		},
		Cluster: cluster, Size: status.DbSize, Quota: status.DbSizeQuota, WithoutQuorum: status.Leader == 0,
	}, nil
}

func learnerError(id uint64) error {
	return fmt.Errorf("member %x is a learner, which may lag far behind: save on a voting member", id)
}

// peers are the cluster's members as this one knows them: without a quorum it still answers,
// since a list that is a little old does for a backup.
func (m member) peers(ctx context.Context) ([]Peer, error) {
	list, err := m.client.MemberList(ctx, clientv3.WithSerializable())
	if err != nil {
		return nil, fmt.Errorf("ask etcd for its members: %w", err)
	}
	var peers []Peer
	for _, p := range list.Members {
		peers = append(peers, Peer{ID: strconv.FormatUint(p.ID, 16), Name: p.Name, PeerURLs: p.PeerURLs, Learner: p.IsLearner})
	}
	slices.SortFunc(peers, func(a, b Peer) int { return cmp.Compare(a.ID, b.ID) })
	return peers, nil
}

// kubeSystem is where an API server keeps the namespace, by its --etcd-prefix default.
const kubeSystem = "/registry/namespaces/kube-system"

// cluster asks for the namespace kube-system, which a restore brings back with its UID.
func (m member) cluster(ctx context.Context) (Cluster, error) {
	got, err := m.client.Get(ctx, kubeSystem, clientv3.WithSerializable())
	if err != nil {
		return Cluster{}, fmt.Errorf("ask etcd for %s: %w", kubeSystem, err)
	}
	for _, kv := range got.Kvs {
		if uid, ok := uidOf(kv.Value); ok {
			return Cluster{Kind: KubeSystem, ID: uid}, nil
		}
	}
	if m.ca == "" {
		return Cluster{}, nil
	}
	return Cluster{Kind: CertificateAuthority, ID: m.ca}, nil
}

func (m member) Snapshot(ctx context.Context) (io.ReadCloser, error) {
	stream, err := snapshot(ctx, m.client)
	if err != nil {
		return nil, fmt.Errorf("open snapshot stream: %w", err)
	}
	return stream, nil
}
