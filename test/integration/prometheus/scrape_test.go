//go:build integration

package prometheus_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/certs/certstest"
	"github.com/nodeagent/nodeagent/test/docblock"
)

const password = "open sesame"

// machine is a root with a PKI in which one certificate has nine days and one file is broken.
func machine(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	err := certstest.Write(root, certstest.Options{Now: time.Now(), Validity: map[string]time.Duration{"pki/apiserver.crt": 9 * 24 * time.Hour}})
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, "etc/kubernetes/pki/broken.crt"), "no certificate\n")
	write(t, filepath.Join(root, "etc/machine-id"), "0123456789abcdef0123456789abcdef\n")
	write(t, filepath.Join(root, "etc/hostname"), "node-1\n")
	return root
}

// server is a Prometheus with the guide's configuration and our rules, in which every "for" is
// nothing, so that nobody has to wait for it.
type server struct{ address string }

func startPrometheus(t *testing.T, g guide, root string, replace map[string]string) server {
	t.Helper()
	const config = "/etc/prometheus/prometheus.yml"
	dir := filepath.Join(root, filepath.Dir(config))
	rules := regexp.MustCompile(`(?m)^(\s+for:) .*$`).ReplaceAllString(read(t, rulesFile), "$1 0s")
	write(t, filepath.Join(dir, "nodeagent.rules.yaml"), rules)
	write(t, filepath.Join(dir, "nodeagent.password"), password)
	g.put(t, root, config, replace)
	file := filepath.Join(root, config)
	if out, err := promtool(t, dir, "", "check", "config", file); err != nil {
		t.Fatalf("check config: %v\n%s", err, out)
	}
	write(t, file, "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"+read(t, file))
	s := server{freePort(t)}
	start(t, program(t, "prometheus"), "--config.file="+file, "--storage.tsdb.path="+t.TempDir(), "--web.listen-address="+s.address, "--log.level=warn")
	return s
}

// get asks Prometheus's API.
func (s server) get(t *testing.T, path string, into any) error {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.address+"/api/v1/"+path, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(into)
}

// firing are the alerts that fire, each as its name and a few labels.
func (s server) firing(t *testing.T) (map[string]bool, error) {
	var answer struct {
		Data struct {
			Alerts []struct {
				Labels map[string]string `json:"labels"`
				State  string            `json:"state"`
			} `json:"alerts"`
		} `json:"data"`
	}
	if err := s.get(t, "alerts", &answer); err != nil {
		return nil, err
	}
	out := map[string]bool{}
	for _, a := range answer.Data.Alerts {
		if a.State == "firing" {
			out[strings.TrimSpace(a.Labels["alertname"]+" "+a.Labels["severity"]+" "+a.Labels["path"])] = true
		}
	}
	return out, nil
}

// wait waits until each of fire fires.
func (s server) wait(t *testing.T, fire ...string) {
	t.Helper()
	until(t, fmt.Sprintf("alerts %q", fire), func() error {
		have, err := s.firing(t)
		if err != nil {
			return err
		}
		for _, a := range fire {
			if !have[a] {
				return fmt.Errorf("firing are %v", have)
			}
		}
		return nil
	})
}

// value is that of a query with one result.
func (s server) value(t *testing.T, query string) (string, error) {
	var answer struct {
		Data struct {
			Result []struct {
				Value [2]any `json:"value"`
			} `json:"result"`
		} `json:"data"`
	}
	if err := s.get(t, "query?query="+url.QueryEscape(query), &answer); err != nil {
		return "", err
	}
	if len(answer.Data.Result) != 1 {
		return "", fmt.Errorf("%s has %d results", query, len(answer.Data.Result))
	}
	return fmt.Sprint(answer.Data.Result[0].Value[1]), nil
}

func (s server) waitValue(t *testing.T, query, want string) {
	t.Helper()
	until(t, query, func() error {
		got, err := s.value(t, query)
		if err == nil && got != want {
			err = fmt.Errorf("is %s, want %s", got, want)
		}
		return err
	})
}

// theProblems are what every way of scraping brings to light of machine.
func theProblems() []string {
	return []string{
		"NodeagentCertificateExpires critical /etc/kubernetes/pki/apiserver.crt",
		"NodeagentCertificateUnreadable critical /etc/kubernetes/pki/broken.crt",
	}
}

