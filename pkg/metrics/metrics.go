// Package metrics is the registry and every metric of the agent; node.go has those of the node. It holds no
// package state: whoever runs steps, jobs or scans reports to a *Metrics that it was given.
package metrics

import (
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Metrics is everything the agent exports. Times are unix seconds in gauges called
// _timestamp_seconds: how long ago is the reader's arithmetic, and a value that is always
// changing compresses badly.
type Metrics struct {
	Registry *prometheus.Registry

	stepClean    *prometheus.GaugeVec
	stepChanges  *prometheus.GaugeVec
	stepFindings *prometheus.GaugeVec
	stepDuration *prometheus.GaugeVec
	stepLastRun  *prometheus.GaugeVec
	stepApply    *prometheus.GaugeVec
	stepApplies  *prometheus.CounterVec

	jobRuns        *prometheus.CounterVec
	jobLastRun     *prometheus.GaugeVec
	jobLastSuccess *prometheus.GaugeVec
	jobNextRun     *prometheus.GaugeVec
	jobDue         *prometheus.GaugeVec
	jobDuration    *prometheus.GaugeVec

	certNotAfter   *prometheus.GaugeVec
	certNotBefore  *prometheus.GaugeVec
	certUnreadable *prometheus.GaugeVec

	snapshotTime     *prometheus.GaugeVec
	snapshotDue      *prometheus.GaugeVec
	snapshotSize     *prometheus.GaugeVec
	snapshotRevision *prometheus.GaugeVec
	snapshotKeys     *prometheus.GaugeVec
	snapshotsStored  *prometheus.GaugeVec

	snapshotEncrypted *prometheus.GaugeVec
	snapshotInterval  prometheus.Gauge
	snapshotRequired  prometheus.Gauge
	snapshotOffHost   prometheus.Gauge
	snapshotPlaintext prometheus.Gauge

	uploads uploadMetrics

	drillTime    *prometheus.GaugeVec
	drillTook    *prometheus.GaugeVec
	drillRestore *prometheus.GaugeVec
	drillResults *prometheus.CounterVec

	driftCorrections *prometheus.CounterVec
	driftFlapping    *prometheus.GaugeVec

	node nodeMetrics

	bootstrapComplete prometheus.Gauge
	bootstrapTime     prometheus.Gauge
	stateWritten      prometheus.Gauge
	configLoaded      prometheus.Gauge
	configReloadOK    prometheus.Gauge
	configReloadTime  prometheus.Gauge

	mu        sync.Mutex
	certFiles map[[3]string]bool // the path, user and kind of what the last scan found
	certBad   map[string]bool
	versions  *Versions         // that are exported
	stores    map[string]bool   // of which there are series
	drills    map[string]int    // the results that are counted already, by reason
	uploaded  map[[2]string]int // likewise, by store and reason
}

// New makes the registry and all metrics. version and revision name the build.
func New(version, revision string) *Metrics {
	r := prometheus.NewRegistry()
	f := factory{r}
	m := &Metrics{
		Registry: r,
		stores:   map[string]bool{},

		stepClean:    f.vec("step_clean", "1 when the step's last check found nothing to change, else 0.", "step"),
		stepChanges:  f.vec("step_changes", "Differences that apply is for, found by the step's last check.", "step"),
		stepFindings: f.vec("step_findings", "Differences that only a person can mend, found by the step's last check.", "step"),
		stepDuration: f.vec("step_duration_seconds", "How long the step's last check, or check and apply, took.", "step"),
		stepLastRun:  f.vec("step_last_run_timestamp_seconds", "When the step was last checked.", "step"),
		stepApply:    f.vec("step_apply_duration_seconds", "How long the step's last apply, or its wait where it only waits, took without its checks; absent for a step that was never applied.", "step"),
		stepApplies:  f.counters("step_applies_total", "Applies of the step by the daemon, by result. What differs afterwards has failed.", "step", "result"),

		// Not "job": that label is Prometheus's own, and a scrape renames ours.
		jobRuns:        f.counters("job_runs_total", "Runs of the job, by result.", "job_name", "result"),
		jobLastRun:     f.vec("job_last_run_timestamp_seconds", "When the job last ended, whatever its result; 0 before.", "job_name"),
		jobLastSuccess: f.vec("job_last_success_timestamp_seconds", "When the job last ended well; 0 before.", "job_name"),
		jobNextRun:     f.vec("job_next_run_timestamp_seconds", "When the job is due next, which after a failure is soon.", "job_name"),
		jobDue:         f.vec("job_due_timestamp_seconds", "When the job is due after its last success, however often it failed since; 0 before the first.", "job_name"),
		jobDuration:    f.vec("job_duration_seconds", "How long the job's last run took.", "job_name"),

		certNotAfter:   f.vec("certificate_not_after_timestamp_seconds", "When the certificate expires; of a file with several, the first to expire.", "path", "user", "kind"),
		certNotBefore:  f.vec("certificate_not_before_timestamp_seconds", "When the certificate that expires first begins to be valid.", "path", "user", "kind"),
		certUnreadable: f.vec("certificate_unreadable", "1 for a file that should hold certificates and cannot be read or parsed, or that is gone although a kubeconfig, a static pod or the kubelet's configuration names it.", "path"),

		snapshotTime:      f.vec("etcd_snapshot_last_success_timestamp_seconds", "When the newest verified etcd snapshot in the store was taken; 0 when there is none.", "store"),
		snapshotDue:       f.vec("etcd_snapshot_due_timestamp_seconds", "When, by the schedule, the store is to have a newer verified etcd snapshot than it has; 0 when there is none.", "store"),
		snapshotSize:      f.vec("etcd_snapshot_size_bytes", "Size of the newest verified etcd snapshot in the store.", "store"),
		snapshotRevision:  f.vec("etcd_snapshot_revision", "etcd revision of the newest verified snapshot in the store.", "store"),
		snapshotKeys:      f.vec("etcd_snapshot_keys", "Keys in the newest verified snapshot in the store.", "store"),
		snapshotEncrypted: f.vec("etcd_snapshot_encrypted", "1 when the newest verified etcd snapshot in the store is encrypted, 0 when it is not or there is none.", "store"),
		snapshotInterval:  f.gauge("etcd_snapshot_interval_seconds", "Time between the next two etcd snapshots by the schedule; 0 where this host has none to take."),
		snapshotRequired:  f.gauge("etcd_snapshot_required", "1 when this host has an etcd to take snapshots of, 0 on workers and where etcd is on other hosts."),
		snapshotOffHost:   f.gauge("etcd_snapshot_off_host", "1 when a store of etcd snapshots is not on this host, 0 when all are."),
		snapshotPlaintext: f.gauge("etcd_snapshot_plaintext_allowed", "1 when a store of etcd snapshots that is not on this host may get unencrypted ones (allowPlaintext), else 0."),
		uploads:           newUploadMetrics(f),
		snapshotsStored:   f.vec("etcd_snapshots", "Verified etcd snapshots in the store.", "store"),

		drillTime:    f.vec("etcd_snapshot_proven_timestamp_seconds", "When a drill last proved a snapshot in the store, by its proof: \"restored\" to an etcd that served it, or only the \"object\" of an encrypted one by its hash; 0 before.", "store", "proven"),
		drillTook:    f.vec("etcd_drill_duration_seconds", "How long the store's last drill that ended in a proof took; 0 before.", "store"),
		drillRestore: f.vec("etcd_drill_restore_duration_seconds", "How long the last restore took of a drill, from the plain snapshot on disk to an etcd that serves it; 0 before.", "store"),
		drillResults: f.counters("etcd_drill_results_total", "Drills by how they ended, by hand too: restored and object are the good ends.", "reason"),

		driftCorrections: f.counters("drift_corrections_total", "Differences that drift has mended.", "step"),
		driftFlapping:    f.vec("drift_flapping", "Differences that keep coming back and are left alone.", "step"),

		bootstrapComplete: f.gauge("bootstrap_complete", "0 while the agent has this host to bootstrap, 1 once that is done or was done by somebody else."),
		node:              newNodeMetrics(f),

		bootstrapTime:    f.gauge("bootstrap_complete_timestamp_seconds", "When the bootstrap was completed, or a person last applied something new to the end; 0 on a host where neither was so."),
		stateWritten:     f.gauge("state_written", "0 when what the agent remembers could not be written at the last try, as on a full disk, and what status tells is old; else 1."),
		configLoaded:     f.gauge("config_loaded", "1 when the agent runs with a configuration, 0 while it idles without one."),
		configReloadOK:   f.gauge("config_last_reload_successful", "1 when the last attempt to load the configuration succeeded, else 0."),
		configReloadTime: f.gauge("config_last_reload_success_timestamp_seconds", "When the configuration was last loaded."),
	}
	m.StateWritten(true) // nothing was tried yet
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	f.vec("build_info", "1, with the build in its labels.", "version", "revision", "goversion").
		WithLabelValues(version, revision, runtime.Version()).Set(1)
	return m
}

type factory struct{ registry *prometheus.Registry }

func (f factory) vec(name, help string, labels ...string) *prometheus.GaugeVec {
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "nodeagent", Name: name, Help: help}, labels)
	f.registry.MustRegister(v)
	return v
}

