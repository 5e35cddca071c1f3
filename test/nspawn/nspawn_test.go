//go:build integration

package nspawn

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/test/lab"
)

func TestMachine(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	dir, err := lab.Rootfs(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var m *Machine
	t.Run("up", func(t *testing.T) {
		m = Up(t, filepath.Join(dir, "rootfs"))
		if out := m.Script(t, "ps -o comm= -p 1"); out != "systemd\n" {
			t.Errorf("PID 1 is %q", out)
		}
		if out := m.Script(t, "ip -brief link; ip route"); strings.Count(out, "\n") != 1 {
			t.Errorf("the network is not private:\n%s", out)
		}
		if _, err := m.TryScript("exit 7"); ExitCode(err) != 7 {
			t.Errorf("exit 7 is %v", err)
		}
		if _, err := m.TryScript("false; true"); ExitCode(err) != 1 {
			t.Errorf("a script goes on after a failure: %v", err)
		}
		if out, err := m.TryScript("echo 1 > /proc/sys/net/ipv4/ip_forward"); err != nil {
			t.Errorf("a sysctl of its own network cannot be set: %s", out)
		}
		if _, err := m.TryScript("f=/proc/sys/vm/overcommit_memory; v=$(cat $f); echo $v > $f"); err == nil {
			t.Error("the host's sysctls can be set")
		}
		m.Write(t, "/opt/a/b", []byte("text"), 0o640)
		if out := m.Script(t, "stat -c %a /opt/a/b; cat /opt/a/b"); out != "640\ntext" {
			t.Errorf("written file is %q", out)
		}
		if _, err := os.Stat(filepath.Join(dir, "rootfs/opt/a")); !os.IsNotExist(err) {
			t.Errorf("the shared tree was written to: %v", err)
		}
		short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
		if _, err := m.Run(short, "/bin/sleep", "4711"); err == nil {
			t.Error("a program outlived its deadline")
		}
		if out, err := m.TryScript("pgrep -fx 'sleep 4711|/bin/sleep 4711'"); ExitCode(err) != 1 {
			t.Errorf("a program runs on after its deadline: %q", out)
		}
	})
	if m == nil {
		return
	}
	for _, dir := range m.group.dirs {
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("control group %s is still there: %v", dir, err)
		}
	}
}
