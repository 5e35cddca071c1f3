//go:build integration

package backup_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/test/lab"
)

const interrupt = syscall.SIGTERM

// patience bounds every wait: far more than it takes on a machine that is busy.
const patience = time.Minute

// member is a real etcd of its own process, without TLS, so that a proxy can get at what it sends.
type member struct {
	program, dir, address string
	cmd                   *exec.Cmd
	client                *clientv3.Client
}

// etcd36 is the lab's.
func etcd36(t *testing.T) string {
	t.Helper()
	dir, err := lab.Etcd(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "etcd")
}

// newMember is a member on a free port, with an empty database.
func newMember(t *testing.T, program string) *member {
	t.Helper()
	m := &member{program: program, dir: t.TempDir(), address: freePort(t)}
	m.connect(t)
	m.start(t)
	return m
}

// connect makes the client, and sees to it that nothing is left when the test ends.
func (m *member) connect(t *testing.T) {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://" + m.address}, DialTimeout: patience, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	m.client = client
	t.Cleanup(func() {
		m.kill()
		_ = client.Close()
	})
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// start starts the process, on the data that an earlier one has left, and waits until it answers.
func (m *member) start(t *testing.T) {
	t.Helper()
	url, peer := "http://"+m.address, "http://"+freePort(t)
	m.cmd = exec.Command(m.program, "--name=cp1", "--data-dir="+m.dir, "--listen-client-urls="+url, "--advertise-client-urls="+url,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=cp1="+peer, "--quota-backend-bytes=4294967296", "--log-level=error")
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	m.cmd.Stderr = t.Output()
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	until(t, "etcd to answer", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := m.client.Get(ctx, "x")
		return err == nil
	})
}

// kill is SIGKILL; it may have been killed before.
func (m *member) kill() {
	if m.cmd == nil {
		return
	}
	_ = m.cmd.Process.Kill()
	_ = m.cmd.Wait()
}

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s", patience, what)
		}
	}
}

// marker is in each value that fill writes.
const marker = "marker-5d41402abc4b2a76"

// fill puts so many keys of so many bytes that nothing compresses.
func (m *member) fill(t *testing.T, keys, size int) {
	t.Helper()
	noise := rand.NewChaCha8([32]byte{7})
	for key := 0; key < keys; {
		var ops []clientv3.Op
		for bytes := 0; bytes < 1<<20 && len(ops) < 100 && key < keys; bytes += size {
			value := make([]byte, size)
			_, _ = noise.Read(value) // it never fails
			copy(value, marker)
			ops = append(ops, clientv3.OpPut(fmt.Sprintf("/registry/configmaps/some-namespace/name-%08d", key), string(value)))
			key++
		}
		if _, err := m.client.Txn(t.Context()).Then(ops...).Commit(); err != nil {
			t.Fatal(err)
		}
	}
}

// node is a root with a configuration, on which the real program runs.
type node struct {
	t          *testing.T
	root       string
	identities etcdbackup.Identities
}

const storeDir = "/var/lib/nodeagent/backups"

