//go:build integration

package backup_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/agent"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/file"
	"github.com/nodeagent/nodeagent/pkg/host"
)

const (
	share      = "/mnt/share"
	shareStore = "file " + share
	shared     = "stores: [{file: {dir: " + storeDir + "}}, {file: {dir: " + share + ", shared: true}}]"
)

// path is where a path of the node's is.
func (n node) path(name string) string { return filepath.Join(n.root, name) }

// sharedBackups are those in the shared store, each of which was opened and read.
func (n node) sharedBackups() []etcdbackup.Manifest {
	n.t.Helper()
	store := file.New(host.New(n.root), share, "cp1")
	c, err := etcdbackup.List(n.t.Context(), store)
	if err != nil {
		n.t.Fatal(err)
	}
	for _, m := range c.Backups {
		got, err := etcdbackup.Verify(n.t.Context(), store, m.Object.Name, n.identities)
		if errors.Is(err, os.ErrNotExist) {
			continue // pruned meanwhile
		}
		if err != nil || !got.Opened {
			n.t.Errorf("a backup is in the store that is none: %v", err)
		}
	}
	return c.Backups
}

// status is the node's, which is to be there quickly whatever has become of the store.
func (n node) status() (s agent.Status, remote agent.RemoteStatus) {
	n.t.Helper()
	r := n.begin("status", "-o", "json")
	r.end(n.t)
	if err := json.Unmarshal(r.stdout.Bytes(), &s); err != nil || len(s.RemoteStores) != 1 {
		n.t.Fatalf("status prints %q: %v", r.stdout.String(), err)
	}
	return s, s.RemoteStores[0]
}

// newest is when the newest backup on the host itself was taken.
func (n node) newest() time.Time {
	n.t.Helper()
	s, _ := n.status()
	if len(s.Snapshots) == 0 {
		return time.Time{}
	}
	return s.Snapshots[0].Taken
}

// A shared store that is full, read-only, or whose server does not answer at all: saves to the host's own
// store go on meanwhile, status answers and says why, and an agent that is started meanwhile uploads what
// waits once the store is back.
func TestSharedStoreFails(t *testing.T) {
	etcd := newMember(t, etcd36(t))
	etcd.fill(t, 8, valueSize)
	all := newNode(t, etcd.address, "interval: 1s, retention: {keepLast: 3}, "+shared)
	n := all
	dir := n.path(share)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	const roomy = "size=512m,mode=755"
	mount(t, dir, 0, roomy)
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	daemon := n.begin("run")
	uploaded := func(after time.Time) {
		t.Helper()
		until(t, "an upload", func() bool {
			list := n.sharedBackups()
			return len(list) > 0 && list[0].Time.After(after)
		})
	}
	uploaded(time.Time{})
	for _, tt := range []struct {
		name, reason string
		begin        func() (end func())
	}{
		{"full", etcdbackup.UploadFull, func() func() {
			is := statfs(t, dir)
			mount(t, dir, unix.MS_REMOUNT, fmt.Sprintf("size=%d,mode=755", (is.Blocks-is.Bfree+1)*uint64(is.Bsize)))
			return func() { mount(t, dir, unix.MS_REMOUNT, roomy) }
		}},
		{"read-only", etcdbackup.UploadDenied, func() func() {
			mount(t, dir, unix.MS_REMOUNT|unix.MS_RDONLY, roomy)
			return func() { mount(t, dir, unix.MS_REMOUNT, roomy) }
		}},
		// A server that is gone: nothing of it returns, for a minute at least.
		{"hanging", "", func() func() { return hang(t, dir) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := all
			n.t = t
			end := tt.begin()
			if tt.reason != "" {
				until(t, "status to say why", func() bool {
					_, remote := n.status()
					return remote.Reason == tt.reason && remote.Waiting > 0
				})
			}
			before := n.newest()
			until(t, "a save on the host meanwhile", func() bool { return n.newest().After(before) })
			_, remote := n.status()
			if remote.Waiting == 0 || remote.Waiting > 4 || remote.Newest == nil {
				t.Errorf("status says of the store: %+v", remote)
			}
			if err := daemon.Process.Signal(interrupt); err != nil {
				t.Error(err)
			}
			if code := daemon.end(t); code != 0 {
				t.Errorf("the agent exits %d: %s", code, daemon.messages())
			}
			daemon = all.begin("run")
			before = n.newest()
			until(t, "a save on the host by the next agent", func() bool { return n.newest().After(before) })
			last := n.newest()
			end()
			uploaded(last)
			until(t, "status to be good again", func() bool {
				_, remote := n.status()
				return remote.Reason == ""
			})
		})
	}
	if out := daemon.messages(); strings.Contains(out, "panic") {
		t.Error(out)
	}
}

