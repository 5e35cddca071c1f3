package metrics

import "github.com/prometheus/client_golang/prometheus"

// nodeMetrics are what the last look at the node has found.
type nodeMetrics struct {
	ready, known           *prometheus.GaugeVec // without labels: there once there is something to say
	unitState, unitEnabled *prometheus.GaugeVec
	info                   *prometheus.GaugeVec
}

func newNodeMetrics(f factory) nodeMetrics {
	return nodeMetrics{
		ready:       f.vec("node_ready", "1 when the API said at the last look, a minute ago at most, that this node is Ready; else 0, also when it did not answer. Absent on a host that is to be no node."),
		known:       f.vec("node_status_known", "1 when the API answered about this node at the last look, 0 when it did not: node_ready is then 0 for want of an answer."),
		unitState:   f.vec("unit_state", "1 for the state that systemd has the unit in, 0 for the others; all are 0 while systemd does not answer.", "unit", "state"),
		unitEnabled: f.vec("unit_enabled", "1 when the unit is started at boot, else 0.", "unit"),
		info:        f.vec("node_info", "1, with what the node runs in its labels; empty is not known yet. The kubelet's version is the one that it has registered with the API, containerd's is the running one's, kubeadm's the installed one's.", "kubelet", "containerd", "kubeadm", "os", "kernel"),
	}
}

// NodeKnown reports what the API said of the node; known is false when it did not answer. It is
// 0 and not absent then, so that one alert on it sees a node that nobody can ask for too. A host
// that is to be no node never reports.
func (m *Metrics) NodeKnown(known, ready bool) {
	m.node.known.WithLabelValues().Set(number(known))
	m.node.ready.WithLabelValues().Set(number(known && ready))
}

// unitStates are systemd's words, as node_exporter has them: a unit that is reloading is active.
func unitStates() []string {
	return []string{"active", "activating", "deactivating", "failed", "inactive"}
}

// Unit reports a unit's ActiveState, "" when it is not known, and whether it starts at boot.
func (m *Metrics) Unit(name, state string, enabled bool) {
	if state == "reloading" || state == "refreshing" {
		state = "active"
	}
	for _, s := range unitStates() {
		m.node.unitState.WithLabelValues(name, s).Set(number(s == state))
	}
	m.node.unitEnabled.WithLabelValues(name).Set(number(enabled))
}

// UnitGone removes the series of a unit that this host no longer needs.
func (m *Metrics) UnitGone(name string) {
	labels := prometheus.Labels{"unit": name}
	m.node.unitState.DeletePartialMatch(labels)
	m.node.unitEnabled.DeletePartialMatch(labels)
}

// Versions are what a node runs; what is not known is "".
type Versions struct{ Kubelet, Containerd, Kubeadm, OS, Kernel string }

func (v Versions) labels() []string {
	return []string{v.Kubelet, v.Containerd, v.Kubeadm, v.OS, v.Kernel}
}

// NodeVersions reports what the node runs, in place of what was reported before.
func (m *Metrics) NodeVersions(v Versions) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.versions != nil && *m.versions == v {
		return
	}
	m.node.info.WithLabelValues(v.labels()...).Set(1)
	if m.versions != nil { // last: a scrape in between sees two, never none
		m.node.info.DeleteLabelValues(m.versions.labels()...)
	}
	m.versions = &v
}
