//go:build integration

package cluster_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/nodeagent/nodeagent/pkg/etcd"
	"github.com/nodeagent/nodeagent/pkg/etcd/etcdtest"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/file"
	"github.com/nodeagent/nodeagent/pkg/host"
)

const (
	// patience bounds every wait: far more than it takes on a machine that is busy.
	patience = time.Minute
	ownDir   = "/var/lib/nodeagent/backups"
	spoolDir = "/var/lib/nodeagent/spool/" + storeID
)

// cluster is three members and their agents, counted from 1.
type cluster struct {
	t      *testing.T // what runs lives as long as it
	dir    string
	tls    *tls.Config
	etcds  [members + 1]*exec.Cmd
	agents [members + 1]*remote
	client *clientv3.Client // by whichever member is there
}

func name(i int) string { return fmt.Sprintf("cp%d", i) }

func endpoint(i int) string { return "https://" + address(i) + ":2379" }

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t, dir: t.TempDir()}
	ca := etcdtest.NewCA()
	c.write(t, "ca.crt", ca.PEM())
	cert, key := ca.Issue("client")
	c.write(t, "client.crt", cert)
	c.write(t, "client.key", key)
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	c.tls = &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	c.tls.RootCAs.AppendCertsFromPEM(ca.PEM())
	var endpoints []string
	for i := 1; i <= members; i++ {
		cert, key := ca.Issue(name(i), address(i))
		c.write(t, name(i)+".crt", cert)
		c.write(t, name(i)+".key", key)
		endpoints = append(endpoints, endpoint(i))
		c.startEtcd(i)
	}
	c.client, err = clientv3.New(clientv3.Config{Endpoints: endpoints, TLS: c.tls, DialTimeout: patience, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.client.Close() })
	for i := 1; i <= members; i++ {
		c.startAgent(i)
	}
	until(t, "the members to agree", func(ctx context.Context) bool {
		_, err := c.client.Put(ctx, "/registry/namespaces/default", "x")
		return err == nil
	})
	return c
}

func (c *cluster) path(name string) string { return filepath.Join(c.dir, name) }

