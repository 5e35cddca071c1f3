package metrics

import (
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

var update = flag.Bool("update", false, "write the golden files")

var noon = time.Date(2026, 11, 21, 12, 0, 0, 500_000_000, time.UTC)

// populated has every metric of the agent at least once.
func populated() *Metrics {
	m := New("1.2.3", "0123abc")
	m.Step("kernel/swap", true, 0, 0, 1500*time.Millisecond, noon)
	m.Step("kernel/sysctl", false, 2, 1, 20*time.Millisecond, noon)
	m.JobKnown("drift", time.Time{}, time.Time{})
	m.JobKnown("snapshot", noon.Add(-time.Hour), noon.Add(-2*time.Hour))
	m.JobNext("snapshot", noon.Add(time.Hour))
	m.JobDue("snapshot", noon.Add(4*time.Hour))
	m.JobDone("snapshot", true, 3*time.Second, noon)
	m.JobDone("snapshot", false, time.Second, noon.Add(time.Minute))
	m.Certificates([]Certificate{
		{Path: "/etc/kubernetes/admin.conf", User: "kubernetes-admin", Kind: "kubeconfig", NotBefore: noon, NotAfter: noon.AddDate(1, 0, 0)},
		{Path: "/etc/kubernetes/pki/ca.crt", Kind: "ca", NotBefore: noon, NotAfter: noon.AddDate(10, 0, 0)},
	}, []string{"/etc/kubernetes/pki/broken.crt"})
	m.Snapshots("file:/var/lib/nodeagent/backups", 28, Snapshot{Taken: noon, Due: noon.Add(6 * time.Hour), Size: 4096, Revision: 1234, Keys: 56})
	m.Snapshots("file:/empty", 0, Snapshot{})
	m.Drills("file:/var/lib/nodeagent/backups", Drill{Restored: noon, Took: 61.5, Restore: 8.25})
	m.Drills("file:/empty", Drill{})
	m.DrillResults([]string{"restored", "damaged"}, map[string]int{"restored": 2})
	m.DrillResults([]string{"restored", "damaged"}, map[string]int{"restored": 3}) // by another process
	m.Uploads("s3 https://s3.example/bucket", []string{"uploaded", "timeout"}, Upload{
		Attempt: noon, Success: noon.Add(-time.Hour), Waiting: 2, Bytes: 8192, Oldest: noon.Add(-30 * time.Minute), Results: map[string]int{"uploaded": 4, "timeout": 1},
	})
	m.Uploads("s3 https://s3.example/bucket", []string{"uploaded", "timeout"}, Upload{Attempt: noon, Success: noon, Results: map[string]int{"uploaded": 5, "timeout": 1}})
	m.PlaintextAllowed(true)
	m.StepKnown("kernel/swap", 0)
	m.StepKnown("kernel/sysctl", 700*time.Millisecond)
	m.StepApplied("kernel/swap", true, 1200*time.Millisecond)
	m.StepApplied("kernel/swap", false, 1300*time.Millisecond)
	m.Bootstrapped(true, noon)
	m.NodeKnown(true, true)
	m.Unit("kubelet.service", "active", true)
	m.Unit("containerd.service", "reloading", false)
	m.NodeVersions(Versions{"v1.36.2", "2.4.1", "v1.36.2", "Debian GNU/Linux 12 (bookworm)", "6.1.0-1-amd64"})
	m.NodeVersions(Versions{"v1.36.3", "2.4.2", "v1.36.3", "Debian GNU/Linux 12 (bookworm)", "6.1.0-1-amd64"})
	m.ConfigLoaded(true, false, noon)
	return m
}

// ours is the page without what is the runtime's, and with a Go version that does not change.
func ours(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	promhttp.HandlerFor(m.Registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatal(w.Body)
	}
	var out strings.Builder
	for line := range strings.Lines(w.Body.String()) {
		if !strings.HasPrefix(strings.TrimLeft(line, "# HELPTY"), "nodeagent_") {
			continue
		}
		if before, after, ok := strings.Cut(line, `goversion="`); ok {
			line = before + `goversion="` + after[strings.Index(after, `"`):]
		}
		out.WriteString(line)
	}
	return out.String()
}

func TestPage(t *testing.T) {
	got := ours(t, populated())
	golden := filepath.Join("testdata", "page.prom")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(got, "\n") || strings.Count(got, "# HELP nodeagent_") < 20 {
		t.Error("that is not all")
	}
}

func TestLint(t *testing.T) {
	problems, err := promlint.New(strings.NewReader(ours(t, populated()))).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

// The runtime's own metrics are there as well.
func TestRuntime(t *testing.T) {
	for _, name := range []string{"go_goroutines", "process_open_fds"} {
		if n, err := testutil.GatherAndCount(New("", "").Registry, name); err != nil || n != 1 {
			t.Errorf("%s: %d series, %v", name, n, err)
		}
	}
}

// Two of them do not know of each other.
func TestNoPackageState(t *testing.T) {
	a, b := New("", ""), New("", "")
	a.Bootstrapped(true, noon)
	if strings.Contains(ours(t, b), "nodeagent_bootstrap_complete 1") {
		t.Error("one's metrics are the other's")
	}
}

// The series of files that are gone are removed, those of others stay.
func TestVanishedFiles(t *testing.T) {
	m := populated()
	renewed := Certificate{Path: "/etc/kubernetes/pki/ca.crt", Kind: "ca", NotBefore: noon, NotAfter: noon.AddDate(20, 0, 0)}
	mended := Certificate{Path: "/etc/kubernetes/pki/broken.crt", Kind: "pki", NotBefore: noon, NotAfter: noon.AddDate(1, 0, 0)}
	m.Certificates([]Certificate{renewed, mended}, nil)
	page := ours(t, m)
	for _, want := range []string{
		`nodeagent_certificate_not_after_timestamp_seconds{kind="ca",path="/etc/kubernetes/pki/ca.crt",user=""} 2.4264144005e+09`,
		`nodeagent_certificate_not_before_timestamp_seconds{kind="pki",path="/etc/kubernetes/pki/broken.crt",user=""}`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("%s is missing:\n%s", want, page)
		}
	}
	for _, gone := range []string{"admin.conf", "nodeagent_certificate_unreadable{"} {
		if strings.Contains(page, gone) {
			t.Errorf("%s is there still:\n%s", gone, page)
		}
	}
	m.Certificates(nil, nil)
	if page := ours(t, m); strings.Contains(page, "nodeagent_certificate_") {
		t.Errorf("certificates of nothing:\n%s", page)
	}
}

// A node that nobody can ask for is not Ready, and that is told apart from one that is not.
func TestNode(t *testing.T) {
	m := New("", "")
	if page := ours(t, m); strings.Contains(page, "nodeagent_node_") {
		t.Errorf("a node's metrics before anybody has looked at one:\n%s", page)
	}
	want := func(lines ...string) {
		t.Helper()
		page := ours(t, m)
		for _, line := range lines {
			if !strings.Contains(page, "\n"+line+"\n") {
				t.Errorf("%q is missing:\n%s", line, page)
			}
		}
	}
	for _, test := range []struct {
		known, ready bool
		want         []string
	}{
		{true, true, []string{"nodeagent_node_ready 1", "nodeagent_node_status_known 1"}},
		{true, false, []string{"nodeagent_node_ready 0", "nodeagent_node_status_known 1"}},
		{false, true, []string{"nodeagent_node_ready 0", "nodeagent_node_status_known 0"}},
	} {
		m.NodeKnown(test.known, test.ready)
		want(test.want...)
	}

	m.Unit("etcd.service", "active", true)
	m.Unit("etcd.service", "failed", false)
	want(`nodeagent_unit_state{state="failed",unit="etcd.service"} 1`, `nodeagent_unit_state{state="active",unit="etcd.service"} 0`, `nodeagent_unit_enabled{unit="etcd.service"} 0`)
	m.Unit("etcd.service", "", false)
	if page := ours(t, m); strings.Contains(page, `unit="etcd.service"} 1`) || strings.Count(page, "nodeagent_unit_state{") != 5 {
		t.Errorf("a unit that is not known:\n%s", page)
	}
	m.UnitGone("etcd.service")
	if page := ours(t, m); strings.Contains(page, "etcd.service") {
		t.Errorf("it is there still:\n%s", page)
	}
}

func TestJobGone(t *testing.T) {
	m := populated()
	m.JobGone("snapshot")
	page := ours(t, m)
	if strings.Contains(page, `job_name="snapshot"`) || !strings.Contains(page, `job_name="drift"`) {
		t.Errorf("after the job is gone:\n%s", page)
	}
}

// A store that is no longer configured must alert nobody; one that comes back counts as it did.
func TestStores(t *testing.T) {
	m := New("", "")
	tell := func(store string) {
		m.Snapshots(store, 1, Snapshot{Taken: noon, Due: noon})
		m.Drills(store, Drill{Restored: noon})
		m.Uploads(store, []string{"uploaded"}, Upload{Waiting: 1, Oldest: noon, Results: map[string]int{"uploaded": 5}})
	}
	tell("gone")
	tell("stays")
	m.Stores("stays", "new")
	if page := ours(t, m); strings.Contains(page, `"gone"`) || strings.Count(page, `store="stays"`) != 17 {
		t.Errorf("after a store is gone:\n%s", page)
	}
	tell("gone")
	if page := ours(t, m); !strings.Contains(page, `results_total{reason="uploaded",store="gone"} 5`) {
		t.Errorf("after it is back:\n%s", page)
	}
}

// A file that was not loaded is told, and does not change when the last one was.
func TestConfigLoaded(t *testing.T) {
	m := New("", "")
	for _, test := range []struct {
		ok, idle bool
		at       time.Time
		want     []string
	}{
		{true, true, noon, []string{"config_loaded 0", "config_last_reload_successful 1", "config_last_reload_success_timestamp_seconds 1.7952624005e+09"}},
		{true, false, noon.Add(time.Hour), []string{"config_loaded 1", "config_last_reload_successful 1", "timestamp_seconds 1.7952660005e+09"}},
		{false, false, noon.Add(2 * time.Hour), []string{"config_loaded 1", "config_last_reload_successful 0", "timestamp_seconds 1.7952660005e+09"}},
	} {
		m.ConfigLoaded(test.ok, test.idle, test.at)
		for _, want := range test.want {
			if page := ours(t, m); !strings.Contains(page, want) {
				t.Errorf("%+v: %q is missing:\n%s", test, want, page)
			}
		}
	}
}

// The textfile is the page without what is the runtime's.
func TestText(t *testing.T) {
	m := populated()
	got, err := m.Text()
	if err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(`goversion="[^"]*"`).ReplaceAllString(string(got), `goversion=""`)
	if diff := cmp.Diff(ours(t, m), text); diff != "" {
		t.Errorf("-page +textfile\n%s", diff)
	}
}
