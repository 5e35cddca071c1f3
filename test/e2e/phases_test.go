//go:build e2e

package e2e

import (
	"context"
	_ "embed"
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/test/vm"
)

// pausing stands in kubeadm's place and holds it in the middle of some phases.
//
//go:embed testdata/kubeadm-pausing
var pausing []byte

// moment is one at which the machine is saved, to be killed there afterwards.
type moment struct {
	phase string
	come  string // a script that exits 0 when it has
	on    string // goes on
}

func paused(phase string) moment {
	return moment{phase, "[ -e /run/paused-" + phase + " ]", "rm /run/paused-" + phase}
}

var moments = []moment{
	paused("certs"),
	paused("kubelet-start"),
	// In this one nothing of kubeadm's runs: the agent waits.
	{"wait-control-plane", "systemctl show -P StatusText nodeagent | grep wait-control-plane >/dev/null", "true"},
	paused("addon"),
}

func (m moment) state() string { return "during-" + m.phase }

// pauseKubeadm has what apt runs afterwards put the pausing one in front of the real one.
func pauseKubeadm(ctx context.Context, t *testing.T, v *vm.VM) {
	if err := v.WriteFile(ctx, "/usr/lib/nodeagent-test/pausing", pausing, 0o755); err != nil {
		t.Fatal(err)
	}
	const hook = `DPkg::Post-Invoke { "cd /usr/lib/nodeagent-test; [ ! -e /usr/bin/kubeadm ] || [ -e kubeadm ] || { mv /usr/bin/kubeadm .; cp pausing /usr/bin/kubeadm; }"; };` + "\n"
	if err := v.WriteFile(ctx, "/etc/apt/apt.conf.d/99pause", []byte(hook), 0o644); err != nil {
		t.Fatal(err)
	}
}

const unpauseKubeadm = "mv /usr/lib/nodeagent-test/kubeadm /usr/bin/kubeadm; rm /etc/apt/apt.conf.d/99pause\n"

// initializes follows the phases of kubeadm to their end and saves the machine on the way.
func initializes(ctx context.Context, t *testing.T, v *vm.VM) {
	for _, m := range moments {
		follow(ctx, t, v, m.come)
		if err := v.Save(ctx, m.state()); err != nil {
			t.Fatal(err)
		}
		if m.phase == "addon" {
			// The schedule is every minute; what etcd holds before the end of kubeadm's phases is no backup.
			v.MustRun(ctx, t, `[ -z "$(nodeagent snapshot list -o json | jq -r '.[]?.object.name')" ]`)
			v.MustRun(ctx, t, unpauseKubeadm)
		}
		v.MustRun(ctx, t, m.on)
	}
}

// made is what must not be made twice once it is there.
const made = `cd /etc/kubernetes
	find . -type f '(' -path './pki/*' -o -path './manifests/*.yaml' -o -name '*.conf' ')' -exec sha256sum {} +
	[ ! -e pki/ca.key ] || stat -c '%n %y' pki/ca.key`

// before is what is made when the phase is interrupted. During certs it is nothing, since they
// are made elsewhere; later it is the PKI, the kubeconfigs and the manifests.
func before(ctx context.Context, t *testing.T, v *vm.VM, phase string) string {
	t.Helper()
	list := v.MustRun(ctx, t, made)
	if files := strings.Count(list, "\n"); (phase == "certs") != (files == 0) || files > 0 && files < 30 {
		t.Fatalf("during %s there are %d files:\n%s", phase, files, list)
	}
	return list
}

// killedDuring: the agent, kubeadm ("PHASE") or both are killed in the middle of a phase,
// without a word to either. The bootstrap goes on, until done exits 0.
func killedDuring(phase, done string, who ...string) func(context.Context, *testing.T, *vm.VM) {
	unit := "nodeagent-kubeadm-" + phase
	if phase == "addon" { // is run with those before it
		unit = "nodeagent-kubeadm-cluster"
	}
	units := "nodeagent " + unit
	if len(who) > 0 {
		units = strings.ReplaceAll(strings.Join(who, " "), "PHASE", unit)
	}
	return func(ctx context.Context, t *testing.T, v *vm.VM) {
		if err := v.Load(ctx, "during-"+phase); err != nil {
			t.Fatal(err)
		}
		was := before(ctx, t, v, phase)
		seeksSecrets(ctx, t, v, "running") // kubeadm among them
		v.MustRun(ctx, t, unpauseKubeadm+`
			[ "$(systemctl is-active `+unit+`)" = active ]
			systemctl kill --signal=KILL `+units+`
			rm -f /run/paused-*`)
		resumed(ctx, t, v, was, done, !strings.Contains(units, "kubeadm") || strings.Contains(units, "nodeagent "))
	}
}

