package bootstrap

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/step"
)

// stop is something that is in the way of a node; finding is something that is not.
func stop(check, have, want string) step.Change {
	return step.Change{Subject: check, Have: have, Want: want}
}

func finding(check, have, want string) step.Change {
	return step.Change{Subject: check, Have: have, Want: want, Manual: true}
}

// minKernel is the oldest kernel that is any good with the unified hierarchy (5.8).
var minKernel = [2]int{5, 8}

func (p preflight) kernel(context.Context) ([]step.Change, error) {
	data, err := p.host.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return nil, fmt.Errorf("read kernel version: %w", err)
	}
	release := strings.TrimSpace(string(data))
	version, err := kernelVersion(release)
	if err != nil {
		return nil, err
	}
	if slices.Compare(version[:], minKernel[:]) >= 0 {
		return nil, nil
	}
	return []step.Change{stop("SystemVerification", "kernel "+release, fmt.Sprintf("%d.%d or newer: cgroup v2 needs it; install a newer kernel and reboot", minKernel[0], minKernel[1]))}, nil
}

// kernelVersion is the major and minor of a release like "6.1.0-18-cloud-amd64".
func kernelVersion(release string) (version [2]int, err error) {
	parts := strings.SplitN(release, ".", 3)
	for i := range version {
		if i >= len(parts) {
			return version, fmt.Errorf("read kernel version: %q is none", release)
		}
		digits := strings.TrimRightFunc(parts[i], func(r rune) bool { return r < '0' || r > '9' })
		if version[i], err = strconv.Atoi(digits); err != nil {
			return version, fmt.Errorf("read kernel version: %q is none", release)
		}
	}
	return version, nil
}

// intendedSystems are those that the agent is written for. The end-to-end test boots Debian 12;
// the README says what has been tried of the others.
var intendedSystems = []string{"debian 12", "debian 13", "ubuntu 22.04", "ubuntu 24.04"}

func (p preflight) os(context.Context) ([]step.Change, error) {
	data, err := p.host.ReadFile("/etc/os-release")
	if errors.Is(err, fs.ErrNotExist) {
		return []step.Change{finding("OS", "no /etc/os-release", "one of "+strings.Join(intendedSystems, ", "))}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read system: %w", err)
	}
	release := osRelease(data)
	have := release["ID"] + " " + release["VERSION_ID"]
	if slices.Contains(intendedSystems, have) {
		return nil, nil
	}
	return []step.Change{finding("OS", have, "one of "+strings.Join(intendedSystems, ", ")+": the agent is not written for others")}, nil
}

// osRelease reads os-release(5): assignments, some quoted.
func osRelease(data []byte) map[string]string {
	values := map[string]string{}
	s := bufio.NewScanner(bytes.NewReader(data))
	for s.Scan() {
		key, value, ok := strings.Cut(strings.TrimSpace(s.Text()), "=")
		if ok && !strings.HasPrefix(key, "#") {
			values[key] = strings.Trim(value, `"'`)
		}
	}
	return values
}

// identity wants what a cloned VM often lacks: kubelet and CNIs take both for unique.
func (p preflight) identity(context.Context) ([]step.Change, error) {
	var changes []step.Change
	id, err := p.word("/etc/machine-id")
	if err != nil {
		return nil, err
	}
	if len(id) != 32 || strings.Trim(id, "0") == "" {
		changes = append(changes, stop("MachineID", fmt.Sprintf("%q", id), "one of this machine's own: rm -f /etc/machine-id; systemd-machine-id-setup"))
	}
	uuid, err := p.word("/sys/class/dmi/id/product_uuid")
	if err != nil {
		return nil, err
	}
	// Machines without DMI (most of arm64) have none, and kubelet does without.
	if uuid != "" && strings.Trim(uuid, "0-") == "" {
		changes = append(changes, finding("ProductUUID", uuid, "a unique one: set it in the hypervisor's definition of this VM"))
	}
	return changes, nil
}

// word is a small file's content, "" when there is no such file.
func (p preflight) word(path string) (string, error) {
	data, err := p.host.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(data)), err
}

// hostname wants a name that a Node can have and that this host can look up; kubeadm warns
// about one that it cannot.
func (p preflight) hostname(ctx context.Context) ([]step.Change, error) {
	if !dnsSubdomain.MatchString(p.NodeName) || len(p.NodeName) > 253 {
		return []step.Change{stop("Hostname", p.NodeName, "a DNS name in lower case: hostnamectl set-hostname NAME, or set node.name")}, nil
	}
	if err := p.Resolve(ctx, p.Hostname); err != nil {
		return []step.Change{finding("Hostname", p.Hostname+" does not resolve", fmt.Sprintf("a line for %s in /etc/hosts", p.Hostname))}, nil
	}
	return nil, nil
}

// kubelet evicts below 10 % of nodefs and collects images below 15 % of imagefs; a host that
// is there from the start never becomes a useful node. Three points are for what is yet to come.
const minFreePercent = 18

// minFree is for the images, etcd's data and the first backups of a control plane.
const minFree = 4 << 30

// disk looks at the file systems that fill up.
func (p preflight) disk(context.Context) ([]step.Change, error) {
	var changes []step.Change
	for _, dir := range []string{"/var/lib/containerd", "/var/lib/kubelet", "/var/lib/etcd", "/var/lib/nodeagent"} {
		existing, err := p.existing(dir)
		if err != nil {
			return nil, err
		}
		free, size, err := p.Free(existing)
		if err != nil {
			return nil, fmt.Errorf("read free space of %s: %w", dir, err)
		}
		if size == 0 {
			continue
		}
		have := fmt.Sprintf("%s: %d MiB of %d MiB free", dir, free>>20, size>>20)
		switch {
		case free*100/size < minFreePercent:
			changes = append(changes, stop("DiskSpace", have, fmt.Sprintf("%d %% free, or kubelet evicts pods: clean up or grow the disk", minFreePercent)))
		case free < minFree:
			changes = append(changes, finding("DiskSpace", have, fmt.Sprintf("%d MiB free for images, etcd and backups", minFree>>20)))
		}
	}
	return changes, nil
}

// existing is the real path of dir, or of the nearest directory above it that is there.
func (p preflight) existing(dir string) (string, error) {
	for {
		there, err := p.host.Exists(dir)
		if err != nil {
			return "", err
		}
		if there || dir == "/" {
			return p.host.Path(dir)
		}
		dir = filepath.Dir(dir)
	}
}
