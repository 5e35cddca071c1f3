package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/certs/certstest"
	"github.com/nodeagent/nodeagent/pkg/host"
)

// patience bounds every wait for the daemon: far more than it takes on a machine that is busy.
const patience = 30 * time.Second

const configFile = "/etc/nodeagent/config.yaml"

// worker is a configuration that listens on a free port.
const worker = "role: worker\nmetrics: {listen: \"127.0.0.1:0\"}\nlog: {level: debug}\n"

// process is `nodeagent run` on a scratch root, with the socket that systemd would give it.
type process struct {
	*host.Host
	cmd   *exec.Cmd
	ended chan error

	mu       sync.Mutex
	log      bytes.Buffer
	messages []string // of the notify socket
}

func (p *process) Write(data []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(data)
}

// scratch is a root with a machine-id, a host name and, unless config is "", a configuration.
func scratch(t *testing.T, config string) *host.Host {
	t.Helper()
	h := host.New(t.TempDir())
	write(t, h, "/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
	write(t, h, "/etc/hostname", "node-1\n")
	if config != "" {
		write(t, h, configFile, config)
	}
	return h
}

func write(t *testing.T, h *host.Host, path, text string) {
	t.Helper()
	if err := h.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// start runs the daemon; what is left of it is killed when the test ends.
func start(t *testing.T, h *host.Host, env ...string) *process {
	t.Helper()
	program, err := exec.LookPath("nodeagent")
	if err != nil {
		t.Fatal(err)
	}
	// Not t.TempDir: a socket's path may have 108 characters.
	dir, err := os.MkdirTemp("", "notify") //nolint:usetesting // as said
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	p := &process{Host: h, cmd: exec.Command(program, "run", "--root", h.Root), ended: make(chan error, 1)}
	p.cmd.Env = append(os.Environ(), append(env, "NOTIFY_SOCKET="+socket)...)
	p.cmd.Stdout, p.cmd.Stderr = p, p
	go p.listen(conn)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		p.ended <- p.cmd.Wait()
		close(exited)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it has ended, where the test came to its end
		<-exited
		_ = conn.Close()
		if t.Failed() {
			t.Logf("told systemd: %q\nlog:\n%s", p.told(), p.output())
		}
	})
	return p
}

func (p *process) listen(conn *net.UnixConn) {
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		p.mu.Lock()
		p.messages = append(p.messages, string(buf[:n]))
		p.mu.Unlock()
	}
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

func (p *process) told() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.messages, "|") + "|"
}

// until waits for something to be so.
func until(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !so(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s", patience, what)
		}
	}
}

// waitTold waits until systemd has been told all of messages, in this order.
func (p *process) waitTold(t *testing.T, messages ...string) {
	t.Helper()
	until(t, fmt.Sprintf("systemd to be told %q", messages), func() bool {
		rest := p.told()
		for _, m := range messages {
			_, after, ok := strings.Cut(rest, m)
			if !ok {
				return false
			}
			rest = after
		}
		return true
	})
}

var listening = regexp.MustCompile(`msg="Listening on" address=(\S+)`)

// get answers for a page of the server that was started last.
func (p *process) get(t *testing.T, path string) (int, string) {
	t.Helper()
	var found [][]string
	until(t, "the server to listen", func() bool {
		found = listening.FindAllStringSubmatch(p.output(), -1)
		return len(found) > 0
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+found[len(found)-1][1]+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(body)
}

// waitPage waits until a page has all of lines.
func (p *process) waitPage(t *testing.T, path string, lines ...string) {
	t.Helper()
	var page string
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s was last:\n%s", path, page)
		}
	})
	until(t, fmt.Sprintf("%s to have %q", path, lines), func() bool {
		_, page = p.get(t, path)
		for _, line := range lines {
			if !strings.Contains(page, line) {
				return false
			}
		}
		return true
	})
}

