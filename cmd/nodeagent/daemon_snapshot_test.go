package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/etcd/etcdtest"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/file"
)

// Snapshots are taken on schedule from the host's own etcd, old ones go, and metrics tell. A
// second agent goes on where the first one ended.
func TestDaemonTakesSnapshots(t *testing.T) {
	h := scratch(t, `
role: control-plane
metrics: {listen: "127.0.0.1:0"}
backup: {interval: 1s, retention: {keepLast: 2}}
`)
	member, err := etcdtest.Start(h, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = member.Close() }()
	store := file.New(h, "/var/lib/nodeagent/backups", "node-1")
	newest := func() (m etcdbackup.Manifest, n int) {
		catalog, err := etcdbackup.List(t.Context(), store)
		if err != nil {
			t.Fatal(err)
		}
		if len(catalog.Backups) > 0 {
			m = catalog.Backups[0]
		}
		return m, len(catalog.Backups)
	}
	p := start(t, h)
	p.waitPage(t, "/metrics", `nodeagent_etcd_snapshots{store="file /var/lib/nodeagent/backups"} 2`, `nodeagent_etcd_snapshot_last_success_timestamp_seconds{store="file /var/lib/nodeagent/backups"} 1`,
		`nodeagent_job_runs_total{job_name="snapshot",result="failure"} 0`)
	first, _ := newest()
	until(t, "a newer snapshot", func() bool { m, _ := newest(); return m.Time.After(first.Time) })
	p.stop(t)
	last, n := newest()
	if n > 3 { // two, and one that the save was stopped with before it could prune
		t.Errorf("%d snapshots are kept", n)
	}
	if _, err := etcdbackup.Verify(t.Context(), store, last.Object.Name, etcdbackup.Identities{}); err != nil {
		t.Error(err)
	}
	p = start(t, h)
	p.waitPage(t, "/metrics", "nodeagent_job_last_success_timestamp_seconds{job_name=\"snapshot\"} 1")
	until(t, "a snapshot of the second agent", func() bool { m, _ := newest(); return m.Time.After(last.Time) })
	p.stop(t)
}

// What is saved and pruned by hand is in the metrics though no job runs for hours.
func TestDaemonSeesWhatIsDoneByHand(t *testing.T) {
	const policy = "role: control-plane\nmetrics: {listen: \"127.0.0.1:0\"}\nbackup: {interval: 24h, retention: {keepLast: %d}}\n"
	h := scratch(t, fmt.Sprintf(policy, 5))
	member, err := etcdtest.Start(h, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = member.Close() }()
	stored := func(n int) string {
		return fmt.Sprintf(`nodeagent_etcd_snapshots{store="file /var/lib/nodeagent/backups"} %d`, n)
	}
	byHand := func(args ...string) {
		t.Helper()
		var out bytes.Buffer
		if code := run(t.Context(), append([]string{"--root", h.Root, "snapshot"}, args...), nil, &out, &out); code != 0 {
			t.Fatalf("%q exits %d: %s", args, code, &out)
		}
	}
	p := start(t, h)
	p.waitPage(t, "/metrics", stored(1))
	byHand("save")
	p.waitPage(t, "/metrics", stored(2))
	write(t, h, configFile, fmt.Sprintf(policy, 1))
	byHand("prune")
	p.waitPage(t, "/metrics", stored(1))
	p.stop(t)
}

// An etcd that answers while kubeadm init has not ended has nothing in it worth a backup, and
// the next one would be hours away.
func TestDaemonWaitsForTheCluster(t *testing.T) {
	h := scratch(t, `
role: control-plane
metrics: {listen: "127.0.0.1:0"}
backup: {interval: 1s}
log: {level: debug}
`)
	write(t, h, "/var/lib/nodeagent/bootstrapping", "0123456789abcdef0123456789abcdef\n")
	write(t, h, "/etc/modules-load.d", "a file where a directory has to be: the bootstrap stops at kernel/modules\n")
	member, err := etcdtest.Start(h, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = member.Close() }()
	p := start(t, h)
	until(t, "the job to wait", func() bool {
		return strings.Contains(p.output(), "kubeadm init has not ended") && strings.Contains(p.output(), "bootstrap failed")
	})
	catalog, err := etcdbackup.List(t.Context(), file.New(h, "/var/lib/nodeagent/backups", "node-1"))
	if err != nil || len(catalog.Backups) != 0 {
		t.Errorf("%d backups, %v", len(catalog.Backups), err)
	}
	p.stop(t)
}
