package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
)

// goodMachine has all that a control plane wants.
func goodMachine(t *testing.T) *host.Host {
	t.Helper()
	h := &host.Host{Root: t.TempDir()}
	put(t, h, "/proc/cpuinfo", "processor\t: 0\nmodel name\t: x\n\nprocessor\t: 1\nmodel name\t: x\n", 0o444)
	put(t, h, "/proc/meminfo", "MemTotal:        4029268 kB\nMemFree:          100000 kB\n", 0o444)
	put(t, h, "/proc/net/tcp", tcpHeader, 0o444)
	put(t, h, "/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n", 0o444)
	put(t, h, "/proc/sys/kernel/osrelease", "6.1.0-18-cloud-amd64\n", 0o444)
	put(t, h, "/etc/os-release", "ID=debian\nVERSION_ID=\"12\"\n", 0o644)
	put(t, h, "/etc/machine-id", "0123456789abcdef0123456789abcdef\n", 0o444)
	for _, name := range []string{"containerd", "ctr", "kubeadm", "kubelet", "kubectl", "cp", "mount", "losetup"} {
		put(t, h, "/usr/bin/"+name, "", 0o755)
	}
	put(t, h, "/usr/sbin/runc", "", 0o755)
	return h
}

const tcpHeader = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"

// listener is a line of /proc/net/tcp, as Linux prints it.
func listener(port uint16, state string, inode int) string {
	return fmt.Sprintf("   0: 0100007F:%04X 00000000:0000 %s 00000000:00000000 00:00000000 00000000     0        0 %d 1 0000000000000000 100 0 0 10 0\n", port, state, inode)
}

// process gives a process of that name the sockets.
func process(t *testing.T, h *host.Host, pid int, comm string, inodes ...int) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d", pid)
	put(t, h, dir+"/comm", comm+"\n", 0o444)
	if err := h.MkdirAll(dir+"/fd", 0o755); err != nil {
		t.Fatal(err)
	}
	for i, inode := range inodes {
		link(t, h, fmt.Sprintf("%s/fd/%d", dir, i+3), fmt.Sprintf("socket:[%d]", inode))
	}
	link(t, h, dir+"/fd/0", "/dev/null")
}

func link(t *testing.T, h *host.Host, path, target string) {
	t.Helper()
	if err := os.Symlink(target, filepath.Join(h.Root, path)); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, h *host.Host, path string) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(h.Root, path)); err != nil {
		t.Fatal(err)
	}
}

func asUser(euid int) PreflightDeps {
	deps := goodDeps()
	deps.EUID = euid
	return deps
}

