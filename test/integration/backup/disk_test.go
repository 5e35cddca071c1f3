//go:build integration

package backup_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// kubekey#1625: a full disk ended in deleted files. Somebody else fills the disk while a save runs,
// so that it becomes full within the object, the file to verify it in, the archive or the manifest,
// for want of blocks or of inodes: the error says so, the backup before it is as it was, the disk
// is given back, and with room again a save succeeds.
func TestDiskFull(t *testing.T) {
	etcd := newMember(t, etcd36(t))
	etcd.fill(t, 8, valueSize)
	wire := newProxy(t, etcd.address)
	n := newNode(t, wire.address(), "retention: {keepLast: 2}")
	disk := filepath.Join(n.root, "var/lib/nodeagent")
	if err := os.MkdirAll(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	const roomy = "size=512m,nr_inodes=1000,mode=755"
	mount(t, disk, 0, roomy)
	t.Cleanup(func() {
		if err := unix.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	n.does(0, "snapshot", "save")
	before, kept := n.files(), n.verified()

	// attempt saves with so much left from the stream's beginning on.
	attempt := func(t *testing.T, options func(unix.Statfs_t) string) (full bool) {
		n.t = t
		was := statfs(t, disk)
		var once sync.Once
		wire.befalls(func(sent int64, _ []byte) bool {
			if sent > 64<<10 {
				once.Do(func() { mount(t, disk, unix.MS_REMOUNT, options(statfs(t, disk))) })
			}
			return true
		})
		save := n.begin("snapshot", "save")
		code := save.end(t)
		wire.befalls(nil)
		mount(t, disk, unix.MS_REMOUNT, roomy)
		if code == 0 {
			return false
		}
		t.Log(save.messages())
		if code != 1 || !strings.Contains(save.messages(), "no space left on device") && !strings.Contains(save.messages(), "not enough free space") ||
			strings.Contains(save.messages(), n.root) {
			t.Errorf("exit code %d, %s", code, save.messages())
		}
		if after := n.files(); !slices.Equal(after, before) || !slices.Equal(n.verified(), kept) {
			t.Errorf("the store holds %q, and before %q", after, before)
		}
		if is := statfs(t, disk); is.Bfree != was.Bfree || is.Ffree != was.Ffree {
			t.Errorf("%d blocks and %d inodes are free, and before %d and %d", is.Bfree, is.Ffree, was.Bfree, was.Ffree)
		}
		return true
	}
	blocks := func(free uint64) func(unix.Statfs_t) string {
		return func(is unix.Statfs_t) string {
			return fmt.Sprintf("size=%d,nr_inodes=1000", (is.Blocks-is.Bfree+free)*uint64(is.Bsize))
		}
	}
	inodes := func(free uint64) func(unix.Statfs_t) string {
		return func(is unix.Statfs_t) string { return fmt.Sprintf("size=512m,nr_inodes=%d", is.Files-is.Ffree+free) }
	}

	// How many it takes is found by halves, and then others below that are tried. Archive and
	// manifest are written into what the scratch file gave back: they lack inodes.
	// By the moment at which the disk is made smaller some 64 KiB of the stream have been sent, of which all
	// or nothing may have been written: twice that many blocks.
	const edge = 32
	low, high := uint64(0), uint64(8<<10)
	for high-low > 1 {
		middle := (low + high) / 2
		full := true
		t.Run(fmt.Sprintf("blocks/%d", middle), func(t *testing.T) { full = attempt(t, blocks(middle)) })
		if full {
			low = middle
			continue
		}
		high = middle
		n.t = t
		n.restoreTo(before)
	}
	for _, free := range []uint64{0, 1, low / 4, low / 2, low * 3 / 4, low - 2, low - 1, low} {
		t.Run(fmt.Sprintf("blocks/%d", free), func(t *testing.T) {
			if attempt(t, blocks(free)) {
				return
			}
			n.restoreTo(before)
			// How much has been written when the disk is made smaller is not the same each time.
			if free+edge < low {
				t.Error("with fewer blocks than are enough it succeeds")
			}
		})
	}
	for free := uint64(0); ; free++ {
		full := false
		t.Run(fmt.Sprintf("inodes/%d", free), func(t *testing.T) { full = attempt(t, inodes(free)) })
		if full {
			continue
		}
		if free == 0 {
			t.Error("it never was without inodes")
		}
		break
	}
	n.t = t
	n.does(0, "snapshot", "save")
	if got := n.verified(); len(got) != 2 {
		t.Errorf("with room again: %q", got)
	}
}

// restoreTo removes what a save that succeeded has added to the store.
func (n node) restoreTo(files []string) {
	n.t.Helper()
	for _, name := range n.files() {
		if slices.Contains(files, name) {
			continue
		}
		if err := os.Remove(filepath.Join(n.root, storeDir, name)); err != nil {
			n.t.Fatal(err)
		}
	}
}

func mount(t *testing.T, dir string, flags uintptr, options string) {
	t.Helper()
	if err := unix.Mount("tmpfs", dir, "tmpfs", flags, options); err != nil {
		t.Errorf("mount: %v", err)
	}
}

func statfs(t *testing.T, dir string) (is unix.Statfs_t) {
	t.Helper()
	if err := unix.Statfs(dir, &is); err != nil {
		t.Error(err)
	}
	return is
}

// kubespray#6621: backups took half of the root filesystem. A budget that was made smaller holds by hand
// too, and a dry run says which go for it.
func TestPruneByHandToABudget(t *testing.T) {
	etcd := newMember(t, etcd36(t))
	etcd.fill(t, 80, 100_000) // 8 MB, which nothing compresses
	n := newNode(t, etcd.address, "retention: {keepLast: 3}")
	disk := filepath.Join(n.root, "var/lib/nodeagent")
	if err := os.MkdirAll(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	mount(t, disk, 0, "size=512m,mode=755")
	t.Cleanup(func() {
		if err := unix.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	for range 3 {
		n.does(0, "snapshot", "save")
	}
	saved := n.verified()
	config := filepath.Join(n.root, "etc/nodeagent/config.yaml")
	data, err := os.ReadFile(config)
	if err == nil {
		err = os.WriteFile(config, []byte(strings.Replace(string(data), "maxDiskPercent: 100", "maxDiskPercent: 4", 1)), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	// 4 % of 512 MiB are two of them.
	if said := n.does(0, "snapshot", "prune", "--dry-run"); strings.Count(said, " kept ") != 2 || !strings.Contains(said, "would be removed  over maxDiskPercent, 20 MiB") {
		t.Errorf("a dry run says %s", said)
	}
	if got := n.verified(); !slices.Equal(got, saved) {
		t.Errorf("after a dry run there is %q", got)
	}
	if said := n.does(0, "snapshot", "prune"); !strings.Contains(said, "removed  over maxDiskPercent, 20 MiB") {
		t.Errorf("it says %s", said)
	}
	if got := n.verified(); !slices.Equal(got, saved[:2]) {
		t.Errorf("left is %q of %q", got, saved)
	}
}
