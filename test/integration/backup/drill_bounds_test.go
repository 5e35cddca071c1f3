//go:build integration

package backup_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// noiseMiB is how large the backup is: so large that restoring it takes long enough to be met in the
// middle.
const noiseMiB = 24

// A drill is a guest on its host. Where memory or disk is short it is not begun, which is told once,
// and is taken up again when there is room; where it is killed, by hand or for its memory, or
// paused, or its disk becomes full in the middle, nothing is proven, nothing is left, the backup is
// as it was, and the next one proves it.
func TestDrillBounds(t *testing.T) {
	m := newDrillMachine(t, noiseMiB)
	for _, test := range []struct {
		name string
		run  func(*testing.T, drillMachine)
	}{
		{"memory is short", memoryShort},
		{"disk is short", diskShort},
		{"disk becomes full", diskBecomesFull},
		{"disk has no inodes", noInodes},
		{"paused", paused},
		{"killed", drillKilled},
		{"more memory than it was given", outOfMemory},
		{"more time than it was given", outOfTime},
	} {
		t.Run(test.name, func(t *testing.T) {
			defer func() {
				if t.Failed() {
					out, err := m.TryScript("journalctl --no-pager -o cat -u daemon -u nodeagent-drill | grep -v ^drift: | tail -n 60; ls -lA " + drillDir + "; cat /var/lib/nodeagent/state.json | tail -n 60")
					t.Log(out, err)
				}
				m.end(t)
			}()
			m.limited(t, "")
			test.run(t, m)
		})
	}
}

func memoryShort(t *testing.T, m drillMachine) {
	// As a container manager shows its guests what they have.
	m.Script(t, "sed 's/^MemAvailable:.*/MemAvailable: 300000 kB/' /proc/meminfo >/run/meminfo; mount --bind /run/meminfo /proc/meminfo")
	t.Cleanup(func() { m.Script(t, "umount /proc/meminfo || true") }) // where the test has not come to it
	skipped(t, m, "memory", "not enough available memory for a drill", "umount /proc/meminfo")
}

func diskShort(t *testing.T, m drillMachine) {
	onDisk(t, m, "size=150m")
	skipped(t, m, "space", "not enough free space for a drill in "+drillDir, "mount -o remount,size=1g "+drillDir)
}

// onDisk mounts the scratch directory's disk until the test ends.
func onDisk(t *testing.T, m drillMachine, options string) {
	t.Helper()
	m.Script(t, "mkdir -p "+drillDir+"; mount -t tmpfs -o mode=700,"+options+" tmpfs "+drillDir)
	t.Cleanup(func() { m.Script(t, "umount --lazy "+drillDir) })
}

// skipped sees a drill that is looked at twice and not begun for want of something, and then begun
// when relief has given it.
func skipped(t *testing.T, m drillMachine, reason, why, relief string) {
	t.Helper()
	m.begin(t)
	m.ended(t, reason, 1)
	const tried = "job has nothing to do"
	m.Wait(t, time.Minute, "test $(journalctl --no-pager -o cat _SYSTEMD_INVOCATION_ID=$(systemctl show -P InvocationID daemon) | grep -F '"+tried+"' | grep -cF 'drill skipped') -ge 2")
	if said := m.journal(t); strings.Count("\n"+said, "\ndrill skipped store=") != 1 || !strings.Contains(said, why) {
		t.Errorf("the daemon says: %s", said)
	}
	m.ended(t, reason, 1)
	if got := m.status(t); !strings.Contains(got, "Warning no drill of the backups in file "+backups) || !strings.Contains(got, why) || !strings.Contains(got, "type: nodeagent snapshot drill") {
		t.Errorf("status: %s", got)
	}
	if got := m.Script(t, "systemctl show -P LoadState nodeagent-drill"); strings.TrimSpace(got) != "not-found" {
		t.Errorf("the unit is %s", got)
	}
	m.unproven(t)
	m.Script(t, relief)
	m.proven(t)
	m.wellAgain(t)
}

// wellAgain looks that no drill is complained of any more.
func (m drillMachine) wellAgain(t *testing.T) {
	t.Helper()
	if got := m.status(t); strings.Contains(got, "no drill of") || strings.Contains(got, "the drill of a backup failed") || !strings.Contains(got, "proven") {
		t.Errorf("status: %s", got)
	}
}

// results are how many drills have ended for a reason.
func (m drillMachine) results(t *testing.T, reason string) (n int) {
	t.Helper()
	line := m.Script(t, get("/metrics")+` | grep -F 'nodeagent_etcd_drill_results_total{reason="`+reason+`"}'`)
	if _, err := fmt.Sscan(line[strings.LastIndex(line, " ")+1:], &n); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return n
}

