//go:build integration

package deb_test

import (
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/test/nspawn"
)

// slowKeys has kubeadm make keys for some ten seconds and more.
const slowKeys = `role: control-plane
node: {name: node1, address: 10.77.0.1}
network: {cni: bridge}
packages: {manage: false}
kubeadm: {clusterConfiguration: {encryptionAlgorithm: RSA-4096}}
`

const (
	certsUnit  = "nodeagent-kubeadm-certs.service"
	certsSteps = "kubeadm/config,kubeadm/certs"
)

// kubeadm is in the middle of a phase, in the unit that the agent has it in, when the package is
// upgraded: it is the same process afterwards, the new agent waits for that one and starts no other,
// and what it makes is put in place. It is held by a signal meanwhile, so that it cannot have been
// done before.
func kubeadmSurvives(t *testing.T, n node) {
	n.Write(t, "/srv/slow.yaml", []byte(slowKeys), 0o600)
	n.Script(t, "ln -s "+kubernetesDir+"/kubeadm /usr/bin/kubeadm; ip address add 10.77.0.1/32 dev lo")
	n.apt(t, "install /srv/old.deb")
	apply := func(unit string) {
		n.Script(t, "systemd-run --quiet --unit="+unit+" sh -c 'nodeagent --config /srv/slow.yaml apply --only "+certsSteps+" >/srv/"+unit+".log 2>&1; echo $? >/srv/"+unit+".code'")
	}
	apply("apply-old")
	n.Wait(t, nspawn.ScriptTimeout, `test "$(systemctl show --value -p SubState `+certsUnit+`)" = running || { cat /srv/apply-old.log; exit 1; }
		systemctl kill --signal=STOP `+certsUnit)
	child := func() string {
		return n.Script(t, `systemctl show -p MainPID,InvocationID,SubState,NRestarts `+certsUnit+`
			pid=$(systemctl show --value -p MainPID `+certsUnit+`); readlink /proc/$pid/exe; tr '\0' ' ' </proc/$pid/cmdline; grep ^State: /proc/$pid/status`)
	}
	before, daemon := child(), n.show(t, "MainPID")
	if !strings.Contains(before, "SubState=running") || !strings.Contains(before, kubernetesDir+"/kube") ||
		!strings.Contains(before, "kubeadm init phase certs all") || !strings.Contains(before, "(stopped)") {
		t.Fatalf("kubeadm is not held in the middle of its phase:\n%s", before)
	}
	n.Script(t, "test ! -e /etc/kubernetes/pki/sa.pub")

	n.apt(t, "install /srv/new.deb")
	if n.show(t, "MainPID") == daemon {
		t.Error("the daemon was not restarted")
	}
	n.Script(t, "systemctl stop apply-old") // as the upgrade has stopped the daemon
	if after := child(); after != before {
		t.Errorf("kubeadm was\n%sand after an upgrade of the package it is\n%s", before, after)
	}

	apply("apply-new")
	n.Wait(t, patience, "grep kubeadm/certs /srv/apply-new.log || cat /run/nodeagent/host.lock | grep apply")
	if after := child(); after != before {
		t.Errorf("kubeadm was\n%sand beside the new agent it is\n%s", before, after)
	}
	n.Script(t, "systemctl kill --signal=CONT "+certsUnit)
	if code := n.Wait(t, nspawn.ScriptTimeout, "cat /srv/apply-new.code"); code != "0\n" {
		t.Fatalf("apply ends with %s%s", code, n.Script(t, "cat /srv/apply-new.log"))
	}
	if out := n.Script(t, "nodeagent version; journalctl -o cat _PID=1 -u "+certsUnit+" | grep -c ^Started; grep -c '^# kubeadm init phase certs all' /var/log/nodeagent/kubeadm.log"); !strings.Contains(out, newVersion) || !strings.HasSuffix(out, "\n1\n1\n") {
		t.Errorf("kubeadm was not started once:\n%s\n%s", out, n.Script(t, "journalctl --no-pager -u "+certsUnit+"; cat /var/log/nodeagent/kubeadm.log"))
	}
	n.Script(t, "ls /etc/kubernetes/pki/sa.pub /etc/kubernetes/pki/etcd/server.crt; nodeagent --config /srv/slow.yaml plan --only "+certsSteps+"; ! systemctl is-active "+certsUnit)
}
