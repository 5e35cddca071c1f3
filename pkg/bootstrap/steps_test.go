package bootstrap

import (
	"errors"
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/kernel"
	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/systemd"
)

// The order of the boot. A name is in flags, logs, state and metrics: none is ever renamed.
func TestStepsOrder(t *testing.T) {
	const host1 = "preflight/host preflight/time kernel/swap kernel/modules kernel/sysctl"
	const node = host1 + " containerd/cni-plugins containerd containerd/registries containerd/crictl images kubelet"
	const kubeadm = "kubeadm/config kubeadm/preflight kubeadm/certs kubeadm/kubeconfig kubeadm/etcd kubeadm/control-plane kubeadm/kubelet-start " +
		"kubeadm/wait-control-plane kubeadm/upload-config kubeadm/mark-control-plane kubeadm/bootstrap-token kubeadm/kubelet-finalize kubeadm/addon node/kubeconfig"
	for name, test := range map[string]struct {
		config Config
		want   string
	}{
		"control plane": {Config{Role: ControlPlane}, node + " " + kubeadm + " network/bridge-removed node/ready"},
		"bridge":        {Config{Role: ControlPlane, Network: NetworkConfig{CNI: "bridge"}}, node + " " + kubeadm + " network/bridge node/ready"},
		"add-ons":       {Config{Role: ControlPlane, Addons: []string{"/a"}}, node + " " + kubeadm + " network/addons addons/network network/bridge-removed node/ready addons/ready"},
		"both":          {Config{Role: ControlPlane, Addons: []string{"/a"}, Network: NetworkConfig{CNI: "bridge"}}, node + " " + kubeadm + " network/bridge network/addons node/ready addons/ready"},
		"worker":        {Config{Role: Worker}, node + " kubeadm/join"},
		"etcd":          {Config{Role: Etcd, Packages: PackagesConfig{Manage: true}}, host1 + " etcd/member"},
		"packages":      {Config{Role: Worker, Packages: PackagesConfig{Manage: true}}, host1 + " packages/repository packages" + strings.TrimPrefix(node, host1) + " kubeadm/join"},
		"archives":      {Config{Role: Worker, Images: ImagesConfig{Archives: []string{"/a.tar"}}}, node + " kubeadm/join"},
		"packages and archives": {
			Config{Role: Worker, Packages: PackagesConfig{Manage: true}, Images: ImagesConfig{Archives: []string{"/a.tar"}}},
			host1 + " packages/repository packages/containerd containerd containerd/registries images/begin packages containerd/cni-plugins containerd/crictl images kubelet kubeadm/join",
		},
		"hardened": {Config{Role: ControlPlane, Network: NetworkConfig{CNI: "bridge"}, Kubeadm: KubeadmConfig{Hardening: DefaultHardening()}},
			node + " " + kubeadm + " network/bridge node/files node/ready"},
		"hardened worker": {Config{Role: Worker, Kubeadm: KubeadmConfig{Hardening: DefaultHardening()}}, node + " node/files kubeadm/join"},
		"1.37": {Config{Role: Worker, Packages: PackagesConfig{KubernetesVersion: "1.37.1"}},
			strings.Replace(node, "containerd/registries", "containerd/runtime-config containerd/registries", 1) + " kubeadm/join"},
		"1.35": {Config{Role: Worker, Packages: PackagesConfig{KubernetesVersion: "1.35"}}, node + " kubeadm/join"},
	} {
		t.Run(name, func(t *testing.T) {
			if test.config.Packages.KubernetesVersion == "" {
				test.config.Packages.KubernetesVersion = "1.36"
			}
			test.config.Kernel = kernel.DefaultConfig()
			test.config.Network.PodSubnet = "10.244.0.0/16"
			h := host.New(t.TempDir())
			for _, plugin := range bridgePlugins {
				put(t, h, cniBinDir+"/"+plugin, "", 0o755)
			}
			steps, err := Steps(test.config, Deps{Host: h, Systemd: &systemd.Conn{}, Hostname: "node-1"})
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, s := range steps {
				names = append(names, s.Name)
				// An image that is not a machine yet: each step says what it can, or that it waits.
				if _, err := s.Check(t.Context()); err != nil && !errors.As(err, new(step.Blocked)) {
					t.Errorf("%s offline: %v", s.Name, err)
				}
			}
			if got := strings.Join(names, " "); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
	if _, err := Steps(Config{Role: Worker, Packages: PackagesConfig{KubernetesVersion: "1.99"}}, Deps{}); err == nil {
		t.Error("a minor that nobody knows is accepted")
	}
}

// Where joining is not there yet, apply prepares the host, says so and stops; a host that has
// joined by other means is left alone.
func TestNotInThisVersion(t *testing.T) {
	for role, want := range map[Role][]string{
		Worker: {"kubeadm/join: ", "the host is prepared", "not in this version: run kubeadm join yourself"},
		Etcd:   {"etcd/member: ", "external etcd members are not in this version"},
	} {
		h := &host.Host{Root: t.TempDir()}
		steps := []step.Step{NotInThisVersion(h, role)}
		_, err := step.Apply(t.Context(), steps, nil)
		wantError(t, err, want...)
		if !errors.Is(err, step.ErrStopped) {
			t.Errorf("%s: %v", role, err)
		}
		put(t, h, KubeletConf, "x", 0o600)
		if results, err := step.Apply(t.Context(), steps, nil); err != nil || results[0].Outcome != step.Clean {
			t.Errorf("%s, a member: %v, %v", role, results, err)
		}
		h.Offline = true
		if results, err := step.Apply(t.Context(), steps, nil); err != nil || results[0].Outcome != step.Waiting {
			t.Errorf("%s, offline: %v, %v", role, results, err)
		}
	}
}

func TestAddressIsTheOperators(t *testing.T) {
	got, err := Config{Node: NodeConfig{Address: "192.0.2.7"}}.address(t.Context())
	if err != nil || got.String() != "192.0.2.7" {
		t.Errorf("%v, %v", got, err)
	}
}
