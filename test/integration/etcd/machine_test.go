//go:build integration

// Package etcd_test has the agent find, reach and save real etcds of two ages, made in the ways
// that are met in the field, under a live systemd. The agent runs in its unit's own sandbox.
package etcd_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/etcd/etcdtest"
	"github.com/nodeagent/nodeagent/test/lab"
	"github.com/nodeagent/nodeagent/test/nspawn"
)

const (
	buildTimeout = 15 * time.Minute
	// patience bounds every wait: in CI a VM runs beside the machine.
	patience = time.Minute
	checkout = "../../.."
	backups  = "/srv/backups"
	// secret is in the environment of every etcd, and must appear nowhere.
	secret = "hunter2-is-the-token"
)

// node is a machine with the agent and both etcds.
type node struct {
	*nspawn.Machine
	repository string
}

func start(t *testing.T) node {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), buildTimeout)
	defer cancel()
	path := func(build func(context.Context) (string, error)) string {
		dir, err := build(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return dir
	}
	program := filepath.Join(t.TempDir(), "nodeagent")
	compile := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", program, "./cmd/nodeagent")
	compile.Dir = checkout
	compile.Env = append(os.Environ(), "CGO_ENABLED=0")
	compile.WaitDelay = 5 * time.Second
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("compile: %v\n%s", err, out)
	}
	n := node{repository: path(lab.Repository)}
	n.Machine = nspawn.Up(t, filepath.Join(path(lab.Rootfs), "rootfs"),
		nspawn.Bind{Source: path(lab.Etcd), Target: "/srv/etcd36"},
		nspawn.Bind{Source: filepath.Join(path(lab.Etcd34), "usr/bin"), Target: "/srv/etcd34"})
	n.CopyIn(t, program, "/usr/bin/nodeagent")
	n.Script(t, `ip address add 10.77.0.1/32 dev lo
useradd --system --no-create-home etcd
mkdir -p /srv/etcd`)
	n.Write(t, "/run/systemd/system/save.service", []byte(saveUnit(t)), 0o644)
	return n
}

// saveUnit is the agent's own unit, with one save in place of the daemon.
func saveUnit(t *testing.T) string {
	t.Helper()
	unit, err := os.ReadFile(filepath.Join(checkout, "deploy/systemd/nodeagent.service"))
	if err != nil {
		t.Fatal(err)
	}
	text := string(unit)
	for _, edit := range []struct{ from, to string }{
		{`(?m)^(Wants|After|ExecReload|WatchdogSec|RestartSec)=.*\n`, ""},
		{`(?m)^Type=notify$`, "Type=oneshot"}, {`(?m)^NotifyAccess=.*\n`, ""}, {`(?m)^Restart=.*\n`, ""},
		{`(?m)^ExecStart=.*$`, "ExecStart=/usr/bin/nodeagent snapshot save"},
	} {
		expression := regexp.MustCompile(edit.from)
		if !expression.MatchString(text) {
			t.Fatalf("the agent's unit has no %s any more", edit.from)
		}
		text = expression.ReplaceAllString(text, edit.to)
	}
	return text
}

// unit writes and starts a unit; etcd tells systemd when it serves.
func (n node) unit(t *testing.T, name, service string) {
	t.Helper()
	n.Write(t, "/run/systemd/system/"+name, []byte("[Service]\nType=notify\nEnvironment=ETCD_INITIAL_CLUSTER_TOKEN="+secret+" ETCD_UNSAFE_NO_FSYNC=true\n"+service), 0o644)
	if out, err := n.TryScript("systemctl daemon-reload; systemctl start " + name + " 2>&1"); err != nil {
		log, _ := n.TryScript("journalctl -u " + name + " --no-pager | tail -n 20")
		t.Fatalf("%s does not start: %s\n%s", name, out, log)
	}
	t.Cleanup(func() {
		n.Script(t, "systemctl stop "+name+"; rm -f /run/systemd/system/"+name+"; systemctl reset-failed")
	})
}

// clean leaves nothing of the case before.
func (n node) clean(t *testing.T) {
	t.Helper()
	n.Script(t, "rm -rf "+backups+" /srv/etcd /etc/etcd /etc/ssl/etcd /etc/kubernetes; mkdir -p /srv/etcd; chmod 777 /srv/etcd")
}

// save saves in the agent's sandbox, and says what it printed.
func (n node) save(t *testing.T, config string) (out string, err error) {
	t.Helper()
	n.Write(t, "/etc/nodeagent/config.yaml", []byte("role: control-plane\nnetwork: {cni: bridge}\nbackup: {"+config+" stores: [{file: {dir: "+backups+"}}]}\n"), 0o600)
	n.Script(t, "systemctl daemon-reload; journalctl --rotate >/dev/null 2>&1; journalctl --vacuum-time=1s >/dev/null 2>&1")
	_, err = n.TryScript("systemctl start save.service")
	out = n.Script(t, "journalctl --sync; journalctl -u save.service -o cat --no-pager")
	if strings.Contains(out, secret) {
		t.Errorf("a token in what it says: %s", out)
	}
	return out, err
}

// saves wants a backup of the version, by the endpoint's member, that reads back well.
func (n node) saves(t *testing.T, config, version string) {
	t.Helper()
	out, err := n.save(t, config)
	if err != nil {
		t.Fatalf("save: %v\n%s", err, out)
	}
	if got := n.Script(t, "nodeagent snapshot verify >/dev/null; cat "+backups+"/*.json"); !strings.Contains(got, `"version": "`+version+`.`) {
		t.Errorf("a backup of etcd %s is wanted, not %s", version, got)
	}
	if out, err := n.TryScript("grep -rF " + secret + " " + backups + " --include='*.json'"); err == nil {
		t.Errorf("a token in the manifest: %s", out)
	}
}

// refuses wants no backup, and each of parts in the reason.
func (n node) refuses(t *testing.T, config string, parts ...string) {
	t.Helper()
	out, err := n.save(t, config)
	if err == nil {
		t.Fatalf("saved: %s", out)
	}
	for _, part := range parts {
		if !strings.Contains(out, part) {
			t.Errorf("it does not say %q:\n%s", part, out)
		}
	}
	if left, err := n.TryScript("ls -A " + backups + "/*.db*"); err == nil {
		t.Errorf("there is a backup: %s", left)
	}
}

// pki puts a directory of pairs together.
type pki struct {
	node
	t   *testing.T
	ca  etcdtest.CA
	dir string
}

// pki begins one, with the authority in a file of the given name. Its files are etcd's.
func (n node) pki(t *testing.T, dir, authority string) pki {
	t.Helper()
	p := pki{node: n, t: t, ca: etcdtest.NewCA(), dir: dir}
	n.Write(t, filepath.Join(dir, authority), p.ca.PEM(), 0o644)
	return p
}

func (p pki) put(cert, key string, usages []x509.ExtKeyUsage, sans ...string) {
	p.t.Helper()
	certPEM, keyPEM := p.ca.IssueFor(usages, "m1", sans...)
	p.Write(p.t, filepath.Join(p.dir, cert), certPEM, 0o644)
	p.Write(p.t, filepath.Join(p.dir, key), keyPEM, 0o600)
	p.Script(p.t, fmt.Sprintf("chown etcd %s/%s", p.dir, key))
}

var (
	both   = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	server = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	client = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
)
