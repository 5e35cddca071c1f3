package etcd

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestAgreed(t *testing.T) {
	own := errors.New("its own")
	for name, tt := range map[string]struct {
		err      error
		fails    int // times, before it succeeds
		want     error
		attempts int // 0: many
	}{
		"at once":                   {nil, 0, nil, 1},
		"after an election":         {rpctypes.ErrNoLeader, 5, nil, 6},
		"raft refuses meanwhile":    {status.Error(codes.Unknown, "raft proposal dropped"), 2, nil, 3},
		"never a leader":            {rpctypes.ErrNoLeader, 1e6, ErrNoQuorum, 0},
		"etcd times out":            {rpctypes.ErrTimeoutDueToLeaderFail, 1e6, ErrNoQuorum, 0},
		"the database is full":      {rpctypes.ErrNoSpace, 1e6, rpctypes.ErrNoSpace, 1},
		"not allowed":               {rpctypes.ErrPermissionDenied, 1e6, rpctypes.ErrPermissionDenied, 1},
		"an error of no server's":   {own, 1e6, own, 1},
		"the client's own deadline": {context.DeadlineExceeded, 1e6, ErrNoQuorum, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				attempts, began := 0, time.Now()
				err := agreed(t.Context(), func(context.Context) error {
					if attempts++; attempts > tt.fails {
						return nil
					}
					return tt.err
				})
				if !errors.Is(err, tt.want) || tt.attempts != 0 && attempts != tt.attempts || tt.attempts == 0 && attempts < 10 {
					t.Errorf("%v after %d attempts, want %v after %d", err, attempts, tt.want, tt.attempts)
				}
				if errors.Is(err, ErrNoQuorum) && !errors.Is(err, tt.err) {
					t.Errorf("%v does not say why", err)
				}
				if took := time.Since(began); took > quorumTimeout {
					t.Errorf("it took %s", took)
				}
			})
		})
	}
}

// What its caller gives up is no loss of the quorum.
func TestAgreedGivesUpWithItsContext(t *testing.T) {
	why := errors.New("shutting down")
	ctx, cancel := context.WithCancelCause(t.Context())
	err := agreed(ctx, func(context.Context) error {
		cancel(why)
		return rpctypes.ErrNoLeader
	})
	if !errors.Is(err, why) || errors.Is(err, ErrNoQuorum) {
		t.Errorf("got %v", err)
	}
}