func TestPreflight(t *testing.T) {
	tests := map[string]struct {
		role    Role
		euid    int
		arrange func(t *testing.T, h *host.Host)
		want    string // the changes, one a line
	}{
		"good":     {role: ControlPlane},
		"no root":  {role: ControlPlane, euid: 1000, want: `IsPrivilegedUser: "uid 1000" → "root"`},
		"one CPU":  {role: ControlPlane, arrange: func(t *testing.T, h *host.Host) { put(t, h, "/proc/cpuinfo", "processor\t: 0\n", 0o444) }, want: `NumCPU: "1" → "2 or more: give the VM more CPUs"`},
		"one does": {role: Worker, arrange: func(t *testing.T, h *host.Host) { put(t, h, "/proc/cpuinfo", "processor\t: 0\n", 0o444) }},
		"memory": {role: ControlPlane, arrange: func(t *testing.T, h *host.Host) { put(t, h, "/proc/meminfo", "MemTotal: 1740799 kB\n", 0o444) },
			want: `Mem: "1699 MiB" → "1700 MiB or more"`},
		"memory just enough": {role: ControlPlane, arrange: func(t *testing.T, h *host.Host) { put(t, h, "/proc/meminfo", "MemTotal: 1740800 kB\n", 0o444) }},
		"a small worker":     {role: Worker, arrange: func(t *testing.T, h *host.Host) { put(t, h, "/proc/meminfo", "MemTotal: 500000 kB\n", 0o444) }},
		"cgroup v1": {role: Worker, arrange: func(t *testing.T, h *host.Host) { remove(t, h, "/sys/fs/cgroup/cgroup.controllers") },
			want: `CgroupV2: "cgroup v1" → "the unified hierarchy: boot with systemd.unified_cgroup_hierarchy=1"`},
		"programs": {role: ControlPlane, arrange: func(t *testing.T, h *host.Host) {
			remove(t, h, "/usr/bin/kubectl")
			remove(t, h, "/usr/sbin/runc")
			put(t, h, "/usr/bin/ctr", "", 0o644) // not executable
			put(t, h, "/usr/local/bin/kubectl", "", 0o755)
		}, want: "FileExisting-ctr: \"not installed\" → \"installed: apt-get install the package that brings ctr\"\n" +
			"FileExisting-runc: \"not installed\" → \"installed: apt-get install the package that brings runc\""},
		"an etcd host": {role: Etcd, arrange: func(t *testing.T, h *host.Host) { remove(t, h, "/usr/bin/kubeadm"); remove(t, h, "/usr/bin/kubelet") }},
		"our own ports": {role: ControlPlane, arrange: func(t *testing.T, h *host.Host) {
			put(t, h, "/proc/net/tcp", tcpHeader+listener(6443, "0A", 1)+listener(2379, "0A", 2)+listener(10257, "0A", 3), 0o444)
			put(t, h, "/proc/net/tcp6", tcpHeader+listener(10250, "0A", 4), 0o444)
			for _, name := range []string{"kube-apiserver", "etcd", "kube-controller-manager"} {
				put(t, h, ManifestDir+"/"+name+".yaml", "x", 0o600)
			}
			put(t, h, KubeletConf, "x", 0o600)
			process(t, h, 10, "kube-apiserver", 1)
			process(t, h, 11, "etcd", 2)
			process(t, h, 12, "kube-controller", 3)
			process(t, h, 13, "kubelet", 99, 4)
		}},
		"others' ports": {role: ControlPlane, arrange: func(t *testing.T, h *host.Host) {
			put(t, h, "/proc/net/tcp", tcpHeader+listener(6443, "0A", 1)+listener(80, "0A", 5), 0o444)
			put(t, h, "/proc/net/tcp6", tcpHeader+listener(2380, "0A", 2), 0o444)
			process(t, h, 10, "haproxy", 1)
			process(t, h, 11, "etcd-proxy", 7)
		}, want: "Port-2380: \"in use by another process\" → \"free for etcd: stop what listens there (ss -ltnp sport = :2380)\"\n" +
			"Port-6443: \"in use by haproxy\" → \"free for kube-apiserver: stop what listens there (ss -ltnp sport = :6443)\""},
		"a service of our component's name": {role: ControlPlane, arrange: func(t *testing.T, h *host.Host) {
			put(t, h, "/proc/net/tcp", tcpHeader+listener(2379, "0A", 1), 0o444)
			process(t, h, 10, "etcd", 1)
		}, want: `Port-2379: "in use by etcd" → "free for etcd: stop what listens there (ss -ltnp sport = :2379)"`},
		"etcd's own host": {role: Etcd, arrange: func(t *testing.T, h *host.Host) {
			put(t, h, "/proc/net/tcp", tcpHeader+listener(2379, "0A", 1), 0o444)
			process(t, h, 10, "etcd", 1)
		}},
		"connections are no listeners": {role: ControlPlane, arrange: func(t *testing.T, h *host.Host) {
			put(t, h, "/proc/net/tcp", tcpHeader+listener(6443, "01", 1)+"\nnonsense\n", 0o444)
		}},
		"a worker's ports": {role: Worker, arrange: func(t *testing.T, h *host.Host) {
			put(t, h, "/proc/net/tcp", tcpHeader+listener(6443, "0A", 1)+listener(10250, "0A", 2), 0o444)
			process(t, h, 10, "nginx", 1, 2)
		}, want: `Port-10250: "in use by nginx" → "free for kubelet: stop what listens there (ss -ltnp sport = :10250)"`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			h := goodMachine(t)
			if test.arrange != nil {
				test.arrange(t, h)
			}
			changes, err := Preflight(h, test.role, nil, asUser(test.euid)).Check(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var lines, names []string
			for _, c := range changes {
				lines, names = append(lines, c.String()), append(names, c.Subject)
				if c.Manual {
					t.Errorf("%s is no finding, it stops", c.Subject)
				}
				if !knownCheck(c.Subject) {
					t.Errorf("%s cannot be ignored: preflight.ignore does not know it", c.Subject)
				}
			}
			if got := strings.Join(lines, "\n"); got != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
			// What is ignored is a finding, and stops nothing.
			results, err := step.Apply(t.Context(), []step.Step{Preflight(h, test.role, names, asUser(test.euid))}, nil)
			if err != nil || results[0].Outcome != step.Clean || len(results[0].Findings()) != len(names) {
				t.Errorf("ignored: %+v, %v", results, err)
			}
			if _, err := step.Apply(t.Context(), []step.Step{Preflight(h, test.role, []string{"Port-1"}, asUser(test.euid))}, nil); (err != nil) != (test.want != "") {
				t.Errorf("with another check ignored: %v", err)
			}
		})
	}
}

