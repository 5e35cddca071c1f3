package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/step"
)

// rolePorts are the TCP ports that a role's components listen on, and the names under which
// the kernel knows those components (comm: 15 characters).
var rolePorts = map[Role]map[uint16]string{
	ControlPlane: {
		6443: "kube-apiserver", 2379: "etcd", 2380: "etcd",
		10250: "kubelet", 10256: "kube-proxy", 10257: "kube-controller", 10259: "kube-scheduler",
	},
	Worker: {10250: "kubelet", 10256: "kube-proxy"},
	Etcd:   {2379: "etcd", 2380: "etcd"},
}

// defaultAPIPort is where the API server listens unless localAPIEndpoint says otherwise.
const defaultAPIPort = 6443

// loopbackPorts are those of the role's that nothing reaches from elsewhere.
var loopbackPorts = []uint16{10257, 10259}

// staticPods are the manifests of what on a control plane runs as a static pod, by its comm. A
// service of the same name is somebody else's: Debian has an etcd of its own.
var staticPods = map[string]string{
	"kube-apiserver": "kube-apiserver.yaml", "etcd": "etcd.yaml",
	"kube-controller": "kube-controller-manager.yaml", "kube-scheduler": "kube-scheduler.yaml",
}

// rolePorts are those of the role, the API server's where it is to listen.
func (p preflight) rolePorts() map[uint16]string {
	ports := maps.Clone(rolePorts[p.role])
	if p.role == ControlPlane && p.APIPort != 0 && p.APIPort != defaultAPIPort {
		ports[p.APIPort] = ports[defaultAPIPort]
		delete(ports, defaultAPIPort)
	}
	return ports
}

// tcpListen is the state LISTEN in /proc/net/tcp.
const tcpListen = "0A"

// ports wants the role's ports free, or held by the component they are for.
func (p preflight) ports(context.Context) ([]step.Change, error) {
	listeners := map[uint16]string{} // port → inode of the socket
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		data, err := p.host.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, fmt.Errorf("read listeners: %w", err)
		}
		maps.Copy(listeners, parseListeners(string(data)))
	}
	var changes []step.Change
	for port, ours := range p.rolePorts() {
		inode, taken := listeners[port]
		if !taken {
			continue
		}
		holder, err := p.socketHolder(inode)
		if err != nil {
			return nil, err
		}
		mine, err := p.component(ours)
		if err != nil {
			return nil, err
		}
		if ours == "kube-proxy" {
			// kubeadm does not ask for this one, and there are others in kube-proxy's place.
			if holder != ours && holder != "cilium-agent" {
				changes = append(changes, finding(fmt.Sprintf("Port-%d", port), "in use by "+holder, "free for kube-proxy's health check"))
			}
			continue
		}
		if holder != ours || !mine {
			changes = append(changes, stop(fmt.Sprintf("Port-%d", port), "in use by "+holder,
				fmt.Sprintf("free for %s: stop what listens there (ss -ltnp sport = :%d)", ours, port)))
		}
	}
	slices.SortFunc(changes, func(a, b step.Change) int { return strings.Compare(a.Subject, b.Subject) })
	return changes, nil
}

// component says whether a process of that name can be the cluster's.
func (p preflight) component(comm string) (bool, error) {
	manifest, static := staticPods[comm]
	if p.role != ControlPlane || !static {
		return true, nil
	}
	return p.host.Exists(ManifestDir + "/" + manifest)
}

// parseListeners reads /proc/net/tcp or tcp6: the listening ports and their sockets' inodes.
// Lines that are not a socket's are passed over.
func parseListeners(data string) map[uint16]string {
	out := map[uint16]string{}
	for line := range strings.Lines(data) {
		f := strings.Fields(line)
		if len(f) < 10 || f[3] != tcpListen {
			continue
		}
		_, hex, ok := strings.Cut(f[1], ":")
		port, err := strconv.ParseUint(hex, 16, 16)
		if ok && err == nil {
			out[uint16(port)] = f[9]
		}
	}
	return out
}

// socketHolder is the name of a process that has the socket open. Processes come and go while
// it looks: what vanishes is passed over.
func (p preflight) socketHolder(inode string) (string, error) {
	processes, err := p.host.ReadDir("/proc")
	if err != nil {
		return "", fmt.Errorf("find the holder of a socket: %w", err)
	}
	for _, process := range processes {
		if _, err := strconv.Atoi(process.Name()); err != nil {
			continue
		}
		dir := "/proc/" + process.Name()
		fds, err := p.host.ReadDir(dir + "/fd")
		if err != nil {
			continue
		}
		for _, fd := range fds {
			if link, err := p.host.Readlink(dir + "/fd/" + fd.Name()); err != nil || link != "socket:["+inode+"]" {
				continue
			}
			comm, err := p.host.ReadFile(dir + "/comm")
			if err != nil {
				break
			}
			return strings.TrimSpace(string(comm)), nil
		}
	}
	return "another process", nil
}
