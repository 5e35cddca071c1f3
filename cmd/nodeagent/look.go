package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nodeagent/nodeagent/pkg/bootstrap"
	"github.com/nodeagent/nodeagent/pkg/kube"
	"github.com/nodeagent/nodeagent/pkg/metrics"
	"github.com/nodeagent/nodeagent/pkg/systemd"
)

// lookTimeout is how long the API, containerd and systemd each have to answer, all at once: who
// asks how the node is sits and waits, most of all when one of them hangs.
const lookTimeout = 3 * time.Second

// look is what the API, containerd and systemd say of this node at one moment. What did not
// answer has its error.
type look struct {
	member  bool // the host belongs to a cluster: what follows of the API was asked for
	node    kube.Node
	nodeErr error

	pods    []kube.Pod
	podsErr error

	units []unitSeen
	agent unitSeen // the agent's own, which may have none
}

// agentUnit is what the package calls the daemon.
const agentUnit = "nodeagent.service"

type unitSeen struct {
	name  string
	state systemd.State
	err   error
}

// lookAround asks them all. It is for a running machine.
func (m *machine) lookAround(ctx context.Context) look {
	ctx, cancel := context.WithTimeoutCause(ctx, lookTimeout, fmt.Errorf("no answer within %s", lookTimeout))
	defer cancel()
	var l look
	var wg sync.WaitGroup
	wg.Go(func() { l.member, l.node, l.nodeErr = m.askNode(ctx) })
	wg.Go(func() { l.units = m.askUnits(ctx) })
	wg.Go(func() {
		l.agent.name = agentUnit
		l.agent.state, l.agent.err = m.unit(ctx, agentUnit)
	})
	if m.cfg.Role != bootstrap.Etcd {
		wg.Go(func() { l.pods, l.podsErr = kube.ListPods(ctx, m.host, bootstrap.ContainerdSocket) })
	}
	wg.Wait()
	return l
}

// askNode asks the API for this host's Node, as the kubelet: every node has its kubeconfig, and
// nobody may read less.
func (m *machine) askNode(ctx context.Context) (member bool, node kube.Node, err error) {
	member, err = m.host.Exists(bootstrap.KubeletConf)
	if err != nil || !member {
		return member, node, err
	}
	client, err := kube.Connect(m.host, bootstrap.KubeletConf)
	if err != nil {
		return true, node, err
	}
	defer client.Close()
	node, err = client.Node(ctx, m.nodeName())
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%s: %w", client.Server(), context.Cause(ctx))
	}
	return true, node, err
}

// askUnits asks for the units that this host lives by.
func (m *machine) askUnits(ctx context.Context) []unitSeen {
	needed, optional := stepsConfig(m.cfg).Units()
	var out []unitSeen
	for i, name := range append(needed, optional...) {
		state, err := m.unit(ctx, name)
		if i >= len(needed) && (err != nil || state.LoadState != "loaded") {
			continue
		}
		out = append(out, unitSeen{name, state, err})
	}
	return out
}

// nodeSeen is what the job "node" remembers from one run to the next.
type nodeSeen struct {
	units    []string
	versions metrics.Versions
	kubeadm  string // size and time of the kubeadm that said its version
}

// lookAtNode is the job "node": what the node, its units and its versions are goes into the
// metrics. An API that does not answer is one of the things that are exported; that systemd does not
// is a failure.
func (s *session) lookAtNode(ctx context.Context) error {
	l := s.machine.lookAround(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if s.machine.cfg.Role != bootstrap.Etcd {
		known := l.member && l.nodeErr == nil
		if !known {
			s.log.Debug("the API does not say how the node is", "member", l.member, "err", l.nodeErr)
		}
		s.daemon.metrics.NodeKnown(known, l.node.Ready().True())
	}
	var errs []error
	var names []string
	for _, u := range l.units {
		s.daemon.metrics.Unit(u.name, u.state.ActiveState, u.state.Enabled())
		names = append(names, u.name)
		errs = append(errs, u.err)
	}
	for _, name := range s.node.units {
		if !slices.Contains(names, name) {
			s.daemon.metrics.UnitGone(name)
		}
	}
	s.node.units = names
	s.lookAtVersions(ctx, l)
	return errors.Join(errs...)
}

// lookAtVersions exports what the node runs. What does not answer now has the version it had: a
// series of its own for each outage would tell nothing.
func (s *session) lookAtVersions(ctx context.Context, l look) {
	v := &s.node.versions
	v.Kubelet = cmp.Or(l.node.KubeletVersion, v.Kubelet)
	if s.machine.cfg.Role != bootstrap.Etcd {
		ctx, cancel := context.WithTimeout(ctx, lookTimeout)
		defer cancel()
		if runtime, err := kube.AskRuntime(ctx, s.host, bootstrap.ContainerdSocket); err == nil {
			v.Containerd = runtime.Version
		}
		s.lookAtKubeadm(ctx)
	}
	if release, err := s.host.ReadFile("/etc/os-release"); err == nil {
		v.OS = prettyName(string(release))
	}
	if kernel, err := s.host.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		v.Kernel = strings.TrimSpace(string(kernel))
	}
	s.daemon.metrics.NodeVersions(*v)
}

// lookAtKubeadm asks the installed kubeadm, once for each that is installed.
func (s *session) lookAtKubeadm(ctx context.Context) {
	path, err := bootstrap.Program(s.host, "kubeadm")
	if errors.Is(err, fs.ErrNotExist) {
		s.node.versions.Kubeadm = ""
	}
	if err != nil {
		return
	}
	info, err := s.host.Stat(path)
	if err != nil {
		return
	}
	which := fmt.Sprint(path, info.Size(), info.ModTime())
	if which == s.node.kubeadm {
		return
	}
	if out, err := s.host.Run(ctx, path, "version", "-o", "short"); err == nil {
		s.node.kubeadm, s.node.versions.Kubeadm = which, strings.TrimSpace(string(out))
	}
}

// prettyName is how /etc/os-release names the system.
func prettyName(release string) string {
	for line := range strings.Lines(release) {
		if name, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
			return strings.Trim(strings.TrimSpace(name), `"'`)
		}
	}
	return ""
}