// hang puts a filesystem over a directory whose server never answers, until end.
func hang(t *testing.T, dir string) (end func()) {
	t.Helper()
	fuse, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fuse.Fd())
	if err := unix.Mount("gone", dir, "fuse", 0, options); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := errors.Join(unix.Unmount(dir, unix.MNT_DETACH), fuse.Close()); err != nil {
			t.Error(err)
		}
	}
}

// rke2#6226 for a shared store: two agents on two hosts of a cluster and saves by hand on both at once. Each
// backup is uploaded once and whole, and nothing of another is left or waits.
func TestSharedStoreAtOnce(t *testing.T) {
	etcd := newMember(t, etcd36(t))
	etcd.fill(t, 8, valueSize)
	// Retention is over the backups of one cluster, which this tells.
	if _, err := etcd.client.Put(t.Context(), "/registry/namespaces/kube-system", `{"metadata": {"uid": "4f3c4d2e-0000-4000-8000-000000000001"}}`); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	nodes := []node{
		newNode(t, etcd.address, "interval: 1s, retention: {keepLast: 5}, "+shared),
		newNode(t, etcd.address, "interval: 1s, retention: {keepLast: 5}, "+shared),
	}
	h := host.New(nodes[1].root)
	config, err := host.New(nodes[0].root).ReadFile("/etc/nodeagent/config.yaml")
	if err := errors.Join(err, h.WriteFile("/etc/nodeagent/config.yaml", config, 0o600), h.WriteFile("/etc/hostname", []byte("cp2\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	var agents []*run
	for _, n := range nodes {
		if err := os.MkdirAll(n.path(share), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(dir, n.path(share), "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(n.path(share), unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
		agents = append(agents, n.begin("run"))
	}
	for range 3 {
		var byHand []*run
		for _, n := range nodes {
			byHand = append(byHand, n.begin("snapshot", "save"), n.begin("snapshot", "save"))
		}
		for _, r := range byHand {
			if code := r.end(t); code != 0 || !strings.Contains(r.stdout.String(), shareStore+": uploaded") {
				t.Errorf("a save by hand exits %d: %s%s", code, r.stdout.String(), r.messages())
			}
		}
	}
	for _, agent := range agents {
		if err := agent.Process.Signal(interrupt); err != nil {
			t.Error(err)
		}
		if code := agent.end(t); code != 0 || strings.Contains(agent.messages(), "level=ERROR") {
			t.Errorf("an agent exits %d: %s", code, agent.messages())
		}
	}
	for _, n := range nodes {
		n.does(0, "snapshot", "save")
	}
	list := nodes[0].sharedBackups()
	if len(list) != 5 {
		t.Errorf("%d backups are in the store, want five of the cluster", len(list))
	}
	// Each has an object, its files and its manifest.
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 15 {
		t.Errorf("in the store lie %d files, want 15: %v, %v", len(entries), entries, err)
	}
	for _, n := range nodes {
		left, err := filepath.Glob(n.path(etcdbackup.SpoolDir) + "/*/*")
		if err != nil || len(left) != 0 {
			t.Errorf("in the spool lie %q, %v", left, err)
		}
	}
}