func (p *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// stop ends the daemon as systemd does, and wants it to say so and exit with 0.
func (p *process) stop(t *testing.T) {
	t.Helper()
	p.signal(t, syscall.SIGTERM)
	select {
	case err := <-p.ended:
		if err != nil {
			t.Errorf("ended with %v, want exit code 0", err)
		}
	case <-time.After(patience):
		t.Fatal("still running after SIGTERM")
	}
	until(t, "STOPPING=1", func() bool { return strings.HasSuffix(p.told(), "STOPPING=1|") })
}

// Without a configuration the daemon idles; it takes up the one that comes with a reload.
func TestDaemonIdles(t *testing.T) {
	// An idle daemon listens on its default port: somebody else's test may have it just now.
	until(t, "port 10980 to be free", func() bool {
		l, err := net.Listen("tcp", "127.0.0.1:10980")
		if err != nil {
			return false
		}
		return l.Close() == nil
	})
	p := start(t, scratch(t, ""))
	p.waitTold(t, "READY=1|")
	p.waitTold(t, "STATUS=idle: no configuration at /etc/nodeagent/config.yaml|")
	p.waitPage(t, "/metrics", "nodeagent_config_loaded 0", "nodeagent_config_last_reload_successful 1")
	if code, body := p.get(t, "/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "no configuration") {
		t.Errorf("/readyz: %d %s", code, body)
	}
	if code, _ := p.get(t, "/healthz"); code != http.StatusOK {
		t.Errorf("/healthz: %d", code)
	}
	p.waitPage(t, "/", "node-1 is idle", "there is no configuration", "/etc/nodeagent/config.yaml does not exist", "nodeagent config init")
	if there, err := p.Exists("/var/lib/nodeagent"); err != nil || there {
		t.Errorf("an idle daemon has written something: %v, %v", there, err)
	}

	write(t, p.Host, configFile, worker)
	p.signal(t, syscall.SIGHUP)
	p.waitTold(t, "RELOADING=1\nMONOTONIC_USEC=", "READY=1|")
	until(t, "another port", func() bool { return len(listening.FindAllString(p.output(), -1)) == 2 })
	p.waitPage(t, "/metrics", "nodeagent_config_loaded 1")
	p.stop(t)
}

// On a fresh image the daemon applies what it can, tells each step, and is ready.
func TestDaemonBootstraps(t *testing.T) {
	p := start(t, scratch(t, worker), "WATCHDOG_USEC=200000")
	p.waitTold(t, "READY=1|")
	p.waitTold(t, "STATUS=step 1/", "preflight/host: checking|", "kernel/modules: applying|", "kernel/modules: verifying|", "STATUS=running|")
	p.waitTold(t, "WATCHDOG=1|", "WATCHDOG=1|", "WATCHDOG=1|")
	p.waitPage(t, "/metrics", "nodeagent_bootstrap_complete 1", `nodeagent_step_clean{step="kernel/modules"} 1`,
		`nodeagent_job_runs_total{job_name="certificates",result="success"}`, `nodeagent_job_next_run_timestamp_seconds{job_name="drift"}`)
	if _, page := p.get(t, "/metrics"); strings.Contains(page, `job_name="snapshot"`) {
		t.Error("a worker has a job for snapshots")
	}
	if code, body := p.get(t, "/readyz"); code != http.StatusOK {
		t.Errorf("/readyz: %d %s", code, body)
	}
	if there, err := p.Exists("/etc/modules-load.d/nodeagent.conf"); err != nil || !there {
		t.Errorf("nothing was applied: %v, %v", there, err)
	}
	applied := `nodeagent_step_apply_duration_seconds{step="kernel/modules"} `
	p.waitPage(t, "/metrics", applied, `nodeagent_step_applies_total{result="success",step="kernel/modules"} 1`,
		`nodeagent_step_applies_total{result="failure",step="kernel/modules"} 0`)
	_, page := p.get(t, "/metrics")
	_, took, _ := strings.Cut(page, applied)
	took, _, _ = strings.Cut(took, "\n")
	p.stop(t)

	// How long the apply took outlives a restart, and the checks since.
	p = start(t, p.Host)
	p.waitPage(t, "/metrics", "nodeagent_bootstrap_complete 1", applied+took+"\n", `nodeagent_step_applies_total{result="success",step="kernel/modules"} 0`)
	p.stop(t)
}

// A host that somebody else has made is adopted: looked at, and never changed.
func TestDaemonAdopts(t *testing.T) {
	h := scratch(t, worker)
	if err := certstest.Write(h.Root, certstest.Options{Now: time.Now(), Kubelet: true}); err != nil {
		t.Fatal(err)
	}
	p := start(t, h)
	p.waitPage(t, "/metrics",
		`nodeagent_certificate_not_after_timestamp_seconds{kind="pki",path="/etc/kubernetes/pki/apiserver.crt",user=""} `,
		`nodeagent_certificate_not_after_timestamp_seconds{kind="kubeconfig",path="/etc/kubernetes/admin.conf",user="kubernetes-admin"} `,
		`nodeagent_certificate_not_before_timestamp_seconds{kind="kubelet-client",path="/var/lib/kubelet/pki/kubelet-client-current.pem",user=""} `,
		`nodeagent_step_clean{step="kernel/modules"} 0`, `nodeagent_step_changes{step="kernel/modules"} 1`)
	p.waitPage(t, "/", "adopted", "/etc/kubernetes/pki/apiserver.crt")
	until(t, "the drift to be told", func() bool {
		return strings.Contains(p.output(), `msg="drift: the host differs from its configuration" what="kernel/modules: `)
	})
	for _, path := range []string{"/etc/modules-load.d", "/var/lib/nodeagent/bootstrapping", "/var/lib/nodeagent/bootstrapped"} {
		if there, err := p.Exists(path); err != nil || there {
			t.Errorf("%s: %v, %v", path, there, err)
		}
	}
	p.stop(t)
}

// A reload with a file that is wrong changes nothing but what is told of it.
func TestDaemonKeepsItsConfiguration(t *testing.T) {
	p := start(t, scratch(t, worker))
	p.waitPage(t, "/metrics", "nodeagent_config_last_reload_successful 1", "nodeagent_bootstrap_complete 1")
	write(t, p.Host, configFile, "role: worker\nlgo: {}\n")
	p.signal(t, syscall.SIGHUP)
	p.waitTold(t, "RELOADING=1", "READY=1|")
	p.waitPage(t, "/metrics", "nodeagent_config_last_reload_successful 0", "nodeagent_config_loaded 1")
	if out := p.output(); !strings.Contains(out, `level=ERROR msg="configuration not reloaded; going on with the one before"`) || !strings.Contains(out, "config.yaml:2: lgo: unknown key") {
		t.Errorf("the log does not say what is wrong:\n%s", out)
	}
	write(t, p.Host, configFile, worker)
	p.signal(t, syscall.SIGHUP)
	until(t, "another server", func() bool { return len(listening.FindAllString(p.output(), -1)) == 2 })
	p.waitPage(t, "/metrics", "nodeagent_config_last_reload_successful 1", "nodeagent_bootstrap_complete 1")
	p.stop(t)
}

// A daemon that cannot begin says why and fails, so that systemd shows it.
func TestDaemonRefuses(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, test := range map[string]struct{ config, want string }{
		"a broken configuration": {"role: wroker\n", `config.yaml:1: role: "wroker" is none of`},
		"a port that is taken":   {"role: worker\nmetrics: {listen: \"" + taken.Addr().String() + "\"}\n", "listen on metrics.listen: listen tcp " + taken.Addr().String() + ": bind: address already in use"},
		"a wrong web config":     {"role: worker\nmetrics: {listen: \"127.0.0.1:0\", webConfigFile: /etc/hostname}\n", "/etc/hostname: yaml: unmarshal errors:\n  line 1: cannot unmarshal !!str `...` into web.Config"},
		"no web config":          {"role: worker\nmetrics: {listen: \"127.0.0.1:0\", webConfigFile: /none.yaml}\n", "metrics.webConfigFile: read secret: lstat /none.yaml: no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, scratch(t, test.config))
			select {
			case err := <-p.ended:
				if code := p.cmd.ProcessState.ExitCode(); code != exitFailed {
					t.Errorf("ended with %v", err)
				}
			case <-time.After(patience):
				t.Fatal("it runs")
			}
			if out := p.output(); !strings.Contains(out, "nodeagent: ") || !strings.Contains(out, test.want) {
				t.Errorf("got\n%s\nwant %s", out, test.want)
			}
		})
	}
}

