// Package bench measures the agent beside the tools that people use today, in one run on one
// machine, and reports ratios: figures of different machines say nothing about each other.
package bench

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/nodeagent/nodeagent/pkg/certs/certstest"
	"github.com/nodeagent/nodeagent/test/lab"
)

// BenchmarkSnapshotSave is `nodeagent snapshot save`, which verifies, beside `etcdctl snapshot save`,
// which does not: as etcdctl stores it, compressed as it is by default, and encrypted too.
// BENCH_DB_MB is the size of the database, 200 where it is not set.
func BenchmarkSnapshotSave(b *testing.B) {
	ctx := b.Context()
	bin, err := lab.Etcd(ctx)
	if err != nil {
		b.Fatal(err)
	}
	agent, root := nodeagent(b), b.TempDir()
	endpoint := startEtcd(b, filepath.Join(bin, "etcd"), root)
	fill(b, endpoint, 0, databaseMB())
	key, err := age.GenerateX25519Identity()
	if err != nil {
		b.Fatal(err)
	}
	for _, way := range []struct{ name, config string }{
		{"plain", "compression: none"},
		{"zstd", "compression: zstd"},
		{"zstd+age", "compression: zstd, recipients: [" + key.Recipient().String() + "]"},
	} {
		b.Run(way.name, func(b *testing.B) {
			writeFile(b, filepath.Join(root, "etc/nodeagent/config.yaml"), "role: control-plane\nbackup: {retention: {keepLast: 1}, "+way.config+"}\n")
			var ours, theirs time.Duration
			var memory int64
			for b.Loop() {
				theirs += timed(b, filepath.Join(bin, "etcdctl"), "--endpoints", endpoint, "snapshot", "save", filepath.Join(b.TempDir(), "snapshot.db"))
				took, anonymous := watched(b, agent, "--root", root, "snapshot", "save")
				ours, memory = ours+took, max(memory, anonymous)
			}
			report(b, ours, theirs)
			b.ReportMetric(float64(memory)/(1<<20), "MiB-anonymous")
		})
	}
}

// watched is timed, with the most of anonymous memory that the program was seen to have: what it
// maps of the file that it reads is the page cache's.
func watched(b *testing.B, path string, args ...string) (took time.Duration, anonymous int64) {
	began := time.Now()
	cmd := exec.CommandContext(b.Context(), path, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		select {
		case err := <-done:
			tick.Stop()
			if err != nil {
				b.Fatalf("%s %s: %v\n%s", path, strings.Join(args, " "), err, &out)
			}
			return time.Since(began), anonymous
		case <-tick.C:
			anonymous = max(anonymous, rssAnon(cmd.Process.Pid))
		}
	}
}

// rssAnon is 0 of a process that has ended.
func rssAnon(pid int) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "RssAnon:")
	var kib int64
	_, _ = fmt.Sscan(rest, &kib)
	return kib << 10
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
		"--log-level=error", "--quota-backend-bytes=8589934592",
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

// databaseMB is how large databases are, as BENCH_DB_MB says or 200.
func databaseMB() int {
	if mb, err := strconv.Atoi(os.Getenv("BENCH_DB_MB")); err == nil {
		return mb
	}
	return 200
}

// fill makes a database of from megabytes one of to, whose values are half noise and half alike, since real
// ones compress to something like that.
func fill(b *testing.B, endpoint string, from, to int) {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: 10 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	ctx, cancel := context.WithTimeout(b.Context(), 15*time.Minute)
	defer cancel()
	const valueSize = 10_000
	first, last := from*1_000_000/valueSize, to*1_000_000/valueSize
	noise, alike := rand.NewChaCha8([32]byte{byte(from)}), strings.Repeat("v", valueSize/2)
	for i := first; i < last; i += 100 {
		var puts []clientv3.Op
		for k := i; k < i+100; k++ {
			value := make([]byte, valueSize/2)
			_, _ = noise.Read(value) // never fails
			puts = append(puts, clientv3.OpPut(fmt.Sprintf("/bench/%08d", k), alike+string(value)))
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
