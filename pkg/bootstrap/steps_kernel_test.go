package bootstrap

import (
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/kernel"
	"github.com/nodeagent/nodeagent/pkg/step"
)

// What the kernel steps are told of the rest of the configuration.
func TestKernelStepsFollowTheConfiguration(t *testing.T) {
	passthrough := func(text string) Passthrough {
		p, err := NewPassthrough(text)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	tests := map[string]struct {
		change func(*Config)
		step   string
		has    string
		hasNot string
	}{
		"plain":      {func(*Config) {}, "kernel/modules", "nf_conntrack", "ip_vs"},
		"ipvs":       {func(c *Config) { c.Kubeadm.KubeProxyConfiguration = passthrough("mode: ipvs") }, "kernel/modules", "ip_vs_wrr", "nothing"},
		"nftables":   {func(c *Config) { c.Kubeadm.KubeProxyConfiguration = passthrough("mode: nftables") }, "kernel/modules", "overlay", "ip_vs"},
		"IPv4":       {func(*Config) {}, "kernel/sysctl", "net.ipv4.ip_forward = 1", "ipv6"},
		"dual stack": {func(c *Config) { c.Network.PodSubnet = "10.244.0.0/16,fd00::/56" }, "kernel/sysctl", "net.ipv6.conf.all.forwarding = 1", "nothing"},
		"services":   {func(c *Config) { c.Network.ServiceSubnet = "fd00::/112" }, "kernel/sysctl", "net.ipv6.conf.all.forwarding = 1", "nothing"},
		"swap off":   {func(*Config) {}, "kernel/swap", "unit swap.target", "failSwapOn"},
		"swap kept":  {func(c *Config) { c.Kernel.Swap = "keep" }, "kernel/swap", "failSwapOn", "swap.target"},
		"swap kept for all": {func(c *Config) {
			c.Kernel.Swap = "keep"
			c.Kubeadm.KubeletConfiguration = passthrough("failSwapOn: false")
		}, "kernel/swap", "swapBehavior", "failSwapOn:"},
		"swap kept on etcd": {func(c *Config) { c.Kernel.Swap = "keep"; c.Role = Etcd }, "kernel/swap", "", "failSwapOn"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := Config{
				Role: ControlPlane, Network: NetworkConfig{PodSubnet: "10.244.0.0/16", ServiceSubnet: "10.96.0.0/12"},
				Kernel: kernel.DefaultConfig(), Packages: PackagesConfig{KubernetesVersion: "1.36"},
			}
			test.change(&c)
			steps, err := Steps(c, Deps{Host: host.New(t.TempDir())})
			if err != nil {
				t.Fatal(err)
			}
			if steps, err = step.Select(steps, []string{test.step}, nil); err != nil {
				t.Fatal(err)
			}
			changes, err := steps[0].Check(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var says strings.Builder
			for _, c := range changes {
				says.WriteString(c.String() + "\n")
			}
			if !strings.Contains(says.String(), test.has) || strings.Contains(says.String(), test.hasNot) {
				t.Errorf("it says\n%swant %q and not %q", says.String(), test.has, test.hasNot)
			}
		})
	}
}
