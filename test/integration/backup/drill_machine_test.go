//go:build integration

package backup_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
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

const (
	backups  = "/var/lib/nodeagent/backups"
	drillDir = "/var/lib/nodeagent/drill"
)

// drillMachine is a machine with a backup of so many MiB and the program, whose daemon is not started
// yet: it has no etcd, so that it drills and saves nothing.
type drillMachine struct{ *nspawn.Machine }

func newDrillMachine(t *testing.T, mib int) drillMachine {
	t.Helper()
	rootfs, err := lab.Rootfs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m := drillMachine{nspawn.Up(t, filepath.Join(rootfs, "rootfs"))}
	m.CopyIn(t, program(t), "/usr/bin/nodeagent")
	m.Script(t, "chmod 755 /usr/bin/nodeagent; mkdir -p -m 700 "+backups+" /etc/nodeagent /etc/kubernetes")
	dir := stored(t, mib)
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range names {
		m.CopyIn(t, filepath.Join(dir, e.Name()), filepath.Join(backups, e.Name()))
	}
	m.Write(t, "/etc/nodeagent/config.yaml", []byte("role: control-plane\nmetrics: {listen: \"127.0.0.1:10980\"}\nlog: {level: debug}\n"), 0o600)
	m.Write(t, "/etc/kubernetes/kubelet.conf", nil, 0o600) // somebody else's node: only jobs run
	m.Write(t, "/etc/systemd/system/daemon.service", []byte("[Service]\nExecStart=/usr/bin/nodeagent run\nRestart=always\nRestartSec=0\n"), 0o644)
	return m
}

// limited writes a drop-in of the drill's unit; "" is none.
func (m drillMachine) limited(t *testing.T, settings string) {
	t.Helper()
	m.Write(t, "/etc/systemd/system/nodeagent-drill.service.d/limit.conf", []byte("[Service]\n"+settings), 0o644)
	m.Script(t, "systemctl daemon-reload")
}

// begin starts the daemon where no backup is proven, so that it drills at once.
func (m drillMachine) begin(t *testing.T) {
	t.Helper()
	m.Script(t, "rm -f "+backups+"/*.proof-*.json; systemctl restart daemon")
	m.answers(t)
}

func (m drillMachine) end(t *testing.T) {
	t.Helper()
	m.Script(t, "systemctl stop daemon; systemctl kill -s KILL nodeagent-drill || true; rm -f /run/gate")
}

func (m drillMachine) answers(t *testing.T) {
	t.Helper()
	m.Wait(t, time.Minute, get("/healthz"))
}

func get(path string) string {
	return fmt.Sprintf("{ curl -fsS http://127.0.0.1:10980%[1]s || wget -qO- http://127.0.0.1:10980%[1]s; }", path)
}

// ended waits until as many drills as that have ended for a reason, by the metrics.
func (m drillMachine) ended(t *testing.T, reason string, times int) {
	t.Helper()
	m.Wait(t, 2*time.Minute, fmt.Sprintf(`%s | grep -F 'nodeagent_etcd_drill_results_total{reason="%s"} %d'`, get("/metrics"), reason, times))
}

// proven waits for the proof of a restore, after which nothing of it is left.
func (m drillMachine) proven(t *testing.T) {
	t.Helper()
	m.Wait(t, 2*time.Minute, "ls "+backups+"/*.proof-*.json")
	m.Wait(t, time.Minute, "test $(systemctl show -P LoadState nodeagent-drill) = not-found || test $(systemctl show -P ActiveState nodeagent-drill) = inactive")
	if got := m.Script(t, "cat "+backups+"/*.proof-*.json; ls -A "+drillDir); strings.Count(got, `"proven": "restored"`) != 1 || !strings.HasSuffix(strings.TrimSpace(got), "}") {
		t.Errorf("proofs, and what is left: %s", got)
	}
}

// unproven looks that nothing is proven and nothing left, and that the backup is as it was.
func (m drillMachine) unproven(t *testing.T) {
	t.Helper()
	if got := m.Script(t, "cd "+backups+"; ls -A | grep proof || true; ls -A "+drillDir+" 2>/dev/null || true"); strings.TrimSpace(got) != "" {
		t.Errorf("proofs, and what is left: %s", got)
	}
	m.Script(t, "nodeagent snapshot verify")
}

// journal is what the daemon has said since it was started.
func (m drillMachine) journal(t *testing.T) string {
	t.Helper()
	return m.Script(t, "journalctl --no-pager -o cat _SYSTEMD_INVOCATION_ID=$(systemctl show -P InvocationID daemon)")
}

// status is the page in the terminal, whatever its exit code.
func (m drillMachine) status(t *testing.T) string {
	t.Helper()
	return strings.Join(strings.Fields(m.Script(t, "COLUMNS=1000 nodeagent status || true")), " ")
}

// gate holds the unit before its program, so that whoever wants to meet that in the middle is there.
const gate = "ExecStartPre=/bin/sh -c 'until test -e /run/gate; do sleep 0.1; done'\nTimeoutStartSec=infinity\n"

// stopped starts the daemon, and stops the drill the moment that it has made its scratch directory. The
// loop of the shell starts no program, and comes before the drill wherever there is too little of the
// processor for both.
func (m drillMachine) stopped(t *testing.T, settings string) {
	t.Helper()
	m.limited(t, gate+"Nice=19\n"+settings)
	m.begin(t)
	m.Wait(t, time.Minute, "test $(systemctl show -P ActiveState nodeagent-drill) = activating")
	m.Script(t, `
renice -n -19 -p $$ >/dev/null
unit=system.slice/nodeagent-drill.service/cgroup.procs
for group in /sys/fs/cgroup/systemd/$unit /sys/fs/cgroup/$unit; do
	if test -e $group; then break; fi
done
touch /run/gate
until set -- `+drillDir+`/nodeagent-drill-*; test -e "$1"; do :; done
read program <$group
kill -STOP $program
rm /run/gate
`)
	if got := m.Script(t, "ps -o state= -p $(systemctl show -P MainPID nodeagent-drill)"); strings.TrimSpace(got) != "T" {
		t.Fatalf("the drill is in state %s", got)
	}
}

// stored is a directory with one backup in it, of a real etcd, of so many MiB that nothing compresses.
func stored(t *testing.T, mib int) string {
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
	for i := range mib {
		value := make([]byte, 1<<20)
		_, _ = rand.Read(value) // it never fails
		_, put := client.Put(t.Context(), fmt.Sprint("/registry/noise-", i), string(value))
		err = errors.Join(err, put)
	}
	_, saved := etcdbackup.Save(t.Context(), etcdbackup.FromClient(client, ""), []etcdbackup.Local{file.New(h, backups, "cp1")}, etcdbackup.Request{
		Host: "cp1", Agent: "test", Now: time.Now(), Retention: etcdbackup.Retention{KeepLast: 3}, Compress: true,
		Scratch: func(int64) (*os.File, error) { return host.New("/").ScratchFile(os.TempDir()) },
	})
	if err := errors.Join(err, saved); err != nil {
		t.Fatal(err)
	}
	return h.Root + backups
}
