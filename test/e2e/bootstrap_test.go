//go:build e2e

package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/test/docblock"
	"github.com/nodeagent/nodeagent/test/vm"
)

// isFresh holds the machine against what the rest of the test takes for granted: that what is
// found later was not there before.
func isFresh(ctx context.Context, t *testing.T, v *vm.VM) {
	v.MustRun(ctx, t, `
		[ "$(swapon --show=NAME --noheadings)" = /dev/vdb1 ]
		[ "$(sysctl -n net.ipv4.ip_forward)" = 0 ]
		[ ! -e /sys/module/br_netfilter ]
		not dpkg-query -W containerd containerd.io runc kubelet kubeadm kubectl kubernetes-cni cri-tools
		not command -v containerd kubelet kubeadm kubectl
		[ -z "$(find /opt /etc/cni /etc/kubernetes /etc/nodeagent /var/lib/nodeagent -type f 2>/dev/null)" ]`)
}

const dockersRepository = `
	cp /mnt/repository/debian/Release.key /etc/apt/keyrings/docker.asc
	echo 'deb [signed-by=/etc/apt/keyrings/docker.asc] file:/mnt/repository/debian /' >/etc/apt/sources.list.d/docker.list`

// install is all that the operator does: a configuration, and apt. Docker's repository is
// there already, as on the hosts of those who take containerd.io from it.
func install(ctx context.Context, t *testing.T, v *vm.VM) {
	if err := v.WriteFile(ctx, "/root/config.yaml", configuration, 0o640); err != nil {
		t.Fatal(err)
	}
	v.MustRun(ctx, t, dockersRepository)
	pauseKubeadm(ctx, t, v)
	// By the README; what waits comes later.
	lines := docblock.Lines(t, "README.md", "Install", "./nodeagent_0.1.0_amd64.deb", "/mnt/files/nodeagent.deb")
	for _, line := range lines[:2] {
		v.MustRun(ctx, t, "cd /root; "+line+" </dev/null")
	}
	// apt came back while the work was going on.
	v.MustRun(ctx, t, `
		systemctl is-active nodeagent
		systemctl is-enabled nodeagent
		[ ! -e /var/lib/nodeagent/bootstrapped ]
		nodeagent config check`)
}

// follow waits until the script exits 0 and logs what systemctl status would show meanwhile.
func follow(ctx context.Context, t *testing.T, v *vm.VM, script string) {
	t.Helper()
	began, last := time.Now(), ""
	for {
		r, err := v.Run(ctx, "systemctl show -P StatusText nodeagent; "+script)
		if err != nil && ctx.Err() == nil {
			t.Fatal(err)
		}
		if status := strings.TrimSpace(r.Stdout); status != last && err == nil {
			t.Logf("%4.0fs %s", time.Since(began).Seconds(), status)
			last = status
		}
		if err == nil && r.Code == 0 {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("waited for: %s\n%v", script, ctx.Err())
		case <-time.After(2 * time.Second):
		}
	}
}

// ready is the node as the API server sees it, and not as it remembers it from before a boot.
const ready = `
	[ "$(kubectl get node node1 -o jsonpath='{.status.nodeInfo.bootID}')" = "$(cat /proc/sys/kernel/random/boot_id)" ]
	[ "$(kubectl get node node1 -o jsonpath='{.status.conditions[?(@.type=="Ready")].status}')" = True ]
`

// Two commands: of a list with && only the last one's failure ends a script.
const bootstrapped = "[ -e /var/lib/nodeagent/bootstrapped ]\n[ ! -e /var/lib/nodeagent/bootstrapping ]\n"

func becomesReady(ctx context.Context, t *testing.T, v *vm.VM) {
	follow(ctx, t, v, bootstrapped)
	v.MustRun(ctx, t, ready)
	v.MustRun(ctx, t, "curl -fsS http://127.0.0.1:10980/readyz; curl -fsS http://127.0.0.1:10980/healthz")
}

func swapIsOff(ctx context.Context, t *testing.T, v *vm.VM) {
	t.Helper()
	v.MustRun(ctx, t, `
		[ "$(wc -l </proc/swaps)" = 1 ]
		[ "$(systemctl is-enabled swap.target)" = masked ]`)
}

func hostIsPrepared(ctx context.Context, t *testing.T, v *vm.VM) {
	swapIsOff(ctx, t, v)
	for _, script := range []string{
		// The line that was commented out, and those that were not.
		`not grep -E '^[^#]+[[:space:]]swap[[:space:]]' /etc/fstab; grep -q '^LABEL=files' /etc/fstab; grep -q '^UUID=.* / ' /etc/fstab; findmnt --verify`,
		`[ -d /sys/module/overlay ]; [ -d /sys/module/br_netfilter ]`,
		`[ "$(sysctl -n net.ipv4.ip_forward net.bridge.bridge-nf-call-iptables net.bridge.bridge-nf-call-ip6tables | xargs)" = "1 1 1" ]`,
		// The packages: the newest of the minor, held, the source and its key as documented.
		`[ "$(dpkg-query -W -f '${Version} ' kubelet kubeadm kubectl)" = "1.36.3-1.1 1.36.3-1.1 1.36.3-1.1 " ]`,
		`[ "$(apt-mark showhold kubelet kubeadm kubectl | xargs)" = "kubeadm kubectl kubelet" ]; apt-get check`,
		`containerd --version | grep >/dev/null ' v\?2\.'`,
		// The configuration in effect, and what containerd has made of it.
		`containerd config dump | grep >/dev/null 'SystemdCgroup = true'`,
		`containerd config dump | grep >/dev/null "sandbox = 'registry.k8s.io/pause:3.10.2'"`,
		`containerd config dump | grep >/dev/null "bin_dirs = \['/opt/cni/bin'\]"`,
		`[ -f /etc/containerd/conf.d/90-nodeagent.toml ]; crictl info >/dev/null`,
		// Started by its package, and restarted once with its new configuration.
		`[ "$(journalctl -u containerd -o cat | grep -c '^Started containerd')" -le 2 ]; [ "$(systemctl show -P NRestarts containerd)" = 0 ]`,
		`grep -q '/kubepods.*\.scope$' "/proc/$(pgrep -f '^kube-apiserver')/cgroup"`,
		`[ -f /opt/cni/bin/bridge ]; [ ! -L /opt/cni/bin/bridge ]`,
		`systemctl is-enabled kubelet; systemctl is-active kubelet containerd`,
		`[ "$(systemctl --failed --no-legend)" = "" ]`,
	} {
		v.MustRun(ctx, t, script)
	}
}

// podsRun: all of kube-system, CoreDNS with an address of the bridge among it.
func podsRun(ctx context.Context, t *testing.T, v *vm.VM) {
	v.Eventually(ctx, t, 8*time.Minute, `
		kubectl -n kube-system rollout status daemonset/kube-proxy --timeout=20s
		kubectl -n kube-system rollout status deployment/coredns --timeout=20s
		kubectl -n kube-system wait pod --all --for=condition=Ready --timeout=20s`)
	// Through the Service's address, which kube-proxy leads to a pod behind the bridge.
	v.Eventually(ctx, t, 2*time.Minute, "curl -fsS --max-time 10 http://10.96.0.10:9153/metrics | grep '^coredns_build_info'")
}