func (c *cluster) write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(c.path(name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// startEtcd starts a member, on the data that an earlier one has left.
func (c *cluster) startEtcd(i int) {
	t := c.t
	t.Helper()
	var peers []string
	for j := 1; j <= members; j++ {
		peers = append(peers, fmt.Sprintf("%s=http://%s:2380", name(j), address(j)))
	}
	peer := fmt.Sprintf("http://%s:2380", address(i))
	cmd := inside(i, filepath.Join(os.Getenv(etcdEnv), "etcd"), "--name="+name(i), "--data-dir="+c.path("etcd-"+name(i)), "--unsafe-no-fsync", "--heartbeat-interval=200", "--election-timeout=2000",
		"--listen-client-urls="+endpoint(i), "--advertise-client-urls="+endpoint(i), "--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer,
		"--initial-cluster="+strings.Join(peers, ","), "--cert-file="+c.path(name(i)+".crt"), "--key-file="+c.path(name(i)+".key"),
		"--client-cert-auth", "--trusted-ca-file="+c.path("ca.crt"), "--log-level=fatal")
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c.etcds[i] = cmd
	t.Cleanup(func() { kill(cmd) })
}

// kill is SIGKILL; it may have been killed before.
func kill(cmd *exec.Cmd) {
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

// remote is an agent in its own process.
type remote struct {
	t       *testing.T
	name    string
	cmd     *exec.Cmd
	orders  io.WriteCloser
	answers chan answer
}

func (c *cluster) startAgent(i int) {
	t := c.t
	t.Helper()
	config, err := json.Marshal(agentConfig{
		Name: name(i), Root: c.root(t, i), Endpoint: endpoint(i), CAFile: c.path("ca.crt"), Cert: c.path("client.crt"), KeyFile: c.path("client.key"),
	})
	if err != nil {
		t.Fatal(err)
	}
	r := &remote{t: t, name: name(i), answers: make(chan answer, 1000)}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r.cmd = inside(i, self)
	r.cmd.Env, r.cmd.Stderr = append(r.cmd.Env, agentEnv+"="+string(config)), t.Output()
	if r.orders, err = r.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c.agents[i] = r
	go func() {
		defer close(r.answers)
		for decoder := json.NewDecoder(stdout); ; {
			var a answer
			if decoder.Decode(&a) != nil {
				return
			}
			r.answers <- a
		}
	}()
	t.Cleanup(func() { kill(r.cmd) })
}

// root is an agent's machine.
func (c *cluster) root(t *testing.T, i int) string {
	t.Helper()
	dir := c.path("root-" + name(i))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func (r *remote) begin(o order) {
	r.t.Helper()
	if err := json.NewEncoder(r.orders).Encode(o); err != nil {
		r.t.Fatalf("%s: %v", r.name, err)
	}
}

// says waits for the agent to say something; what else it says before that is passed over.
func (r *remote) says(is string) answer {
	r.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case a, ok := <-r.answers:
			if !ok {
				r.t.Fatalf("%s has ended", r.name)
			}
			if a.Is == is {
				return a
			}
			if a.Is == "done" {
				r.t.Fatalf("%s is done, and not %s: %+v", r.name, is, a)
			}
		case <-timeout:
			r.t.Fatalf("waited %s for %s to be %s", patience, r.name, is)
		}
	}
}

func (r *remote) does(o order) answer {
	r.t.Helper()
	r.begin(o)
	return r.says("done")
}

// must is does of what has to succeed.
func (r *remote) must(o order) answer {
	r.t.Helper()
	a := r.does(o)
	if a.Err != "" {
		r.t.Fatalf("%s: %s: %s", r.name, o.Do, a.Err)
	}
	return a
}

func (r *remote) signal(s syscall.Signal) {
	r.t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		r.t.Fatal(err)
	}
}

func until(t *testing.T, what string, done func(context.Context) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		try, stop := context.WithTimeout(ctx, 2*time.Second)
		is := done(try)
		stop()
		if is {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("waited %s for %s", patience, what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// leader is the member that leads, as soon as all that are asked agree which one it is.
func (c *cluster) leader(t *testing.T, asked ...int) (leads int) {
	t.Helper()
	until(t, "one leader", func(ctx context.Context) bool {
		leads = 0
		ids := map[uint64]bool{}
		for _, i := range asked {
			status, err := c.client.Status(ctx, endpoint(i))
			if err != nil {
				return false
			}
			if ids[status.Leader] = true; status.Leader == status.Header.MemberId {
				leads = i
			}
		}
		return len(ids) == 1 && leads != 0
	})
	return leads
}

// record is the shared store's, as the members agree on it.
func (c *cluster) record(t *testing.T) etcdbackup.SlotRecord {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := c.client.Get(ctx, "x") // whoever answers the next is up to date
	records, recordsErr := etcdbackup.SlotRecords(ctx, c.client, storeID)
	if err := errors.Join(err, recordsErr); err != nil {
		t.Fatal(err)
	}
	return records[storeID]
}

// backups are those in a member's own store, or in what of the shared one lies on it.
func (c *cluster) backups(t *testing.T, i int, dir string) []etcdbackup.Manifest {
	t.Helper()
	store := file.New(host.New(c.root(t, i)), dir, name(i))
	list, err := etcdbackup.List(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range list.Backups {
		if _, err := etcdbackup.Verify(t.Context(), store, m.Object.Name, etcdbackup.Identities{}); err != nil {
			t.Error(err)
		}
	}
	return list.Backups
}

// locks are the holders and waiters of all locks.
func (c *cluster) locks(t *testing.T) (holders []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	resp, err := c.client.Get(ctx, etcd.Prefix+"lock/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range resp.Kvs {
		holders = append(holders, string(kv.Value))
	}
	return holders
}
