package generate

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nodeagent/nodeagent/pkg/metrics"
)

type metric struct {
	name, kind, help string
	labels           []string
}

// metricList is what the registry exports once every kind of report has been made. A metric
// that the reports below do not bring out is an error.
func metricList() ([]metric, error) {
	m := metrics.New("", "")
	m.Step("step", true, 0, 0, 0, time.Time{})
	m.DriftCorrected("step")
	m.DriftFlapping("step", 0)
	m.JobKnown("job", time.Time{}, time.Time{})
	m.JobNext("job", time.Time{})
	m.JobDue("job", time.Time{})
	m.Certificates([]metrics.Certificate{{}}, []string{""})
	m.Snapshots("store", 0, metrics.Snapshot{})
	m.Drills("store", metrics.Drill{})
	m.Uploads("store", []string{"reason"}, metrics.Upload{})
	m.DrillResults([]string{"reason"}, nil)
	m.StepApplied("step", true, 0)
	m.Bootstrapped(false, time.Time{})
	m.Unit("unit", "", false)
	m.NodeKnown(false, false)
	m.NodeVersions(metrics.Versions{})
	m.ConfigLoaded(true, false, time.Time{})

	families, err := m.Registry.Gather()
	if err != nil {
		return nil, err
	}
	var list []metric
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "nodeagent_") {
			continue // Go's and the process's, which every exporter has
		}
		one := metric{name: f.GetName(), kind: strings.ToLower(f.GetType().String()), help: f.GetHelp()}
		for _, label := range f.GetMetric()[0].GetLabel() {
			one.labels = append(one.labels, label.GetName())
		}
		list = append(list, one)
	}
	slices.SortFunc(list, func(a, b metric) int { return cmp.Compare(a.name, b.name) })
	return list, complete(m.Registry, list)
}

// complete holds the list against everything that is registered.
func complete(registry *prometheus.Registry, list []metric) error {
	descriptions := make(chan *prometheus.Desc)
	go func() {
		registry.Describe(descriptions)
		close(descriptions)
	}()
	var err error
	for d := range descriptions {
		// A description says its name in its String alone.
		_, rest, _ := strings.Cut(d.String(), `fqName: "`)
		name, _, _ := strings.Cut(rest, `"`)
		known := slices.ContainsFunc(list, func(m metric) bool { return m.name == name })
		if strings.HasPrefix(name, "nodeagent_") && !known {
			err = fmt.Errorf("%s is registered and was not brought out", name)
		}
	}
	return err
}

const metricsIntro = `# Metrics

` + "`metrics.listen`" + ` (127.0.0.1:10980) serves ` + "`/metrics`" + `. Times are unix seconds in gauges called
` + "`_timestamp_seconds`" + `; 0 is never. Certificates carry the path of their file and, in a kubeconfig, the
user. Beside these there are the usual ` + "`go_`, `process_` and `promhttp_`" + ` metrics.

| Metric | Type | Labels | Meaning |
|---|---|---|---|
`

func metricsMarkdown(list []metric) string {
	var b strings.Builder
	b.WriteString(header + metricsIntro)
	for _, m := range list {
		labels := strings.Join(m.labels, ", ")
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.name, m.kind, labels, cell(m.help))
	}
	return b.String()
}
