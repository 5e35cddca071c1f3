// Package prometheus_test holds the alerting rules, their tests and their runbooks against each
// other and against what the agent exports. What promtool says of them is in
// test/integration/prometheus.
package prometheus_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

const (
	rulesFile = "nodeagent.rules.yaml"
	runbooks  = "../../docs/runbooks"
	tests     = "../../test/integration/prometheus/testdata/alerts-*.yaml"
)

// alert is a rule of the file.
type alert struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	For         string            `json:"for"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

func read(t *testing.T, path string, into any) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if into != nil {
		if err := yaml.UnmarshalStrict(data, into); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	return string(data)
}

func alerts(t *testing.T) []alert {
	t.Helper()
	var file struct {
		Groups []struct {
			Name  string  `json:"name"`
			Rules []alert `json:"rules"`
		} `json:"groups"`
	}
	read(t, rulesFile, &file)
	var out []alert
	for _, g := range file.Groups {
		out = append(out, g.Rules...)
	}
	if len(out) < 15 {
		t.Fatalf("%d alerts are not all", len(out))
	}
	return out
}

// Each alert says how bad it is, what is the matter and where its page is, and waits a while.
func TestAlerts(t *testing.T) {
	seen := map[string]bool{}
	for _, a := range alerts(t) {
		if seen[a.Alert] || !strings.HasPrefix(a.Alert, "Nodeagent") {
			t.Errorf("%q is there twice, or is not named after the agent", a.Alert)
		}
		seen[a.Alert] = true
		if s := a.Labels["severity"]; s != "warning" && s != "critical" || len(a.Labels) != 1 {
			t.Errorf("%s: labels %v", a.Alert, a.Labels)
		}
		if want := "https://github.com/nodeagent/nodeagent/blob/main/docs/runbooks/" + a.Alert + ".md"; a.Annotations["runbook_url"] != want {
			t.Errorf("%s: runbook_url %q, want %s", a.Alert, a.Annotations["runbook_url"], want)
		}
		if a.Annotations["summary"] == "" || a.Annotations["description"] == "" || a.For == "" {
			t.Errorf("%s: has no summary, description or for", a.Alert)
		}
	}
}

// Each alert has a page of the same shape, which says its severity, and each page an alert.
func TestRunbooks(t *testing.T) {
	var names []string
	for _, a := range alerts(t) {
		names = append(names, a.Alert+".md")
		page := read(t, filepath.Join(runbooks, a.Alert+".md"), nil)
		at := -1
		for _, part := range []string{"# " + a.Alert + "\n", "Severity: " + a.Labels["severity"] + ".\n", "## What it means\n", "## What is at risk\n", "## How to look\n", "## How to mend\n", "## How to silence\n"} {
			i := strings.Index(page, part)
			if i <= at {
				t.Errorf("%s.md: %q is not there, or not in its place", a.Alert, part)
			}
			at = i
		}
	}
	pages, err := os.ReadDir(runbooks)
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		if !slices.Contains(names, page.Name()) {
			t.Errorf("%s is no alert's page", page.Name())
		}
	}
}

var (
	metricName = regexp.MustCompile(`\b(nodeagent|node|up)(_[a-z_]+)?\b[{ )\[]`)
	inQuotes   = regexp.MustCompile(`"[^"]*"`)
)

// The rules ask for nothing that the agent does not export, nor by labels that it does not give.
func TestMetricsExist(t *testing.T) {
	known := map[string]string{"up": "job, instance", "node_textfile_mtime_seconds": "file"} // Prometheus's and node_exporter's
	row := regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| [a-z]+ \\| ([a-z_, ]*) \\|")
	for _, m := range row.FindAllStringSubmatch(read(t, "../../docs/metrics.md", nil), -1) {
		known[m[1]] = m[2]
	}
	if len(known) < 30 {
		t.Fatalf("docs/metrics.md has %d metrics", len(known))
	}
	selector := regexp.MustCompile(`([a-z_]+)\{([^}]*)\}`)
	matcher := regexp.MustCompile(`([a-z_]+)\s*(=|!=|=~|!~)`)
	for _, a := range alerts(t) {
		found := metricName.FindAllString(inQuotes.ReplaceAllString(a.Expr+" ", `""`), -1)
		if len(found) == 0 {
			t.Errorf("%s asks for nothing", a.Alert)
		}
		for _, name := range found {
			if _, ok := known[name[:len(name)-1]]; !ok {
				t.Errorf("%s: there is no metric %s", a.Alert, name)
			}
		}
		for _, s := range selector.FindAllStringSubmatch(inQuotes.ReplaceAllString(a.Expr, `""`), -1) {
			for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
				if !slices.Contains(strings.Split(known[s[1]], ", "), m[1]) {
					t.Errorf("%s: %s has no label %s", a.Alert, s[1], m[1])
				}
			}
		}
	}
}

// Each alert has a test in which it fires and one in which it does not.
func TestAlertsAreTested(t *testing.T) {
	files, err := filepath.Glob(tests)
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, path := range files {
		var file struct {
			RuleFiles []string `json:"rule_files"`
			Tests     []struct {
				Cases []struct {
					Alert    string           `json:"alertname"`
					Expected []map[string]any `json:"exp_alerts"`
				} `json:"alert_rule_test"`
			} `json:"tests"`
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal(data, &file); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(file.RuleFiles, []string{rulesFile}) {
			t.Errorf("%s tests %q", path, file.RuleFiles)
		}
		for _, test := range file.Tests {
			for _, c := range test.Cases {
				if len(c.Expected) > 0 {
					fires[c.Alert] = true
				} else {
					silent[c.Alert] = true
				}
			}
		}
	}
	for _, a := range alerts(t) {
		if !fires[a.Alert] || !silent[a.Alert] {
			t.Errorf("%s: tested where it fires: %v, where it does not: %v", a.Alert, fires[a.Alert], silent[a.Alert])
		}
		delete(fires, a.Alert)
		delete(silent, a.Alert)
	}
	if len(fires)+len(silent) > 0 {
		t.Errorf("tests of alerts that are not: %v %v", fires, silent)
	}
}
