//go:build integration

package controlplane_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/etcd"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/file"
	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/test/controlplane"
	"github.com/nodeagent/nodeagent/test/docblock"
)

const backups = "/var/lib/nodeagent/backups"

// save takes a backup of the local member, the way the daemon does, and returns its path.
func save(t *testing.T, now time.Time) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	h := host.New("/")
	local, err := etcd.FindLocal(h)
	if err != nil {
		t.Fatal(err)
	}
	client, err := local.Dial(ctx, h)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	store := file.New(h, backups, controlplane.NodeName)
	report, err := etcdbackup.Save(ctx, etcdbackup.FromClient(client, ""), []etcdbackup.Local{store}, etcdbackup.Request{
		Host: controlplane.NodeName, Now: now, Retention: etcdbackup.Retention{KeepLast: 2},
		Compress: true, Scratch: func(int64) (*os.File, error) { return os.CreateTemp(t.TempDir(), "snapshot") },
	})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(report.Manifest.Etcd.Version, "3.6.") {
		t.Errorf("the manifest's etcd is %q, want the real 3.6", report.Manifest.Etcd.Version)
	}
	object := report.Manifest.Object.Name
	if _, err := etcdbackup.Verify(ctx, store, object, etcdbackup.Identities{}); err != nil {
		t.Errorf("verify: %v", err)
	}
	return filepath.Join(backups, object)
}

// What docs/backups.md says of a restore, typed with the stock zstd and etcdutl: what is restored holds
// what was there at the save, and nothing later.
func TestSnapshotRestoredByEtcdutl(t *testing.T) {
	c := controlplane.Start(t)
	c.Kubectl(t, "create", "namespace", "before-save")
	now := time.Now()
	var snapshot string
	for i := range 3 { // retention keeps two
		snapshot = save(t, now.Add(time.Duration(i)*time.Second))
	}
	if kept, err := filepath.Glob(filepath.Join(backups, "*.db.zst")); err != nil || len(kept) != 2 {
		t.Errorf("kept %v (%v), want the last two", kept, err)
	}
	c.Kubectl(t, "create", "namespace", "after-save")

	const aside = "/etc/kubernetes/aside"
	c.Stop(t)
	controlplane.Script(t, "mv /etc/kubernetes/manifests "+aside+"\nmanifest="+aside+"/etcd.yaml\n"+
		docblock.Script(t, "docs/backups.md", "Restore by hand", "20261121T131544Z-node1-2.db.zst", filepath.Base(snapshot))+
		"mv "+aside+" /etc/kubernetes/manifests")
	c.StartEtcd(t)
	c.StartAPIServer(t)
	namespaces := strings.Fields(c.Kubectl(t, "get", "namespaces", "-o", "name"))
	has := func(name string) bool {
		return slices.Contains(namespaces, "namespace/"+name)
	}
	if !has("before-save") || has("after-save") {
		t.Errorf("restored namespaces are %v, want before-save and not after-save", namespaces)
	}
}
