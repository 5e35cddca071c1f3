package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/step"
)

// otherRuntimes are the CRI sockets that kubeadm knows besides containerd's.
var otherRuntimes = map[string]string{"/run/crio/crio.sock": "CRI-O", "/run/cri-dockerd.sock": "cri-dockerd"}

// runtimes names others beside containerd: the agent tells kubeadm and kubelet which one to
// use, other tools guess.
func (p preflight) runtimes(context.Context) ([]step.Change, error) {
	var changes []step.Change
	for _, socket := range slices.Sorted(maps.Keys(otherRuntimes)) {
		there, err := p.host.Exists(socket)
		if err != nil {
			return nil, err
		}
		if there {
			changes = append(changes, finding("ContainerRuntime", otherRuntimes[socket]+" at "+socket, "containerd alone: this node uses containerd; remove the other"))
		}
	}
	return changes, nil
}

// leftovers names what an earlier cluster left on a host that is no member of one: kubeadm
// reset leaves these.
func (p preflight) leftovers(context.Context) ([]step.Change, error) {
	member, err := p.host.Exists(KubeletConf)
	if err != nil || member {
		return nil, err
	}
	var changes []step.Change
	for _, dir := range []string{cniConfDir, "/var/lib/cni/networks"} {
		entries, err := p.host.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look for leftovers: %w", err)
		}
		for _, e := range entries {
			path := dir + "/" + e.Name()
			if path == bridgeConfig {
				continue
			}
			changes = append(changes, finding("Leftovers", path, "nothing of an earlier cluster, unless you put it there: rm -r "+path))
		}
	}
	return changes, nil
}

// security tells of the modules that forbid things without the forbidden noticing.
func (p preflight) security(context.Context) ([]step.Change, error) {
	var changes []step.Change
	enforcing, err := p.word("/sys/fs/selinux/enforce")
	if err != nil {
		return nil, fmt.Errorf("read SELinux's state: %w", err)
	}
	if enforcing == "1" {
		changes = append(changes, finding("SELinux", "enforcing", "pods that read the host's files need labels; setenforce 0 and SELINUX=permissive in /etc/selinux/config, if they are denied"))
	}
	apparmor, err := p.word("/sys/module/apparmor/parameters/enabled")
	if err != nil {
		return nil, fmt.Errorf("read AppArmor's state: %w", err)
	}
	if apparmor != "Y" {
		return changes, nil
	}
	_, err = p.host.Stat("/sbin/apparmor_parser")
	if errors.Is(err, fs.ErrNotExist) {
		// containerd asks the kernel, finds AppArmor, and cannot load its profile.
		changes = append(changes, finding("AppArmor", "enabled, without apparmor_parser", "containers under their profile: apt-get install apparmor"))
		err = nil
	}
	return changes, err
}

// firewall tells of one that may block the role's ports; what it lets through is its own.
func (p preflight) firewall(ctx context.Context) ([]step.Change, error) {
	ports := p.portList()
	state, err := p.State(ctx, "firewalld.service")
	if err != nil {
		return nil, err
	}
	var changes []step.Change
	if state.Active() {
		changes = append(changes, finding("Firewall", "firewalld is active", "ports "+ports+" open: firewall-cmd --permanent --add-port=PORT/tcp for each, then --reload"))
	}
	data, err := p.host.ReadFile("/etc/ufw/ufw.conf")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read ufw's state: %w", err)
	}
	if strings.EqualFold(osRelease(data)["ENABLED"], "yes") {
		changes = append(changes, finding("Firewall", "ufw is enabled", "ports "+ports+" open: ufw allow PORT/tcp for each, and ufw default allow routed for pods"))
	}
	return changes, nil
}

func (p preflight) portList() string {
	var words []string
	for _, port := range slices.Sorted(maps.Keys(rolePorts[p.role])) {
		words = append(words, fmt.Sprint(port))
	}
	return strings.Join(words, ", ")
}
