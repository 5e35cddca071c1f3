package bootstrap

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeagent/nodeagent/pkg/kernel"
	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/step/steptest"
	"github.com/nodeagent/nodeagent/pkg/systemd"
)

// On a host without a control plane each phase runs once, in kubeadm's order, as a transient
// unit with exactly these arguments: all of them by themselves where the operator leaves steps out.
func TestPhases(t *testing.T) {
	l := newLab(t)
	l.partial = true
	i := l.init(KubeadmConfig{ControlPlaneEndpoint: "node-1:6443"})
	i.Ignore = []string{"NumCPU", "TimeSync"}
	for _, s := range allPhases(i) {
		if s.Name == WaitStep { // waits, and makes nothing
			l.notReady = 1
			if results, err := step.Apply(t.Context(), []step.Step{s}, nil); err != nil || results[0].Outcome != step.Applied {
				t.Errorf("%v, %v", results, err)
			}
			continue
		}
		steptest.Converges(t, l.Host, s)
	}
	want := []string{
		"preflight --config /var/lib/nodeagent/kubeadm.yaml --ignore-preflight-errors=NumCPU,TimeSync",
		"certs all --config /var/lib/nodeagent/kubeadm/certs.yaml",
		"kubeconfig all --config /var/lib/nodeagent/kubeadm.yaml --kubeconfig-dir /var/lib/nodeagent/kubeadm/kubeconfig",
		"etcd local --config /var/lib/nodeagent/kubeadm.yaml",
		"control-plane all --config /var/lib/nodeagent/kubeadm.yaml",
		"kubelet-start --config /var/lib/nodeagent/kubeadm.yaml",
		"upload-config all --config /var/lib/nodeagent/kubeadm.yaml",
		"mark-control-plane --config /var/lib/nodeagent/kubeadm.yaml",
		"bootstrap-token --config /var/lib/nodeagent/kubeadm.yaml",
		"kubelet-finalize all --config /var/lib/nodeagent/kubeadm.yaml",
		"addon all --config /var/lib/nodeagent/kubeadm.yaml",
	}
	var got []string
	for _, ran := range l.ran {
		args, is := strings.CutPrefix(strings.Join(ran.Argv, " "), "/usr/bin/kubeadm init phase ")
		if name, _, _ := strings.Cut(args, " "); !is || ran.Unit != "nodeagent-kubeadm-"+name+".service" || ran.Timeout != kubeadmTimeout {
			t.Errorf("%+v", ran)
		}
		got = append(got, args)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, file := range []string{kubeadmFile, AdminConf, "/etc/kubernetes/pki/sa.key", kubeadmLog} {
		if info, err := l.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, info, err)
		}
	}
	if log, err := l.ReadFile(kubeadmLog); err != nil || strings.Contains(string(log), "0123456789abcdef") || strings.Count(string(log), "abcdef[redacted]") != len(want) {
		t.Errorf("%v, the log:\n%s", err, log)
	}
	if left, err := l.ReadDir(kubeadmDir); err != nil || len(left) != 1 || left[0].Name() != "preflight-passed" {
		t.Errorf("left over: %v, %v", left, err)
	}
}

