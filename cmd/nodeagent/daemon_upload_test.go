package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/etcd/etcdtest"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/file"
)

// What the daemon saves it uploads. While the store is gone saves to the host's own go on, what waits is
// kept, shown and counted, also by an agent that is started meanwhile; when the store is back everything
// goes there.
func TestDaemonUploads(t *testing.T) {
	h := scratch(t, `
role: control-plane
metrics: {listen: "127.0.0.1:0"}
backup:
  interval: 1s
  retention: {keepLast: 3}
  stores: [{file: {dir: /var/lib/nodeagent/backups}}, {file: {dir: /mnt/share, shared: true, allowPlaintext: true}}]
`)
	member, err := etcdtest.Start(h, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = member.Close() }()
	const name = "file /mnt/share"
	spool := file.New(h, etcdbackup.SpoolDir+"/"+etcdbackup.SpoolID(name), "node-1")
	share := file.New(h, "/mnt/share", "node-1")
	local := file.New(h, "/var/lib/nodeagent/backups", "node-1")
	newest := func(s etcdbackup.Store) (etcdbackup.Manifest, int) {
		t.Helper()
		c, err := etcdbackup.List(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Backups) == 0 {
			return etcdbackup.Manifest{}, 0
		}
		return c.Backups[0], len(c.Backups)
	}
	series := func(metric, more string) string { return metric + `{` + more + `store="` + name + `"}` }

	p := start(t, h)
	p.waitPage(t, "/metrics", series("nodeagent_etcd_snapshots", "")+" 3", series("nodeagent_etcd_snapshot_upload_results_total", `reason="timeout",`)+" 0",
		"nodeagent_etcd_snapshot_off_host 1", "nodeagent_etcd_snapshot_plaintext_allowed 1")
	p.waitPage(t, "/", name+": ")

	// It is gone: its place is taken by what is no directory.
	path := filepath.Join(h.Root, "mnt/share")
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p.waitPage(t, "/metrics", series("nodeagent_etcd_snapshot_upload_results_total", `reason="error",`)+" 1", series("nodeagent_etcd_snapshot_spool_snapshots", "")+" 3")
	before, _ := newest(local)
	until(t, "a newer snapshot on the host", func() bool { m, _ := newest(local); return m.Time.After(before.Time) })
	p.stop(t)
	if _, n := newest(spool); n > 4 { // three, and one that the save was stopped with before it could prune
		t.Errorf("%d wait, and three are to be kept", n)
	}
	p = start(t, h)
	// What it knows of before it has asked.
	p.waitPage(t, "/metrics", series("nodeagent_etcd_snapshots", "")+" 3", series("nodeagent_etcd_snapshot_spool_oldest_timestamp_seconds", "")+" 1.")
	_, page := p.get(t, "/metrics")
	if !regexp.MustCompile(`nodeagent_etcd_snapshot_upload_results_total\{reason="uploaded",store="file /mnt/share"\} [1-9]`).MatchString(page) {
		t.Errorf("the uploads of the first agent are not counted:\n%s", page)
	}
	waits, _ := newest(spool)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	until(t, "what waits to be uploaded", func() bool {
		m, _ := newest(share)
		return !m.Time.Before(waits.Time) && strings.Contains(p.output(), "snapshot uploaded") // the log comes after the manifest
	})
	p.stop(t)
	if !strings.Contains(p.output(), "snapshot uploaded") {
		t.Errorf("the log does not tell of it: %s", p.output())
	}
	c, err := etcdbackup.List(t.Context(), share)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range c.Backups {
		if _, err := etcdbackup.Verify(t.Context(), share, m.Object.Name, etcdbackup.Identities{}); err != nil {
			t.Error(err)
		}
	}
}
