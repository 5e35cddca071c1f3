// Package bench measures the agent beside the tools that people use today, in one run on one
// machine, and reports ratios: figures of different machines say nothing about each other.
package bench

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/nodeagent/nodeagent/pkg/certs/certstest"
	"github.com/nodeagent/nodeagent/test/lab"
)

const (
	keys      = 20_000
	valueSize = 10_000 // a database of 200 MB
)

// BenchmarkSnapshotSave is `nodeagent snapshot save`, which verifies, beside
// `etcdctl snapshot save`, which does not.
func BenchmarkSnapshotSave(b *testing.B) {
	ctx := b.Context()
	bin, err := lab.Etcd(ctx)
	if err != nil {
		b.Fatal(err)
	}
	agent, root := nodeagent(b), b.TempDir()
	endpoint := startEtcd(b, filepath.Join(bin, "etcd"), root)
	fill(b, endpoint)
	writeFile(b, filepath.Join(root, "etc/nodeagent/config.yaml"), "role: control-plane\nbackup: {retention: {keepLast: 1}}\n")

	var ours, theirs time.Duration
	for b.Loop() {
		theirs += timed(b, filepath.Join(bin, "etcdctl"), "--endpoints", endpoint, "snapshot", "save", filepath.Join(b.TempDir(), "snapshot.db"))
		ours += timed(b, agent, "--root", root, "snapshot", "save")
	}
	report(b, ours, theirs)
}

// BenchmarkCertsList is `nodeagent certs list` beside `kubeadm certs check-expiration`.
func BenchmarkCertsList(b *testing.B) {
	bin, err := lab.Kubernetes(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	agent, root := nodeagent(b), b.TempDir()
	if err := certstest.Write(root, certstest.Options{Now: time.Now()}); err != nil {
		b.Fatal(err)
	}
	var ours, theirs time.Duration
	for b.Loop() {
		theirs += timed(b, filepath.Join(bin, "kubeadm"), "certs", "check-expiration", "--cert-dir", filepath.Join(root, "etc/kubernetes/pki"))
		ours += timed(b, agent, "--root", root, "certs", "list")
	}
	report(b, ours, theirs)
}

func report(b *testing.B, ours, theirs time.Duration) {
	b.ReportMetric(ours.Seconds()/float64(b.N), "nodeagent-s/op")
	b.ReportMetric(theirs.Seconds()/float64(b.N), "peer-s/op")
	b.ReportMetric(ours.Seconds()/theirs.Seconds(), "ratio")
	b.ReportMetric(0, "ns/op") // the sum of both says nothing
}

// nodeagent builds the program.
func nodeagent(b *testing.B) string {
	path := filepath.Join(b.TempDir(), "nodeagent")
	cmd := exec.CommandContext(b.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "github.com/nodeagent/nodeagent/cmd/nodeagent")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	return path
}

func timed(b *testing.B, path string, args ...string) time.Duration {
	began := time.Now()
	out, err := exec.CommandContext(b.Context(), path, args...).CombinedOutput()
	took := time.Since(began)
	if err != nil {
		b.Fatalf("%s %s: %v\n%s", path, strings.Join(args, " "), err, out)
	}
	return took
}

// startEtcd starts a real etcd on loopback and writes the static pod manifest that leads to it.
func startEtcd(b *testing.B, program, root string) (endpoint string) {
	client, peer := "http://"+freeAddress(b), "http://"+freeAddress(b)
	ctx, stop := context.WithCancel(context.Background())
	args := []string{
		"--name=bench", "--data-dir=" + filepath.Join(root, "var/lib/etcd"),
		"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=bench=" + peer,
		"--log-level=error",
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		stop()
		_ = cmd.Wait() // it was killed: that is its error
	})
	var manifest strings.Builder
	manifest.WriteString("apiVersion: v1\nkind: Pod\nmetadata: {name: etcd}\nspec:\n  containers:\n  - name: etcd\n    command:\n    - etcd\n")
	for _, arg := range args {
		fmt.Fprintf(&manifest, "    - %q\n", arg)
	}
	writeFile(b, filepath.Join(root, "etc/kubernetes/manifests/etcd.yaml"), manifest.String())
	return client
}

func fill(b *testing.B, endpoint string) {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: 10 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	ctx, cancel := context.WithTimeout(b.Context(), 5*time.Minute)
	defer cancel()
	value := strings.Repeat("v", valueSize)
	for i := 0; i < keys; i += 100 {
		var puts []clientv3.Op
		for k := i; k < i+100; k++ {
			puts = append(puts, clientv3.OpPut(fmt.Sprintf("/bench/%08d", k), value))
		}
		if _, err := client.Txn(ctx).Then(puts...).Commit(); err != nil {
			b.Fatal(err)
		}
	}
}

func freeAddress(b *testing.B) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func writeFile(b *testing.B, path, data string) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		b.Fatal(err)
	}
}
