package etcd

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Prefix is below which every key lies that the agents share. A restore deletes them.
const Prefix = "/nodeagent/"

// Standing is how a member stands in its cluster, as far as it knows itself: without a quorum
// what it knows may be old.
type Standing struct {
	MemberID uint64
	Leader   uint64 // 0 where it knows of none
	Learner  bool
	Voters   int // the voting members of the cluster, this one among them
}

// Leads says that the member is the leader.
func (s Standing) Leads() bool { return s.Leader != 0 && s.Leader == s.MemberID }

// Alone says that nobody else votes: nothing is to be agreed upon.
func (s Standing) Alone() bool { return s.Voters <= 1 && !s.Learner }

// StandingOf asks the member that client, which has one endpoint, is connected to.
func StandingOf(ctx context.Context, client *clientv3.Client) (Standing, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	endpoints := client.Endpoints()
	if len(endpoints) != 1 {
		return Standing{}, fmt.Errorf("ask etcd for its status: %d endpoints given, not one", len(endpoints))
	}
	status, err := client.Status(ctx, endpoints[0])
	if err != nil {
		return Standing{}, fmt.Errorf("ask etcd for its status: %w", err)
	}
	members, err := client.MemberList(ctx, clientv3.WithSerializable())
	if err != nil {
		return Standing{}, fmt.Errorf("ask etcd for its members: %w", err)
	}
	s := Standing{MemberID: status.Header.MemberId, Leader: status.Leader, Learner: status.IsLearner}
	for _, m := range members.Members {
		if !m.IsLearner {
			s.Voters++
		}
	}
	return s, nil
}
