package etcdbackup_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nodeagent/nodeagent/pkg/etcd"
	"github.com/nodeagent/nodeagent/pkg/etcd/etcdtest"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/file"
	"github.com/nodeagent/nodeagent/pkg/host"
)

const keys = 200

// shared is the one member of this package's tests, started by the first test that needs it.
var shared struct {
	sync.Mutex
	dir    string
	member *etcdtest.Member
	client *clientv3.Client
}

func TestMain(m *testing.M) {
	code := m.Run()
	var errs []error
	if shared.client != nil {
		errs = append(errs, shared.client.Close())
	}
	if shared.member != nil {
		errs = append(errs, shared.member.Close())
	}
	if shared.dir != "" {
		errs = append(errs, os.RemoveAll(shared.dir))
	}
	if err := errors.Join(errs...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// etcdClient is connected to the member, which holds at least so many keys.
func etcdClient(t *testing.T) *clientv3.Client {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.client == nil {
		if err := startEtcd(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return shared.client
}

func startEtcd(ctx context.Context) (err error) {
	if shared.dir, err = os.MkdirTemp("", "etcdbackup"); err != nil {
		return err
	}
	h := host.New(filepath.Join(shared.dir, "root"))
	if err := os.Mkdir(h.Root, 0o700); err != nil {
		return err
	}
	if shared.member, err = etcdtest.Start(h, filepath.Join(shared.dir, "etcd")); err != nil {
		return err
	}
	local, err := etcd.FindLocal(h)
	if err != nil {
		return err
	}
	client, err := local.Dial(ctx, h)
	if err != nil {
		return err
	}
	shared.client = client
	for i := range keys {
		if _, err := client.Put(ctx, fmt.Sprintf("/registry/key-%03d", i), "value"); err != nil {
			return err
		}
	}
	return nil
}

// dial is a client of its own for a test that changes it.
func dial(t *testing.T) *clientv3.Client {
	t.Helper()
	etcdClient(t)
	local, err := etcd.FindLocal(shared.member.Host)
	if err != nil {
		t.Fatal(err)
	}
	client, err := local.Dial(t.Context(), shared.member.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	return client
}

// source is the member.
func source(t *testing.T) etcdbackup.Source {
	t.Helper()
	return etcdbackup.FromClient(etcdClient(t), "")
}

const dir = "/var/lib/nodeagent/backups"

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// newStore is an empty store in a directory of a scratch host.
func newStore(t *testing.T) (*host.Host, *file.Store) {
	t.Helper()
	h := host.New(t.TempDir())
	return h, file.New(h, dir, "cp1")
}

func request(now time.Time) etcdbackup.Request {
	return etcdbackup.Request{Host: "cp1", Agent: "test", Now: now, Retention: etcdbackup.Retention{KeepLast: 3}, Scratch: scratch}
}

// scratch is a file without a name in a directory of the machine's.
func scratch(int64) (*os.File, error) { return host.New("/").ScratchFile(os.TempDir()) }

// save makes one backup of the real member in s.
func save(t *testing.T, s etcdbackup.Local, now time.Time) etcdbackup.Manifest {
	t.Helper()
	report, err := etcdbackup.Save(t.Context(), source(t), []etcdbackup.Local{s}, request(now))
	if err != nil {
		t.Fatal(err)
	}
	return report.Manifest
}

func list(t *testing.T, s etcdbackup.Local) etcdbackup.Catalog {
	t.Helper()
	c, err := etcdbackup.List(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// wantBackups compares the times of the listed backups, newest first.
func wantBackups(t *testing.T, s etcdbackup.Local, want ...time.Time) {
	t.Helper()
	var got []time.Time
	for _, m := range list(t, s).Backups {
		got = append(got, m.Time)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s holds backups of %v, want %v", s, got, want)
	}
}

// files are the names in the store's directory, hidden ones included.
func files(t *testing.T, h *host.Host) []string {
	t.Helper()
	entries, err := h.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
