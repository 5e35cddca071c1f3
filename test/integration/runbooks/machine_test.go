//go:build integration

// Package runbooks_test types what the runbooks say on a machine that is in the state they are for:
// the real unit under a live systemd, with the real etcd, API server and containerd.
package runbooks_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/test/lab"
	"github.com/nodeagent/nodeagent/test/nspawn"
	"github.com/nodeagent/nodeagent/test/standing"
)

const (
	buildTimeout = 15 * time.Minute
	// patience bounds every wait: far more than it takes on a machine that is busy.
	patience = time.Minute
	checkout = "../../.."
	version  = "0.0.0~runbooks"
)

// The lab's artefacts, as the machine sees them.
const (
	repositoryDir = "/srv/lab"
	kubernetesDir = "/srv/kubernetes"
	etcdDir       = "/srv/etcd"
	prometheusDir = "/srv/prometheus"
	pauseDir      = "/srv/pause"
)

// config has every job due all the time, its snapshots on a disk of their own, and its metrics in a
// file too.
const config = `role: control-plane
node: {name: node1, address: 10.77.0.1}
network: {cni: bridge}
packages: {manage: false}
drift: {interval: 2s}
backup: {interval: 2s, retention: {keepLast: 3}}
metrics: {textfile: /var/lib/prometheus/node-exporter/nodeagent.prom}
`

// kubeadmConfig is what the control plane is made from. It ends inside its ClusterConfiguration, so
// that keys can be appended.
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

// node is the machine.
type node struct{ *nspawn.Machine }

// up boots a fresh machine with the packages of Kubernetes and the agent, which is not started yet.
func up(t *testing.T) node {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), buildTimeout)
	defer cancel()
	var rootfs string
	binds := []nspawn.Bind{{Target: repositoryDir}, {Target: kubernetesDir}, {Target: etcdDir}, {Target: prometheusDir}, {Target: pauseDir}}
	for _, need := range []struct {
		dir  *string
		make func(context.Context) (string, error)
	}{
		{&rootfs, lab.Rootfs}, {&binds[0].Source, lab.Repository}, {&binds[1].Source, lab.Kubernetes}, {&binds[2].Source, lab.Etcd}, {&binds[3].Source, lab.Prometheus},
		{&binds[4].Source, func(ctx context.Context) (string, error) { return lab.Build(ctx, "pause") }},
	} {
		dir, err := need.make(ctx)
		if err != nil {
			t.Fatal(err)
		}
		*need.dir = dir
	}
	program := filepath.Join(t.TempDir(), "nodeagent")
	compile := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-X main.version="+version, "-o", program, "./cmd/nodeagent")
	compile.Dir = checkout
	compile.Env = append(os.Environ(), "CGO_ENABLED=0")
	compile.WaitDelay = 5 * time.Second
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("compile: %v\n%s", err, out)
	}
	n := node{nspawn.Up(t, filepath.Join(rootfs, "rootfs"), binds...)}
	n.CopyIn(t, program, "/usr/bin/nodeagent")
	n.CopyIn(t, filepath.Join(checkout, "deploy/systemd/nodeagent.service"), "/usr/lib/systemd/system/nodeagent.service")
	n.Write(t, "/etc/nodeagent/config.yaml", []byte(config), 0o600)
	fingerprint, err := standing.Fingerprint(version, config)
	if err != nil {
		t.Fatal(err)
	}
	n.Write(t, "/srv/fingerprint", fingerprint, 0o600)
	n.Write(t, "/srv/kubeadm.yaml", []byte(kubeadmConfig), 0o600)
	// Swap is the host's, and there is no network to wait for. What systemd would say on a console of
	// its own is nobody's to read.
	n.Script(t, install+`
		printf 'Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n' >/srv/swaps
		mount --bind /srv/swaps /proc/swaps
		systemctl mask --quiet --runtime systemd-networkd-wait-online.service
		ip address add 10.77.0.1/32 dev lo
		mkdir -p /var/lib/prometheus/node-exporter /var/lib/nodeagent/backups /etc/prometheus
		echo 'store /var/lib/nodeagent/backups tmpfs size=300m,mode=700 0 0' >>/etc/fstab
		mount /var/lib/nodeagent/backups
		systemctl daemon-reload`)
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := n.TryScript("journalctl -u nodeagent --no-pager -o short-precise | tail -n 40; nodeagent status 2>&1")
			t.Logf("the daemon at the end:\n%s", out)
		}
	})
	return n
}

