package drill_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nodeagent/nodeagent/pkg/etcd"
	"github.com/nodeagent/nodeagent/pkg/etcd/etcdtest"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/drill"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/file"
	"github.com/nodeagent/nodeagent/pkg/host"
)

// member is a real etcd with content of every sort: keys that were changed, deleted and compacted
// away, and a lease.
func member(t *testing.T) *clientv3.Client {
	t.Helper()
	h := host.New(t.TempDir())
	m, err := etcdtest.Start(h, filepath.Join(t.TempDir(), "etcd"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	local, err := etcd.FindLocal(h)
	if err != nil {
		t.Fatal(err)
	}
	client, err := local.Dial(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	if err := fill(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	return client
}

func fill(ctx context.Context, c *clientv3.Client) error {
	var revision int64
	for i := range 300 {
		r, err := c.Put(ctx, fmt.Sprintf("/registry/key-%03d", i%200), fmt.Sprint("value ", i))
		if err != nil {
			return err
		}
		if i == 250 {
			revision = r.Header.Revision
		}
	}
	lease, err := c.Grant(ctx, 1) // as short as there is: here it is kept, restored it soon ends
	if err != nil {
		return err
	}
	kept, err := c.KeepAlive(ctx, lease.ID)
	if err != nil {
		return err
	}
	go func() {
		for range kept { // until ctx is done
		}
	}()
	_, leased := c.Put(ctx, "/registry/leased", "", clientv3.WithLease(lease.ID))
	_, deleted := c.Delete(ctx, "/registry/key-00", clientv3.WithPrefix())
	_, compacted := c.Compact(ctx, revision)
	return errors.Join(leased, deleted, compacted)
}

const dir = "/backups"

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// newStore is an empty store in a directory of a scratch host.
func newStore(t *testing.T) (*host.Host, *file.Store) {
	t.Helper()
	h := host.New(t.TempDir())
	return h, file.New(h, dir, "cp1")
}

// pair is a recipient and its identity.
func pair(t *testing.T) (etcdbackup.Recipients, etcdbackup.Identities) {
	t.Helper()
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	to, err := etcdbackup.ParseRecipients([]string{key.Recipient().String()})
	if err != nil {
		t.Fatal(err)
	}
	with, err := etcdbackup.ParseIdentities([]byte(key.String()))
	if err != nil {
		t.Fatal(err)
	}
	return to, with
}

// save makes a backup as change says.
func save(t *testing.T, c *clientv3.Client, s etcdbackup.Local, change func(*etcdbackup.Request)) etcdbackup.Manifest {
	t.Helper()
	req := etcdbackup.Request{
		Host: "cp1", Agent: "test", Now: noon, Retention: etcdbackup.Retention{KeepLast: 3},
		Scratch: func(int64) (*os.File, error) { return host.New("/").ScratchFile(os.TempDir()) },
	}
	if change != nil {
		change(&req)
	}
	report, err := etcdbackup.Save(t.Context(), etcdbackup.FromClient(c, ""), []etcdbackup.Local{s}, req)
	if err != nil {
		t.Fatal(err)
	}
	return report.Manifest
}

// options drill in an empty directory, which has to be empty again when the test ends.
func options(t *testing.T, with etcdbackup.Identities) drill.Options {
	t.Helper()
	scratch := t.TempDir()
	t.Cleanup(func() { wantEmpty(t, scratch) })
	return drill.Options{
		Host: "bastion", Agent: "test", Identities: with, Scratch: scratch, Now: time.Now,
		Free: func(context.Context) (int64, error) { return 1 << 40, nil },
	}
}

func wantEmpty(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(path)
	if err != nil || len(entries) > 0 {
		t.Errorf("a drill has left %v, %v", entries, err)
	}
}

// content is every object of the store but the proofs, by its name.
func content(t *testing.T, h *host.Host) map[string]string {
	t.Helper()
	entries, err := h.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, e := range entries {
		if strings.Contains(e.Name(), ".proof-") {
			continue
		}
		data, err := h.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = string(data)
	}
	return all
}

// proofs are those of one object.
func proofs(t *testing.T, s etcdbackup.Local, object string) []etcdbackup.Proof {
	t.Helper()
	all, err := etcdbackup.Proofs(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return all[object]
}