// By the guide, the agent is scraped over TLS with a password; an agent that is gone is told.
func TestTheAgentListens(t *testing.T) {
	g := readGuide(t, "The agent listens")
	root, agent := machine(t), freePort(t)
	write(t, filepath.Join(root, "etc/nodeagent/keep"), "")
	command := docblock.Script(t, "docs/monitoring.md", "The agent listens", "/etc/nodeagent/", root+"/etc/nodeagent/", "192.0.2.11", "127.0.0.1")
	if out, err := exec.CommandContext(t.Context(), "sh", "-c", command).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	g.put(t, root, "/etc/nodeagent/web.yaml", nil)
	g.put(t, root, "/etc/nodeagent/config.yaml", map[string]string{"192.0.2.11:10980": agent})
	stop := start(t, build(t), "run", "--root", root)

	write(t, filepath.Join(root, "etc/prometheus/nodeagent.crt"), read(t, filepath.Join(root, "etc/nodeagent/web.crt")))
	s := startPrometheus(t, g, root, map[string]string{"192.0.2.11:10980": agent})
	s.waitValue(t, `up{job="nodeagent"}`, "1")
	s.wait(t, theProblems()...)
	have, err := s.firing(t)
	if err != nil || have["NodeagentDown critical"] || have["NodeagentAbsent critical"] {
		t.Errorf("of an agent that answers: %v, %v", have, err)
	}
	// Ours is not renamed.
	s.waitValue(t, `count(nodeagent_job_due_timestamp_seconds{job="nodeagent",job_name="certificates"})`, "1")
	stop()
	s.wait(t, "NodeagentDown critical")
}

// By the guide, the real node_exporter serves the textfile beside its own metrics.
func TestATextfile(t *testing.T) {
	g := readGuide(t, "A textfile")
	root, exporter := machine(t), freePort(t)
	const dir = "/var/lib/prometheus/node-exporter"
	write(t, filepath.Join(root, dir, "other.prom"), "somebody_elses 1\n")
	g.put(t, root, "/etc/nodeagent/config.yaml", nil)
	start(t, build(t), "run", "--root", root)
	start(t, program(t, "prometheus-node-exporter"), "--web.listen-address="+exporter, "--collector.textfile.directory="+filepath.Join(root, dir))
	s := startPrometheus(t, g, root, map[string]string{"192.0.2.11:9100": exporter})
	s.wait(t, theProblems()...)
	s.waitValue(t, "node_textfile_scrape_error", "0")
	s.waitValue(t, "somebody_elses", "1")
	s.waitValue(t, `up{job="node"}`, "1")
	have, err := s.firing(t)
	if err != nil || have["NodeagentTextfileStale critical"] || have["NodeagentAbsent critical"] {
		t.Errorf("of a file that is written: %v, %v", have, err)
	}
	s.waitValue(t, `count(node_textfile_mtime_seconds{file=~"(.*/)?nodeagent[.]prom"})`, "1") // as the rule has it
}

// By the guide, the real nginx passes the agent's page on.
func TestBehindAProxy(t *testing.T) {
	g := readGuide(t, "Behind a proxy")
	root, agent, proxy := machine(t), freePort(t), freePort(t)
	pki := filepath.Join(root, "etc/kubernetes/pki")
	g.put(t, root, "/etc/nginx/snippets/nodeagent.conf", map[string]string{"127.0.0.1:10980": agent})
	nginx := filepath.Join(root, "etc/nginx")
	write(t, filepath.Join(nginx, "htpasswd"), "prometheus:{PLAIN}"+password+"\n")
	var temp strings.Builder
	for _, what := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&temp, "%s_temp_path %s/%s;\n", what, nginx, what)
	}
	write(t, filepath.Join(nginx, "nginx.conf"), fmt.Sprintf(`
daemon off;
master_process off;
error_log stderr;
pid %[1]s/pid;
events {}
http {
  access_log off;
  %[2]s
  server {
    listen %[3]s ssl;
    ssl_certificate %[4]s/apiserver.crt;
    ssl_certificate_key %[4]s/apiserver.key;
    auth_basic node;
    auth_basic_user_file %[1]s/htpasswd;
    include %[1]s/snippets/nodeagent.conf;
  }
}
`, nginx, temp.String(), proxy, pki))
	write(t, filepath.Join(root, "etc/nodeagent/config.yaml"), "role: worker\nmetrics: {listen: \""+agent+"\"}\n")
	start(t, build(t), "run", "--root", root)
	start(t, filepath.Join(filepath.Dir(program(t, "x")), "../sbin/nginx"), "-e", "stderr", "-c", filepath.Join(nginx, "nginx.conf"))
	write(t, filepath.Join(root, "etc/prometheus/nodeagent.crt"), read(t, filepath.Join(pki, "ca.crt")))
	s := startPrometheus(t, g, root, map[string]string{"192.0.2.11:443": proxy})
	s.waitValue(t, `up{job="nodeagent"}`, "1")
	s.wait(t, theProblems()...)
}
