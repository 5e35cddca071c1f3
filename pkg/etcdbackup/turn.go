package etcdbackup

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nodeagent/nodeagent/pkg/etcd"
)

const (
	// backupLock is the cluster-wide lock under which members save, one after the other.
	backupLock = "backup"
	// leastPatience and mostPatience bound how long the lock is waited for.
	leastPatience = 20 * time.Second
	mostPatience  = 10 * time.Minute
	// leaderPatience is how long the leader waits for the others by itself, lookEvery how often it looks.
	leaderPatience = 15 * time.Second
	lookEvery      = time.Second
)

// Shared is a store that all members of a cluster save to: what of it lies on this host, and is
// uploaded later, and the id that every member knows it by.
type Shared struct {
	Local
	ID string
}

// TurnRequest says whose turn it may be, and for what.
type TurnRequest struct {
	Client   *clientv3.Client // of this host's member; it lives until the turn's End
	Standing etcd.Standing
	Holder   string // who waits and holds the lock, for people: host, program, process
	Now      time.Time
	Slot     Slot // that Now is in

	Own    []Local  // the stores that are this host's own
	Shared []Shared // those that other members save to, too

	// Waiting is told who holds the lock that is waited for; nil is told nothing.
	Waiting func(holder string)
	// Patience is how long the lock is waited for; until the slot ends, and at most ten minutes, when 0.
	Patience time.Duration
	// TTL is how long the lock outlives a holder that has died; etcd.LockTTL when 0.
	TTL time.Duration
}

// Turn is what a member may save in a slot.
type Turn struct {
	// Stores are those to save to. There may be none. Those that are shared are of type Shared.
	Stores []Local
	// Passed are the shared stores that are another member's this time.
	Passed []Passed
	// WithoutQuorum says that the members could not be asked.
	WithoutQuorum bool
	// Unlocked is why the save is not kept apart from the other members'; nil where it is, or need not be.
	Unlocked error

	lock *etcd.Lock
	slot Slot
}

// Passed is a shared store that gets nothing from this member in a slot.
type Passed struct{ Store, Reason string }

// NotYetError is a member that leads the others and leaves the slot to them until a time.
type NotYetError struct{ Until time.Time }

func (e *NotYetError) Error() string {
	return "this member leads: the others may take the slot until " + e.Until.Format(time.RFC3339)
}

// TakeTurn waits until it is this member's turn to make its scheduled save, and says what to save to:
//
//   - A member that is alone saves to all its stores, and etcd is told nothing.
//   - Else members save one after the other, under the cluster-wide lock: to its own stores each,
//     to a shared one the first in each slot. A wait for the lock ends with the slot, or in ten minutes;
//     then the member saves to its own stores alone.
//   - The leader, whose disk all writes wait for, leaves shared stores to the others for a while: it is
//     a *NotYetError that it does, unless no more than some seconds are left, or they have been taken. That
//     somebody else is there needs no look: without one there is no quorum to take a slot by.
//   - Without a quorum, and where etcd refuses the lock for its own reasons, such as a full database, each
//     member saves to all stores: a backup too many is better than none.
//   - A learner never saves.
//
// The caller saves by a request that Apply has changed, and calls End in any case.
func TakeTurn(ctx context.Context, r TurnRequest) (*Turn, error) {
	fail := func(err error) (*Turn, error) { return nil, fmt.Errorf("take turn to save: %w", err) }
	for _, s := range r.Shared {
		if !storeID.MatchString(s.ID) {
			return fail(fmt.Errorf("%s: its id is %q", s, s.ID))
		}
	}
	if r.Standing.Learner {
		return fail(learnerError(r.Standing.MemberID))
	}
	t := &Turn{Stores: append([]Local(nil), r.Own...), slot: r.Slot}
	if r.Standing.Alone() {
		t.takeAll(r.Shared)
		return t, nil
	}
	if err := r.leave(ctx); err != nil {
		return fail(err)
	}
	bounded, cancel := context.WithTimeout(ctx, r.patience())
	defer cancel()
	lock, err := etcd.Acquire(bounded, r.Client, backupLock, r.Holder, r.ttl(), r.Waiting)
	if ctx.Err() != nil {
		if lock != nil {
			err = lock.Release(ctx)
		}
		return fail(errors.Join(context.Cause(ctx), err))
	}
	var held *etcd.HeldError
	switch {
	case errors.As(err, &held):
		t.Unlocked = err
		for _, s := range r.Shared {
			t.Passed = append(t.Passed, Passed{s.String(), held.Error()})
		}
		return t, nil
	case err != nil:
		t.unlocked(err, r.Shared)
		return t, nil
	}
	t.lock = lock
	if err := t.choose(ctx, r.Shared); err != nil {
		released := lock.Release(ctx)
		t.lock = nil
		if !errors.Is(err, etcd.ErrNoQuorum) {
			return fail(errors.Join(err, released))
		}
		t.unlocked(err, r.Shared)
	}
	return t, nil
}

