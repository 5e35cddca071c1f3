package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ErrNoQuorum is a request that needs the agreement of the members and got none in time: the member
// that was asked is cut off from the others, too few of them live, or it does not answer itself.
var ErrNoQuorum = errors.New("no quorum of etcd's members")

const (
	// quorumTimeout is how long the members may take to agree: an election, or a disk that is slow for
	// a moment, is no loss of the quorum. Etcd itself gives up after 7 s.
	quorumTimeout = 10 * time.Second
	// retryPause is between two tries of a request that failed for want of a leader.
	retryPause = 200 * time.Millisecond
)

// agreed does what the members have to agree upon, which may be done twice, and tries again while
// there may soon be a leader. ErrNoQuorum when that takes too long.
func agreed(ctx context.Context, do func(context.Context) error) error {
	return agreedWithin(ctx, quorumTimeout, do)
}

func agreedWithin(ctx context.Context, limit time.Duration, do func(context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for last := error(nil); ; {
		err := do(bounded)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !wantsLeader(err):
			return err
		case bounded.Err() == nil || last == nil:
			last = err // the deadline alone says less than what came before it
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-bounded.Done():
			return fmt.Errorf("%w within %s: %w", ErrNoQuorum, limit, last)
		case <-time.After(retryPause):
		}
	}
}

// wantsLeader says that a request failed since the members do not agree, or cannot be reached.
func wantsLeader(err error) bool {
	code := status.Code(err)
	var known rpctypes.EtcdError
	if errors.As(err, &known) {
		code = known.Code()
	}
	switch code {
	case codes.Unavailable, codes.DeadlineExceeded:
		return true
	case codes.Unknown: // etcd passes on in words what raft refuses while a leader changes
		return errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "raft proposal dropped")
	}
	return false
}
