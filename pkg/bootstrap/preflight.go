package bootstrap

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/systemd"
)

// checkNames are the preflight checks, by kubeadm's names where kubeadm has the same check.
// Port-N, FileExisting-PROGRAM, FileAvailable-PATH and DirAvailable-PATH come in many.
var checkNames = []string{
	"IsPrivilegedUser", "NumCPU", "Mem", "CgroupV2", "SystemVerification", "OS", "Hostname", "MachineID", "ProductUUID",
	"DiskSpace", "ContainerRuntime", "Leftovers", "SELinux", "AppArmor", "Firewalld", "Firewall", "TimeSync",
	"KubernetesVersion", "ContainerRuntimeVersion",
}

func knownCheck(name string) bool {
	if port, ok := strings.CutPrefix(name, "Port-"); ok {
		_, err := strconv.ParseUint(port, 10, 16)
		return err == nil
	}
	many := func(prefix string) bool { return strings.HasPrefix(name, prefix) }
	return slices.ContainsFunc([]string{"FileExisting-", "FileAvailable-", "DirAvailable-"}, many) || slices.Contains(checkNames, name)
}

// What kubeadm demands of a control plane; a worker may be smaller.
const (
	minCPUs      = 2
	minMemoryMiB = 1700
)

// PreflightDeps is what the step "preflight/host" asks besides the host's files.
type PreflightDeps struct {
	EUID     int    // of this process
	Hostname string // as the kernel says it
	NodeName string
	// State tells whether a unit runs: firewalls are units.
	State func(ctx context.Context, unit string) (systemd.State, error)
	// Resolve looks a host name up, in /etc/hosts and the DNS.
	Resolve func(ctx context.Context, name string) error
	// Space is what the file system at a real path has.
	Space func(path string) (Space, error)
	// APIPort is where the API server is to listen; 0 is its default.
	APIPort uint16
	// Managed says that the agent installs the packages, and needs what that takes instead.
	Managed bool
	// Minor of Kubernetes that is wanted: "1.36"; none is judged when it is empty.
	Minor string
}

// preflight is the step "preflight/host": what no agent can mend.
type preflight struct {
	PreflightDeps
	host   *host.Host
	role   Role
	ignore []string
}

// Preflight makes the step "preflight/host". What is in the way of a node stops there; what
// an operator should know and may live with is a finding. Checks named in ignore are findings.
func Preflight(h *host.Host, role Role, ignore []string, deps PreflightDeps) step.Step {
	p := preflight{PreflightDeps: deps, host: h, role: role, ignore: ignore}
	return step.Step{Name: "preflight/host", Check: p.check}
}

func (p preflight) check(ctx context.Context) ([]step.Change, error) {
	if p.host.Offline {
		return nil, step.Blocked{On: step.Boot}
	}
	var changes []step.Change
	for _, check := range []func(context.Context) ([]step.Change, error){
		p.user, p.kernel, p.os, p.version, p.cpus, p.memory, p.cgroup, p.identity, p.hostname, p.disk,
		p.programs, p.tools, p.ports, p.runtimes, p.leftovers, p.security, p.firewall,
	} {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		found, err := check(ctx)
		if err != nil {
			return nil, err
		}
		changes = append(changes, found...)
	}
	for i, c := range changes {
		changes[i].Manual = c.Manual || slices.Contains(p.ignore, c.Subject)
	}
	return changes, nil
}

func (p preflight) user(context.Context) ([]step.Change, error) {
	if p.EUID == 0 {
		return nil, nil
	}
	return []step.Change{{Subject: "IsPrivilegedUser", Have: fmt.Sprintf("uid %d", p.EUID), Want: "root"}}, nil
}

func (p preflight) cpus(context.Context) ([]step.Change, error) {
	data, err := p.host.ReadFile("/proc/cpuinfo")
	if err != nil {
		return nil, fmt.Errorf("count CPUs: %w", err)
	}
	n := 0
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "processor") {
			n++
		}
	}
	if p.role != ControlPlane || n >= minCPUs {
		return nil, nil
	}
	return []step.Change{{Subject: "NumCPU", Have: strconv.Itoa(n), Want: fmt.Sprintf("%d or more: give the VM more CPUs", minCPUs)}}, nil
}