func (f factory) counters(name, help string, labels ...string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "nodeagent", Name: name, Help: help}, labels)
	f.registry.MustRegister(v)
	return v
}

func (f factory) gauge(name, help string) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "nodeagent", Name: name, Help: help})
	f.registry.MustRegister(g)
	return g
}

// Step reports the end of a step's check, or of its check and apply.
func (m *Metrics) Step(name string, clean bool, changes, findings int, took time.Duration, at time.Time) {
	m.stepClean.WithLabelValues(name).Set(number(clean))
	m.stepChanges.WithLabelValues(name).Set(float64(changes))
	m.stepFindings.WithLabelValues(name).Set(float64(findings))
	m.stepDuration.WithLabelValues(name).Set(took.Seconds())
	m.stepLastRun.WithLabelValues(name).Set(seconds(at))
}

// StepKnown makes the series of a step that can be applied. took is how long its last apply took,
// as remembered from before the agent's start; 0 when it is not known.
func (m *Metrics) StepKnown(name string, took time.Duration) {
	m.stepApplies.WithLabelValues(name, "success")
	m.stepApplies.WithLabelValues(name, "failure")
	if took > 0 {
		m.stepApply.WithLabelValues(name).Set(took.Seconds())
	}
}

// StepApplied reports the end of a step's apply. ok says that nothing differs any more.
func (m *Metrics) StepApplied(name string, ok bool, took time.Duration) {
	m.stepApply.WithLabelValues(name).Set(took.Seconds())
	m.stepApplies.WithLabelValues(name, result(ok)).Inc()
}

