package etcd

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"
)

// LockTTL is how long after its holder has died a lock is still held. A member's disk that is
// slow for some seconds must not lose it.
const LockTTL = 30 * time.Second

// ErrLockLost is a lock that is no longer, or not surely enough, the holder's.
var ErrLockLost = errors.New("the cluster-wide lock is lost")

// HeldError is a cluster-wide lock that was waited for in vain.
type HeldError struct{ Lock, Holder string }

func (e *HeldError) Error() string {
	return fmt.Sprintf("take cluster-wide lock %q: held by %s", e.Lock, e.Holder)
}

// Lock is a lock of the whole cluster: a key of a lease that its holder keeps alive.
//
// A holder that was paused, or cut off, may have lost it without knowing. So whoever does what only
// the holder may do calls Check immediately before each single act, or does it by Txn. An act that
// has then begun can still end when the lock is another's: it has to be one that does no harm so.
type Lock struct {
	client   *clientv3.Client
	lease    clientv3.LeaseID
	key      string
	revision int64 // at which the key was made; 0 until it is

	ttl   time.Duration
	until atomic.Int64 // the lease lasts at least so long, on the clock of boottime

	stop context.CancelFunc
	done sync.WaitGroup
}

// Acquire takes the lock of that name, after whoever has come before, and waits for it while
// ctx lasts: then the error is a *HeldError joined with ctx's. told, which may be nil, is called with
// the holder's name when it has to wait, and whenever that is another's. Without a quorum, also while
// it waits, the error is ErrNoQuorum, some ten seconds after it was lost. The holder is free text, for
// people. Client has to live until Release, which the caller calls.
func Acquire(ctx context.Context, client *clientv3.Client, name, holder string, ttl time.Duration, told func(holder string)) (*Lock, error) {
	fail := func(err error) (*Lock, error) { return nil, fmt.Errorf("take cluster-wide lock %q: %w", name, err) }
	prefix := path.Join(Prefix, "lock", name) + "/"
	for {
		l, err := enqueue(ctx, client, prefix, holder, ttl)
		if err != nil {
			return fail(err)
		}
		current, err := l.wait(ctx, prefix, told)
		if err == nil {
			return l, nil
		}
		l.leave(ctx, err)
		switch {
		case ctx.Err() != nil && current != "":
			return nil, errors.Join(&HeldError{Lock: name, Holder: current}, context.Cause(ctx))
		case ctx.Err() == nil && errors.Is(err, ErrLockLost):
			continue // it slept through its own lease, and comes anew
		}
		return fail(err)
	}
}

// enqueue makes the key that stands for a place in the queue. It is the lease's: it goes when
// whoever has made it is gone.
func enqueue(ctx context.Context, client *clientv3.Client, prefix, holder string, ttl time.Duration) (*Lock, error) {
	l := &Lock{client: client}
	err := agreed(ctx, func(ctx context.Context) error {
		began := bootTime()
		lease, err := client.Grant(ctx, int64((ttl+time.Second-1)/time.Second))
		if err != nil {
			return err
		}
		l.lease, l.ttl = lease.ID, time.Duration(lease.TTL)*time.Second
		l.until.Store(int64(began + l.ttl))
		return nil
	})
	if err != nil {
		return nil, err
	}
	l.key = prefix + strconv.FormatInt(int64(l.lease), 16)
	alive, stop := context.WithCancel(context.WithoutCancel(ctx))
	l.stop = stop
	l.done.Go(func() { l.keepAlive(alive) })
	err = agreed(ctx, func(ctx context.Context) error {
		resp, err := client.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(l.key), "=", 0)).
			Then(clientv3.OpPut(l.key, holder, clientv3.WithLease(l.lease))).
			Else(clientv3.OpGet(l.key)).Commit()
		switch {
		case err != nil:
			return err
		case resp.Succeeded:
			l.revision = resp.Header.Revision
		default: // by an earlier try, whose answer did not come
			l.revision = resp.Responses[0].GetResponseRange().Kvs[0].CreateRevision
		}
		return nil
	})
	if err != nil {
		l.leave(ctx, err)
		return nil, err
	}
	return l, nil
}

// leave ends the wait for the lock, for a reason. What cannot be given back goes with its lease.
func (l *Lock) leave(ctx context.Context, reason error) {
	l.still()
	if !errors.Is(reason, ErrNoQuorum) {
		_ = l.revoke(ctx) // the reason is what there is to say
	}
}

// wait returns when the key is the oldest of the queue, and who holds the lock when it fails.
func (l *Lock) wait(ctx context.Context, prefix string, told func(holder string)) (current string, err error) {
	before := ""
	for {
		var queue *clientv3.GetResponse
		err := agreed(ctx, func(ctx context.Context) (err error) {
			queue, err = l.client.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend))
			return err
		})
		if err != nil {
			return before, err
		}
		ahead, here := "", false
		for _, kv := range queue.Kvs {
			if here = string(kv.Key) == l.key && kv.CreateRevision == l.revision; here {
				break
			}
			ahead = string(kv.Key)
		}
		if !here {
			return before, fmt.Errorf("%w: its lease ended while it waited", ErrLockLost)
		}
		if ahead == "" {
			return "", nil
		}
		if holder := string(queue.Kvs[0].Value); holder != before {
			before = holder
			if told != nil {
				told(holder)
			}
		}
		if err := l.gone(ctx, ahead, queue.Header.Revision+1); err != nil {
			return before, err
		}
	}
}