func (p preflight) memory(context.Context) ([]step.Change, error) {
	data, err := p.host.ReadFile("/proc/meminfo")
	if err != nil {
		return nil, fmt.Errorf("read memory: %w", err)
	}
	kib, err := memTotal(data)
	if err != nil {
		return nil, err
	}
	if p.role != ControlPlane || kib/1024 >= minMemoryMiB {
		return nil, nil
	}
	return []step.Change{{Subject: "Mem", Have: fmt.Sprintf("%d MiB", kib/1024), Want: fmt.Sprintf("%d MiB or more", minMemoryMiB)}}, nil
}

// memTotal is the machine's memory in KiB, from /proc/meminfo.
func memTotal(meminfo []byte) (uint64, error) {
	s := bufio.NewScanner(bytes.NewReader(meminfo))
	for s.Scan() {
		if f := strings.Fields(s.Text()); len(f) >= 2 && f[0] == "MemTotal:" {
			return strconv.ParseUint(f[1], 10, 64)
		}
	}
	return 0, errors.New("read memory: no MemTotal in /proc/meminfo")
}

// cgroupControllers are those that kubelet limits pods with. Some kernels have one switched off
// until their command line asks for it.
var cgroupControllers = []string{"cpu", "cpuset", "memory", "pids"}

// cgroup wants the unified hierarchy: kubelet 1.36 does not start on cgroup v1.
func (p preflight) cgroup(context.Context) ([]step.Change, error) {
	const controllers = "/sys/fs/cgroup/cgroup.controllers"
	data, err := p.host.ReadFile(controllers)
	if errors.Is(err, fs.ErrNotExist) {
		return []step.Change{{Subject: "CgroupV2", Have: "cgroup v1", Want: "the unified hierarchy: boot with systemd.unified_cgroup_hierarchy=1"}}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read cgroup controllers: %w", err)
	}
	have := strings.Fields(string(data))
	missing := slices.DeleteFunc(slices.Clone(cgroupControllers), func(c string) bool { return slices.Contains(have, c) })
	if len(missing) == 0 {
		return nil, nil
	}
	return []step.Change{{
		Subject: "SystemVerification", Have: "no cgroup controller " + strings.Join(missing, ", "),
		Want: "all of " + strings.Join(cgroupControllers, ", ") + ": boot with cgroup_enable=" + strings.Join(missing, " cgroup_enable="),
	}}, nil
}

// programs are those that packages bring, or where the agent brings the packages, those that
// install them.
func (p preflight) programs(context.Context) ([]step.Change, error) {
	wanted, remedy := []string{"containerd", "ctr", "runc"}, "installed: apt-get install the package that brings "
	switch {
	case p.installs():
		wanted, remedy = []string{"apt-get", "apt-cache", "apt-mark", "dpkg"}, "a Debian or Ubuntu, or packages.manage false and its programs installed by hand: packages are installed by "
	case p.role != Etcd:
		wanted = append(wanted, "kubeadm", "kubelet", "kubectl")
	}
	var changes []step.Change
	for _, name := range wanted {
		_, err := Program(p.host, name)
		if errors.Is(err, fs.ErrNotExist) {
			changes = append(changes, step.Change{Subject: "FileExisting-" + name, Have: "not installed", Want: remedy + name})
		} else if err != nil {
			return nil, err
		}
	}
	return changes, nil
}

// tools are what kubeadm demands, and where Debian has them.
func (p preflight) tools(context.Context) ([]step.Change, error) {
	if p.role == Etcd {
		return nil, nil
	}
	var changes []step.Change
	for _, tool := range []struct{ name, pkg string }{{"losetup", "mount"}, {"mount", "mount"}, {"cp", "coreutils"}} {
		_, err := Program(p.host, tool.name)
		if errors.Is(err, fs.ErrNotExist) {
			changes = append(changes, stop("FileExisting-"+tool.name, "not installed", "installed: apt-get install "+tool.pkg))
		} else if err != nil {
			return nil, err
		}
	}
	return changes, nil
}

// installs says whether packages are the agent's to install in this role.
func (p preflight) installs() bool { return p.Managed && p.role != Etcd }

// programDirs is where programs are looked for: packages' directory, then the operator's.
var programDirs = []string{"/usr/bin/", "/usr/sbin/", "/usr/local/bin/", "/usr/local/sbin/"}

// Program is the absolute path of a program, or an error that is fs.ErrNotExist.
func Program(h *host.Host, name string) (string, error) {
	for _, dir := range programDirs {
		info, err := h.Stat(dir + name)
		if err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0 {
			return dir + name, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("find program %s: %w", name, err)
		}
	}
	return "", fmt.Errorf("find program %s in %s: %w", name, strings.Join(programDirs, ", "), fs.ErrNotExist)
}
