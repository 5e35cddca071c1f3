package bootstrap

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/systemd"
)

// goodHost is a host that preflight has nothing to say about, as files.
var goodHost = map[string]string{
	"/proc/cpuinfo":                     "processor\t: 0\nprocessor\t: 1\n",
	"/proc/meminfo":                     "MemTotal:        4000000 kB\n",
	"/proc/net/tcp":                     "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n",
	"/proc/sys/kernel/osrelease":        "6.1.0-18-cloud-amd64\n",
	"/sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory hugetlb pids rdma misc\n",
	"/etc/os-release":                   "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_ID=\"12\"\n",
	"/etc/machine-id":                   "0123456789abcdef0123456789abcdef\n",
	"/sys/class/dmi/id/product_uuid":    "6e6f6465-6167-656e-7400-000000000001\n",
	"/usr/bin/containerd":               "x", "/usr/bin/ctr": "x", "/usr/sbin/runc": "x",
	"/usr/bin/kubeadm": "x", "/usr/bin/kubelet": "x", "/usr/bin/kubectl": "x",
	"/usr/bin/cp": "x", "/usr/bin/mount": "x", "/usr/sbin/losetup": "x",
}

func goodDeps() PreflightDeps {
	return PreflightDeps{
		Hostname: "node1", NodeName: "node1",
		State: func(context.Context, string) (systemd.State, error) {
			return systemd.State{ActiveState: "inactive"}, nil
		},
		Resolve: func(context.Context, string) error { return nil },
		Space:   func(string) (Space, error) { return Space{Free: 20 * gib, Size: 40 * gib}, nil },
	}
}

