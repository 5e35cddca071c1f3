package drill

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"runtime/debug"
	"time"

	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
)

const (
	// member is the name of the one member; its URL is nobody's, since it listens nowhere.
	member    = "drill"
	memberURL = "http://127.0.0.1:1"
)

// quiet is a logger that says nothing. Where etcd's would end the process it panics, so that the
// scratch directory can be cleared away.
func quiet() *zap.Logger {
	return zap.New(zapcore.NewNopCore(), zap.WithFatalHook(zapcore.WriteThenPanic))
}

// recovered makes an error of a panic: that is how etcd's libraries report much of what is wrong
// with a database.
func recovered(err *error) {
	if r := recover(); r != nil {
		*err = errors.Join(fmt.Errorf("etcd panicked: %v", r), *err)
	}
}

// restore makes a data directory of a snapshot, as `etcdutl snapshot restore` does.
func restore(ctx context.Context, plain *os.File, dir string) (err error) {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // the database is mapped
	defer recovered(&err)
	err = snapshot.NewV3(quiet()).Restore(snapshot.RestoreConfig{
		SnapshotPath: fmt.Sprintf("/proc/self/fd/%d", plain.Fd()), Name: member, OutputDataDir: dir,
		PeerURLs: []string{memberURL}, InitialCluster: member + "=" + memberURL, InitialClusterToken: member,
	})
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	return nil
}

// settings are those of an etcd that serves a restored directory and listens nowhere.
func settings(dir string) (*embed.Config, error) {
	self, err := url.Parse(memberURL)
	if err != nil {
		return nil, err
	}
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = member, dir
	cfg.ListenPeerUrls, cfg.ListenClientUrls = nil, nil
	cfg.AdvertisePeerUrls, cfg.AdvertiseClientUrls = []url.URL{*self}, []url.URL{*self}
	cfg.InitialCluster, cfg.InitialClusterToken = member+"="+memberURL, member
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(quiet())
	// No quota: what fitted the cluster's is to be opened whatever its size.
	cfg.QuotaBackendBytes = -1
	// Nothing of it is kept.
	cfg.UnsafeNoFsync = true
	return cfg, nil
}

// ready is how long an etcd that has read its database may take to be its own leader, and to
// answer: a second or two, and this on a disk that is out of breath.
const ready = 5 * time.Minute

// serve opens a restored directory with an etcd and reads what it serves.
func serve(ctx context.Context, dir string) (found etcdbackup.Restored, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer recovered(&err)
	cfg, err := settings(dir)
	if err != nil {
		return found, err
	}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return found, fmt.Errorf("open with etcd: %w", err)
	}
	defer e.Close()
	// Before it is a leader no lease ends and takes its keys with it.
	revision := e.Server.KV().Rev()
	ctx, cancel := context.WithTimeoutCause(ctx, ready, errors.New("etcd is not ready to serve"))
	defer cancel()
	select {
	case <-e.Server.ReadyNotify():
	case err := <-e.Err():
		return found, fmt.Errorf("open with etcd: %w", err)
	case <-e.Server.StopNotify():
		return found, errors.New("open with etcd: it stopped")
	case <-ctx.Done():
		return found, context.Cause(ctx)
	}
	// A read that goes the way of a client's, through raft.
	if err := e.Server.LinearizableReadNotify(ctx); err != nil {
		return found, fmt.Errorf("read from etcd: %w", err)
	}
	// Below the API: there the cluster's users would have to show their passwords.
	return read(ctx, e, revision)
}

// read is what an etcd serves at a revision.
func read(ctx context.Context, e *embed.Etcd, revision int64) (found etcdbackup.Restored, err error) {
	kv := e.Server.KV()
	found.Revision = revision
	all, err := kv.Range(ctx, []byte{0}, []byte{}, mvcc.RangeOptions{Rev: found.Revision, CountOnly: true})
	if err != nil {
		return found, fmt.Errorf("count keys: %w", err)
	}
	hash, _, err := kv.HashStorage().HashByRev(found.Revision)
	if err != nil {
		return found, fmt.Errorf("hash keys: %w", err)
	}
	found.Keys, found.KVHash, found.CompactRevision = all.Count, hash.Hash, hash.CompactRevision
	for _, a := range e.Server.Alarms() {
		alarm := a.GetAlarm().String()
		found.Alarms = append(found.Alarms, alarm)
		if alarm == "CORRUPT" {
			return found, errors.New("etcd serves nothing of it: the cluster it was taken from had raised the alarm CORRUPT")
		}
	}
	return found, nil
}
