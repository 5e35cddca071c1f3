package bootstrap

import (
	"testing"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/step/steptest"
)

// What the steps write that need a running machine, and so are not in test/crash: each path is
// attacked with links.
func TestLinks(t *testing.T) {
	for name, fresh := range map[string]func(t *testing.T) (*host.Host, []step.Step){
		"kubeadm's phases": func(t *testing.T) (*host.Host, []step.Step) {
			l := newLab(t)
			phases := allPhases(l.init(KubeadmConfig{ControlPlaneEndpoint: "node-1:6443"}))
			return l.Host, phases[:5] // those with files of the agent's, up to the manifests
		},
		"repository": func(t *testing.T) (*host.Host, []step.Step) {
			h := &host.Host{Root: t.TempDir()}
			return h, []step.Step{Repository(h, PackagesConfig{KubernetesVersion: "1.36"}, fetched(armoredKey, new([]string)))}
		},
		"containerd": func(t *testing.T) (*host.Host, []step.Step) {
			d := mirrorHost(t, defaults24)
			d.Config.Proxy = ProxyConfig{HTTP: "http://p:3128"}
			return d.Host, []step.Step{Containerd(d), Registries(d), Crictl(d.Host)}
		},
		"kubeconfigs": func(t *testing.T) (*host.Host, []step.Step) {
			h := kubeconfigHost(t)
			return h, []step.Step{AdminKubeconfigs(h, []string{"alice"})}
		},
		"network": func(t *testing.T) (*host.Host, []step.Step) {
			h := bridged(t, "10.244.0.0/16")
			put(t, h, cniConfDir+"/10-flannel.conflist", "{}", 0o600)
			return h, []step.Step{BridgeRemoved(h, false)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			paths := steptest.Attack(t, func(t *testing.T) (string, func() error) {
				h, steps := fresh(t)
				return h.Root, func() error {
					_, err := step.Apply(t.Context(), steps, nil)
					return err
				}
			})
			if len(paths) < 4 {
				t.Errorf("only %q were attacked", paths)
			}
			t.Logf("%d paths", len(paths))
		})
	}
}