// Kubeadm is refused where it could cost a cluster, and nothing is changed.
func TestInitRefused(t *testing.T) {
	tests := map[string]struct {
		arrange  func(t *testing.T, l *lab, i *Init)
		endpoint string
		want     []string
	}{
		"etcd data": {func(t *testing.T, l *lab, _ *Init) { put(t, l.Host, "/var/lib/etcd/member/snap/db", "x", 0o600) }, "",
			[]string{"refuse kubeadm init: /var/lib/etcd is not empty (member is there)", "restore it, or move it away"}},
		"etcd data and a hidden file only": {func(t *testing.T, l *lab, _ *Init) { put(t, l.Host, "/var/lib/etcd/.keep", "", 0o600) }, "",
			[]string{"(.keep is there)"}},
		"etcd's directory is a file": {func(t *testing.T, l *lab, _ *Init) { put(t, l.Host, "/var/lib/etcd", "", 0o600) }, "",
			[]string{"look for etcd data", "not a directory"}},
		"another cluster": {func(_ *testing.T, l *lab, _ *Init) { l.foreign = true }, "api.example.com",
			[]string{"refuse kubeadm init: a cluster answers at controlPlaneEndpoint api.example.com already"}},
		"cannot tell": {func(_ *testing.T, l *lab, _ *Init) { l.foreignErr = errors.New("server misbehaving") }, "api.example.com:443",
			[]string{"ask whether api.example.com:443 is another cluster's: server misbehaving"}},
		"not installed": {func(t *testing.T, l *lab, _ *Init) { put(t, l.Host, "/usr/bin/kubeadm", "", 0o644) }, "",
			[]string{"find program kubeadm"}},
		"another minor": {func(_ *testing.T, _ *lab, i *Init) { i.Minor = "1.37" }, "",
			[]string{`kubeadm is v1.36.3, packages.kubernetesVersion is "1.37"`}},
		"its version": {func(_ *testing.T, l *lab, _ *Init) { l.refuse = "version" }, "", []string{"ask kubeadm's version"}},
		"its configuration": {func(_ *testing.T, l *lab, _ *Init) { l.refuse = "validate" }, "",
			[]string{"validate kubeadm configuration", "unknown field"}},
		"several addresses": {func(_ *testing.T, _ *lab, i *Init) {
			i.Address = func(context.Context) (netip.Addr, error) { return netip.Addr{}, kernel.ErrManyAddresses }
		}, "", []string{"set node.address to the one that is meant"}},
		"patches": {func(_ *testing.T, _ *lab, i *Init) { i.Cluster.Kubeadm.Patches = "/etc/nodeagent/patches" }, "",
			[]string{"look at kubeadm.patches", "no such file"}},
		"no address": {func(_ *testing.T, _ *lab, i *Init) {
			i.Address = func(context.Context) (netip.Addr, error) { return netip.Addr{}, errors.New("no default route") }
		}, "", []string{"no default route"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			i := l.init(KubeadmConfig{ControlPlaneEndpoint: test.endpoint})
			test.arrange(t, l, &i)
			results, err := step.Apply(t.Context(), allPhases(i), nil)
			wantError(t, err, test.want...)
			if len(l.ran) > 0 || results[0].Outcome != step.Failed {
				t.Errorf("%s, ran %v", results[0].Outcome, l.ran)
			}
			if there, err := l.Exists(kubeadmFile); err != nil || there {
				t.Errorf("a configuration is there: %v", err)
			}
		})
	}
}

