//go:build integration

package faults_test

import (
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/test/lab"
	"github.com/nodeagent/nodeagent/test/standing"
)

// clusterConfig has every job due all the time, but for drills: the disks that suffer here are too
// small for one, and that would be told of beside each fault.
const clusterConfig = `role: control-plane
node: {name: node1, address: 10.77.0.1}
network: {cni: bridge}
packages: {manage: false}
drift: {interval: 2s}
backup: {interval: 2s, retention: {keepLast: 3}, stores: [{file: {dir: ` + storeDir + `}}], drill: {schedule: off}}
`

const (
	storeDir = "/srv/backups"
	stateDir = "/var/lib/nodeagent"
)

// kubeadmConfig is what the PKI and etcd's manifest are made from.
const kubeadmConfig = `apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {advertiseAddress: 10.77.0.1}
nodeRegistration: {name: node1, criSocket: unix:///run/containerd/containerd.sock}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: ` + lab.KubernetesVersion + `
encryptionAlgorithm: ECDSA-P256
`

// prepare makes a control plane's host of the machine, with an etcd that systemd runs in place of a
// kubelet, and file systems of their own at the places where the daemon writes.
const prepare = `
DEBIAN_FRONTEND=noninteractive dpkg --install --force-depends ` + repositoryDir + `/debian/*/containerd_*.deb ` +
	repositoryDir + `/debian/*/runc_*.deb ` + repositoryDir + `/debian/*/containernetworking-plugins_*.deb >/dev/null
for phase in "certs all" "kubeconfig all" "etcd local"; do
	` + kubernetesDir + `/kubeadm init phase $phase --config /srv/kubeadm.yaml >/dev/null
done
mkdir -p ` + storeDir + ` ` + stateDir + `
mount -t tmpfs -o size=100m,mode=700 store ` + storeDir + `
mount -t tmpfs -o size=2m,mode=700 state ` + stateDir + `
mount -t tmpfs -o size=100m,mode=1777 tmp /var/tmp
cp -a /etc /srv/etc
mount -t tmpfs -o size=100m,mode=755 etc /etc
cp -a /srv/etc/. /etc/
cat >/run/systemd/system/etcd.service <<UNIT
[Service]
ExecStart=` + etcdDir + `/etcd $(sed -n 's/^    - \(--.*\)$/\1/p' /etc/kubernetes/manifests/etcd.yaml | tr '\n' ' ')
UNIT
systemctl daemon-reload
systemctl start etcd.service
nodeagent apply --only containerd,network/bridge
{ cat /etc/machine-id; cat /srv/fingerprint; } >` + stateDir + `/bootstrapped
`

// fault is one thing that goes away and comes back.
type fault struct {
	name       string
	begin, end string   // scripts
	journal    string   // what the daemon logs
	metrics    []string // lines, while it lasts
	grows      string   // a series that changes while it lasts
	status     []string // what the page says, the remedy too
	well       []string // lines of /metrics, when it is over
	moves      string   // a series that changes then
}

const (
	failedSaves = `nodeagent_job_runs_total{job_name="snapshot",result="failure"}`
	goodSaves   = `nodeagent_job_runs_total{job_name="snapshot",result="success"}`
	looks       = `nodeagent_step_last_run_timestamp_seconds{step="containerd"}`
)

func clean(step string) string { return `nodeagent_step_clean{step="` + step + `"} ` }

