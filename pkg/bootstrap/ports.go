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
		10250: "kubelet", 10257: "kube-controller", 10259: "kube-scheduler",
	},
	Worker: {10250: "kubelet"},
	Etcd:   {2379: "etcd", 2380: "etcd"},
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
	for port, ours := range rolePorts[p.role] {
		inode, taken := listeners[port]
		if !taken {
			continue
		}
		holder, err := p.socketHolder(inode)
		if err != nil {
			return nil, err
		}
		if holder != ours {
			changes = append(changes, step.Change{
				Subject: fmt.Sprintf("Port-%d", port), Have: "in use by " + holder, Want: "free for " + ours,
			})
		}
	}
	slices.SortFunc(changes, func(a, b step.Change) int { return strings.Compare(a.Subject, b.Subject) })
	return changes, nil
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
