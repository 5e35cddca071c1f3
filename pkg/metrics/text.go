package metrics

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/prometheus/common/expfmt"
)

// Text is the agent's own metrics in Prometheus's text format, for node_exporter's textfile
// collector. Those of the Go runtime and the process are left out: node_exporter has the same
// names, and a metric that is there twice spoils its whole page.
func (m *Metrics) Text() ([]byte, error) {
	families, err := m.Registry.Gather()
	if err != nil {
		return nil, fmt.Errorf("gather metrics: %w", err)
	}
	var out bytes.Buffer
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "nodeagent_") {
			continue
		}
		if _, err := expfmt.MetricFamilyToText(&out, f); err != nil {
			return nil, fmt.Errorf("write metrics: %w", err)
		}
	}
	return out.Bytes(), nil
}
