//go:build integration

package backup_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nodeagent/nodeagent/test/lab"
)

// What is saved while clients write is, restored by stock etcdutl, what its manifest says: the
// revision and the keys, of etcd as it is now and as clusters had it before kubeadm 1.22.
// etcd#21283 asks for just that.
func TestRestoredFromUnderLoad(t *testing.T) {
	dir34, err := lab.Etcd34(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	etcdutl := filepath.Join(filepath.Dir(etcd36(t)), "etcdutl")
	for version, program := range map[string]string{"3.6": etcd36(t), "3.4": filepath.Join(dir34, "usr/bin/etcd")} {
		t.Run(version, func(t *testing.T) {
			etcd := newMember(t, program)
			etcd.fill(t, 2000, 4<<10)
			n := newNode(t, etcd.address, "")
			stop := load(t, etcd)
			n.does(0, "snapshot", "save")
			wrote := stop()
			list := n.list()
			if len(list) != 1 || len(n.verified()) != 1 || wrote < 2 {
				t.Fatalf("listed %+v, with %d writes", list, wrote)
			}
			m := list[0]
			path := n.unwrap(m)
			restored := &member{program: program, dir: filepath.Join(t.TempDir(), "restored"), address: freePort(t)}
			if out, err := exec.CommandContext(t.Context(), etcdutl, "snapshot", "restore", path, "--data-dir", restored.dir,
				"--name=cp1", "--initial-cluster=cp1=http://127.0.0.1:1", "--initial-advertise-peer-urls=http://127.0.0.1:1").CombinedOutput(); err != nil {
				t.Fatalf("etcdutl: %v\n%s", err, out)
			}
			restored.connect(t)
			restored.start(t)
			got, err := restored.client.Get(t.Context(), "", clientv3.WithPrefix(), clientv3.WithCountOnly())
			if err != nil || got.Header.Revision != m.Snapshot.Revision || int(got.Count) != m.Snapshot.Keys {
				t.Errorf("restored are %d keys at revision %d, %v, and the manifest says %+v", got.Count, got.Header.Revision, err, m.Snapshot)
			}
			t.Logf("revision %d with %d keys, %d writes meanwhile", m.Snapshot.Revision, m.Snapshot.Keys, wrote)
		})
	}
}

// load writes, overwrites and deletes from several clients' hands until stop is called, which says
// how many times. It returns when each has begun.
func load(t *testing.T, etcd *member) (stop func() (wrote int)) {
	t.Helper()
	const writers = 4
	over, begun := make(chan struct{}), make(chan struct{}, writers)
	var wait sync.WaitGroup
	counts := make([]int, writers)
	for w := range writers {
		wait.Go(func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("/registry/pods/load-%d-%d", w, i%50)
				op := clientv3.OpPut(key, fmt.Sprintf("%d %s", i, marker))
				if i%7 == 6 {
					op = clientv3.OpDelete(key)
				}
				if _, err := etcd.client.Do(t.Context(), op); err != nil {
					t.Error(err)
					return
				}
				counts[w]++
				if i == 10 {
					begun <- struct{}{}
				}
				select {
				case <-over:
					return
				default:
				}
			}
		})
	}
	for range writers {
		<-begun
	}
	return func() (wrote int) {
		close(over)
		wait.Wait()
		for _, n := range counts {
			wrote += n
		}
		return wrote
	}
}
