package etcd_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nodeagent/nodeagent/pkg/etcd"
	"github.com/nodeagent/nodeagent/pkg/etcd/etcdtest"
	"github.com/nodeagent/nodeagent/pkg/host"
)

const (
	lockName = "backup"
	queue    = etcd.Prefix + "lock/" + lockName + "/"
	ttl      = 2 * time.Second
)

// connect is a client of its own.
func connect(t *testing.T, m *etcdtest.Member) *clientv3.Client {
	t.Helper()
	client, err := find(t, m.Host).Dial(t.Context(), m.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() }) // some tests close it themselves
	return client
}

// patient bounds a wait that is to end much earlier.
func patient(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func acquire(t *testing.T, client *clientv3.Client, holder string) *etcd.Lock {
	t.Helper()
	l, err := etcd.Acquire(patient(t), client, lockName, holder, ttl, nil)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func release(t *testing.T, l *etcd.Lock) {
	t.Helper()
	if err := l.Release(t.Context()); err != nil {
		t.Error(err)
	}
}

func keys(t *testing.T, client *clientv3.Client) (names []string) {
	t.Helper()
	resp, err := client.Get(t.Context(), etcd.Prefix, clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range resp.Kvs {
		names = append(names, string(kv.Key))
	}
	return names
}

func TestLockIsFIFO(t *testing.T) {
	m := start(t)
	client := connect(t, m)
	first := acquire(t, client, "cp0")
	var mu sync.Mutex
	var order []string
	told := map[string][]string{}
	var wg sync.WaitGroup
	for _, holder := range []string{"cp1", "cp2", "cp3"} {
		waits, once := make(chan struct{}), sync.Once{}
		own := connect(t, m)
		wg.Go(func() {
			l, err := etcd.Acquire(patient(t), own, lockName, holder, ttl, func(by string) {
				mu.Lock()
				defer mu.Unlock()
				told[holder] = append(told[holder], by)
				once.Do(func() { close(waits) })
			})
			if err != nil {
				t.Error(err)
				return
			}
			if err := l.Check(t.Context()); err != nil {
				t.Error(err)
			}
			mu.Lock()
			order = append(order, holder)
			mu.Unlock()
			release(t, l)
		})
		select {
		case <-waits:
		case <-patient(t).Done():
			t.Fatalf("%s is not told that it has to wait", holder)
		}
	}
	if err := first.Check(t.Context()); err != nil {
		t.Errorf("while others wait: %v", err)
	}
	release(t, first)
	wg.Wait()
	if want := []string{"cp1", "cp2", "cp3"}; !slices.Equal(order, want) {
		t.Errorf("it went to %q, want %q", order, want)
	}
	for holder, by := range told {
		if by[0] != "cp0" {
			t.Errorf("%s is told %q", holder, by)
		}
	}
	if got := keys(t, client); len(got) != 0 {
		t.Errorf("left: %q", got)
	}
}

func TestLockWaitEnds(t *testing.T) {
	m := start(t)
	client := connect(t, m)
	l := acquire(t, client, "cp1: save (pid 7)")
	ctx, cancel := context.WithCancel(t.Context())
	_, err := etcd.Acquire(ctx, client, lockName, "cp2", ttl, func(string) { cancel() })
	var held *etcd.HeldError
	if !errors.As(err, &held) || held.Holder != "cp1: save (pid 7)" || held.Lock != lockName || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if want := `take cluster-wide lock "backup": held by cp1: save (pid 7)`; held != nil && held.Error() != want {
		t.Errorf("it says %q, want %q", held, want)
	}
	if got := keys(t, client); len(got) != 1 {
		t.Errorf("whoever has given up is still in the queue: %q", got)
	}
	release(t, l)
}

// kured#137, #847, #792: a lock that is held for ever by a node that no longer exists.
func TestLockOfTheDead(t *testing.T) {
	m := start(t)
	dead := connect(t, m)
	acquire(t, dead, "cp1")
	if err := dead.Close(); err != nil { // as good as dead: it cannot keep its lease alive
		t.Fatal(err)
	}
	client := connect(t, m)
	release(t, acquire(t, client, "cp2"))
}

// lease is that of the holder of the lock.
func lease(t *testing.T, client *clientv3.Client) clientv3.LeaseID {
	t.Helper()
	resp, err := client.Get(t.Context(), queue, clientv3.WithPrefix())
	if err != nil || len(resp.Kvs) != 1 {
		t.Fatalf("%v, %v", resp, err)
	}
	return clientv3.LeaseID(resp.Kvs[0].Lease)
}

func TestLockLost(t *testing.T) {
	for name, lose := range map[string]func(*testing.T, *clientv3.Client){
		"its lease has ended": func(t *testing.T, client *clientv3.Client) {
			if _, err := client.Revoke(t.Context(), lease(t, client)); err != nil {
				t.Fatal(err)
			}
		},
		"its key was removed": func(t *testing.T, client *clientv3.Client) {
			if _, err := client.Delete(t.Context(), queue, clientv3.WithPrefix()); err != nil {
				t.Fatal(err)
			}
		},
		"a key of that name is another's": func(t *testing.T, client *clientv3.Client) {
			key := queue + strconv.FormatInt(int64(lease(t, client)), 16)
			if _, err := client.Delete(t.Context(), key); err != nil {
				t.Fatal(err)
			}
			if _, err := client.Put(t.Context(), key, "cp1"); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			client := connect(t, start(t))
			l := acquire(t, client, "cp1")
			const key = etcd.Prefix + "x"
			write := func(value string) error {
				return l.Update(t.Context(), key, func([]byte) ([]byte, error) { return []byte(value), nil })
			}
			if err := errors.Join(l.Check(t.Context()), write("mine")); err != nil {
				t.Fatal(err)
			}
			lose(t, client)
			_, valuesErr := l.Values(t.Context(), key)
			for what, err := range map[string]error{"Check": l.Check(t.Context()), "Update": write("still mine"), "Values": valuesErr} {
				if !errors.Is(err, etcd.ErrLockLost) {
					t.Errorf("%s: %v", what, err)
				}
			}
			if values, err := etcd.Values(t.Context(), client, key); err != nil || string(values[key]) != "mine" {
				t.Errorf("%q, %v", values, err)
			}
			release(t, l)
		})
	}
}

// A holder that cannot ask anybody is never told that it still holds the lock, and once its lease may
// have ended its own clock says so.
func TestLockOfOneCutOff(t *testing.T) {
	m, err := etcdtest.Start(host.New(t.TempDir()), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	l := acquire(t, connect(t, m), "cp1")
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	for ctx := patient(t); ; {
		err := l.Check(ctx)
		if errors.Is(err, etcd.ErrLockLost) {
			break
		}
		if !errors.Is(err, etcd.ErrNoQuorum) || ctx.Err() != nil {
			t.Fatalf("got %v", err)
		}
	}
	if err := l.Release(t.Context()); err == nil || !strings.Contains(err.Error(), "is free in 0s") {
		t.Errorf("released: %v", err)
	}
}

// A waiter whose own lease has ended comes anew.
func TestLockWaiterSleepsIn(t *testing.T) {
	m := start(t)
	client := connect(t, m)
	l := acquire(t, client, "cp1")
	slept := sync.OnceFunc(func() {
		resp, err := client.Get(t.Context(), queue, clientv3.WithPrefix())
		if err != nil {
			t.Error(err)
			return
		}
		for _, kv := range resp.Kvs {
			if string(kv.Value) == "cp2" {
				_, err = client.Revoke(t.Context(), clientv3.LeaseID(kv.Lease))
			}
		}
		if err != nil {
			t.Error(err)
		}
		release(t, l)
	})
	second, err := etcd.Acquire(patient(t), connect(t, m), lockName, "cp2", ttl, func(string) { slept() })
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Check(t.Context()); err != nil {
		t.Error(err)
	}
	release(t, second)
}

// The lease is kept alive for as long as the lock is held.
func TestLockOutlivesItsFirstLease(t *testing.T) {
	client := connect(t, start(t))
	l := acquire(t, client, "cp1")
	id := lease(t, client)
	prolonged := func() bool {
		resp, err := client.TimeToLive(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return resp.TTL > 0
	}
	for until := time.Now().Add(ttl + ttl/3); time.Now().Before(until); time.Sleep(100 * time.Millisecond) {
		if !prolonged() {
			t.Fatal("it has ended")
		}
	}
	if err := l.Check(t.Context()); err != nil {
		t.Error(err)
	}
	release(t, l)
}

func TestUpdateAtOnce(t *testing.T) {
	client := connect(t, start(t))
	const key = etcd.Prefix + "count"
	add := func(old []byte) ([]byte, error) {
		n, _ := strconv.Atoi(string(old))
		return []byte(strconv.Itoa(n + 1)), nil
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 5 {
				if err := etcd.Update(t.Context(), client, key, add); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	values, err := etcd.Values(t.Context(), client, key, etcd.Prefix+"none")
	if err != nil || len(values) != 1 || string(values[key]) != "20" {
		t.Errorf("%q, %v", values, err)
	}
	why := errors.New("no")
	if err := etcd.Update(t.Context(), client, key, func([]byte) ([]byte, error) { return nil, why }); !errors.Is(err, why) || !strings.Contains(err.Error(), key) {
		t.Error(err)
	}
}

func TestStandingOf(t *testing.T) {
	m := start(t)
	client := connect(t, m)
	s, err := etcd.StandingOf(t.Context(), client)
	if err != nil || !s.Alone() || !s.Leads() || s.Learner || s.Voters != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := client.MemberAddAsLearner(t.Context(), []string{"http://127.0.0.1:1"}); err != nil {
		t.Fatal(err)
	}
	if s, err = etcd.StandingOf(t.Context(), client); err != nil || !s.Alone() {
		t.Errorf("beside a learner: %+v, %v", s, err)
	}
}