// gone waits for the key of whoever is next before it to go, from a revision on. It also returns when
// that cannot be told, and after a while: its caller looks again.
func (l *Lock) gone(ctx context.Context, key string, from int64) error {
	watched, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), l.ttl)
	defer cancel()
	for resp := range l.client.Watch(watched, key, clientv3.WithRev(from), clientv3.WithFilterPut()) {
		if resp.Err() != nil { // such as no leader: the look tells whether that lasts
			break
		}
		if len(resp.Events) > 0 {
			return nil
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if watched.Err() == nil {
		select { // no hurry: the watch may fail at once, time after time
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(retryPause):
		}
	}
	return nil
}

// margin is how much of the lease has to be left: what is begun then has ended, or is a single act
// that outlives it.
func (l *Lock) margin() time.Duration { return l.ttl / 3 }

// left is how long the lease surely lasts.
func (l *Lock) left() time.Duration { return time.Duration(l.until.Load()) - bootTime() }

// Check returns nil while the lock is held, and will be for a while. It is called immediately before
// each act that only the holder may do. ErrLockLost where it is not, ErrNoQuorum where that
// cannot be told.
func (l *Lock) Check(ctx context.Context) error {
	_, err := l.Txn(ctx, nil)
	return err
}

// Txn does what then says in a transaction that only the holder's succeeds, and only if all of
// conditions hold: Succeeded is false where they do not, and ErrLockLost where the lock is not held. It
// may be done though the error is ErrNoQuorum.
func (l *Lock) Txn(ctx context.Context, conditions []clientv3.Cmp, then ...clientv3.Op) (*clientv3.TxnResponse, error) {
	if l.left() <= l.margin() {
		// It may have been paused: the lease may live yet.
		if err := l.renew(ctx); err != nil && !errors.Is(err, ErrLockLost) {
			return nil, fmt.Errorf("%w: its lease has %s left and could not be prolonged: %w", ErrLockLost, max(l.left(), 0), err)
		} else if err != nil {
			return nil, err
		}
	}
	var resp *clientv3.TxnResponse
	err := agreedWithin(ctx, min(quorumTimeout, l.ttl/2), func(ctx context.Context) (err error) {
		held := clientv3.Compare(clientv3.CreateRevision(l.key), "=", l.revision)
		resp, err = l.client.Txn(ctx).If(append([]clientv3.Cmp{held}, conditions...)...).
			Then(then...).Else(clientv3.OpGet(l.key)).Commit()
		return err
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("verify cluster-wide lock: %w", err)
	case !resp.Succeeded && !l.isIn(resp):
		return nil, ErrLockLost
	case resp.Succeeded && len(then) > 0: // it is done
		return resp, nil
	case l.left() <= l.margin(): // the answer took its time
		return nil, fmt.Errorf("%w: its lease has %s left", ErrLockLost, max(l.left(), 0))
	}
	return resp, nil
}

// isIn says that the key, as it was when a transaction did not succeed, was the holder's.
func (l *Lock) isIn(resp *clientv3.TxnResponse) bool {
	kvs := resp.Responses[0].GetResponseRange().Kvs
	return len(kvs) == 1 && kvs[0].CreateRevision == l.revision
}

// Release gives the lock, or the place in the queue, back at once, by revoking the lease: nothing
// of it can be left so. One that is lost is fine. When it fails the lock goes with its lease.
func (l *Lock) Release(ctx context.Context) error {
	l.still()
	return l.revoke(ctx)
}

// still ends the keeping alive.
func (l *Lock) still() {
	l.stop()
	l.done.Wait()
}

func (l *Lock) revoke(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dialTimeout)
	defer cancel()
	if _, err := l.client.Revoke(ctx, l.lease); err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return fmt.Errorf("release cluster-wide lock, which is free in %s: %w", max(l.left(), 0).Round(time.Second), err)
	}
	return nil
}

// keepAlive prolongs the lease until ctx ends or it is lost.
func (l *Lock) keepAlive(ctx context.Context) {
	pause := l.ttl / 3
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		err := l.renew(ctx)
		if errors.Is(err, ErrLockLost) {
			return
		}
		if pause = l.ttl / 3; err != nil {
			pause = l.ttl / 20
		}
	}
}

// renew prolongs the lease once. What is left of it is counted from before it was asked for, not from
// when this process, which may have slept, got to read the answer.
func (l *Lock) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, l.ttl/3)
	defer cancel()
	began := bootTime()
	stream, err := etcdserverpb.NewLeaseClient(l.client.ActiveConnection()).LeaseKeepAlive(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(&etcdserverpb.LeaseKeepAliveRequest{ID: int64(l.lease)}); err != nil {
		return err
	}
	answer, err := stream.Recv()
	if err != nil {
		return err
	}
	if answer.TTL <= 0 {
		return fmt.Errorf("%w: its lease has ended", ErrLockLost)
	}
	for until := int64(began + time.Duration(answer.TTL)*time.Second); ; {
		was := l.until.Load()
		if was >= until || l.until.CompareAndSwap(was, until) {
			return nil
		}
	}
}

// bootTime is the clock that goes on while the machine sleeps, and that nobody sets.
func bootTime() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) // a clock of every kernel since 2.6.39
	return time.Duration(ts.Nano())
}
