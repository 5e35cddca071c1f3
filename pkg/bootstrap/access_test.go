package bootstrap

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// All steps of a run share a connection, until admin.conf is another.
func TestAccess(t *testing.T) {
	c := newCluster(t)
	a := access{host: c.Host}
	ask := func() {
		t.Helper()
		client, err := a.connect()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Exists(t.Context(), "/api/v1/namespaces/kube-system"); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		ask()
	}
	if n := c.connections.Load(); n != 1 {
		t.Errorf("three requests took %d connections", n)
	}

	path := filepath.Join(c.Root, AdminConf)
	config, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(config), "https://", "https:///")), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := a.connect(); err == nil {
		t.Error("the client of a kubeconfig that is no more")
	}
	if err := os.WriteFile(path, append(config, "# renewed\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	ask()
	if n := c.connections.Load(); n != 2 {
		t.Errorf("with a renewed kubeconfig there were %d connections in all", n)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := a.connect(); err == nil {
		t.Error("the client of a kubeconfig that is gone")
	}
}
