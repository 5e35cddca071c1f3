//go:build integration

package backup_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// etcd-backup-restore#95: of a database of 250 MB the backup took 2 GB of memory. Of one of more
// than 300 MB, in 100,000 keys, with values that nothing compresses, what the whole process has for itself while
// it saves, compressed and encrypted, stays below 64 MiB. The database is mapped, in pages that the
// kernel takes back when it wants them.
func TestMemory(t *testing.T) {
	const most = 64 << 20
	etcd := newMember(t, etcd36(t))
	etcd.fill(t, 100_000, 3000)
	n := newNode(t, etcd.address, "")
	save := n.begin("snapshot", "save")
	peak, samples := int64(0), 0
	for ended := false; !ended; {
		if anonymous, there := rssAnon(t, save.Process.Pid); there {
			peak, samples = max(peak, anonymous), samples+1
		}
		select {
		case <-save.ended:
			ended = true
		case <-time.After(2 * time.Millisecond):
		}
	}
	if code := save.end(t); code != 0 {
		t.Fatalf("exit code %d: %s", code, save.messages())
	}
	m := n.list()[0]
	t.Logf("%d MiB in %d keys: at most %.1f MiB, of %d samples", m.Snapshot.Size>>20, m.Snapshot.Keys, float64(peak)/(1<<20), samples)
	if peak > most || samples < 50 || m.Snapshot.Size < 250e6 {
		t.Errorf("at most %d bytes of a database of %d, in %d samples", peak, m.Snapshot.Size, samples)
	}
}

// rssAnon is what a process has in memory that is of no file, in bytes; false once it has ended.
func rssAnon(t *testing.T, pid int) (bytes int64, there bool) {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, false
	}
	_, rest, found := strings.Cut(string(data), "\nRssAnon:")
	line, _, _ := strings.Cut(rest, "\n")
	if !found { // it is a zombie
		return 0, false
	}
	kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(line), "kB")), 10, 64)
	if err != nil {
		t.Fatalf("RssAnon: %q", line)
	}
	return kib << 10, true
}