func TestPreflightCannotTell(t *testing.T) {
	for path, want := range map[string]string{"/proc/cpuinfo": "count CPUs", "/proc/meminfo": "read memory"} {
		h := goodMachine(t)
		remove(t, h, path)
		_, err := Preflight(h, ControlPlane, nil, asUser(0)).Check(t.Context())
		wantError(t, err, want)
	}
	h := goodMachine(t)
	put(t, h, "/proc/meminfo", "MemFree: 1 kB\n", 0o444)
	_, err := Preflight(h, ControlPlane, nil, asUser(0)).Check(t.Context())
	wantError(t, err, "no MemTotal")
	h.Offline = true
	if _, err := Preflight(h, ControlPlane, nil, asUser(0)).Check(t.Context()); !errors.Is(err, step.Blocked{On: step.Boot}) {
		t.Errorf("offline: %v", err)
	}
}

// The real machine that this test runs on can be read.
func TestPreflightReal(t *testing.T) {
	deps := asUser(0)
	deps.Space = spaceOf
	p := preflight{PreflightDeps: deps, host: &host.Host{Root: "/"}, role: ControlPlane}
	for _, check := range []func(context.Context) ([]step.Change, error){
		p.cpus, p.memory, p.ports, p.kernel, p.os, p.identity, p.disk, p.runtimes, p.leftovers, p.security,
	} {
		if _, err := check(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestProgram(t *testing.T) {
	h := goodMachine(t)
	put(t, h, "/usr/local/bin/kubeadm", "", 0o755)
	if got, err := Program(h, "kubeadm"); err != nil || got != "/usr/bin/kubeadm" {
		t.Errorf("%q, %v: the package's comes first", got, err)
	}
	if err := h.MkdirAll("/usr/bin/helm", 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Program(h, "helm"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory: %v", err)
	}
}

func FuzzProc(f *testing.F) {
	f.Add(tcpHeader + listener(6443, "0A", 12345))
	f.Add("   0: 00000000000000000000000001000000:18EB 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 1 1 0 1")
	f.Add("MemTotal: 12 kB")
	f.Fuzz(func(t *testing.T, data string) {
		for port, inode := range parseListeners(data) {
			if !strings.Contains(strings.ToUpper(data), fmt.Sprintf("%X", port)) || inode == "" || !strings.Contains(data, inode) {
				t.Errorf("port %d, inode %q of %q", port, inode, data)
			}
		}
		_, _ = memTotal([]byte(data))
	})
}

// A minor that no test runs is told, and stops nobody.
func TestPreflightVersion(t *testing.T) {
	for minor, want := range map[string]string{
		"": "", "1.36": "", "1.35": `KubernetesVersion: "1.35" → "1.36: this version`, "1.37": `KubernetesVersion: "1.37" → "1.36: this version`,
	} {
		deps := asUser(0)
		deps.Minor = minor
		changes, err := Preflight(goodMachine(t), ControlPlane, nil, deps).Check(t.Context())
		got := ""
		for _, c := range changes {
			got += c.String()
			if !c.Manual {
				t.Errorf("%s stops: %v", minor, c)
			}
		}
		if err != nil || (want == "") != (got == "") || !strings.HasPrefix(got, want) {
			t.Errorf("%s: got %s, %v", minor, got, err)
		}
	}
	deps := asUser(0)
	deps.Minor = "1.35"
	if changes, err := Preflight(goodMachine(t), Etcd, nil, deps).Check(t.Context()); err != nil || len(changes) != 0 {
		t.Errorf("a host of etcd has none: %v, %v", changes, err)
	}
}
