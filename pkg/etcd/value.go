package etcd

import (
	"context"
	"errors"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Values are those of keys, by key, as the member that is asked knows them, which may be behind
// the others. Keys that are not there are left out.
func Values(ctx context.Context, client *clientv3.Client, keys ...string) (map[string][]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	values := map[string][]byte{}
	for _, key := range keys {
		resp, err := client.Get(ctx, key, clientv3.WithSerializable())
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", key, err)
		}
		for _, kv := range resp.Kvs {
			values[key] = kv.Value
		}
	}
	return values, nil
}

// Update writes what change makes of the value of a key, nil where there is none, and does so again
// whenever somebody else has written it meanwhile. Where change returns nil nothing is written. It
// may be done though the error is ErrNoQuorum: to do it twice has to do no harm.
func Update(ctx context.Context, client *clientv3.Client, key string, change func(old []byte) ([]byte, error)) error {
	return update(ctx, key, change, func(ctx context.Context, conditions []clientv3.Cmp, op clientv3.Op) (resp *clientv3.TxnResponse, err error) {
		err = agreed(ctx, func(ctx context.Context) error {
			resp, err = client.Txn(ctx).If(conditions...).Then(op).Commit()
			return err
		})
		return resp, err
	})
}

// Update is Update in transactions that only the holder's succeed; ErrLockLost where the lock is
// not held.
func (l *Lock) Update(ctx context.Context, key string, change func(old []byte) ([]byte, error)) error {
	return update(ctx, key, change, func(ctx context.Context, conditions []clientv3.Cmp, op clientv3.Op) (*clientv3.TxnResponse, error) {
		return l.Txn(ctx, conditions, op)
	})
}

// Values are those of keys, by key, if the lock is held: what others have written before it was
// taken is among them.
func (l *Lock) Values(ctx context.Context, keys ...string) (map[string][]byte, error) {
	var gets []clientv3.Op
	for _, key := range keys {
		gets = append(gets, clientv3.OpGet(key))
	}
	resp, err := l.Txn(ctx, nil, gets...)
	if err != nil {
		return nil, err
	}
	values := map[string][]byte{}
	for _, r := range resp.Responses {
		for _, kv := range r.GetResponseRange().Kvs {
			values[string(kv.Key)] = kv.Value
		}
	}
	return values, nil
}

// manyTries is more than others write a key while it is written.
const manyTries = 20

func update(ctx context.Context, key string, change func([]byte) ([]byte, error), txn func(context.Context, []clientv3.Cmp, clientv3.Op) (*clientv3.TxnResponse, error)) error {
	if err := tryUpdate(ctx, key, change, txn); err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	return nil
}

func tryUpdate(ctx context.Context, key string, change func([]byte) ([]byte, error), txn func(context.Context, []clientv3.Cmp, clientv3.Op) (*clientv3.TxnResponse, error)) error {
	for range manyTries {
		got, err := txn(ctx, nil, clientv3.OpGet(key))
		if err != nil {
			return err
		}
		var old []byte
		var revision int64 // of its last change; 0: it is not there
		for _, kv := range got.Responses[0].GetResponseRange().Kvs {
			old, revision = kv.Value, kv.ModRevision
		}
		value, err := change(old)
		if err != nil || value == nil {
			return err
		}
		unchanged := []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", revision)}
		put, err := txn(ctx, unchanged, clientv3.OpPut(key, string(value)))
		if err != nil || put.Succeeded {
			return err
		}
	}
	return errors.New("others keep writing it")
}
