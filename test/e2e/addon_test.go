//go:build e2e && soak

package e2e

import (
	"context"
	_ "embed"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/test/docblock"
	"github.com/nodeagent/nodeagent/test/lab"
	"github.com/nodeagent/nodeagent/test/vm"
)

// TestAddon is a node whose bridge gives way to an add-on's network. The real API server of tier 2
// shows the rest of add-ons; this is the part that needs a kubelet.
func TestAddon(t *testing.T) {
	ctx, cancel := untilDeadline(t)
	defer cancel()
	v := boot(ctx, t)
	story(ctx, t, v, []chapter{
		{"a fresh machine", time.Minute, isFresh, true},
		{"apt installs the package", 3 * time.Minute, install, true},
		{"the daemon runs the phases of kubeadm init", 25 * time.Minute, initializes, true},
		{"the node becomes ready", 10 * time.Minute, becomesReady, true},
		{"pods run", 8 * time.Minute, podsRun, true},
		{"an add-on's network in place of the bridge", 20 * time.Minute, addonNetwork, false},
	})
}

//go:embed testdata/addon.yaml
var addon []byte

// withAddon is the configuration with the add-on's network in place of the bridge. The image
// comes on the disk "files".
func withAddon(t *testing.T) []byte {
	t.Helper()
	text := string(configuration)
	for _, change := range [][2]string{
		{"  cni: bridge\n", "  cni: none\n"},
		{"archives: [/mnt/files/images.tar]", "archives: [/mnt/files/images.tar, /mnt/files/" + lab.LabnetArchive + "]"},
	} {
		if !strings.Contains(text, change[0]) {
			t.Fatalf("the configuration has no %q", change[0])
		}
		text = strings.Replace(text, change[0], change[1], 1)
	}
	return []byte(text + "addons: [/etc/nodeagent/addons]\n")
}

// addonNetwork: a node that was finished with the bridge is given an add-on's network instead,
// as docs/addons.md says.
func addonNetwork(ctx context.Context, t *testing.T, v *vm.VM) {
	v.MustRun(ctx, t, "[ -f /etc/cni/net.d/10-nodeagent-bridge.conflist ]; [ -e /sys/class/net/nodeagent0 ]; mkdir -p /etc/nodeagent/addons")
	if err := v.WriteFile(ctx, "/etc/nodeagent/addons/labnet.yaml", addon, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := v.WriteFile(ctx, configPath, withAddon(t), 0o640); err != nil {
		t.Fatal(err)
	}
	v.MustRun(ctx, t, "systemctl reload nodeagent")
	r, err := v.Run(ctx, "nodeagent plan --skip preflight/time")
	if err != nil || r.Code != 2 {
		t.Fatalf("plan: %v %v", r, err)
	}
	for _, want := range []string{
		"network/addons\n", "addons/network\n", "DaemonSet kube-system/labnet\n", "ConfigMap kube-system/labnet\n",
		"network/bridge-removed\n", "+ absent once an add-on has written its network\n", "addons/ready: not known before network/addons\n",
	} {
		if !strings.Contains(r.Stdout, want) {
			t.Errorf("plan does not say %q:\n%s", want, r.Stdout)
		}
	}
	t.Log(v.MustRun(ctx, t, "nodeagent apply 2>&1"))
	v.MustRun(ctx, t, `
		[ ! -e /etc/cni/net.d/10-nodeagent-bridge.conflist ]
		[ -f /etc/cni/net.d/20-labnet.conflist ]; [ -x /opt/cni/bin/labnet-bridge ]
		[ "$(kubectl -n kube-system get daemonset labnet -o jsonpath='{.status.numberAvailable}')" = 1 ]`)
	newPodOnAddon(ctx, t, v)
	leavesBridge(ctx, t, v)
	v.Eventually(ctx, t, 2*time.Minute, ready)
	v.Eventually(ctx, t, 2*time.Minute, "nodeagent plan --skip preflight/time | grep 'nothing to change'")
	editedAddon(ctx, t, v)
}

// newPodOnAddon: a pod that starts now has an address of the add-on's, and can be reached at it.
func newPodOnAddon(ctx context.Context, t *testing.T, v *vm.VM) {
	v.MustRun(ctx, t, `kubectl run probe --image=`+lab.LabnetImage+` --restart=Never \
		--overrides='{"spec":{"tolerations":[{"operator":"Exists"}],"terminationGracePeriodSeconds":1}}' --command -- /bin/busybox httpd -f -p 8080`)
	v.Eventually(ctx, t, 4*time.Minute, "kubectl wait pod/probe --for=condition=Ready --timeout=20s")
	v.MustRun(ctx, t, `
		address=$(kubectl get pod probe -o jsonpath='{.status.podIP}')
		case $address in 10.244.200.*) ;; *) echo "the pod has $address"; exit 1;; esac
		curl -sS --max-time 20 -o /dev/null "http://$address:8080/"
		[ -e /sys/class/net/labnet0 ]
		kubectl delete pod probe --wait=false`)
}

// leavesBridge does what the finding says about the pods from before.
func leavesBridge(ctx context.Context, t *testing.T, v *vm.VM) {
	if out := v.MustRun(ctx, t, "nodeagent plan --only network/bridge-removed"); !strings.Contains(out, "link nodeagent0   (only you can mend this)") {
		t.Errorf("plan does not tell of the bridge:\n%s", out)
	}
	lines := docblock.Lines(t, "docs/addons.md", "From the bridge to an add-on")
	if len(lines) != 2 {
		t.Fatalf("docs/addons.md says %q", lines)
	}
	v.MustRun(ctx, t, lines[0])
	v.Eventually(ctx, t, 6*time.Minute, `
		kubectl -n kube-system rollout status deployment/coredns --timeout=20s
		[ -z "$(ls /sys/class/net/nodeagent0/brif)" ]`)
	v.MustRun(ctx, t, lines[1])
	v.Eventually(ctx, t, 2*time.Minute, "curl -fsS --max-time 10 http://10.96.0.10:9153/metrics | grep '^coredns_build_info'")
	if out := v.MustRun(ctx, t, "nodeagent plan --only network/bridge-removed"); strings.Contains(out, "nodeagent0") {
		t.Errorf("plan still tells of the bridge:\n%s", out)
	}
}

// editedAddon: an edited manifest is applied again, and what somebody has set in the API is not
// taken from him.
func editedAddon(ctx context.Context, t *testing.T, v *vm.VM) {
	v.MustRun(ctx, t, `
		sed -i 's/^metadata: {name: labnet, namespace: kube-system}/metadata: {name: labnet, namespace: kube-system, labels: {edited: "yes"}}/' /etc/nodeagent/addons/labnet.yaml
		nodeagent plan --only network/addons >/tmp/plan || [ $? = 2 ]; grep 'applied from another document' /tmp/plan
		nodeagent apply --only network/addons,addons/ready
		[ "$(kubectl -n kube-system get daemonset labnet -o jsonpath='{.metadata.labels.edited}')" = yes ]
		kubectl -n kube-system label daemonset labnet edited=by-hand --overwrite --field-manager=kubectl-label
		not nodeagent apply --only network/addons 2>/tmp/conflict
		grep 'DaemonSet kube-system/labnet: .metadata.labels.edited is set by kubectl-label' /tmp/conflict
		kubectl -n kube-system label daemonset labnet edited=yes --overwrite --field-manager=kubectl-label
		nodeagent apply --only network/addons`)
	v.Eventually(ctx, t, 2*time.Minute, "nodeagent plan --skip preflight/time | grep 'nothing to change'")
}
