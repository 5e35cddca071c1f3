package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// uploadMetrics are what becomes of the snapshots that go to stores which are not on this host.
type uploadMetrics struct {
	attempt, success      *prometheus.GaugeVec
	objects, bytes, since *prometheus.GaugeVec
	results               *prometheus.CounterVec
}

func newUploadMetrics(f factory) uploadMetrics {
	return uploadMetrics{
		attempt: f.vec("etcd_snapshot_upload_attempt_timestamp_seconds", "When an upload to the store was last tried, or the store was last asked; 0 before.", "store"),
		success: f.vec("etcd_snapshot_upload_success_timestamp_seconds", "When an upload to the store last left nothing to upload; 0 before.", "store"),
		objects: f.vec("etcd_snapshot_spool_snapshots", "Verified etcd snapshots on this host that wait to be uploaded to the store.", "store"),
		bytes:   f.vec("etcd_snapshot_spool_bytes", "How much of this host's disk they take.", "store"),
		since:   f.vec("etcd_snapshot_spool_oldest_timestamp_seconds", "When the oldest of them was taken; 0 where none waits.", "store"),
		results: f.counters("etcd_snapshot_upload_results_total", "Uploads by how they ended, by hand too: uploaded is the good end.", "store", "reason"),
	}
}

// Upload is what is known of the way to a store that is not on this host.
type Upload struct {
	Attempt, Success time.Time
	Waiting          int
	Bytes            int64
	Oldest           time.Time
	Results          map[string]int // since the host was made, by reason
}

// Uploads reports what is known of the way to a store. It makes the series of all reasons.
func (m *Metrics) Uploads(store string, reasons []string, u Upload) {
	m.uploads.attempt.WithLabelValues(store).Set(seconds(u.Attempt))
	m.uploads.success.WithLabelValues(store).Set(seconds(u.Success))
	m.uploads.objects.WithLabelValues(store).Set(float64(u.Waiting))
	m.uploads.bytes.WithLabelValues(store).Set(float64(u.Bytes))
	m.uploads.since.WithLabelValues(store).Set(seconds(u.Oldest))
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.uploaded == nil {
		m.uploaded = map[[2]string]int{}
	}
	for _, reason := range reasons {
		c := m.uploads.results.WithLabelValues(store, reason)
		key := [2]string{store, reason}
		if more := u.Results[reason] - m.uploaded[key]; more > 0 { // fewer: the state was begun anew
			c.Add(float64(more))
		}
		m.uploaded[key] = u.Results[reason]
	}
}
