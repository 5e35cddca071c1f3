package kernel

import (
	"testing"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/step/steptest"
)

// What these steps write on a running machine leads nowhere by another user's link.
func TestLinks(t *testing.T) {
	for name, fresh := range map[string]func(t *testing.T) (*host.Host, step.Step){
		"swap": func(t *testing.T) (*host.Host, step.Step) {
			h := machine(t, map[string]string{
				"/etc/systemd/system/dev-vdb1.swap":                   "[Swap]\nWhat=/dev/vdb1\n[Install]\nWantedBy=swap.target\n",
				"/etc/systemd/system/swap.target.wants/dev-vdb1.swap": "-> ../dev-vdb1.swap",
				"/etc/fstab":    rootLine + "/dev/vdc1 none swap sw 0 0\n",
				"/proc/swaps":   onePartition,
				"/proc/meminfo": enoughMemory,
			})
			return h, newKernelSwap(t, h).step()
		},
		"modules": func(t *testing.T) (*host.Host, step.Step) {
			h := machine(t, debianModules("6.1.0-9", map[string]string{"/sys/module/overlay/initstate": "live\n"}))
			modprobes(t, h, "br_netfilter", "nf_conntrack")
			return h, Modules(h, false, nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			paths := steptest.Attack(t, func(t *testing.T) (string, func() error) {
				h, s := fresh(t)
				return h.Root, func() error { return s.Apply(t.Context()) }
			})
			if len(paths) < 4 {
				t.Errorf("only %q were attacked", paths)
			}
			t.Logf("%q", paths)
		})
	}
}
