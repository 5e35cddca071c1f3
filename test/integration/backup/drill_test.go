//go:build integration

package backup_test

import (
	"strings"
	"testing"
	"time"
)

// The daemon's drill is a unit with its bounds, is begun once there is a backup, outlives a SIGKILL of
// the daemon, which adopts it, and leaves a proof and nothing else.
func TestDrillInItsUnit(t *testing.T) {
	m := newDrillMachine(t, 0)
	// The unit waits for the gate, which shows it with its bounds and lets it be adopted.
	m.limited(t, gate)
	m.begin(t)
	m.Wait(t, time.Minute, "test $(systemctl show -P ActiveState nodeagent-drill) = activating")
	for property, want := range map[string]string{
		"CPUWeight":           "1",
		"OOMScoreAdjust":      "1000",
		"IOReadBandwidthMax":  drillDir + " 20000000 " + backups + " 20000000",
		"IOWriteBandwidthMax": drillDir + " 20000000 " + backups + " 20000000",
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
	m.Wait(t, time.Minute, "test $(systemctl show -P NRestarts daemon) -gt 0")
	m.Wait(t, time.Minute, "journalctl --no-pager -o cat _SYSTEMD_INVOCATION_ID=$(systemctl show -P InvocationID daemon) | grep 'one runs, and is waited for'")
	if got := m.Script(t, "systemctl show -P InvocationID nodeagent-drill"); got != first {
		t.Errorf("after a restart of the daemon the unit is another one: %s, not %s", got, first)
	}
	m.Script(t, "touch /run/gate")
	m.proven(t)
}
