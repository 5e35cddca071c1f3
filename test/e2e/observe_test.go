//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/test/vm"
)

const scrape = "curl -fsS http://127.0.0.1:10980/metrics"

// sample is one line of the exposition.
type sample struct {
	labels map[string]string
	value  float64
}

// samplesOf are the samples of one metric.
func samplesOf(t *testing.T, exposition, metric string) []sample {
	t.Helper()
	line := regexp.MustCompile(`(?m)^` + metric + `(?:\{(.*)\})? (\S+)$`)
	label := regexp.MustCompile(`(\w+)="([^"]*)"`)
	var samples []sample
	for _, m := range line.FindAllStringSubmatch(exposition, -1) {
		value, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			t.Fatalf("%s: %v", m[0], err)
		}
		s := sample{map[string]string{}, value}
		for _, l := range label.FindAllStringSubmatch(m[1], -1) {
			s.labels[l[1]] = l[2]
		}
		samples = append(samples, s)
	}
	return samples
}

// expiries are the certificates in the metrics, by file and kind.
func expiries(ctx context.Context, t *testing.T, v *vm.VM) map[string]int64 {
	t.Helper()
	found := map[string]int64{}
	for _, s := range samplesOf(t, v.MustRun(ctx, t, scrape), "nodeagent_certificate_not_after_timestamp_seconds") {
		key := s.labels["path"]
		if strings.HasSuffix(key, ".conf") && s.labels["kind"] == "ca" {
			key += " ca"
		}
		found[key] = int64(s.value)
	}
	return found
}

// certificatesAgree holds the metrics against kubeadm, and against openssl over every file.
func certificatesAgree(ctx context.Context, t *testing.T, v *vm.VM) {
	v.Eventually(ctx, t, 2*time.Minute, scrape+` | grep >/dev/null 'not_after_timestamp_seconds{.*kubelet-client-current.pem'`)
	have := expiries(ctx, t, v)
	for path, want := range kubeadmExpiries(ctx, t, v) {
		if got, ok := have[path]; !ok || got != want {
			t.Errorf("%s: metrics say %d (there: %t), kubeadm says %d", path, got, ok, want)
		}
	}
	out := v.MustRun(ctx, t, `
		end() { date -d "$(openssl x509 -noout -enddate | cut -d= -f2)" +%s; }
		for f in $(find /etc/kubernetes/pki -name '*.crt') /var/lib/kubelet/pki/kubelet.crt /var/lib/kubelet/pki/kubelet-client-current.pem; do
			echo "$f	$(end <$f)"
		done
		for f in /etc/kubernetes/*.conf; do
			echo "$f ca	$(sed -n 's/.*certificate-authority-data: //p' $f | base64 -d | end)"
			data=$(sed -n 's/.*client-certificate-data: //p' $f)
			[ -z "$data" ] || echo "$f	$(base64 -d <<<"$data" | end)"
		done`)
	files := 0
	for line := range strings.Lines(out) {
		path, end, _ := strings.Cut(strings.TrimSpace(line), "\t")
		files++
		if got := strconv.FormatInt(have[path], 10); got != end {
			t.Errorf("%s: metrics say %s, openssl says %s", path, got, end)
		}
	}
	if files < 20 {
		t.Errorf("openssl read %d certificates only", files)
	}
	t.Logf("%d certificates in the metrics, %d read by openssl", len(have), files)
}