var faults = []fault{
	{
		name:  "etcd is gone",
		begin: "systemctl stop etcd.service", end: "systemctl start etcd.service",
		journal: "connect: connection refused", grows: failedSaves,
		status: []string{"job snapshot failed: dial etcd at https://127.0.0.1:2379"},
		moves:  goodSaves,
	},
	{
		name:  "etcd hangs",
		begin: "systemctl kill --signal=STOP etcd.service", end: "systemctl kill --signal=CONT etcd.service",
		journal: "dial etcd at https://127.0.0.1:2379", grows: failedSaves,
		status: []string{"job snapshot failed: dial etcd at https://127.0.0.1:2379"},
		moves:  goodSaves,
	},
	{
		name:  "the store is full",
		begin: "fallocate -l 70M " + storeDir + "/filler", end: "rm " + storeDir + "/filler",
		journal: "MiB are needed", grows: failedSaves,
		status: []string{"job snapshot failed: save to file " + storeDir, "MiB are needed"},
		moves:  goodSaves,
	},
	{
		name:  "the store is read-only",
		begin: "mount -o remount,ro " + storeDir, end: "mount -o remount,rw " + storeDir,
		journal: "read-only file system", grows: failedSaves,
		status: []string{"job snapshot failed: save to file " + storeDir, "read-only file system"},
		moves:  goodSaves,
	},
	{
		name:  "the state's disk is full",
		begin: "dd if=/dev/zero of=" + stateDir + "/filler bs=4k 2>/dev/null || true", end: "rm " + stateDir + "/filler",
		journal: "no space left on device", metrics: []string{"nodeagent_state_written 0"}, grows: goodSaves,
		status: []string{stateDir + ": no space left on device", "type: df -h " + stateDir},
		well:   []string{"nodeagent_state_written 1"},
		moves:  goodSaves,
	},
	{
		name:  "the state's disk is read-only",
		begin: "mount -o remount,ro " + stateDir, end: "mount -o remount,rw " + stateDir,
		journal: "read-only file system", metrics: []string{"nodeagent_state_written 0"}, grows: goodSaves,
		status: []string{stateDir + ": read-only file system", "type: findmnt -T " + stateDir},
		well:   []string{"nodeagent_state_written 1"},
		moves:  goodSaves,
	},
	{
		name: "/etc is read-only, and there is drift",
		// Between the two the daemon may mend it.
		begin:   "until rm -f /etc/crictl.yaml; mount -o remount,ro /etc; test ! -e /etc/crictl.yaml; do mount -o remount,rw /etc; done",
		end:     "mount -o remount,rw /etc",
		journal: "read-only file system", metrics: []string{clean("containerd/crictl") + "0"},
		grows:  `nodeagent_step_applies_total{result="failure",step="containerd/crictl"}`,
		status: []string{"step containerd/crictl: ", "read-only file system"},
		well:   []string{clean("containerd/crictl") + "1"},
	},
	{
		// systemd itself answers without it.
		name:  "the bus is stopped",
		begin: "systemctl stop dbus.socket dbus.service", end: "systemctl start dbus.socket",
		metrics: []string{clean("containerd") + "1"}, grows: looks,
		well: []string{clean("containerd") + "1"}, moves: looks,
	},
	{
		// PID 1 loses every connection, and finds the place of its own socket taken.
		name:    "systemd is out of reach",
		begin:   "systemctl stop dbus.socket dbus.service; touch /run/nothing; mount --bind /run/nothing /run/systemd/private; kill -TERM 1",
		end:     "umount /run/systemd/private; kill -TERM 1; for i in $(seq 100); do systemctl start dbus.socket && break; sleep 0.1; done",
		journal: "connect to systemd", metrics: []string{clean("containerd") + "0"},
		grows:  looks,
		status: []string{"connect to systemd", "type: systemctl status containerd.service"},
		well:   []string{clean("containerd") + "1"},
	},
	{
		name:  "containerd is stopped",
		begin: "systemctl stop containerd.service", end: "systemctl start containerd.service",
		journal: "containerd", metrics: []string{clean("containerd") + "0"}, grows: goodSaves,
		status: []string{"unit containerd.service is inactive (dead)", "containerd does not say which pods it has", "type: journalctl -u containerd.service"},
		well:   []string{clean("containerd") + "1"},
	},
	{
		name:  "containerd is masked",
		begin: "systemctl mask --quiet --runtime --now containerd.service", end: "systemctl unmask --quiet --runtime containerd.service; systemctl start containerd.service",
		metrics: []string{clean("containerd") + "0"}, grows: goodSaves,
		status: []string{"unit containerd.service is masked", "type: systemctl status containerd.service"},
		well:   []string{clean("containerd") + "1"},
	},
	{
		name:  "containerd's program is removed",
		begin: "mv /usr/bin/containerd /srv/containerd; systemctl stop containerd.service", end: "mv /srv/containerd /usr/bin/containerd; systemctl start containerd.service",
		metrics: []string{clean("containerd") + "0"}, grows: goodSaves,
		status: []string{"step containerd: find program containerd", "install containerd"},
		well:   []string{clean("containerd") + "1"},
	},
}

// The daemon of a control plane, with its jobs due all the time: one fault after the other.
func TestFaults(t *testing.T) {
	b := buildAll(t)
	n := b.node(t, clusterConfig)
	n.Write(t, "/srv/kubeadm.yaml", []byte(kubeadmConfig), 0o600)
	fingerprint, err := standing.Fingerprint(version, clusterConfig)
	if err != nil {
		t.Fatal(err)
	}
	n.Write(t, "/srv/fingerprint", fingerprint, 0o600)
	n.Script(t, prepare)
	n.start(t)
	n.metric(t, clean("containerd")+"1")
	n.metric(t, clean("containerd/crictl")+"1")
	n.moves(t, goodSaves)
	n.Script(t, "rm /etc/crictl.yaml")
	n.Wait(t, patience, "test -s /etc/crictl.yaml") // drift is mended
	before := n.same(t)
	for _, f := range faults {
		if !t.Run(f.name, func(t *testing.T) { n.suffer(t, f, before) }) {
			return // the machine is not as the next one wants it
		}
	}
}

func (n node) suffer(t *testing.T, f fault, before string) {
	n.Script(t, "journalctl -u nodeagent -n 1 --show-cursor -o cat | sed -n 's/^-- cursor: //p' >/srv/cursor")
	well := n.tree(t)
	n.Script(t, f.begin)
	for _, line := range f.metrics {
		n.metric(t, line)
	}
	if f.grows != "" {
		n.moves(t, f.grows)
	}
	if f.journal != "" {
		n.Wait(t, patience, `journalctl -u nodeagent -o cat --after-cursor="$(cat /srv/cursor)" | grep -Fe `+quote(f.journal))
	}
	n.status(t, f.status...)
	if now := n.same(t); now != before {
		t.Errorf("the daemon was %q and is %q", before, now)
	}
	n.Script(t, f.end)
	for _, line := range f.well {
		n.metric(t, line)
	}
	if f.moves != "" {
		n.moves(t, f.moves)
	}
	n.silent(t, f.status...)
	if now := n.same(t); now != before {
		t.Errorf("once it was over the daemon was %q and is %q", before, now)
	}
	if now := n.tree(t); now != well {
		t.Errorf("it has left\n%s\nthere was\n%s", now, well)
	}
	n.Script(t, "nodeagent snapshot list")
}

// tree is what lies where the daemon writes, but for which snapshots there are: of one that is being
// saved there may be a draft for a moment.
func (n node) tree(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(n.Script(t, `cd /; for i in $(seq 50); do test -z "$(find `+storeDir+` `+stateDir+` -name '.*')" && break; sleep 0.1; done
		find etc srv/backups var/lib/nodeagent ! -name '*.db.zst' ! -name '*.db.zst.json' | sort`))
}
