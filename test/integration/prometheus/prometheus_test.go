//go:build integration

// Package prometheus_test holds the alerting rules and the agent's page against the real
// promtool, Prometheus and node_exporter, which are Debian's.
package prometheus_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/test/lab"
)

const (
	checkout  = "../../.."
	rulesFile = checkout + "/deploy/prometheus/nodeagent.rules.yaml"
)

// program is one of Debian's; without it the tests fail.
func program(t *testing.T, name string) string {
	t.Helper()
	dir, err := lab.Prometheus(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "usr", "bin", name)
}

func promtool(t *testing.T, dir, stdin string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program(t, "promtool"), args...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// The rules are valid, and each alert fires when it should and not when it should not.
func TestRules(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "nodeagent.rules.yaml"), read(t, rulesFile))
	if out, err := promtool(t, dir, "", "check", "rules", "--lint-fatal", "nodeagent.rules.yaml"); err != nil {
		t.Errorf("check rules: %v\n%s", err, out)
	}
	files, err := filepath.Glob("testdata/alerts-*.yaml")
	if err != nil || len(files) != 2 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		write(t, filepath.Join(dir, filepath.Base(file)), read(t, file))
		if out, err := promtool(t, dir, "", "test", "rules", filepath.Base(file)); err != nil {
			t.Errorf("test rules: %v\n%s", err, out)
		}
	}
	// A rule that never fires is found.
	write(t, filepath.Join(dir, "nodeagent.rules.yaml"), strings.ReplaceAll(read(t, rulesFile), "28 * 86400", "21 * 86400"))
	if out, err := promtool(t, dir, "", "test", "rules", "alerts-days.yaml"); err == nil {
		t.Errorf("with a wrong limit the tests pass:\n%s", out)
	}
}

// The page with every metric of the agent is one that Prometheus's own linter has nothing against.
func TestPage(t *testing.T) {
	page := read(t, checkout+"/pkg/metrics/testdata/page.prom")
	if out, err := promtool(t, "", page, "check", "metrics"); err != nil || out != "" {
		t.Errorf("check metrics: %v\n%s", err, out)
	}
	if out, err := promtool(t, "", page+"# TYPE nodeagent_someMillis gauge\nnodeagent_someMillis 1\n", "check", "metrics"); err == nil {
		t.Errorf("the linter takes anything:\n%s", out)
	}
}
