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

// dockerSocket is no CRI's: but Docker drops what is forwarded and is not its own.
const dockerSocket = "/run/docker.sock"

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
	docker, err := p.host.Exists(dockerSocket)
	if err != nil {
		return nil, err
	}
	if docker {
		changes = append(changes, finding("ContainerRuntime", "Docker at "+dockerSocket,
			"containerd alone: where Docker has switched forwarding on it drops what is not its own, pods' traffic too; remove it, or iptables -P FORWARD ACCEPT at boot"))
	}
	return changes, nil
}

// leftovers names what an earlier cluster left on a host that is no member of one. `kubeadm
// reset` leaves the network; where nobody ran it, there is more.
func (p preflight) leftovers(context.Context) ([]step.Change, error) {
	member, err := p.host.Exists(KubeletConf)
	if err != nil || member {
		return nil, err
	}
	changes, err := p.artifacts()
	if err != nil {
		return nil, fmt.Errorf("look for leftovers: %w", err)
	}
	for _, dir := range []string{cniConfDir, "/var/lib/cni/networks"} {
		entries, err := p.host.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("look for leftovers: %w", err)
		}
		for _, e := range entries {
			path := dir + "/" + e.Name()
			if path == bridgeConfig || strings.HasPrefix(e.Name(), ".") { // the package kubernetes-cni has one of those
				continue
			}
			changes = append(changes, finding("Leftovers", path, "nothing of an earlier cluster, unless you put it there: rm -r "+path))
		}
	}
	for _, link := range podLinks {
		there, err := p.host.Exists("/sys/class/net/" + link)
		if err != nil {
			return nil, fmt.Errorf("look for leftovers: %w", err)
		}
		if there {
			changes = append(changes, finding("Leftovers", "network interface "+link, "nothing of an earlier cluster: ip link delete "+link))
		}
	}
	return changes, nil
}

// podLinks are interfaces that pod networks and kube-proxy make: bridge, flannel, kube-proxy's
// ipvs, calico, cilium, node-local DNS.
var podLinks = []string{"cni0", "flannel.1", "kube-ipvs0", "vxlan.calico", "cilium_host", "cilium_vxlan", "nodelocaldns"}

// initFiles are what `kubeadm init` leaves on the disk, the PKI aside, which users may have
// brought; the list is kubeadm's own, in the order of its phases.
var initFiles = []string{
	AdminConf, KubeletConf,
	"/etc/kubernetes/controller-manager.conf", "/etc/kubernetes/scheduler.conf",
	ManifestDir + "/kube-apiserver.yaml", ManifestDir + "/kube-controller-manager.yaml",
	ManifestDir + "/kube-scheduler.yaml", ManifestDir + "/etcd.yaml",
}

// artifacts are kubeadm's own, by the names that it gives these checks. They are findings: what
// to do with a control plane that is half done is for the steps kubeadm/* to say.
func (p preflight) artifacts() ([]step.Change, error) {
	var changes []step.Change
	for _, path := range append(slices.Clone(initFiles), "/etc/kubernetes/bootstrap-kubelet.conf") {
		there, err := p.host.Exists(path)
		if err != nil {
			return nil, err
		}
		if there {
			changes = append(changes, finding("FileAvailable-"+strings.ReplaceAll(path, "/", "-"), path+" is there",
				"nothing of an earlier cluster: kubeadm reset -f, if that cluster is gone"))
		}
	}
	entries, err := p.host.ReadDir(etcdDataDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if len(entries) > 0 && p.role != Etcd {
		changes = append(changes, finding("DirAvailable-"+strings.ReplaceAll(etcdDataDir, "/", "-"), etcdDataDir+" is not empty",
			"no data of an earlier cluster: move it away, or restore it if it is the last copy"))
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
