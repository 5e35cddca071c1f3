package metrics

import "time"

// Drill is what the proofs in a store tell.
type Drill struct {
	Restored, Object time.Time // the newest proof of each kind; zero where there is none
	Took, Restore    float64   // seconds, of the newest proof and the newest restore
}

// Drills reports a store's proofs.
func (m *Metrics) Drills(store string, d Drill) {
	m.drillTime.WithLabelValues(store, "restored").Set(seconds(d.Restored))
	m.drillTime.WithLabelValues(store, "object").Set(seconds(d.Object))
	m.drillTook.WithLabelValues(store).Set(d.Took)
	m.drillRestore.WithLabelValues(store).Set(d.Restore)
}

// DrillResults reports how many drills have ended in which way, since the host was made: what is
// remembered of them, by whatever process. It makes the series of all reasons.
func (m *Metrics) DrillResults(reasons []string, counted map[string]int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.drills == nil {
		m.drills = map[string]int{}
	}
	for _, reason := range reasons {
		c := m.drillResults.WithLabelValues(reason)
		if more := counted[reason] - m.drills[reason]; more > 0 { // fewer: the state was begun anew
			c.Add(float64(more))
		}
		m.drills[reason] = counted[reason]
	}
}