// kubeadmExpiries is what `kubeadm certs check-expiration` says, by file.
func kubeadmExpiries(ctx context.Context, t *testing.T, v *vm.VM) map[string]int64 {
	t.Helper()
	out := v.MustRun(ctx, t, "kubeadm certs check-expiration -o json 2>/dev/null | sed -n '/^{/,$p'")
	var report struct {
		Certificates, CertificateAuthorities []struct {
			Name           string
			ExpirationDate time.Time
			Missing        bool
		}
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	found := map[string]int64{}
	for _, c := range append(report.Certificates, report.CertificateAuthorities...) {
		if c.Missing {
			continue
		}
		path := "/etc/kubernetes/pki/" + c.Name + ".crt"
		if strings.HasSuffix(c.Name, ".conf") {
			path = "/etc/kubernetes/" + c.Name
		} else if name, ok := strings.CutPrefix(c.Name, "etcd-"); ok {
			path = "/etc/kubernetes/pki/etcd/" + name + ".crt"
		}
		found[path] = c.ExpirationDate.Unix()
	}
	if len(found) < 13 {
		t.Errorf("kubeadm names %d certificates only:\n%s", len(found), out)
	}
	return found
}

// metricsAreGood: the real promtool has nothing to say, and the values are this machine's.
func metricsAreGood(ctx context.Context, t *testing.T, v *vm.VM) {
	if said := v.MustRun(ctx, t, scrape+" | promtool check metrics 2>&1"); said != "" {
		t.Errorf("promtool: %s", said)
	}
	// What is known of the node is a minute old at most, and may be that the API was too slow to answer.
	exposition := v.Eventually(ctx, t, 90*time.Second, "page=$("+scrape+"); grep '^nodeagent_node_ready 1$' <<<\"$page\" >/dev/null; echo \"$page\"")
	one := func(metric string, labels map[string]string) float64 {
		t.Helper()
		for _, s := range samplesOf(t, exposition, metric) {
			if fmt.Sprint(s.labels) == fmt.Sprint(labels) {
				return s.value
			}
		}
		t.Errorf("no %s%v", metric, labels)
		return 0
	}
	if got := one("nodeagent_bootstrap_complete", map[string]string{}); got != 1 {
		t.Errorf("nodeagent_bootstrap_complete is %v", got)
	}
	for _, job := range []string{"snapshot", "certificates", "drift"} {
		if got := one("nodeagent_job_last_success_timestamp_seconds", map[string]string{"job_name": job}); time.Since(time.Unix(int64(got), 0)) > 10*time.Minute {
			t.Errorf("job %s last succeeded at %v", job, got)
		}
	}
	taken := one("nodeagent_etcd_snapshot_last_success_timestamp_seconds", map[string]string{"store": "file " + strings.TrimSuffix(store, "/")})
	if time.Since(time.Unix(int64(taken), 0)) > 10*time.Minute {
		t.Errorf("the newest snapshot was taken at %v", taken)
	}
	v.MustRun(ctx, t, "curl -fsS http://127.0.0.1:10980/ | grep >/dev/null node1")
	for _, metric := range []string{"nodeagent_node_ready", "nodeagent_node_status_known"} {
		if got := one(metric, map[string]string{}); got != 1 {
			t.Errorf("%s is %v", metric, got)
		}
	}
	if !strings.Contains(exposition, `nodeagent_node_info{`) || !strings.Contains(exposition, `"v1.36.3"`) {
		t.Error("nodeagent_node_info does not tell the kubelet's version")
	}
	if took := one("nodeagent_step_apply_duration_seconds", map[string]string{"step": "kubeadm/addon"}); took <= 0 {
		t.Errorf("kubeadm/addon took %v s", took)
	}
	statusIsGood(ctx, t, v)
}

// maxResident is what the agent may have had in memory at most, from its start to here, in kB:
// the process that has bootstrapped the node.
const maxResident = 64 << 10

func statusIsGood(ctx context.Context, t *testing.T, v *vm.VM) {
	v.MustRun(ctx, t, `nodeagent status -o json >/tmp/status.json
		jq -e '.node.known and .node.ready and .node.kubeletVersion == "v1.36.3"' /tmp/status.json >/dev/null
		jq -e '[.units[] | select(.activeState == "active" and .unitFileState == "enabled") | .unit] | contains(["containerd.service", "kubelet.service"])' /tmp/status.json >/dev/null
		jq -e '[.staticPods[] | select(.state == "running" and .manifest)] | length == 4' /tmp/status.json >/dev/null
		jq -e '.problems == []' /tmp/status.json >/dev/null || { jq .problems /tmp/status.json; exit 1; }`)
	resident, err := strconv.Atoi(strings.TrimSpace(v.MustRun(ctx, t, `awk '/^VmHWM/ { print $2 }' "/proc/$(systemctl show -P MainPID nodeagent)/status"`)))
	if err != nil || resident > maxResident {
		t.Errorf("the agent has had %d kB in memory, %v", resident, err)
	}
	t.Logf("the agent has had up to %d kB in memory", resident)
}