// What a phase has yet to leave is made by that phase alone while the host is being built, and
// is a finding with its command once somebody has a cluster there.
func TestPhaseMissing(t *testing.T) {
	remove := func(path string) func(*testing.T, *lab) {
		return func(t *testing.T, l *lab) {
			if err := l.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	cut := func(path string) func(*testing.T, *lab) {
		return func(t *testing.T, l *lab) { put(t, l.Host, path, "kind: Pod\nspec:\n  containers:\n  - comm", 0o600) }
	}
	gone := func(what string) func(*testing.T, *lab) {
		return func(_ *testing.T, l *lab) { l.gone[objectPaths[what]] = true }
	}
	for name, test := range map[string]struct {
		arrange func(*testing.T, *lab)
		phase   string // and its part
		have    string
	}{
		"a pair": {func(t *testing.T, l *lab) {
			remove("/etc/kubernetes/pki/apiserver.key")(t, l)
			remove("/etc/kubernetes/pki/apiserver.crt")(t, l)
		}, "certs all", "no apiserver.key, apiserver.crt in /etc/kubernetes/pki"},
		"a kubeconfig":         {remove("/etc/kubernetes/scheduler.conf"), "kubeconfig all", "no scheduler.conf in /etc/kubernetes"},
		"etcd's manifest":      {remove(ManifestDir + "/etcd.yaml"), "etcd local", "no " + ManifestDir + "/etcd.yaml"},
		"a manifest cut short": {cut(ManifestDir + "/kube-apiserver.yaml"), "control-plane all", ManifestDir + "/kube-apiserver.yaml is cut short"},
		"an empty manifest":    {func(t *testing.T, l *lab) { put(t, l.Host, ManifestDir+"/kube-scheduler.yaml", "", 0o600) }, "control-plane all", "cut short"},
		"a stopped kubelet": {func(_ *testing.T, l *lab) {
			l.units[kubeletUnit] = systemd.State{LoadState: "loaded", ActiveState: "inactive"}
		},
			"kubelet-start", "kubelet.service is inactive"},
		"flags":          {remove("/var/lib/kubelet/kubeadm-flags.env"), "kubelet-start", "no /var/lib/kubelet/kubeadm-flags.env"},
		"a ConfigMap":    {gone("upload"), "upload-config all", objectPaths["upload"]},
		"the mark":       {gone("mark"), "mark-control-plane", "no label"},
		"cluster-info":   {gone("bootstrap"), "bootstrap-token", objectPaths["bootstrap"]},
		"kube-proxy":     {gone("kube-proxy"), "addon all", objectPaths["kube-proxy"]},
		"the first cert": {func(t *testing.T, l *lab) { l.refill(t, KubeletConf) }, "kubelet-finalize all", "holds the first certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			complete(t, l, KubeadmConfig{})
			test.arrange(t, l)
			l.adopted = true
			l.findsOnly(t, test.phase, test.have)
			l.adopted = false
			if _, err := step.Apply(t.Context(), allPhases(l.init(KubeadmConfig{})), nil); err != nil {
				t.Fatal(err)
			}
			name, _, _ := strings.Cut(test.phase, " ")
			if len(l.ran) != 1 {
				t.Fatalf("ran %v", l.ran)
			}
			runs := strings.Contains(strings.Join(l.ran[0].Argv, " ")+" ", " init phase "+test.phase+" ")
			if slices.Contains(clusterPhases(), name) {
				runs = beginsWith(l.ran[0].Argv, test.phase)
			}
			if !runs {
				t.Errorf("ran %v", l.ran)
			}
		})
	}
}

// beginsWith says whether a kubeadm of several phases begins with this one, "addon all".
func beginsWith(argv []string, phase string) bool {
	name, _, _ := strings.Cut(phase, " ")
	phases := clusterPhases()
	at := slices.Index(phases, name)
	if at < 0 {
		return false
	}
	skipped := slices.Concat(earlierPhases(), phases[:at], otherPhases())
	return slices.Equal(argv, []string{"/usr/bin/kubeadm", "init", "--skip-phases=" + strings.Join(skipped, ","), "--config", kubeadmFile})
}

// refill puts the kubeconfig that kubeadm makes back.
func (l *lab) refill(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(l.made + path)
	if err != nil {
		t.Fatal(err)
	}
	put(t, l.Host, path, string(data), 0o600)
}

// findsOnly: one finding that names the phase's command, and nothing is run.
func (l *lab) findsOnly(t *testing.T, phase, have string) {
	t.Helper()
	results, err := step.Apply(t.Context(), allPhases(l.init(KubeadmConfig{})), nil)
	if err != nil {
		t.Fatal(err)
	}
	var findings []step.Change
	for _, r := range results {
		findings = append(findings, r.Findings()...)
	}
	want := "`kubeadm init phase " + phase + "` makes it anew"
	if phase == "kubelet-start" { // which would write over its configuration
		want = "`systemctl start kubelet`"
	}
	if len(findings) != 1 || !strings.Contains(findings[0].Have, have) || !strings.Contains(findings[0].Want, want) {
		t.Errorf("findings: %v", findings)
	}
	if len(l.ran) > 0 {
		t.Errorf("ran %v", l.ran)
	}
}
