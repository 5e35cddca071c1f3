package etcdbackup_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/file"
)

func TestSaveAndRestore(t *testing.T) {
	client := etcdClient(t)
	const key, value = "/registry/namespaces/before", "the backup"
	put, err := client.Put(t.Context(), key, "overwritten")
	if err != nil {
		t.Fatal(err)
	}
	const deleted = "/registry/namespaces/deleted"
	for _, op := range []clientv3.Op{clientv3.OpPut(deleted, "1"), clientv3.OpPut(deleted, "2"), clientv3.OpDelete(deleted), clientv3.OpPut(key, value)} {
		if _, err := client.Do(t.Context(), op); err != nil {
			t.Fatal(err)
		}
	}
	h, s := newStore(t)
	m := save(t, s, noon.Add(300*time.Millisecond))

	status, err := client.Status(t.Context(), client.Endpoints()[0])
	if err != nil {
		t.Fatal(err)
	}
	if m.Host != "cp1" || !m.Time.Equal(noon) || m.Snapshot.Revision != put.Header.Revision+4 || m.Snapshot.Keys < keys+1 {
		t.Errorf("manifest %+v, want revision %d and more than %d keys", m, put.Header.Revision+4, keys)
	}
	if m.Etcd.Version != status.Version || len(m.Etcd.ClusterID) < 8 || len(m.Etcd.MemberID) < 8 || !strings.HasPrefix(m.Etcd.StorageVersion, "3.") {
		t.Errorf("manifest says of etcd %+v", m.Etcd)
	}
	data, err := h.ReadFile(filepath.Join(dir, m.Object.Name))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	if want := hex.EncodeToString(sum[:]); m.Object.SHA256 != want || m.Snapshot.SHA256 != want || m.Object.Size != int64(len(data)) {
		t.Errorf("manifest says %+v and %+v of a file of %d bytes with sha256 %s", m.Object, m.Snapshot, len(data), want)
	}
	if got := list(t, s); len(got.Backups) != 1 || !reflect.DeepEqual(got.Backups[0], m) || len(got.Ignored) != 0 {
		t.Errorf("listed %+v, want %+v", got, m)
	}
	if got, err := etcdbackup.Verify(t.Context(), s, m.Object.Name, etcdbackup.Identities{}); err != nil || !got.Opened || !reflect.DeepEqual(got.Manifest, m) {
		t.Errorf("verify: %+v, %v", got, err)
	}
	if got, want := files(t, h), []string{m.Object.Name, m.Object.Name + ".json"}; !slices.Equal(got, want) {
		t.Errorf("the directory holds %q, want %q", got, want)
	}

	path := filepath.Join(h.Root, dir, m.Object.Name)
	stock, err := snapshot.NewV3(zap.NewNop()).Status(path)
	if err != nil || stock.Revision != m.Snapshot.Revision || stock.TotalKey != m.Snapshot.Keys || stock.Version != m.Etcd.StorageVersion {
		t.Errorf("etcdutl says %+v, %v, the manifest %+v and %+v", stock, err, m.Snapshot, m.Etcd)
	}
	all, err := client.Get(t.Context(), "", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil || int(all.Count) != m.Snapshot.Keys {
		t.Errorf("etcd holds %d keys, %v, the manifest says %d", all.Count, err, m.Snapshot.Keys)
	}

	restored := restore(t, path)
	got, err := restored.Get(t.Context(), key)
	if err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != value {
		t.Errorf("restored: %v, %v", got, err)
	}
}

// restore does what `etcdutl snapshot restore` does, and starts an etcd on it.
func restore(t *testing.T, path string) *clientv3.Client {
	t.Helper()
	cfg := embed.NewConfig()
	cfg.Dir, cfg.UnsafeNoFsync = filepath.Join(t.TempDir(), "restored"), true
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	peers := cfg.InitialClusterFromName(cfg.Name)
	if err := snapshot.NewV3(zap.NewNop()).Restore(snapshot.RestoreConfig{
		SnapshotPath: path, Name: cfg.Name, OutputDataDir: cfg.Dir,
		PeerURLs: []string{cfg.AdvertisePeerUrls[0].String()}, InitialCluster: peers, InitialClusterToken: "t",
	}); err != nil {
		t.Fatal(err)
	}
	cfg.InitialCluster, cfg.InitialClusterToken = peers, "t"
	cfg.ListenClientUrls, cfg.ListenPeerUrls = nil, nil
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	select {
	case <-e.Server.ReadyNotify():
	case <-time.After(30 * time.Second):
		t.Fatal("the restored etcd is not ready")
	}
	return v3client.New(e.Server)
}

// rancher#18548: retention went on while saving failed, until nothing was left.
func TestFailedSaveRemovesNothing(t *testing.T) {
	_, s := newStore(t)
	var times []time.Time
	for i := range 3 {
		times = slices.Insert(times, 0, noon.Add(time.Duration(i)*time.Hour))
		save(t, s, times[0])
	}
	req := request(noon.Add(100 * time.Hour))
	req.Retention.KeepLast = 1
	report, err := etcdbackup.Save(t.Context(), altered(t, func(b []byte) []byte { return b[:len(b)-1] }), []etcdbackup.Local{s}, req)
	if err == nil || report.Stores[0].Saved || report.Saved() {
		t.Errorf("report %+v, error %v", report, err)
	}
	wantBackups(t, s, times...)
}

// kubespray#6621: backups filled the root filesystem.
func TestRetentionAfterSave(t *testing.T) {
	h, s := newStore(t)
	other := file.New(h, dir, "cp2")
	foreign := request(noon.Add(-time.Hour))
	foreign.Host = "cp2"
	if _, err := etcdbackup.Save(t.Context(), source(t), []etcdbackup.Local{other}, foreign); err != nil {
		t.Fatal(err)
	}
	at := func(hour int) time.Time { return noon.Add(time.Duration(hour) * time.Hour) }
	for hour := range 5 {
		save(t, s, at(hour))
	}
	wantBackups(t, s, at(4), at(3), at(2), at(-1))
	if got := files(t, h); len(got) != 8 {
		t.Errorf("the directory holds %q, want four objects and their manifests", got)
	}

	// The clock falls back by a year: the new backup is the one not to lose.
	save(t, s, at(-8760))
	save(t, s, at(-8759))
	wantBackups(t, s, at(4), at(3), at(2), at(-1), at(-8759), at(-8760))
}

func TestSeveralStores(t *testing.T) {
	_, good := newStore(t)
	h, bad := newStore(t)
	if err := h.WriteFile(dir, []byte("a file is in the way"), 0o600); err != nil {
		t.Fatal(err)
	}
	h, full := newStore(t)
	_, late := newStore(t)
	stores := []etcdbackup.Local{bad, broken{Store: full, atByte: 70_000}, broken{Store: late}, good}
	report, err := etcdbackup.Save(t.Context(), source(t), stores, request(noon))
	if err == nil || !strings.Contains(err.Error(), "save to "+bad.String()) || !errors.Is(err, errBroken) {
		t.Errorf("error %v, want one that names the stores", err)
	}
	for i, want := range []bool{false, false, false, true} {
		if r := report.Stores[i]; r.Saved != want || (r.Err == nil) != want {
			t.Errorf("%d: %+v, want saved %t", i, r, want)
		}
	}
	wantBackups(t, good, noon)
	wantBackups(t, late)
	if got := files(t, h); len(got) != 0 {
		t.Errorf("the store that became full holds %q", got)
	}
	if report.Manifest.Object.Name == "" {
		t.Error("the backup that was made is not in the report")
	}
}

// Several saves within a second, of one revision, are as many backups: the later ones take the
// next free seconds. They are the newest, and retention keeps them.
func TestSaveTwiceInOneSecond(t *testing.T) {
	_, s := newStore(t)
	first, second := save(t, s, noon), save(t, s, noon)
	if !first.Time.Equal(noon) || !second.Time.Equal(noon.Add(time.Second)) || first.Snapshot.Revision != second.Snapshot.Revision {
		t.Errorf("saved at %s and %s", first.Time, second.Time)
	}
	for _, m := range []etcdbackup.Manifest{first, second} {
		if _, err := etcdbackup.Verify(t.Context(), s, m.Object.Name, etcdbackup.Identities{}); err != nil {
			t.Error(err)
		}
	}
	wantBackups(t, s, noon.Add(time.Second), noon)
	_, other := newStore(t)
	req := request(noon)
	req.Retention.KeepLast = 1
	report, err := etcdbackup.Save(t.Context(), source(t), []etcdbackup.Local{other, s}, req)
	if err != nil || !report.Manifest.Time.Equal(noon.Add(2*time.Second)) {
		t.Errorf("%+v, %v", report, err)
	}
	for _, store := range []etcdbackup.Local{other, s} {
		wantBackups(t, store, noon.Add(2*time.Second))
	}
}

// A file in the way stops root too, whom no mode bits stop.
func TestDirectoryNotWritable(t *testing.T) {
	h, s := newStore(t)
	if err := h.WriteFile("/var/lib/nodeagent", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := etcdbackup.Save(t.Context(), source(t), []etcdbackup.Local{s}, request(noon))
	if err == nil || !strings.Contains(err.Error(), "/var/lib/nodeagent") {
		t.Errorf("error %v, want one that names the directory", err)
	}
}

func TestSaveNeedsHostAndStore(t *testing.T) {
	if _, err := etcdbackup.Save(t.Context(), source(t), nil, request(noon)); err == nil {
		t.Error("a save to no store succeeded")
	}
	_, s := newStore(t)
	if _, err := etcdbackup.Save(t.Context(), source(t), []etcdbackup.Local{s}, etcdbackup.Request{Now: noon}); err == nil {
		t.Error("a save for a host without a name succeeded")
	}
}

// A learner may lag far behind: a backup of it looks newer than it is.
func TestLearnerIsRefused(t *testing.T) {
	client := dial(t)
	client.Maintenance = learner{client.Maintenance}
	_, s := newStore(t)
	_, err := etcdbackup.Save(t.Context(), etcdbackup.FromClient(client, ""), []etcdbackup.Local{s}, request(noon))
	if err == nil || !strings.Contains(err.Error(), "is a learner") {
		t.Errorf("error %v, want a refusal", err)
	}
}

// learner says of a member that it is one.
type learner struct{ clientv3.Maintenance }

func (l learner) Status(ctx context.Context, endpoint string) (*clientv3.StatusResponse, error) {
	status, err := l.Maintenance.Status(ctx, endpoint)
	if err == nil {
		status.IsLearner = true
	}
	return status, err
}