// DriftCorrected reports that drift has mended a difference of a step.
func (m *Metrics) DriftCorrected(stepName string) { m.driftCorrections.WithLabelValues(stepName).Inc() }

// DriftFlapping reports how many differences of a step are left alone, since they come back.
func (m *Metrics) DriftFlapping(stepName string, n int) {
	m.driftCorrections.WithLabelValues(stepName)
	m.driftFlapping.WithLabelValues(stepName).Set(float64(n))
}

// JobKnown makes the series of a job, with what is known of it from before the agent's start.
func (m *Metrics) JobKnown(name string, lastRun, lastSuccess time.Time) {
	m.jobRuns.WithLabelValues(name, "success")
	m.jobRuns.WithLabelValues(name, "failure")
	m.jobDuration.WithLabelValues(name)
	m.jobLastRun.WithLabelValues(name).Set(seconds(lastRun))
	m.jobLastSuccess.WithLabelValues(name).Set(seconds(lastSuccess))
}

// JobGone removes the series of a job that is no longer configured.
func (m *Metrics) JobGone(name string) {
	labels := prometheus.Labels{"job_name": name}
	m.jobRuns.DeletePartialMatch(labels)
	for _, v := range []*prometheus.GaugeVec{m.jobLastRun, m.jobLastSuccess, m.jobNextRun, m.jobDue, m.jobDuration} {
		v.DeletePartialMatch(labels)
	}
}

// JobNext reports when a job is due.
func (m *Metrics) JobNext(name string, at time.Time) {
	m.jobNextRun.WithLabelValues(name).Set(seconds(at))
}

// JobDue reports when a job is due after its last success; the zero time is before the first.
func (m *Metrics) JobDue(name string, at time.Time) {
	m.jobDue.WithLabelValues(name).Set(seconds(at))
}

// JobDone reports the end of a job's run.
func (m *Metrics) JobDone(name string, ok bool, took time.Duration, at time.Time) {
	if ok {
		m.jobLastSuccess.WithLabelValues(name).Set(seconds(at))
	}
	m.jobRuns.WithLabelValues(name, result(ok)).Inc()
	m.jobLastRun.WithLabelValues(name).Set(seconds(at))
	m.jobDuration.WithLabelValues(name).Set(took.Seconds())
}

// Certificate is one row of a scan: the certificate of a file (and of a kubeconfig's user)
// that expires first.
type Certificate struct {
	Path, User, Kind    string
	NotBefore, NotAfter time.Time
}

