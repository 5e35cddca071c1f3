package bootstrap

import (
	"testing"

	"github.com/nodeagent/nodeagent/pkg/step"
)

// What an earlier try has left is held against the configuration of now, until there are static
// pods: after that it is told that the change has come too late.
func TestConfigurationChanged(t *testing.T) {
	l := newLab(t)
	i := l.init(KubeadmConfig{})
	if _, err := step.Apply(t.Context(), allPhases(i)[:4], nil); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		change func(*Init)
		step   func(Init) step.Step
		says   []string
	}{
		"a name": {
			func(i *Init) { i.Cluster.Kubeadm.CertSANs = []string{"api.example.com"} }, Certificates,
			[]string{"apiserver.crt: it is not for api.example.com", "rm -f /etc/kubernetes/pki/apiserver.crt /etc/kubernetes/pki/apiserver.key"},
		},
		"an address": {
			func(i *Init) { i.Cluster.Kubeadm.CertSANs = []string{"192.0.2.99"} }, Certificates,
			[]string{"apiserver.crt: it is not for 192.0.2.99"},
		},
		"the endpoint": {
			func(i *Init) { i.Cluster.Kubeadm.ControlPlaneEndpoint = "[2001:db8::1]:6443" }, Certificates,
			[]string{"apiserver.crt: it is not for 2001:db8::1"},
		},
	} {
		changed := i
		test.change(&changed)
		_, err := test.step(changed).Check(t.Context())
		wantError(t, err, test.says...)
		if t.Failed() {
			t.Fatal(name)
		}
	}
	if err := i.kubeconfigFits(t.Context(), "https://198.51.100.1:6443"); err == nil {
		t.Error("a kubeconfig of another server is taken for this cluster's")
	}

	complete(t, l, KubeadmConfig{})
	late := l.init(KubeadmConfig{CertSANs: []string{"api.example.com"}})
	results := step.Plan(t.Context(), allPhases(late), nil)
	if f := results[0].Findings(); len(f) != 1 || f[0].Subject != kubeadmFile || results[0].Outcome != step.Clean {
		t.Errorf("changed too late: %+v", results[0])
	}
	for _, r := range results[1:] {
		if r.Outcome != step.Clean || len(r.Changes) > 0 {
			t.Errorf("changed too late: %+v", r)
		}
	}
	l.adopted = true
	if r := step.Plan(t.Context(), allPhases(late), nil)[0]; len(r.Changes) > 0 {
		t.Errorf("of a finished control plane: %+v", r)
	}
}
