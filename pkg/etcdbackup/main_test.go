package etcdbackup_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nodeagent/nodeagent/pkg/etcd"
	"github.com/nodeagent/nodeagent/pkg/etcd/etcdtest"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/file"
	"github.com/nodeagent/nodeagent/pkg/host"
)

// client is connected to the one member of this package's tests, which holds `keys` keys.
var client *clientv3.Client

const keys = 200

func TestMain(m *testing.M) {
	code, err := withEtcd(m.Run)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func withEtcd(run func() int) (code int, err error) {
	dir, err := os.MkdirTemp("", "etcdbackup")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	h := host.New(filepath.Join(dir, "root"))
	if err := os.Mkdir(h.Root, 0o700); err != nil {
		return 0, err
	}
	member, err := etcdtest.Start(h, filepath.Join(dir, "etcd"))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, member.Close()) }()
	local, err := etcd.FindLocal(h)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if client, err = local.Dial(ctx, h); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	for i := range keys {
		if _, err := client.Put(ctx, fmt.Sprintf("/registry/key-%03d", i), "value"); err != nil {
			return 0, err
		}
	}
	return run(), nil
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
	return etcdbackup.Request{Host: "cp1", Now: now, Retention: etcdbackup.Retention{KeepLast: 3}}
}

// save makes one backup of the real member in s.
func save(t *testing.T, s etcdbackup.Store, now time.Time) etcdbackup.Manifest {
	t.Helper()
	report, err := etcdbackup.Save(t.Context(), etcdbackup.FromClient(client), []etcdbackup.Store{s}, request(now))
	if err != nil {
		t.Fatal(err)
	}
	return report.Manifest
}

func list(t *testing.T, s etcdbackup.Store) etcdbackup.Catalog {
	t.Helper()
	c, err := etcdbackup.List(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// wantBackups compares the times of the listed backups, newest first.
func wantBackups(t *testing.T, s etcdbackup.Store, want ...time.Time) {
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
