package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/nodeagent/nodeagent/test/lab"
)

// BenchmarkSnapshotVerify is `nodeagent snapshot verify` beside `etcdutl snapshot status`, which passes
// some files that are broken, of one file that etcdctl saved.
func BenchmarkSnapshotVerify(b *testing.B) {
	bin, err := lab.Etcd(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	agent, root := nodeagent(b), b.TempDir()
	endpoint := startEtcd(b, filepath.Join(bin, "etcd"), root)
	fill(b, endpoint, 0, databaseMB())
	file := filepath.Join(root, "snapshot.db")
	timed(b, filepath.Join(bin, "etcdctl"), "--endpoints", endpoint, "snapshot", "save", file)
	var ours, theirs time.Duration
	for b.Loop() {
		theirs += timed(b, filepath.Join(bin, "etcdutl"), "snapshot", "status", file)
		ours += timed(b, agent, "snapshot", "verify", file)
	}
	report(b, ours, theirs)
}

// What a save may have in memory that is of no file, and by how much that may differ between two sizes of the
// database: several collections of garbage.
const (
	memoryTarget = 64 << 20
	memoryNoise  = 12 << 20
)

// BenchmarkSaveMemory is a check: the memory that a save has for itself, compressed, does not grow with the
// database. The sizes are those of the other figures.
func BenchmarkSaveMemory(b *testing.B) {
	bin, err := lab.Etcd(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	agent, root := nodeagent(b), b.TempDir()
	endpoint := startEtcd(b, filepath.Join(bin, "etcd"), root)
	writeFile(b, filepath.Join(root, "etc/nodeagent/config.yaml"), "role: control-plane\nbackup: {retention: {keepLast: 1}, maxDiskPercent: 100}\n")
	var peaks []int64
	size := 0
	for _, mb := range []int{200, 1100} {
		fill(b, endpoint, size, mb)
		size = mb
		_, peak := watched(b, agent, "--root", root, "snapshot", "save")
		peaks = append(peaks, peak)
		b.ReportMetric(float64(peak)/(1<<20), fmt.Sprintf("MiB-at-%d-MB", mb))
	}
	b.ReportMetric(0, "ns/op")
	if peaks[0] == 0 || max(peaks[0], peaks[1]) > memoryTarget || peaks[1]-peaks[0] > memoryNoise {
		b.Errorf("a save has %d bytes for itself, at most, of a small database, and of a large one %d", peaks[0], peaks[1])
	}
}

const (
	putsPerSecond = 400
	// phase is how long puts are measured with nothing else, and while one save by etcdctl follows the other.
	phase = 10 * time.Second
	// putRounds are those whose median counts.
	putRounds = 3
)

func median(of []time.Duration) time.Duration {
	of = slices.Sorted(slices.Values(of))
	return of[len(of)/2]
}

// BenchmarkPutsWhileSaving is how slow the slowest percent of puts is, 400 a second to an etcd on the disk
// that is also saved to: while the daemon saves as scheduled, at rate auto, beside puts with nothing else, and
// beside puts while etcdctl saves.
func BenchmarkPutsWhileSaving(b *testing.B) {
	bin, err := lab.Etcd(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	agent, root := nodeagent(b), b.TempDir()
	endpoint := startEtcd(b, filepath.Join(bin, "etcd"), root)
	fill(b, endpoint, 0, databaseMB())
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: 10 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = client.Close() }()

	var idles, etcdctls, all []time.Duration
	for range putRounds { // in turns: what else the machine's disk does meets all of them
		idles = append(idles, putsDuring(b, client, func() { time.Sleep(phase) }))
		etcdctls = append(etcdctls, putsDuring(b, client, func() {
			for began := time.Now(); time.Since(began) < phase; {
				timed(b, filepath.Join(bin, "etcdctl"), "--endpoints", endpoint, "snapshot", "save", filepath.Join(b.TempDir(), "snapshot.db"))
			}
		}))
		all = append(all, putsDuring(b, client, func() { scheduledSave(b, agent, root) }))
	}
	idle, etcdctl, ours := median(idles), median(etcdctls), median(all)
	for name, peer := range map[string]time.Duration{"idle": idle, "etcdctl": etcdctl} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() { // it was measured above, once
				continue
			}
			b.ReportMetric(ours.Seconds(), "nodeagent-s/op")
			b.ReportMetric(peer.Seconds(), "peer-s/op")
			b.ReportMetric(ours.Seconds()/peer.Seconds(), "ratio")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// scheduledSave has the daemon take its first snapshot, and ends it.
func scheduledSave(b *testing.B, agent, root string) {
	writeFile(b, filepath.Join(root, "etc/nodeagent/config.yaml"), "role: control-plane\nmetrics: {listen: \"\"}\nbackup: {rate: auto, maxDiskPercent: 100}\n")
	if err := os.RemoveAll(filepath.Join(root, "var/lib/nodeagent")); err != nil { // so that a save is due
		b.Fatal(err)
	}
	ctx, stop := context.WithTimeout(b.Context(), 15*time.Minute)
	defer stop()
	daemon := exec.CommandContext(ctx, agent, "--root", root, "run")
	daemon.Cancel = func() error { return daemon.Process.Signal(os.Interrupt) }
	var said strings.Builder
	daemon.Stderr = &said
	if err := daemon.Start(); err != nil {
		b.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- daemon.Wait() }()
	for tick := time.NewTicker(50 * time.Millisecond); ; {
		select {
		case err := <-ended:
			b.Fatalf("the daemon has ended: %v\n%s", err, said.String())
		case <-tick.C:
		}
		manifests, err := filepath.Glob(filepath.Join(root, "var/lib/nodeagent/backups/*.json"))
		if err != nil {
			b.Fatal(err)
		}
		if len(manifests) > 0 {
			tick.Stop()
			stop()
			if err := <-ended; err != nil && ctx.Err() == nil {
				b.Error(err)
			}
			return
		}
	}
}

// putsDuring puts at an even rate, whether those before have been answered or not, while do runs, and returns the
// 99th percentile of how long after its time each was answered.
func putsDuring(b *testing.B, client *clientv3.Client, do func()) time.Duration {
	b.Helper()
	over := make(chan struct{})
	go func() {
		defer close(over)
		do()
	}()
	var mu sync.Mutex
	var took []time.Duration
	var failed error
	var wg sync.WaitGroup
	value := strings.Repeat("v", 1000)
	began := time.Now()
	for i := 0; ; i++ {
		at := began.Add(time.Duration(i) * time.Second / putsPerSecond)
		time.Sleep(time.Until(at))
		select {
		case <-over:
			wg.Wait()
			if failed != nil {
				b.Fatal(failed)
			}
			slices.Sort(took)
			return took[len(took)*99/100]
		default:
		}
		wg.Go(func() {
			_, err := client.Put(b.Context(), fmt.Sprintf("/puts/%04d", i%1000), value)
			mu.Lock()
			defer mu.Unlock()
			took = append(took, time.Since(at))
			if err != nil {
				failed = err
			}
		})
	}
}