// powerCutDuring is the same with the machine's power. (The guest's own files are synced
// before: what kubeadm leaves half-written is not the matter here.)
func powerCutDuring(phase, done string) func(context.Context, *testing.T, *vm.VM) {
	return func(ctx context.Context, t *testing.T, v *vm.VM) {
		if err := v.Load(ctx, "during-"+phase); err != nil {
			t.Fatal(err)
		}
		was := before(ctx, t, v, phase)
		v.MustRun(ctx, t, unpauseKubeadm+"sync")
		if err := v.PowerCut(ctx); err != nil {
			t.Fatal(err)
		}
		resumed(ctx, t, v, was, done, false)
	}
}

// resumed: the bootstrap goes on where it was, and makes nothing anew that was there; without a
// failed try on the way, when it is smooth.
func resumed(ctx context.Context, t *testing.T, v *vm.VM, was, done string, smooth bool) {
	t.Helper()
	v.MustRun(ctx, t, "[ -e /var/lib/nodeagent/bootstrapping ]")
	follow(ctx, t, v, done)
	after := v.MustRun(ctx, t, made)
	for line := range strings.Lines(was) {
		// The kubelet's own is to change: kubelet-finalize has it name the file that is renewed.
		if !strings.Contains(after, line) && !strings.HasSuffix(line, "  ./kubelet.conf\n") {
			t.Errorf("was made anew: %s", line)
		}
	}
	failed := v.MustRun(ctx, t, "journalctl -u nodeagent -o cat --no-pager -b | awk '/^bootstrap failed/; END { exit NR == 0 }'")
	t.Logf("failed tries: %q", failed)
	for try := range strings.Lines(failed) {
		// kubeadm gives a request ten seconds, which no setting changes and which an emulated
		// machine, just woken, may need.
		if smooth && !strings.Contains(try, "Client.Timeout exceeded") {
			t.Errorf("a bootstrap that was resumed failed on the way: %s", try)
		}
	}
}

// wholePKI and wholeNode are what a resumed bootstrap comes to.
const wholePKI = `
	[ -e /etc/kubernetes/manifests/kube-scheduler.yaml ]
	nodeagent plan --only kubeadm/certs,kubeadm/kubeconfig,kubeadm/etcd,kubeadm/control-plane >/dev/null
	cd /etc/kubernetes/pki
	openssl verify -CAfile ca.crt apiserver.crt apiserver-kubelet-client.crt >/dev/null
	openssl verify -CAfile etcd/ca.crt etcd/server.crt etcd/peer.crt etcd/healthcheck-client.crt apiserver-etcd-client.crt >/dev/null
	openssl verify -CAfile front-proxy-ca.crt front-proxy-client.crt >/dev/null
	[ ! -e /var/lib/nodeagent/kubeadm/pki ]
	[ ! -e /var/lib/nodeagent/kubeadm/pki-whole ]
`

const kubeletRuns = `
	[ -e /var/lib/kubelet/kubeadm-flags.env ] && systemctl is-active kubelet >/dev/null
	pgrep -f '^kube-apiserver' >/dev/null
`

const wholeNode = bootstrapped + `
	nodeagent plan --only kubeadm >/dev/null
	kubectl -n kube-system get daemonset/kube-proxy deployment/coredns >/dev/null
	ls /etc/cni/net.d/* >/dev/null
` + ready

// wholeAPI is a control plane that answers.
const wholeAPI = `kubectl get --raw /readyz >/dev/null && nodeagent plan --only kubeadm/wait-control-plane >/dev/null`
