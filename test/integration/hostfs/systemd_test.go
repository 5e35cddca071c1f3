//go:build integration

package hostfs_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// On a machine without systemd's sockets the steps that need it say so, with what to do, and the
// others are planned all the same.
func TestPlanWithoutSystemd(t *testing.T) {
	mount(t, "tmpfs", "/run", "tmpfs", 0, "mode=755")
	defer func() {
		if err := unix.Unmount("/run", 0); err != nil {
			t.Error(err)
		}
	}()
	path := filepath.Join(t.TempDir(), "config.yaml")
	// A setting that no machine has, so that there is something to plan.
	if err := os.WriteFile(path, []byte("role: worker\nkernel: {sysctls: [{name: net.ipv4.ip_local_port_range, value: \"20000 20001\"}]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out := nodeagent(t, 0, "plan", "--config", path)
	if code != 1 {
		t.Errorf("exit code %d", code)
	}
	for _, want := range []string{
		"kernel/swap: cannot be checked: ", "is this host run by systemd? A directory that is to become one is worked on with --root\n",
		"net.ipv4.ip_local_port_range", "steps cannot be checked",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in:\n%s", want, out)
		}
	}
}
