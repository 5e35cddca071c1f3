//go:build integration

package cluster_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// The program itself beside each member: the daemons save under the cluster-wide lock, and a save by
// hand takes its turn on a host whose daemon saves all the time.
func daemons(t *testing.T, c *cluster) {
	var running []*exec.Cmd
	var logs [members + 1]bytes.Buffer
	for i := 1; i <= members; i++ {
		c.configure(t, i, c.daemonRoot(i), "interval: 1s, retention: {keepLast: 1000}")
		cmd := inside(i, os.Getenv(programEnv), "--root", c.daemonRoot(i), "run")
		cmd.Stderr = &logs[i]
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { kill(cmd) })
		running = append(running, cmd)
	}
	holders := map[string]bool{}
	until(t, "each daemon to have the lock and three backups", func(context.Context) bool {
		for _, holder := range c.locks(t) {
			who, _, _ := strings.Cut(holder, " (pid ")
			holders[who] = true
		}
		for i := 1; i <= members; i++ {
			if !holders[name(i)+": daemon: snapshot"] || len(c.daemonBackups(t, i)) < 3 {
				return false
			}
		}
		return true
	})
	for i := 1; i <= members; i++ {
		save := inside(i, os.Getenv(programEnv), "--root", c.daemonRoot(i), "snapshot", "save", "--lock-timeout", "30s")
		if out, err := save.CombinedOutput(); err != nil {
			t.Errorf("by hand: %v: %s", err, out)
		}
	}
	for i, cmd := range running {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s ends: %v", name(i+1), err)
		}
		if log := logs[i+1].String(); strings.Contains(log, "level=ERROR") || strings.Contains(log, "not kept apart") {
			t.Errorf("%s says %s", name(i+1), log)
		}
	}
	if got := c.locks(t); len(got) != 0 {
		t.Errorf("left in the queue: %q", got)
	}
}

func (c *cluster) daemonRoot(i int) string { return c.path("daemon-" + name(i)) }

// configure makes a daemon's machine, with a policy of its backups.
func (c *cluster) configure(t *testing.T, i int, root, policy string) {
	t.Helper()
	if err := os.MkdirAll(root, 0o755); err != nil {
		t.Fatal(err)
	}
	h := host.New(root)
	config := fmt.Sprintf("role: etcd\nmetrics: {listen: \"%s:9400\"}\nbackup: {endpoints: [%q], caFile: /pki/ca.crt, certFile: /pki/client.crt, keyFile: /pki/client.key, "+
		"maxDiskPercent: 100, %s}\n", address(i), endpoint(i), policy)
	files := map[string]string{"/etc/hostname": name(i) + "\n", "/etc/machine-id": strings.Repeat(fmt.Sprint(i), 32) + "\n", "/etc/nodeagent/config.yaml": config}
	for _, file := range []string{"ca.crt", "client.crt", "client.key"} {
		data, err := os.ReadFile(c.path(file))
		if err != nil {
			t.Fatal(err)
		}
		files["/pki/"+file] = string(data)
	}
	for path, text := range files {
		if err := h.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := h.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// daemonBackups are the manifests in a daemon's store.
func (c *cluster) daemonBackups(t *testing.T, i int) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(c.daemonRoot(i), ownDir, "*.zst.json"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}