// The textfile has the agent's own metrics for anybody to read; a reload that names another file
// takes the old one away, and a directory that is missing is told and not made.
func TestDaemonTextfile(t *testing.T) {
	const dir = "/var/lib/prometheus/node-exporter"
	config := func(name string) string {
		return "role: worker\nmetrics: {listen: \"\", textfile: " + name + "}\n"
	}
	h := scratch(t, config(dir+"/nodeagent.prom"))
	if err := h.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	p := start(t, h)
	written := func(name, want string) func() bool {
		return func() bool {
			text, err := h.ReadFile(name)
			return err == nil && strings.Contains(string(text), want)
		}
	}
	until(t, "the textfile", written(dir+"/nodeagent.prom", "nodeagent_config_loaded 1\n"))
	until(t, "the next look after the textfile", written(dir+"/nodeagent.prom", "nodeagent_bootstrap_complete 1\n"))
	info, err := h.Stat(dir + "/nodeagent.prom")
	if err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	text, err := h.ReadFile(dir + "/nodeagent.prom")
	if err != nil || regexp.MustCompile(`(?m)^(go|process|promhttp)_`).Match(text) || !strings.Contains(string(text), "# TYPE nodeagent_config_loaded gauge\n") {
		t.Errorf("%v:\n%s", err, text)
	}

	write(t, h, configFile, config(dir+"/other.prom"))
	p.signal(t, syscall.SIGHUP)
	until(t, "the other textfile", written(dir+"/other.prom", "nodeagent_config_loaded 1\n"))
	if entries, err := h.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}

	write(t, h, configFile, config("/srv/none/nodeagent.prom"))
	p.signal(t, syscall.SIGHUP)
	until(t, "the missing directory to be told", func() bool {
		return strings.Contains(p.output(), "textfile not written") && strings.Contains(p.output(), "make it, or name node_exporter's --collector.textfile.directory")
	})
	if there, err := h.Exists("/srv"); err != nil || there {
		t.Errorf("the directory was made: %v, %v", there, err)
	}
	if entries, err := h.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	p.stop(t)
}
