// Package distro_test runs the steps on the files of the distributions that the agent is
// written for, those among them that the lab cannot boot. testdata has the files, and README.md
// says where each is from.
package distro_test

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/bootstrap"
	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/kernel"
	"github.com/nodeagent/nodeagent/pkg/systemd"
)

// distributions are those with files in testdata, and their kernels.
var distributions = map[string]string{
	"debian-12": "6.1.0-41-cloud-amd64", "debian-13": "6.12.57+deb13-cloud-amd64",
	"ubuntu-22.04": "5.15.0-161-generic", "ubuntu-24.04": "6.8.0-87-generic",
}

// layers lie over the files of a distribution's packages: what made the machine.
var layers = []string{"installer", "cloud", "swap"}

// unpack lays the archives of testdata below a root, the later over the earlier. "->" makes a
// link.
func unpack(t *testing.T, root string, archives ...string) {
	t.Helper()
	for _, name := range archives {
		archive, err := txtar.ParseFile(filepath.Join("testdata", name+".txtar"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range archive.Files {
			put(t, root, f.Name, string(f.Data))
		}
	}
}

func put(t *testing.T, root, name, text string) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	var err error
	if target, is := strings.CutPrefix(text, "-> "); is {
		// From the root of this machine, not of the one that the test runs on.
		err = os.Symlink(strings.TrimSpace(target), path)
	} else {
		err = os.WriteFile(path, []byte(text), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// image is what lies on the disk of a machine that does not run.
func image(t *testing.T, distribution, layer string) *host.Host {
	t.Helper()
	root := t.TempDir()
	unpack(t, root, distribution+"/base", distribution+"/"+layer)
	if err := os.RemoveAll(filepath.Join(root, "proc")); err != nil {
		t.Fatal(err)
	}
	return &host.Host{Root: root, Offline: true}
}

// running is the same machine after its first boot, with the kernel's files and without any
// module that Kubernetes needs.
func running(t *testing.T, distribution, layer string) *host.Host {
	t.Helper()
	root, release := t.TempDir(), distributions[distribution]
	unpack(t, root, distribution+"/base", distribution+"/"+layer)
	lib := "usr/lib/modules/" + release
	for name, text := range map[string]string{
		"proc/cpuinfo":     "processor\t: 0\n\nprocessor\t: 1\n",
		"proc/meminfo":     "MemTotal:        4014892 kB\nMemFree:         3500000 kB\nMemAvailable:    3600000 kB\n",
		"proc/net/tcp":     "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n",
		"proc/filesystems": "nodev\ttmpfs\n\text4\n", "proc/cmdline": "BOOT_IMAGE=/boot/vmlinuz-" + release + " ro quiet\n",
		"proc/sys/kernel/osrelease": release + "\n", "proc/sys/kernel/panic": "0\n", "proc/sys/kernel/panic_on_oops": "0\n",
		"proc/sys/kernel/keys/root_maxkeys": "1000000\n", "proc/sys/kernel/keys/root_maxbytes": "25000000\n",
		"proc/sys/vm/overcommit_memory": "0\n", "proc/sys/vm/panic_on_oom": "0\n",
		"proc/sys/fs/inotify/max_user_instances": "128\n", "proc/sys/fs/inotify/max_user_watches": "29218\n",
		"proc/sys/net/ipv4/ip_forward": "0\n", "proc/sys/net/ipv6/conf/all/forwarding": "0\n",
		lib + "/modules.builtin":           "kernel/fs/ext4/ext4.ko\n",
		lib + "/modules.dep":               "kernel/fs/overlayfs/overlay.ko.xz:\nkernel/net/bridge/br_netfilter.ko.xz: kernel/net/bridge/bridge.ko.xz\nkernel/net/netfilter/nf_conntrack.ko.xz:\n",
		"sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory hugetlb pids rdma misc\n",
		"sys/class/dmi/id/product_uuid":    "6e6f6465-6167-656e-7400-000000000001\n",
		"etc/machine-id":                   "6e6f64656167656e740000000000001f\n",
	} {
		put(t, root, name, text)
	}
	for _, name := range []string{"cp", "mount", "losetup", "containerd", "ctr", "runc", "kubeadm", "kubelet", "kubectl"} {
		put(t, root, "usr/bin/"+name, "(a program)\n")
		if err := os.Chmod(filepath.Join(root, "usr/bin", name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	h := &host.Host{Root: root}
	h.Exec = func(_ context.Context, c host.Command) ([]byte, error) {
		name := c.Args[len(c.Args)-1]
		if filepath.Base(c.Path) != "modprobe" {
			t.Errorf("unexpected command %s", c)
		}
		put(t, root, "sys/module/"+name+"/initstate", "live\n")
		if name == "br_netfilter" {
			put(t, root, "proc/sys/net/bridge/bridge-nf-call-iptables", "1\n")
			put(t, root, "proc/sys/net/bridge/bridge-nf-call-ip6tables", "1\n")
		}
		return nil, nil
	}
	return h
}

// manager is systemd and the kernel's swap, as far as the steps ask them: a unit is as its files
// say, one that is enabled runs until it is stopped.
type manager struct {
	t       *testing.T
	h       *host.Host
	stopped map[string]bool
	active  []string // units that run whatever their files say
}

func (m *manager) state(_ context.Context, unit string) (systemd.State, error) {
	state := systemd.State{LoadState: "not-found", ActiveState: "inactive"}
	there := func(path string) bool {
		_, err := m.h.Lstat(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			m.t.Error(err)
		}
		return err == nil
	}
	if there("/usr/lib/systemd/system/" + unit) {
		state.LoadState = "loaded"
	}
	target, err := m.h.Readlink("/etc/systemd/system/" + unit)
	if err == nil && target == "/dev/null" {
		state.LoadState = "masked"
	}
	enabled := there("/etc/systemd/system/multi-user.target.wants/" + unit)
	if slices.Contains(m.active, unit) || !m.stopped[unit] && (enabled || there("/run/test-started/"+unit)) {
		state.ActiveState = "active"
	}
	return state, nil
}

func (m *manager) stop(_ context.Context, unit string) error {
	m.stopped[unit] = true
	return nil
}

// swapoff takes the line of an area from /proc/swaps.
func (m *manager) swapoff(path string) error {
	data, err := m.h.ReadFile("/proc/swaps")
	if err != nil {
		return err
	}
	var left strings.Builder
	found := false
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, path+" ") {
			found = true
			continue
		}
		left.WriteString(line)
	}
	if !found {
		return unix.EINVAL
	}
	return os.WriteFile(filepath.Join(m.h.Root, "proc/swaps"), []byte(left.String()), 0o644)
}

func newManager(t *testing.T, h *host.Host) *manager {
	return &manager{t: t, h: h, stopped: map[string]bool{}}
}

func (m *manager) swap() kernel.SwapSystem {
	return kernel.SwapSystem{
		Swapoff: m.swapoff, State: m.state, Stop: m.stop,
		DaemonReload: func(context.Context) error { return nil },
	}
}

func (m *manager) preflight() bootstrap.PreflightDeps {
	return bootstrap.PreflightDeps{
		Hostname: "node1", NodeName: "node1", State: m.state,
		Resolve: func(context.Context, string) error { return nil },
		Space: func(string) (bootstrap.Space, error) {
			return bootstrap.Space{Device: 1, Free: 30 << 30, Size: 40 << 30}, nil
		},
	}
}

// entry is a file as somebody else sees it.
type entry struct {
	mode fs.FileMode
	text string // a link's target
}

// tree is all below a root, but for what is no file of the machine's: /proc and /sys.
func tree(t *testing.T, root string) map[string]entry {
	t.Helper()
	out := map[string]entry{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, root)
		if name == "/proc" || name == "/sys" {
			return filepath.SkipDir
		}
		info, err := d.Info()
		if err != nil || d.IsDir() {
			return err
		}
		e := entry{mode: info.Mode()}
		if e.mode&fs.ModeSymlink != 0 {
			e.text, err = os.Readlink(path)
		} else {
			var data []byte
			data, err = os.ReadFile(path)
			e.text = string(data)
		}
		out[name] = e
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// sorted are the keys of both.
func sorted(a, b map[string]entry) []string {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return slices.Sorted(maps.Keys(all))
}