// Certificates reports a whole scan; what an earlier scan reported and this one does not is
// removed. unreadable are the files that could not be read.
func (m *Metrics) Certificates(list []Certificate, unreadable []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	// New series first, then the stale ones: a scrape in between sees too much, never nothing.
	files, bad := map[[3]string]bool{}, map[string]bool{}
	for _, c := range list {
		files[[3]string{c.Path, c.User, c.Kind}] = true
		m.certNotAfter.WithLabelValues(c.Path, c.User, c.Kind).Set(seconds(c.NotAfter))
		m.certNotBefore.WithLabelValues(c.Path, c.User, c.Kind).Set(seconds(c.NotBefore))
	}
	for _, path := range unreadable {
		bad[path] = true
		m.certUnreadable.WithLabelValues(path).Set(1)
	}
	for k := range m.certFiles {
		if !files[k] {
			m.certNotAfter.DeleteLabelValues(k[:]...)
			m.certNotBefore.DeleteLabelValues(k[:]...)
		}
	}
	for path := range m.certBad {
		if !bad[path] {
			m.certUnreadable.DeleteLabelValues(path)
		}
	}
	m.certFiles, m.certBad = files, bad
}

// Snapshot is what is exported of the newest snapshot in a store.
type Snapshot struct {
	Taken, Due     time.Time // Due is when a newer one is to be there
	Size           int64
	Revision, Keys int64
	Encrypted      bool
}

// Snapshots reports how many verified snapshots a store holds and the newest of them, which
// is the zero Snapshot when there is none.
func (m *Metrics) Snapshots(store string, stored int, newest Snapshot) {
	m.mu.Lock()
	m.stores[store] = true
	m.mu.Unlock()
	m.snapshotsStored.WithLabelValues(store).Set(float64(stored))
	m.snapshotTime.WithLabelValues(store).Set(seconds(newest.Taken))
	m.snapshotDue.WithLabelValues(store).Set(seconds(newest.Due))
	m.snapshotSize.WithLabelValues(store).Set(float64(newest.Size))
	m.snapshotRevision.WithLabelValues(store).Set(float64(newest.Revision))
	m.snapshotKeys.WithLabelValues(store).Set(float64(newest.Keys))
	m.snapshotEncrypted.WithLabelValues(store).Set(number(newest.Encrypted))
}

// SnapshotPolicy reports whether this host has an etcd to take snapshots of, how often that is, and
// whether any of the stores is not on it.
func (m *Metrics) SnapshotPolicy(required bool, interval time.Duration, offHost bool) {
	m.snapshotRequired.Set(number(required))
	m.snapshotInterval.Set(interval.Seconds())
	m.snapshotOffHost.Set(number(offHost))
}

// PlaintextAllowed reports whether a store that is not on this host may get backups that are not
// encrypted.
func (m *Metrics) PlaintextAllowed(allowed bool) { m.snapshotPlaintext.Set(number(allowed)) }

// Stores removes the series of all stores but these: one that is no longer configured is nothing to be
// told of.
func (m *Metrics) Stores(names ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for store := range m.stores {
		if slices.Contains(names, store) {
			continue
		}
		delete(m.stores, store)
		labels := prometheus.Labels{"store": store}
		u := m.uploads
		for _, v := range []*prometheus.GaugeVec{
			m.snapshotsStored, m.snapshotTime, m.snapshotDue, m.snapshotSize, m.snapshotRevision, m.snapshotKeys, m.snapshotEncrypted,
			m.drillTime, m.drillTook, m.drillRestore, u.attempt, u.success, u.objects, u.bytes, u.since,
		} {
			v.DeletePartialMatch(labels)
		}
		u.results.DeletePartialMatch(labels)
		maps.DeleteFunc(m.uploaded, func(of [2]string, _ int) bool { return of[0] == store })
	}
}

// Bootstrapped reports whether this host's bootstrap is complete, and when it was completed: the
// zero time where it is not, or was done by somebody else.
func (m *Metrics) Bootstrapped(complete bool, at time.Time) {
	m.bootstrapComplete.Set(number(complete))
	m.bootstrapTime.Set(seconds(at))
}

// StateWritten reports whether the agent's state could be written.
func (m *Metrics) StateWritten(ok bool) { m.stateWritten.Set(number(ok)) }

// ConfigLoaded reports an attempt to load the configuration. idle is an agent without one.
func (m *Metrics) ConfigLoaded(ok, idle bool, at time.Time) {
	m.configLoaded.Set(number(!idle))
	m.configReloadOK.Set(number(ok))
	if ok {
		m.configReloadTime.Set(seconds(at))
	}
}

func result(ok bool) string {
	if ok {
		return "success"
	}
	return "failure"
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// seconds is unix time, 0 for the zero time.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}
