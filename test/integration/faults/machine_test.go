//go:build integration

// Package faults_test takes from a running daemon what it lives by, and gives it back: disks, etcd,
// systemd's bus, containerd, name resolution. The daemon is the real unit under a live systemd. It
// has to stay up, to say what is wrong, and to be well again by itself.
package faults_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/test/lab"
	"github.com/nodeagent/nodeagent/test/nspawn"
)

const (
	buildTimeout = 15 * time.Minute
	// patience bounds every wait: far more than it takes on a machine that is busy.
	patience   = time.Minute
	version    = "0.0.0~faults"
	configPath = "/etc/nodeagent/config.yaml"
	checkout   = "../../.."
)

// build is what the tests share.
type build struct{ program, rootfs, repository, kubernetes, etcd string }

func buildAll(t *testing.T) build {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), buildTimeout)
	defer cancel()
	b := build{program: filepath.Join(t.TempDir(), "nodeagent")}
	for _, need := range []struct {
		dir  *string
		make func(context.Context) (string, error)
	}{{&b.rootfs, lab.Rootfs}, {&b.repository, lab.Repository}, {&b.kubernetes, lab.Kubernetes}, {&b.etcd, lab.Etcd}} {
		dir, err := need.make(ctx)
		if err != nil {
			t.Fatal(err)
		}
		*need.dir = dir
	}
	compile := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-X main.version="+version, "-o", b.program, "./cmd/nodeagent")
	compile.Dir = checkout
	compile.Env = append(os.Environ(), "CGO_ENABLED=0")
	compile.WaitDelay = 5 * time.Second
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("compile: %v\n%s", err, out)
	}
	return b
}

// node is a machine with the agent and its unit, which is not started yet.
type node struct{ *nspawn.Machine }

// The repository, Kubernetes and etcd of the lab, as the machine sees them.
const (
	repositoryDir = "/srv/lab"
	kubernetesDir = "/srv/kubernetes"
	etcdDir       = "/srv/etcd"
)

// impatient has systemd end a daemon that does not feed its watchdog for so long.
const impatient = "[Service]\nWatchdogSec=15\n"

func (b build) node(t *testing.T, config string) node {
	t.Helper()
	n := node{nspawn.Up(t, filepath.Join(b.rootfs, "rootfs"),
		nspawn.Bind{Source: b.repository, Target: repositoryDir},
		nspawn.Bind{Source: b.kubernetes, Target: kubernetesDir},
		nspawn.Bind{Source: b.etcd, Target: etcdDir})}
	n.CopyIn(t, b.program, "/usr/bin/nodeagent")
	n.CopyIn(t, filepath.Join(checkout, "deploy/systemd/nodeagent.service"), "/usr/lib/systemd/system/nodeagent.service")
	n.Write(t, "/etc/systemd/system/nodeagent.service.d/impatient.conf", []byte(impatient), 0o644)
	n.Write(t, configPath, []byte(config), 0o600)
	// Swap is the host's, and there is no network to wait for.
	n.Script(t, `printf 'Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n' >/srv/swaps
		mount --bind /srv/swaps /proc/swaps
		systemctl mask --quiet --runtime systemd-networkd-wait-online.service
		ip address add 10.77.0.1/32 dev lo`)
	return n
}

// start starts the daemon; it is looked at when the test ends.
func (n node) start(t *testing.T) {
	t.Helper()
	n.Script(t, "systemctl daemon-reload; systemctl start nodeagent.service")
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := n.TryScript("journalctl -u nodeagent --no-pager -o short-precise | tail -n 40; nodeagent status 2>&1")
			t.Logf("the daemon at the end:\n%s", out)
		}
	})
}

const metrics = "curl -sS --max-time 10 http://127.0.0.1:10980/metrics"

// same is a line that changes when the daemon is restarted, by whomever. It asks nothing of systemd.
func (n node) same(t *testing.T) string {
	t.Helper()
	return n.Script(t, "ps -o pid=,lstart= -p $(pgrep -fx '/usr/bin/nodeagent run'); curl -sS --max-time 10 http://127.0.0.1:10980/healthz")
}

// metric waits for a line of /metrics.
func (n node) metric(t *testing.T, line string) {
	t.Helper()
	series := line[:strings.LastIndex(line, " ")]
	n.Wait(t, patience, "have=$("+read(series)+"); test \"$have\" = "+quote(line)+" || { echo \"$have\"; exit 1; }")
}

// moves waits until a series has another value than it has now.
func (n node) moves(t *testing.T, series string) {
	t.Helper()
	n.Wait(t, patience, "test \"$("+read(series)+")\" != "+quote(strings.TrimSpace(n.Script(t, read(series)))))
}

// read is a script that prints a series with its value.
func read(series string) string {
	return metrics + " | grep -v '^#' | grep -Fe " + quote(series+" ")
}

// status waits until `nodeagent status` has all of words.
func (n node) status(t *testing.T, words ...string) {
	t.Helper()
	script := "nodeagent status >/tmp/status 2>&1 || true\n"
	for _, word := range words {
		script += "grep -qFe " + quote(word) + " /tmp/status || { echo " + quote("no "+word) + "; cat /tmp/status; exit 1; }\n"
	}
	n.Wait(t, patience, script)
}

// silent waits until `nodeagent status` has none of words.
func (n node) silent(t *testing.T, words ...string) {
	t.Helper()
	script := "nodeagent status >/tmp/status 2>&1 || true\ntest -s /tmp/status\n"
	for _, word := range words {
		script += "if grep -Fe " + quote(word) + " /tmp/status; then exit 1; fi\n"
	}
	n.Wait(t, patience, script)
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