func (r TurnRequest) patience() time.Duration {
	if r.Patience == 0 {
		return min(max(r.Slot.End.Sub(r.Now), leastPatience), mostPatience)
	}
	return r.Patience
}

func (r TurnRequest) ttl() time.Duration {
	if r.TTL == 0 {
		return etcd.LockTTL
	}
	return r.TTL
}

// leave waits, where this member leads, until the shared stores have been taken by others, or may be
// by it.
func (r TurnRequest) leave(ctx context.Context) error {
	if !r.Standing.Leads() || len(r.Shared) == 0 {
		return nil
	}
	for left := r.Slot.LeaderFrom.Sub(r.Now); left > 0; left -= lookEvery {
		if r.allTaken(ctx) {
			return nil
		}
		if left > leaderPatience {
			return &NotYetError{Until: r.Slot.LeaderFrom}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(min(left, lookEvery)):
		}
	}
	return nil
}

// allTaken says that there is no shared store to wait for; what cannot be read now is read under
// the lock.
func (r TurnRequest) allTaken(ctx context.Context) bool {
	for _, s := range r.Shared {
		records, err := SlotRecords(ctx, r.Client, s.ID)
		if err == nil && !records[s.ID].taken(r.Slot) {
			return false
		}
	}
	return true
}

// takeAll has the member save to all shared stores.
func (t *Turn) takeAll(shared []Shared) {
	for _, s := range shared {
		t.Stores = append(t.Stores, s)
	}
}

// unlocked has the member save to all stores without the lock, for a reason.
func (t *Turn) unlocked(reason error, shared []Shared) {
	t.Unlocked, t.WithoutQuorum = reason, errors.Is(reason, etcd.ErrNoQuorum)
	t.takeAll(shared)
}

// choose has the member save to those shared stores whose slot nobody has taken.
func (t *Turn) choose(ctx context.Context, shared []Shared) error {
	if len(shared) == 0 {
		return nil
	}
	var keys []string
	for _, s := range shared {
		keys = append(keys, slotKey(s.ID))
	}
	values, err := t.lock.Values(ctx, keys...)
	if err != nil {
		return err
	}
	for _, s := range shared {
		record, err := decodeSlotRecord(values[slotKey(s.ID)])
		switch {
		case errors.Is(err, ErrLaterVersion):
			t.Passed = append(t.Passed, Passed{s.String(), "its slot record " + ErrLaterVersion.Error() + ", which takes the slots"})
		case err == nil && record.taken(t.slot):
			t.Passed = append(t.Passed, Passed{s.String(), fmt.Sprintf("%s has the slot of %s, by %s", record.Taken.Host, record.Slot.Format(time.RFC3339), record.Taken.Backup)})
		default:
			t.Stores = append(t.Stores, s)
		}
	}
	return nil
}

// Apply makes the request for a save that of the turn: the lock is verified before each shared store
// gets the backup, and the slot is recorded right after. A member that dies between the two has taken no slot,
// and another one saves the slot too.
func (t *Turn) Apply(req *Request) {
	req.WithoutQuorum = t.WithoutQuorum
	if t.lock == nil {
		return
	}
	req.Permit = func(ctx context.Context, store Local) error {
		if _, is := store.(Shared); !is {
			return nil
		}
		return t.lock.Check(ctx)
	}
	req.Published = func(ctx context.Context, store Local, m Manifest) error {
		s, is := store.(Shared)
		if !is {
			return nil
		}
		return t.lock.Update(ctx, slotKey(s.ID), changed(func(r *SlotRecord) {
			r.Slot, r.Taken = t.slot.Start, slotBackup(m)
		}))
	}
}

// End gives the lock back. When that fails it is free once its lease ends.
func (t *Turn) End(ctx context.Context) error {
	if t.lock == nil {
		return nil
	}
	lock := t.lock
	t.lock = nil
	return lock.Release(ctx)
}
