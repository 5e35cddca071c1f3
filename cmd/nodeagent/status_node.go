package main

import (
	"github.com/nodeagent/nodeagent/pkg/agent"
	"github.com/nodeagent/nodeagent/pkg/bootstrap"
	"github.com/nodeagent/nodeagent/pkg/kube"
)

// addNode adds the node, its units and its static pods. What is not as it should be is a problem
// once the host is made; before, it is how things stand, and the steps say more.
func (m *machine) addNode(s *agent.Status, l look, f *findings) {
	if !made(s) {
		f = &findings{}
	}
	if l.member {
		addKubernetes(s, m.nodeName(), l, f)
	}
	for _, u := range l.units {
		addUnit(s, u, f)
	}
	// An agent that runs without its unit, from a checkout, is not in systemd's hands.
	if l.agent.err == nil && l.agent.state.LoadState != "not-found" {
		addUnit(s, l.agent, f)
	}
	if m.cfg.Role == bootstrap.Etcd {
		return
	}
	if l.podsErr != nil {
		f.wrong("systemctl status containerd", "containerd does not say which pods it has: %v", l.podsErr)
	}
	pods, err := kube.StaticPods(m.host, bootstrap.ManifestDir, m.nodeName(), l.pods, l.podsErr == nil)
	if err != nil {
		f.wrong("ls -la "+bootstrap.ManifestDir, "%v", err)
	}
	for _, p := range pods {
		addStaticPod(s, p, f)
	}
}

func addKubernetes(s *agent.Status, name string, l look, f *findings) {
	n := agent.NodeStatus{Name: name, Known: l.nodeErr == nil, Conditions: []agent.ConditionStatus{}}
	s.Node = &n
	if !n.Known {
		n.Error = l.nodeErr.Error()
		f.wrong("crictl ps -a; journalctl -u kubelet", "the API does not say how the node is: %v", l.nodeErr)
		return
	}
	n.KubeletVersion, n.Ready, n.Unschedulable = l.node.KubeletVersion, l.node.Ready().True(), l.node.Unschedulable
	for _, c := range l.node.Wrong() {
		n.Conditions = append(n.Conditions, agent.ConditionStatus(c))
		f.wrong("journalctl -u kubelet", "condition %s of node %s is %s: %s: %s", c.Type, name, c.Status, c.Reason, c.Message)
	}
	if n.Unschedulable {
		f.warn("kubectl uncordon "+name, "node %s takes no new pods", name)
	}
}

func addUnit(s *agent.Status, u unitSeen, f *findings) {
	unit := agent.UnitStatus{
		Unit: u.name, LoadState: u.state.LoadState, ActiveState: u.state.ActiveState, SubState: u.state.SubState,
		UnitFileState: u.state.UnitFileState, Since: u.state.StateChangeTimestamp,
	}
	if u.err != nil {
		unit.Error = u.err.Error()
	}
	s.Units = append(s.Units, unit)
	switch {
	case u.err != nil:
		f.wrong("systemctl status "+u.name, "%v", u.err)
	case unit.LoadState != "loaded":
		f.wrong("systemctl status "+u.name, "unit %s is %s", u.name, unit.LoadState)
	case !u.state.Active():
		f.wrong("journalctl -u "+u.name, "unit %s is %s", u.name, unit)
	case !u.state.Enabled():
		f.warn("systemctl enable "+u.name, "unit %s is not started at the next boot: it is %s", u.name, unit.UnitFileState)
	}
}

func addStaticPod(s *agent.Status, p kube.StaticPod, f *findings) {
	pod := agent.StaticPodStatus(p)
	s.StaticPods = append(s.StaticPods, pod)
	switch {
	case pod.Good() || p.State == kube.PodUnknown: // that containerd does not answer is told once
	case p.State == kube.PodBroken:
		f.wrong("journalctl -u kubelet", "static pod %s: the kubelet cannot read %s", p.Name, p.Manifest)
	case p.Manifest == "":
		f.wrong("journalctl -u kubelet", "static pod %s runs, and there is no manifest of it", p.Name)
	case p.Container != "":
		f.wrong("crictl logs "+p.Container[:min(len(p.Container), shownID)], "static pod %s: its container is %s, after %s", p.Name, p.State, count(p.Restarts, "restart"))
	default:
		f.wrong("journalctl -u kubelet", "static pod %s does not run: there is no container of it", p.Name)
	}
}

// shownID is how much of a container's id crictl itself shows, and takes.
const shownID = 13
