//go:build integration

package backup_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/etcd"
	"github.com/nodeagent/nodeagent/pkg/etcd/etcdtest"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/file"
	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/test/lab"
	"github.com/nodeagent/nodeagent/test/nspawn"
)

const backups = "/var/lib/nodeagent/backups"

// The daemon's drill is a unit with its bounds, is begun once there is a backup, outlives a SIGKILL of
// the daemon, which adopts it, and leaves a proof and nothing else.
func TestDrillInItsUnit(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	rootfs, err := lab.Rootfs(ctx)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "nodeagent")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", program, "../../../cmd/nodeagent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build nodeagent: %v\n%s", err, out)
	}
	m := nspawn.Up(t, filepath.Join(rootfs, "rootfs"))
	m.CopyIn(t, program, "/usr/bin/nodeagent")
	m.Script(t, "chmod 755 /usr/bin/nodeagent; mkdir -p -m 700 "+backups+" /etc/nodeagent /etc/kubernetes")
	dir := stored(t)
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range names {
		m.CopyIn(t, filepath.Join(dir, e.Name()), filepath.Join(backups, e.Name()))
	}
	m.Write(t, "/etc/nodeagent/config.yaml", []byte("role: control-plane\nmetrics: {listen: \"127.0.0.1:10980\"}\n"), 0o600)
	m.Write(t, "/etc/kubernetes/kubelet.conf", nil, 0o600) // somebody else's node: only jobs run
	m.Write(t, "/etc/systemd/system/daemon.service", []byte("[Service]\nExecStart=/usr/bin/nodeagent run\nRestart=always\nRestartSec=0\n"), 0o644)
	// The unit waits for the gate, which shows it with its bounds and lets it be adopted.
	m.Write(t, "/etc/systemd/system/nodeagent-drill.service.d/gate.conf",
		[]byte("[Service]\nExecStartPre=/bin/sh -c 'until test -e /run/gate; do sleep 0.1; done'\nTimeoutStartSec=infinity\n"), 0o644)
	m.Script(t, "systemctl daemon-reload; systemctl start daemon")
	m.Wait(t, time.Minute, "test $(systemctl show -P ActiveState nodeagent-drill) = activating")
	for property, want := range map[string]string{
		"CPUWeight":           "1",
		"OOMScoreAdjust":      "1000",
		"IOReadBandwidthMax":  "/var/lib/nodeagent/drill 20000000 " + backups + " 20000000",
		"IOWriteBandwidthMax": "/var/lib/nodeagent/drill 20000000 " + backups + " 20000000",
		"RuntimeMaxUSec":      "4h",
	} {
		if got := strings.Join(strings.Fields(m.Script(t, "systemctl show -P "+property+" nodeagent-drill")), " "); got != want {
			t.Errorf("%s is %q, want %q", property, got, want)
		}
	}
	if got := strings.TrimSpace(m.Script(t, "echo $(( $(systemctl show -P MemoryMax nodeagent-drill) >> 20 ))")); got != "256" {
		t.Errorf("MemoryMax is %s MiB, want 256 and a small database's", got)
	}
	first := m.Script(t, "systemctl show -P InvocationID nodeagent-drill")
	m.Script(t, "systemctl kill -s KILL daemon")
	m.Wait(t, time.Minute, "test $(systemctl show -P NRestarts daemon) -gt 0 && curl -fsS http://127.0.0.1:10980/healthz || wget -qO- http://127.0.0.1:10980/healthz")
	if got := m.Script(t, "systemctl show -P InvocationID nodeagent-drill"); got != first {
		t.Errorf("after a restart of the daemon the unit is another one: %s, not %s", got, first)
	}
	m.Script(t, "touch /run/gate")
	m.Wait(t, 2*time.Minute, "ls "+backups+"/*.proof-*.json")
	m.Wait(t, time.Minute, "test $(systemctl show -P LoadState nodeagent-drill) = not-found || test $(systemctl show -P ActiveState nodeagent-drill) = inactive")
	if got := m.Script(t, "cat "+backups+"/*.proof-*.json; ls -A /var/lib/nodeagent/drill"); strings.Count(got, `"proven": "restored"`) != 1 || !strings.HasSuffix(strings.TrimSpace(got), "}") {
		t.Errorf("proofs, and what is left: %s", got)
	}
}

// stored is a directory with one backup in it, of a real etcd.
func stored(t *testing.T) string {
	t.Helper()
	h := host.New(t.TempDir())
	member, err := etcdtest.Start(h, filepath.Join(t.TempDir(), "etcd"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = member.Close() }()
	local, err := etcd.FindLocal(h)
	if err != nil {
		t.Fatal(err)
	}
	client, err := local.Dial(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	_, err = client.Put(t.Context(), "/registry/a", "b")
	_, saved := etcdbackup.Save(t.Context(), etcdbackup.FromClient(client, ""), []etcdbackup.Local{file.New(h, backups, "cp1")}, etcdbackup.Request{
		Host: "cp1", Agent: "test", Now: time.Now(), Retention: etcdbackup.Retention{KeepLast: 3}, Compress: true,
		Scratch: func(int64) (*os.File, error) { return host.New("/").ScratchFile(os.TempDir()) },
	})
	if err := errors.Join(err, saved); err != nil {
		t.Fatal(err)
	}
	return h.Root + backups
}
