package drill

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/embed"
	serverrors "go.etcd.io/etcd/server/v3/etcdserver/errors"

	"github.com/nodeagent/nodeagent/pkg/etcd"
	"github.com/nodeagent/nodeagent/pkg/etcd/etcdtest"
	"github.com/nodeagent/nodeagent/pkg/host"
)

// https://github.com/rancher/rke2/issues/4771: a snapshot of 3 GB did not restore, since the etcd
// it was restored with had the default quota of 2 GiB. Ours has none: it takes a write whatever
// the size of what it has opened, where one with a quota below that size refuses.
func TestRKE2Issue4771RestoreLargerThanDefaultQuota(t *testing.T) {
	plain, err := os.Create(filepath.Join(t.TempDir(), "snapshot"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = plain.Close() }()
	if err := snapshotOf(t, plain); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		quota func(*embed.Config)
		want  error
	}{
		"ours":                    {func(*embed.Config) {}, nil},
		"smaller than the backup": {func(c *embed.Config) { c.QuotaBackendBytes = 4096 }, serverrors.ErrNoSpace},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "etcd")
			if err := restore(t.Context(), plain, dir); err != nil {
				t.Fatal(err)
			}
			cfg, err := settings(dir)
			if err != nil {
				t.Fatal(err)
			}
			if len(cfg.ListenClientUrls)+len(cfg.ListenPeerUrls)+len(cfg.ListenMetricsUrls)+len(cfg.ListenClientHttpUrls) > 0 {
				t.Errorf("it listens: %+v", cfg)
			}
			tt.quota(cfg)
			e, err := embed.StartEtcd(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			<-e.Server.ReadyNotify()
			if got := write(t.Context(), e); !errors.Is(got, tt.want) {
				t.Errorf("a write ended with %v, want %v", got, tt.want)
			}
		})
	}
}

// write puts a key. The second is refused where the first has used up a quota.
func write(ctx context.Context, e *embed.Etcd) error {
	for range 2 {
		if _, err := e.Server.Put(ctx, &pb.PutRequest{Key: []byte("a"), Value: []byte("b")}); err != nil {
			return err
		}
	}
	return nil
}

func snapshotOf(t *testing.T, to io.Writer) error {
	h := host.New(t.TempDir())
	m, err := etcdtest.Start(h, filepath.Join(t.TempDir(), "etcd"))
	if err != nil {
		return err
	}
	defer func() { _ = m.Close() }()
	local, err := etcd.FindLocal(h)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := local.Dial(ctx, h)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	r, err := c.Snapshot(ctx)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, r)
	return errors.Join(err, r.Close())
}
