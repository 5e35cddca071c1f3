package main

import (
	"context"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nodeagent/nodeagent/pkg/bootstrap"
	"github.com/nodeagent/nodeagent/pkg/config"
	"github.com/nodeagent/nodeagent/pkg/etcd/etcdtest"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/file"
)

// A member that never saves to a shared store, as the one that leads, knows what the others of its cluster have
// there, and takes nothing of another cluster's for its own, also not where a host there has its name.
func TestLookByCluster(t *testing.T) {
	h := scratch(t, "")
	member, err := etcdtest.Start(h, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceValue(member.Close)
	defer func() { _ = stop() }()
	cfg := config.Default()
	cfg.Role = bootstrap.ControlPlane
	cfg.Backup.Stores = []etcdbackup.StoreConfig{{File: &etcdbackup.FileConfig{Dir: "/mnt/share", Shared: true, AllowPlaintext: true}}}
	m, err := newMachine(h, cfg)
	if err != nil {
		t.Fatal(err)
	}
	share, now := file.New(h, "/mnt/share", "any"), time.Now().Truncate(time.Second)
	save := func(host, cluster string, at time.Time) {
		t.Helper()
		err := withMember(t.Context(), h, cfg.Backup.Member(), func(client *clientv3.Client, source etcdbackup.Source) error {
			if _, err := client.Put(t.Context(), "/registry/namespaces/kube-system", `{"metadata":{"uid":"`+cluster+`"}}`); err != nil || host == "" {
				return err
			}
			_, err := etcdbackup.Save(t.Context(), source, []etcdbackup.Local{share}, etcdbackup.Request{Host: host, Now: at, Retention: cfg.Backup.Retention})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	look := func(ctx context.Context) lookedAt {
		t.Helper()
		found, err := m.look(ctx, m.remotes[0])
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	save("node-2", "blue", now.Add(-2*time.Hour))
	save("node-3", "blue", now.Add(-time.Hour))
	if found := look(t.Context()); found.stored != 2 || found.newest == nil || !found.newest.Taken.Equal(now.Add(-time.Hour)) {
		t.Errorf("of the other members: %+v", found)
	}
	save("node-1", "green", now.Add(-time.Minute))
	save("", "blue", now)
	found := look(t.Context())
	if found.stored != 2 || found.newest == nil || !found.newest.Taken.Equal(now.Add(-time.Hour)) {
		t.Errorf("beside another cluster's of the same host name: %+v", found)
	}
	d := drilling{machine: m}
	catalog, err := etcdbackup.List(t.Context(), m.remotes[0])
	if newest, _ := d.mine(t.Context(), m.remotes[0], catalog).Newest(now); err != nil || newest.Host != "node-3" {
		t.Errorf("the drill takes %+v, %v", newest, err)
	}

	// While the member is down it is by what was found before.
	if err := m.rememberRemote(m.remotes[0], nil, &found, nil); err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if found := look(t.Context()); found.stored != 2 || found.newest == nil {
		t.Errorf("without the member: %+v", found)
	}
}
