//go:build integration

// Package crash_test kills `nodeagent apply` where a real systemd is PID 1 and a real containerd
// runs: test/crash's own test, in a container.
package crash_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/test/lab"
	"github.com/nodeagent/nodeagent/test/nspawn"
)

const (
	buildTimeout = 15 * time.Minute
	sweepTimeout = 10 * time.Minute
	everyNth     = "NODEAGENT_CRASH_EVERY" // of the points one is swept; 1 sweeps all and takes its time
	allTimeout   = 2 * time.Hour
)

// operators are files that somebody else has on this machine: swap in more than one spelling,
// and containerd set up by hand.
var operators = map[string]string{
	"/etc/nodeagent/config.yaml":                          "role: control-plane\nnetwork: {cni: bridge, podSubnet: '10.244.0.0/16,fd00:10::/56'}\npackages: {manage: false}\n",
	"/etc/systemd/system/srv-native.swap":                 "# by hand\n[Swap]\nWhat=/srv/native\n[Install]\nWantedBy=multi-user.target\n",
	"/usr/lib/systemd/system/srv-vendor.swap":             "[Swap]\nWhat=/srv/vendor\n",
	"/usr/lib/systemd/system/zramswap.service":            "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\nExecStop=/bin/true\n[Install]\nWantedBy=multi-user.target\n",
	"/run/systemd/system/containerd.service.d/often.conf": "[Unit]\nStartLimitIntervalSec=0\n",
	"/etc/containerd/config.toml": "# by hand; do not lose my mirrors\nversion = 2\n\n[plugins.\"io.containerd.grpc.v1.cri\"]\n" +
		"  sandbox_image = \"registry.example/pause:3.6\" # ours\n  [plugins.\"io.containerd.grpc.v1.cri\".registry]\n    config_path = \"/etc/containerd/certs.d\"\n",
	"/srv/phases.yaml": "role: control-plane\nnode: {name: node1, address: 10.77.0.1, adminKubeconfigFor: [root]}\nnetwork: {cni: bridge}\npackages: {manage: false}\n" +
		"kubeadm: {clusterConfiguration: {encryptionAlgorithm: ECDSA-P256}}\n",
	"/srv/own-ca.yaml": "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\nlocalAPIEndpoint: {advertiseAddress: 10.77.0.1}\nnodeRegistration: {name: node1}\n---\n" +
		"apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: " + lab.KubernetesVersion + "\nencryptionAlgorithm: ECDSA-P256\ncertificatesDir: /srv/own-ca\n",
	"/srv/swaps": "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n",
}

func TestApplyOnARunningSystem(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), buildTimeout)
	defer cancel()
	rootfs, err := lab.Rootfs(ctx)
	if err != nil {
		t.Fatal(err)
	}
	repository, err := lab.Repository(ctx)
	if err != nil {
		t.Fatal(err)
	}
	kubernetes, err := lab.Kubernetes(ctx)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	program, tests := filepath.Join(dir, "nodeagent"), filepath.Join(dir, "crash.test")
	build(t, ctx, "build", "-trimpath", "-o", program, "./cmd/nodeagent")
	build(t, ctx, "test", "-c", "-tags", "integration", "-o", tests, "./test/crash")

	m := nspawn.Up(t, filepath.Join(rootfs, "rootfs"), nspawn.Bind{Source: kubernetes, Target: "/srv/kubernetes"})
	m.CopyIn(t, program, "/srv/nodeagent")
	m.CopyIn(t, tests, "/srv/crash.test")
	for _, name := range []string{"containerd", "runc", "containernetworking-plugins"} {
		m.CopyIn(t, deb(t, filepath.Join(repository, "debian"), name), "/srv/debs/"+name+".deb")
	}
	m.Script(t, "DEBIAN_FRONTEND=noninteractive dpkg --install --force-confold --force-depends /srv/debs/*.deb")
	for path, text := range operators {
		m.Write(t, path, []byte(text), 0o644)
	}
	// Swap is the host's, and none of its business: the agent is shown a machine that has none on.
	m.Script(t, `mount --bind /srv/swaps /proc/swaps
		chmod 0700 /srv/nodeagent; chown 4242:4343 /etc/containerd/config.toml
		rm -rf /opt/cni /var/lib/nodeagent; rm -f /etc/cni/net.d/*
		# Those that the bridge needs are enough: all are copied alike.
		find /usr/lib/cni -type f ! -name bridge ! -name host-local ! -name loopback ! -name portmap -delete
		systemctl daemon-reload
		systemctl enable --quiet srv-native.swap
		systemctl enable --quiet --now zramswap.service containerd.service
		systemctl restart containerd.service
		echo 0 > /proc/sys/net/ipv4/ip_forward; echo 0 > /proc/sys/net/ipv6/conf/all/forwarding
		ip address add 10.77.0.1/32 dev lo
		ln -s /srv/kubernetes/kubeadm /usr/bin/kubeadm
		kubeadm init phase certs ca --config /srv/own-ca.yaml`)

	timeout := sweepTimeout
	every := os.Getenv(everyNth)
	if every != "" {
		timeout = allTimeout
	}
	ctx, cancel = context.WithTimeout(t.Context(), timeout)
	defer cancel()
	// In a unit of its own: processes that only entered the namespaces are in no unit.
	out, err := m.Run(ctx, "/usr/bin/systemd-run", "--quiet", "--wait", "--pipe", "--collect", "--setenv="+everyNth+"="+every,
		"--working-directory=/tmp", "/srv/crash.test", "-test.v", "-test.timeout="+timeout.String(), "-test.run=^TestLive")
	t.Log(out)
	if err != nil {
		t.Error(err)
	}
	for _, name := range []string{"TestLive", "TestLivePhases"} {
		if !strings.Contains(out, "--- PASS: "+name+" ") || strings.Contains(out, "--- SKIP") {
			t.Errorf("%s did not run: were the tests built with the tag integration?", name)
		}
	}
}

func build(t *testing.T, ctx context.Context, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = "../../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.WaitDelay = 5 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go %q: %v\n%s", args, err, out)
	}
}

// deb is the package's file in the lab's repository.
func deb(t *testing.T, dir, name string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "*", name+"_*.deb"))
	if err != nil || len(found) != 1 {
		t.Fatalf("%d files of package %s in %s: %v", len(found), name, dir, err)
	}
	return found[0]
}