func TestPreflightHost(t *testing.T) {
	for _, tt := range []struct {
		name   string
		files  map[string]string // laid over goodHost; "" removes one
		deps   func(*PreflightDeps)
		ignore []string
		want   []string // "stop CHECK" or "finding CHECK"
	}{
		{name: "a good host"},
		{name: "not root", deps: func(d *PreflightDeps) { d.EUID = 1000 }, want: []string{"stop IsPrivilegedUser"}},
		{name: "one CPU", files: map[string]string{"/proc/cpuinfo": "processor\t: 0\n"}, want: []string{"stop NumCPU"}},
		{name: "one CPU, ignored", files: map[string]string{"/proc/cpuinfo": "processor\t: 0\n"}, ignore: []string{"NumCPU"}, want: []string{"finding NumCPU"}},
		{name: "little memory", files: map[string]string{"/proc/meminfo": "MemTotal: 1000000 kB\n"}, want: []string{"stop Mem"}},
		{name: "cgroup v1", files: map[string]string{"/sys/fs/cgroup/cgroup.controllers": ""}, want: []string{"stop CgroupV2"}},
		{name: "no kubelet", files: map[string]string{"/usr/bin/kubelet": ""}, want: []string{"stop FileExisting-kubelet"}},
		{name: "old kernel", files: map[string]string{"/proc/sys/kernel/osrelease": "5.4.0-100-generic"}, want: []string{"stop SystemVerification"}},
		{name: "two-digit minor", files: map[string]string{"/proc/sys/kernel/osrelease": "5.10.0"}},
		{name: "vendor's release", files: map[string]string{"/proc/sys/kernel/osrelease": "6.18+deb"}},
		{name: "another system", files: map[string]string{"/etc/os-release": "ID=fedora\nVERSION_ID=42\n"}, want: []string{"finding OS"}},
		{name: "Ubuntu", files: map[string]string{"/etc/os-release": "ID=ubuntu\nVERSION_ID=\"24.04\"\n"}},
		{name: "no os-release", files: map[string]string{"/etc/os-release": ""}, want: []string{"finding OS"}},
		{name: "machine-id not made yet", files: map[string]string{"/etc/machine-id": "uninitialized\n"}, want: []string{"stop MachineID"}},
		{name: "product_uuid of zeros", files: map[string]string{"/sys/class/dmi/id/product_uuid": "00000000-0000-0000-0000-000000000000\n"}, want: []string{"finding ProductUUID"}},
		{name: "no DMI", files: map[string]string{"/sys/class/dmi/id/product_uuid": ""}},
		{name: "a name that no Node can have", deps: func(d *PreflightDeps) { d.NodeName = "node_1" }, want: []string{"stop Hostname"}},
		{name: "a name that does not resolve", deps: func(d *PreflightDeps) {
			d.Resolve = func(context.Context, string) error { return errors.New("no such host") }
		}, want: []string{"finding Hostname"}},
		{name: "CRI-O too", files: map[string]string{"/run/crio/crio.sock": "x"}, want: []string{"finding ContainerRuntime"}},
		{name: "what keeps the packages' directories", files: map[string]string{"/etc/cni/net.d/.kubernetes-cni-keep": "\n", "/etc/kubernetes/manifests/.kubelet-keep": "\n"}},
		{name: "an earlier cluster's network", files: map[string]string{"/etc/cni/net.d/10-flannel.conflist": "{}"}, want: []string{"finding Leftovers"}},
		{name: "a member's network", files: map[string]string{"/etc/cni/net.d/10-flannel.conflist": "{}", KubeletConf: "x"}},
		{name: "SELinux", files: map[string]string{"/sys/fs/selinux/enforce": "1"}, want: []string{"finding SELinux"}},
		{name: "AppArmor without its parser", files: map[string]string{"/sys/module/apparmor/parameters/enabled": "Y\n"}, want: []string{"finding AppArmor"}},
		{name: "AppArmor", files: map[string]string{"/sys/module/apparmor/parameters/enabled": "Y\n", "/sbin/apparmor_parser": "x"}},
		{name: "no memory controller", files: map[string]string{"/sys/fs/cgroup/cgroup.controllers": "cpuset cpu io pids\n"}, want: []string{"stop SystemVerification"}},
		{name: "no mount", files: map[string]string{"/usr/bin/mount": ""}, want: []string{"stop FileExisting-mount"}},
		{name: "machine-id that is none", files: map[string]string{"/etc/machine-id": strings.Repeat("x", 32)}, want: []string{"stop MachineID"}},
		{name: "no machine-id", files: map[string]string{"/etc/machine-id": ""}, want: []string{"stop MachineID"}},
		{name: "product_uuid that many boards have", files: map[string]string{"/sys/class/dmi/id/product_uuid": "03000200-0400-0500-0006-000700080009\n"}, want: []string{"finding ProductUUID"}},
		{name: "product_uuid of Fs", files: map[string]string{"/sys/class/dmi/id/product_uuid": "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF\n"}, want: []string{"finding ProductUUID"}},
		{name: "no name", deps: func(d *PreflightDeps) { d.NodeName = "" }, want: []string{"stop Hostname"}},
		{name: "localhost", deps: func(d *PreflightDeps) { d.NodeName = "localhost" }, want: []string{"stop Hostname"}},
		{name: "localhost.localdomain", deps: func(d *PreflightDeps) { d.NodeName = "localhost.localdomain" }, want: []string{"stop Hostname"}},
		{name: "a name that is too long for a label", deps: func(d *PreflightDeps) { d.NodeName = strings.Repeat("a.", 31) + "aa" }, want: []string{"stop Hostname"}},
		{name: "the longest name", deps: func(d *PreflightDeps) { d.NodeName = strings.Repeat("a.", 31) + "a" }},
		{name: "Docker too", files: map[string]string{"/run/docker.sock": "x"}, want: []string{"finding ContainerRuntime"}},
		{name: "an earlier cluster, not reset", files: map[string]string{AdminConf: "x", ManifestDir + "/etcd.yaml": "x", etcdDataDir + "/member/wal/0.wal": "x", "/sys/class/net/cni0/mtu": "1500"},
			want: []string{"finding FileAvailable--etc-kubernetes-admin.conf", "finding FileAvailable--etc-kubernetes-manifests-etcd.yaml", "finding DirAvailable--var-lib-etcd", "finding Leftovers"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := &host.Host{Root: tree(t, goodHost, tt.files)}
			deps := goodDeps()
			if tt.deps != nil {
				tt.deps(&deps)
			}
			changes, err := Preflight(h, ControlPlane, tt.ignore, deps).Check(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, c := range changes {
				kind := "stop "
				if c.Manual {
					kind = "finding "
				}
				got = append(got, kind+c.Subject)
				if !knownCheck(c.Subject) {
					t.Errorf("preflight.ignore does not know %s", c.Subject)
				}
				if c.Have == "" || c.Want == "" {
					t.Errorf("%s says too little: %+v", c.Subject, c)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
		})
	}
}

// tree writes files below a temporary root, the later maps over the earlier ones.
func tree(t *testing.T, layers ...map[string]string) string {
	t.Helper()
	all := map[string]string{}
	for _, files := range layers {
		maps.Copy(all, files)
	}
	root := t.TempDir()
	for path, data := range all {
		if data == "" {
			continue
		}
		real := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(real), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(real, []byte(data), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestTimeSync(t *testing.T) {
	check := func(t *testing.T, s step.Step) []step.Change {
		t.Helper()
		changes, err := s.Check(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return changes
	}
	never := func() (bool, error) { return false, nil }

	t.Run("it is waited for before the first certificate, then a finding", func(t *testing.T) {
		h := &host.Host{Root: t.TempDir()}
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			results, err := step.Apply(t.Context(), []step.Step{TimeSync(h, nil, never)}, nil)
			if err != nil || results[0].Outcome != step.Applied {
				t.Errorf("%+v, %v", results, err)
			}
			if waited := time.Since(began); waited != syncTimeout {
				t.Errorf("waited %s", waited)
			}
		})
	})
	t.Run("it comes while it is waited for", func(t *testing.T) {
		h := &host.Host{Root: t.TempDir()}
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			synced := func() (bool, error) { return time.Since(began) > 30*time.Second, nil }
			s := TimeSync(h, nil, synced)
			if _, err := step.Apply(t.Context(), []step.Step{s}, nil); err != nil {
				t.Error(err)
			}
			if waited := time.Since(began); waited > 35*time.Second {
				t.Errorf("waited %s", waited)
			}
			if changes := check(t, s); len(changes) != 0 {
				t.Errorf("%v", changes)
			}
		})
	})
	t.Run("with a CA it is only a finding", func(t *testing.T) {
		h := &host.Host{Root: tree(t, map[string]string{"/etc/kubernetes/pki/ca.crt": "x"})}
		if changes := check(t, TimeSync(h, nil, never)); len(changes) != 1 || !changes[0].Manual {
			t.Errorf("%v", changes)
		}
	})
	t.Run("ignored, it is only a finding", func(t *testing.T) {
		h := &host.Host{Root: t.TempDir()}
		if changes := check(t, TimeSync(h, []string{"TimeSync"}, never)); len(changes) != 1 || !changes[0].Manual {
			t.Errorf("%v", changes)
		}
	})
	t.Run("a clock that cannot be read is an error", func(t *testing.T) {
		h := &host.Host{Root: t.TempDir()}
		broken := func() (bool, error) { return false, errors.New("no clock") }
		if _, err := TimeSync(h, nil, broken).Check(t.Context()); err == nil {
			t.Error("no error")
		}
	})
}