// kubekey#1625: a full disk. Somebody else takes all that is left of a disk which had room when the drill
// began.
func diskBecomesFull(t *testing.T, m drillMachine) {
	onDisk(t, m, "size=1g")
	m.stopped(t, "")
	was := m.results(t, "space")
	m.Script(t, "used=$(df -k --output=used "+drillDir+" | tail -n 1); mount -o remount,size=$((used + 4))k "+drillDir+"; "+goOn) // no size is 0
	m.ended(t, "space", was+1)
	m.unproven(t)
	if said := m.journal(t); !strings.Contains(said, "no space left on device") {
		t.Errorf("the daemon says: %s", said)
	}
	m.Script(t, "mount -o remount,size=1g "+drillDir)
	m.limited(t, "")
	m.begin(t)
	m.proven(t)
	m.wellAgain(t)
}

func noInodes(t *testing.T, m drillMachine) {
	m.begin(t)
	m.proven(t)
	was := m.results(t, "space")
	for i, inodes := range []int{1, 2, 3, 4, 5, 6, 7, 8} {
		m.Script(t, fmt.Sprintf("rm -f %s/*.proof-*.json; mkdir /run/full; mount -t tmpfs -o size=1g,nr_inodes=%d tmpfs /run/full", backups, inodes))
		out, err := m.TryScript("nodeagent snapshot drill --scratch /run/full")
		if err == nil || !strings.Contains(out, "no space left on device") {
			t.Errorf("with %d inodes: %v, %s", inodes, err, out)
		}
		if got := m.Script(t, "ls -A /run/full; umount /run/full; rmdir /run/full"); got != "" {
			t.Errorf("with %d inodes it leaves %s", inodes, got)
		}
		m.unproven(t)
		if got := m.status(t); !strings.Contains(got, "no drill of the backups in file "+backups) {
			t.Errorf("with %d inodes the status is %s", inodes, got)
		}
		m.ended(t, "space", was+i+1) // by hand, and in the daemon's metrics
	}
}

const goOn = "systemctl kill -s CONT nodeagent-drill"

// One that stands still, as in a virtual machine that is suspended or a frozen group, holds up nobody,
// and goes on.
func paused(t *testing.T, m drillMachine) {
	m.stopped(t, "")
	its := m.Script(t, "ls "+drillDir)
	m.Script(t, "nodeagent snapshot list; nodeagent snapshot prune; nodeagent snapshot drill; rm "+backups+"/*.proof-*.json")
	if got := m.Script(t, "ls "+drillDir); got != its {
		t.Errorf("of the paused drill there is %q after another one, and was %q", got, its)
	}
	m.Script(t, goOn)
	m.proven(t)
	m.wellAgain(t)
}

// ends looks at what a drill that did not live to tell has left, and has the next one prove.
func ends(t *testing.T, m drillMachine, reason string, was int) {
	t.Helper()
	m.ended(t, reason, was+1)
	m.unproven(t)
	if got := m.status(t); !strings.Contains(got, "Problem the drill of a backup failed") || !strings.Contains(got, "journalctl -u nodeagent-drill.service") {
		t.Errorf("status: %s", got)
	}
	m.limited(t, "")
	m.begin(t)
	m.proven(t)
	m.wellAgain(t)
}

func drillKilled(t *testing.T, m drillMachine) {
	m.stopped(t, "")
	was := m.results(t, "killed")
	m.Script(t, "systemctl kill -s KILL nodeagent-drill")
	ends(t, m, "killed", was)
}

// Where the machine has control groups of version 1 its systemd bounds no memory; there the test gives the
// unit's program a group that has the bound.
func outOfMemory(t *testing.T, m drillMachine) {
	m.stopped(t, "MemoryMax=64M\n")
	was := m.results(t, "killed")
	m.Script(t, `
group=/sys/fs/cgroup/memory/drill
if test -e /sys/fs/cgroup/memory/memory.limit_in_bytes; then
	mkdir $group
	echo 16M >$group/memory.limit_in_bytes
	systemctl show -P MainPID nodeagent-drill >$group/cgroup.procs
fi
`+goOn)
	ends(t, m, "killed", was)
}

func outOfTime(t *testing.T, m drillMachine) {
	m.stopped(t, "RuntimeMaxSec=10\n")
	ends(t, m, "killed", m.results(t, "killed"))
}
