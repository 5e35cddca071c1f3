//go:build e2e

package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/test/vm"
)

// dropIn is what the agent says to containerd 2.
const dropIn = "/etc/containerd/conf.d/90-nodeagent.toml"

// fingerprint is every file that the agent could have written, with its inode and times, and
// the processes that it could have restarted.
const fingerprint = `
	find /etc /var/lib/dpkg/status /opt/cni /usr/lib/systemd/system /var/lib/kubelet/config.yaml /var/lib/kubelet/kubeadm-flags.env \( -type f -o -type l \) -printf '%p %i %s %T@ %C@\n' | sort
	systemctl show -p Id,MainPID,ActiveEnterTimestampMonotonic containerd kubelet
	cat /proc/swaps; sysctl -n net.ipv4.ip_forward`

// same runs what must change nothing.
func same(ctx context.Context, t *testing.T, v *vm.VM, do func()) {
	t.Helper()
	before := v.MustRun(ctx, t, fingerprint)
	do()
	after := v.MustRun(ctx, t, fingerprint)
	if before == after {
		return
	}
	was := map[string]bool{}
	for line := range strings.Lines(before) {
		was[line] = true
	}
	for line := range strings.Lines(after) {
		if !was[line] {
			t.Errorf("changed: %s", strings.TrimSpace(line))
		}
		delete(was, line)
	}
	for line := range was {
		t.Errorf("was: %s", strings.TrimSpace(line))
	}
}

func applyAgain(ctx context.Context, t *testing.T, v *vm.VM) {
	same(ctx, t, v, func() {
		// An API server under emulation may not answer the first time.
		v.Eventually(ctx, t, 2*time.Minute, "nodeagent plan | grep 'nothing to change'")
		if out := v.MustRun(ctx, t, "nodeagent apply 2>&1"); !strings.Contains(out, " 0 changed") {
			t.Errorf("apply:\n%s", out)
		}
	})
}

func planShows(ctx context.Context, t *testing.T, v *vm.VM) {
	// The daemon would mend it meanwhile.
	v.MustRun(ctx, t, "nodeagent plan >/dev/null; systemctl stop nodeagent; sysctl -qw net.ipv4.ip_forward=0")
	defer v.MustRun(ctx, t, "systemctl start nodeagent")
	// The VM has no time server, which is a finding of its own.
	r, err := v.Run(ctx, "nodeagent plan --skip preflight/time")
	if err != nil || r.Code != 2 {
		t.Fatalf("plan: %v %v", r, err)
	}
	for _, want := range []string{"kernel/sysctl\n", "net.ipv4.ip_forward\n", "- 0\n", "+ 1\n"} {
		if !strings.Contains(r.Stdout, want) {
			t.Errorf("plan does not say %q:\n%s", want, r.Stdout)
		}
	}
	if lines := strings.Count(r.Stdout, "\n"); lines > 8 {
		t.Errorf("one difference takes %d lines:\n%s", lines, r.Stdout)
	}
}

// driftIsMended: planShows has left a difference that disturbs nothing, and one that the
// daemon must not touch is added.
func driftIsMended(ctx context.Context, t *testing.T, v *vm.VM) {
	v.MustRun(ctx, t, "cp -p "+dropIn+" /root/; sed -i 's/SystemdCgroup = true/SystemdCgroup = false/' "+dropIn)
	defer v.MustRun(ctx, t, "cp -p /root/90-nodeagent.toml "+dropIn)
	v.Eventually(ctx, t, 4*time.Minute, `
		[ "$(sysctl -n net.ipv4.ip_forward)" = 1 ]
		`+scrape+` | grep -Fx >/dev/null 'nodeagent_drift_corrections_total{step="kernel/sysctl"} 1'
		`+scrape+` | grep -Fx >/dev/null 'nodeagent_step_clean{step="containerd"} 0'`)
	v.MustRun(ctx, t, `journalctl -u nodeagent | grep >/dev/null 'drift mended.*net.ipv4.ip_forward'; grep -q 'SystemdCgroup = false' `+dropIn)
}

func reboots(ctx context.Context, t *testing.T, v *vm.VM) {
	same := v.MustRun(ctx, t, "sha256sum /etc/fstab /etc/containerd/config.toml "+dropIn+" /etc/kubernetes/manifests/* /var/lib/kubelet/config.yaml")
	if err := v.Reboot(ctx); err != nil {
		t.Fatal(err)
	}
	swapIsOff(ctx, t, v)
	v.Eventually(ctx, t, 10*time.Minute, ready)
	swapIsOff(ctx, t, v)
	v.MustRun(ctx, t, bootstrapped)
	v.MustRun(ctx, t, "[ -d /sys/module/br_netfilter ]; [ $(sysctl -n net.ipv4.ip_forward) = 1 ]; systemctl is-active nodeagent kubelet containerd")
	v.Eventually(ctx, t, 5*time.Minute, `
		newest=$(date -d "$(nodeagent snapshot list -o json | jq -r '.[0].time')" +%s)
		[ "$newest" -gt "$(date -d "$(uptime -s)" +%s)" ]`)
	if have := expiries(ctx, t, v); len(have) < 20 {
		t.Errorf("%d certificates in the metrics after the reboot", len(have))
	}
	if now := v.MustRun(ctx, t, "sha256sum /etc/fstab /etc/containerd/config.toml "+dropIn+" /etc/kubernetes/manifests/* /var/lib/kubelet/config.yaml"); now != same {
		t.Errorf("changed by the reboot:\n%s\nwas:\n%s", now, same)
	}
}

// isAdopted: without its marks the agent takes a finished node for somebody else's. It says
// what differs and changes nothing, until a person applies.
func isAdopted(ctx context.Context, t *testing.T, v *vm.VM) {
	v.MustRun(ctx, t, `
		systemctl stop nodeagent
		rm /var/lib/nodeagent/bootstrap*
		swapon /dev/vdb1
		sysctl -qw fs.inotify.max_user_watches=100000 # one that no network plugin sets back`)
	same(ctx, t, v, func() {
		// Two runs of the job drift: one may have begun before the difference was there.
		v.MustRun(ctx, t, "systemctl start nodeagent")
		v.Eventually(ctx, t, 4*time.Minute, scrape+` | grep -E 'nodeagent_job_runs_total\{job_name="drift",result="success"\} [2-9]'`)
		v.MustRun(ctx, t, scrape+` | grep -Fx >/dev/null 'nodeagent_step_clean{step="kernel/swap"} 0'`)
		v.MustRun(ctx, t, scrape+` | grep -Fx >/dev/null 'nodeagent_step_clean{step="kernel/sysctl"} 0'`)
	})
	if standing := v.MustRun(ctx, t, "(nodeagent status -o json || :) | jq -r .standing"); standing != "adopted" {
		t.Errorf("the host's standing is %q", standing)
	}
	v.MustRun(ctx, t, "not ls /var/lib/nodeagent/bootstrap*")
	v.MustRun(ctx, t, "nodeagent apply")
	swapIsOff(ctx, t, v)
	v.MustRun(ctx, t, bootstrapped)
}
