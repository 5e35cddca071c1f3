package bootstrap

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
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

var machineID = regexp.MustCompile(`^[0-9a-f]{32}$`)

// sharedUUIDs are product UUIDs that makers of firmware left in for all their machines. One of
// a single digit throughout is none either.
var sharedUUIDs = []string{"03000200-0400-0500-0006-000700080009", "12345678-1234-5678-90ab-cddeefaabbcc"}

// identity wants what a cloned VM often lacks: kubelet and CNIs take both for unique.
func (p preflight) identity(context.Context) ([]step.Change, error) {
	var changes []step.Change
	id, err := p.word("/etc/machine-id")
	if err != nil {
		return nil, err
	}
	if !machineID.MatchString(id) || strings.Trim(id, "0") == "" {
		changes = append(changes, stop("MachineID", fmt.Sprintf("%q", id), "one of this machine's own: rm -f /etc/machine-id; systemd-machine-id-setup"))
	}
	uuid, err := p.word("/sys/class/dmi/id/product_uuid")
	if errors.Is(err, fs.ErrPermission) && p.EUID != 0 {
		return changes, nil // it is root's to read, and user has said that this is not root
	}
	if err != nil {
		return nil, err
	}
	uuid = strings.ToLower(uuid)
	// Machines without DMI (most of arm64) have none, and kubelet does without.
	if uuid != "" && (strings.Trim(uuid, uuid[:1]+"-") == "" || slices.Contains(sharedUUIDs, uuid)) {
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

// longestName is what a label's value can hold: kubelet gives its Node one with its name.
const longestName = 63

// hostname wants a name that a Node can have and that this host can look up; kubeadm warns
// about one that it cannot.
func (p preflight) hostname(ctx context.Context) ([]step.Change, error) {
	const remedy = ": hostnamectl set-hostname NAME, or set node.name"
	switch {
	case !dnsSubdomain.MatchString(p.NodeName) || slices.ContainsFunc(strings.Split(p.NodeName, "."), func(label string) bool { return len(label) > longestName }):
		return []step.Change{stop("Hostname", fmt.Sprintf("%q", p.NodeName), "a DNS name in lower case"+remedy)}, nil
	case len(p.NodeName) > longestName:
		return []step.Change{stop("Hostname", fmt.Sprintf("%s, %d characters", p.NodeName, len(p.NodeName)), fmt.Sprintf("%d or fewer: kubelet cannot label its Node otherwise", longestName)+remedy)}, nil
	case p.NodeName == "localhost" || strings.HasPrefix(p.NodeName, "localhost."):
		return []step.Change{stop("Hostname", p.NodeName, "a name that no other node has"+remedy)}, nil
	}
	if err := p.Resolve(ctx, p.Hostname); err != nil {
		return []step.Change{finding("Hostname", p.Hostname+" does not resolve", fmt.Sprintf("a line for %s in /etc/hosts: 127.0.1.1 %s", p.Hostname, p.Hostname))}, nil
	}
	return nil, nil
}