// newNode saves from the etcd at an address, encrypted and with a key of the cluster, and as more,
// which may be empty, says.
func newNode(t *testing.T, address, more string) node {
	t.Helper()
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	n := node{t: t, root: t.TempDir()}
	if n.identities, err = etcdbackup.ParseIdentities([]byte(key.String())); err != nil {
		t.Fatal(err)
	}
	if more == "" {
		more = "retention: {keepLast: 1}"
	}
	config := fmt.Sprintf("role: control-plane\nmetrics: {listen: \"127.0.0.1:0\"}\nbackup: {endpoints: [\"http://%s\"], recipients: [%s], maxDiskPercent: 100, %s}\n",
		address, key.Recipient(), more)
	h := host.New(n.root)
	for path, text := range map[string]string{
		"/etc/hostname": "cp1\n", "/etc/machine-id": "0123456789abcdef0123456789abcdef\n", "/etc/nodeagent/config.yaml": config,
		"/etc/kubernetes/pki/ca.key": "-----BEGIN PRIVATE KEY-----\n",
	} {
		if err := errors.Join(h.MkdirAll(filepath.Dir(path), 0o755), h.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// run is one run of the program.
type run struct {
	*exec.Cmd
	stdout bytes.Buffer
	mu     sync.Mutex
	said   bytes.Buffer // on standard error
	ended  chan struct{}
}

func (r *run) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.said.Write(p)
}

func (r *run) messages() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.said.String()
}

// begin starts the program.
func (n node) begin(args ...string) *run {
	n.t.Helper()
	r := &run{Cmd: exec.Command(program(n.t), append([]string{"--root", n.root}, args...)...), ended: make(chan struct{})}
	r.Stdout, r.Stderr, r.Env, r.Dir = &r.stdout, r, []string{}, "/"
	if err := r.Start(); err != nil {
		n.t.Fatal(err)
	}
	go func() {
		_ = r.Wait()
		close(r.ended)
	}()
	n.t.Cleanup(func() {
		_ = r.Process.Kill() // it has ended, where the test came to its end
		<-r.ended
	})
	return r
}

// end waits for the program to end.
func (r *run) end(t *testing.T) (code int) {
	t.Helper()
	select {
	case <-r.ended:
	case <-time.After(patience):
		t.Fatalf("it does not end: %s", r.messages())
	}
	return r.ProcessState.ExitCode()
}

// does runs the program, which has to end with an exit code, and returns all that it printed.
func (n node) does(code int, args ...string) string {
	n.t.Helper()
	r := n.begin(args...)
	if got := r.end(n.t); got != code {
		n.t.Errorf("nodeagent %s exits %d, not %d: %s%s", strings.Join(args, " "), got, code, r.stdout.String(), r.messages())
	}
	return r.stdout.String() + r.messages()
}

// verified are the names of the backups listed, the newest first, each of which was opened and read.
func (n node) verified() []string {
	n.t.Helper()
	var names []string
	for _, b := range n.list() {
		got, err := etcdbackup.Verify(n.t.Context(), n.store(), b.Object.Name, n.identities)
		if err != nil || !got.Opened {
			n.t.Errorf("a backup is listed that is none: %v", err)
		}
		names = append(names, b.Object.Name)
	}
	return names
}

func (n node) list() []etcdbackup.Manifest {
	n.t.Helper()
	r := n.begin("snapshot", "list", "--output", "json")
	var list []etcdbackup.Manifest
	if code := r.end(n.t); code != 0 {
		n.t.Errorf("list exits %d: %s", code, r.messages())
	} else if err := json.Unmarshal(r.stdout.Bytes(), &list); err != nil {
		n.t.Errorf("list prints %q: %v", r.stdout.String(), err)
	}
	return list
}

// files is all that lies in the store, hidden files among it.
func (n node) files() []string {
	n.t.Helper()
	entries, err := os.ReadDir(filepath.Join(n.root, storeDir))
	if err != nil {
		n.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// unwrap writes the snapshot that a backup holds to a file.
func (n node) unwrap(m etcdbackup.Manifest) string {
	n.t.Helper()
	from, err := n.store().Open(n.t.Context(), m.Object.Name)
	if err != nil {
		n.t.Fatal(err)
	}
	path := filepath.Join(n.t.TempDir(), "snapshot.db")
	to, err := os.Create(path)
	if err != nil {
		n.t.Fatal(err)
	}
	plain, err := etcdbackup.Unwrap(from, true, true, n.identities)
	if err == nil {
		_, err = io.Copy(to, plain)
		err = errors.Join(err, plain.Close())
	}
	if err := errors.Join(err, from.Close(), to.Close()); err != nil {
		n.t.Fatal(err)
	}
	return path
}
