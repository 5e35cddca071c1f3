//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"strconv"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/test/vm"
)

const store = "/var/lib/nodeagent/backups/"

type listed struct {
	Time   time.Time
	Object struct {
		Name string
		Size int64
	}
	Snapshot struct{ Revision int64 }
}

// newestAfter waits for a snapshot that holds a revision. The schedule is every minute.
func newestAfter(ctx context.Context, t *testing.T, v *vm.VM, revision int64) listed {
	t.Helper()
	out := v.Eventually(ctx, t, 4*time.Minute, `
		list=$(nodeagent snapshot list -o json)
		jq -e '.[0].snapshot.revision >= `+strconv.FormatInt(revision, 10)+`' <<<"$list" >/dev/null
		jq '.[0]' <<<"$list"`)
	var newest listed
	if err := json.Unmarshal([]byte(out), &newest); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return newest
}

// snapshotRestores: what the schedule saved, etcd's own programs restore, and a namespace made
// before it is in there.
func snapshotRestores(ctx context.Context, t *testing.T, v *vm.VM) {
	created := v.MustRun(ctx, t, "kubectl create namespace proof -o jsonpath='{.metadata.resourceVersion}'")
	revision, err := strconv.ParseInt(created, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	newest := newestAfter(ctx, t, v, revision)
	object, file := store+newest.Object.Name, "/var/tmp/snapshot.db"
	v.MustRun(ctx, t, `[ "$(stat -c %a `+object+`)" = 600 ]
		install -m 755 /mnt/files/zstd /usr/local/bin/zstd
		zstd -qdc `+object+` >`+file)
	restored := v.MustRun(ctx, t, "etcdutl snapshot status -w json "+file+" | jq .revision")
	if want := strconv.FormatInt(newest.Snapshot.Revision, 10); restored != want {
		t.Errorf("etcdutl says revision %s, nodeagent %s", restored, want)
	}
	v.MustRun(ctx, t, `
		rm -rf /var/tmp/restored
		etcdutl snapshot restore --data-dir /var/tmp/restored `+file+`
		systemd-run -q --unit restored-etcd /usr/lib/nodeagent-test/etcd --data-dir /var/tmp/restored \
			--listen-client-urls http://127.0.0.1:23790 --advertise-client-urls http://127.0.0.1:23790 --listen-peer-urls http://127.0.0.1:23800`)
	v.Eventually(ctx, t, time.Minute, "etcdctl --endpoints http://127.0.0.1:23790 endpoint health")
	key := v.MustRun(ctx, t, "etcdctl --endpoints http://127.0.0.1:23790 get --keys-only /registry/namespaces/proof | sed -n 1p")
	if key != "/registry/namespaces/proof" {
		t.Errorf("the namespace is not in the snapshot: got %q", key)
	}
	v.MustRun(ctx, t, "systemctl stop restored-etcd; rm -rf /var/tmp/restored "+file)
}