// install has Debian's containerd as a package, and of the packages of Kubernetes only what differs
// from the lab's own programs: a machine that is busy takes minutes to write the rest.
const install = `
DEBIAN_FRONTEND=noninteractive dpkg --install --force-depends --force-unsafe-io ` + repositoryDir + `/debian/*/containerd_*.deb ` +
	repositoryDir + `/debian/*/runc_*.deb ` + repositoryDir + `/debian/*/containernetworking-plugins_*.deb >/dev/null
dpkg-deb -x ` + repositoryDir + `/kubernetes/*/cri-tools_*.deb /
for name in kubelet kubeadm; do
	dpkg-deb --fsys-tarfile $(ls ` + repositoryDir + `/kubernetes/*/${name}_*.deb | tail -n 1) | tar -x -C / --wildcards './usr/lib/systemd/*'
done
for name in kubelet kubeadm kubectl; do
	ln -s ` + kubernetesDir + `/$name /usr/bin/$name
done
systemctl daemon-reload
systemctl enable --quiet kubelet
`

// cluster makes a control plane's host of the machine. The kubelet's unit is there and cannot run in a
// container: systemd runs etcd and the API server with the commands of their manifests.
const cluster = `
systemctl stop nodeagent.service
rm -f /var/lib/nodeagent/bootstrapping
install -m 600 /srv/kubeadm.yaml /var/lib/nodeagent/kubeadm.yaml
for phase in "certs all" "kubeconfig all" "etcd local" "control-plane all"; do
	kubeadm init phase $phase --config /srv/kubeadm.yaml >/dev/null
done
for name in etcd kube-apiserver; do
	program=` + kubernetesDir + `/$name; test $name != etcd || program=` + etcdDir + `/etcd
	cat >/run/systemd/system/$name.service <<UNIT
[Service]
ExecStart=$program $(sed -n 's/^    - \(--.*\)$/\1/p' /etc/kubernetes/manifests/$name.yaml | tr '\n' ' ')
UNIT
done
systemctl daemon-reload
systemctl start etcd.service kube-apiserver.service
nodeagent apply --only containerd,network/bridge
{ cat /etc/machine-id /srv/fingerprint; } >/var/lib/nodeagent/bootstrapped
export KUBECONFIG=/etc/kubernetes/super-admin.conf
until kubectl get --raw /readyz >/dev/null 2>&1; do sleep 0.2; done
kubectl create clusterrolebinding kubeadm:cluster-admins --clusterrole=cluster-admin --group=kubeadm:cluster-admins
kubeadm init phase upload-config all --config /srv/kubeadm.yaml --kubeconfig $KUBECONFIG >/dev/null
kubectl create -f - <<END
{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1", "annotations": {"kubeadm.alpha.kubernetes.io/cri-socket": "unix:///run/containerd/containerd.sock"}}}
END
kubectl create serviceaccount -n kube-system default || true
kubectl create -f - <<END
{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "kube-apiserver-node1", "namespace": "kube-system", "labels": {"component": "kube-apiserver", "tier": "control-plane"},
 "annotations": {"kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint": "10.77.0.1:6443"}},
 "spec": {"nodeName": "node1", "hostNetwork": true, "containers": [{"name": "kube-apiserver", "image": "example.invalid/none"}]}}
END
systemctl enable --quiet nodeagent.service
`

// admin is the environment of somebody with an administrator's kubeconfig.
const admin = "export KUBECONFIG=/etc/kubernetes/super-admin.conf\n"
