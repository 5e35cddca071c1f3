//go:build integration

package hostfs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// commands are those that write an image.
var commands = map[string][]string{
	"apply":       {"apply"},
	"config init": {"config", "init"},
}

// machine makes root what the command finds.
func machine(t *testing.T, root, command string) {
	t.Helper()
	if command == "apply" {
		unpack(t, root)
		return
	}
	// A file, since a size of 0 is none at all.
	err := os.MkdirAll(filepath.Join(root, "etc"), 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(root, "etc/hostname"), []byte("node-1\n"), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// disk mounts an empty file system in memory with that machine on it.
func disk(t *testing.T, command string) (root string) {
	t.Helper()
	root = t.TempDir()
	mount(t, "tmpfs", root, "tmpfs", 0, "size=64m,nr_inodes=10000,mode=755")
	t.Cleanup(func() {
		if err := unix.Unmount(root, 0); err != nil {
			t.Error(err)
		}
	})
	machine(t, root, command)
	return root
}

func mount(t *testing.T, source, target, kind string, flags uintptr, options string) {
	t.Helper()
	if err := unix.Mount(source, target, kind, flags, options); err != nil {
		t.Fatalf("mount %s: %v", target, err)
	}
}

// reference is the machine before the command and after it, on a disk with room.
func reference(t *testing.T, command string) (before, after map[string]string) {
	t.Helper()
	root := disk(t, command)
	before = tree(t, root)
	if code, out := nodeagent(t, 0, append(commands[command], "--root", root)...); code != 0 {
		t.Fatalf("exit code %d: %s", code, out)
	}
	return before, tree(t, root)
}

// A disk that is full at any write, for want of blocks or of inodes: the error says so and names
// the file, nothing is half written and nothing left over, and once there is room the same
// command ends where one ends that always had it.
func TestFullDisk(t *testing.T) {
	for command := range commands {
		for _, unit := range []string{"blocks", "inodes"} {
			t.Run(command+"/"+unit, func(t *testing.T) {
				before, after := reference(t, command)
				refused := 0
				for free := uint64(0); ; free++ {
					if free > 500 {
						t.Fatal("500 are not enough")
					}
					root := disk(t, command)
					limit(t, root, unit, free)
					code, out := nodeagent(t, 0, append(commands[command], "--root", root)...)
					if code == 0 {
						if diff := cmp.Diff(after, tree(t, root)); diff != "" {
							t.Errorf("with %d free: %s", free, diff)
						}
						break
					}
					refused++
					if code != 1 || !strings.Contains(out, "no space left on device") || strings.Contains(out, root) {
						t.Errorf("with %d free: exit code %d, %s", free, code, out)
					}
					whole(t, tree(t, root), before, after)
					mount(t, "tmpfs", root, "tmpfs", unix.MS_REMOUNT, "size=64m,nr_inodes=10000")
					if code, out := nodeagent(t, 0, append(commands[command], "--root", root)...); code != 0 {
						t.Errorf("with room again: exit code %d, %s", code, out)
					}
					if diff := cmp.Diff(after, tree(t, root)); diff != "" {
						t.Errorf("with room again: %s", diff)
					}
				}
				t.Logf("refused %d times", refused)
				if refused == 0 {
					t.Error("the disk was never full")
				}
			})
		}
	}
}

// limit leaves so many blocks of 4 KiB, or inodes, on a disk.
func limit(t *testing.T, root, unit string, free uint64) {
	t.Helper()
	var stat unix.Statfs_t
	if err := unix.Statfs(root, &stat); err != nil {
		t.Fatal(err)
	}
	options := fmt.Sprintf("size=64m,nr_inodes=%d", stat.Files-stat.Ffree+free)
	if unit == "blocks" {
		options = fmt.Sprintf("size=%d,nr_inodes=10000", (stat.Blocks-stat.Bfree+free)*uint64(stat.Bsize))
	}
	mount(t, "tmpfs", root, "tmpfs", unix.MS_REMOUNT, options)
}

// A read-only /etc, or a machine that is read-only altogether: the error says so and names the
// file, and nothing is half written. A plan needs nothing written.
func TestReadOnly(t *testing.T) {
	for command := range commands {
		for _, dir := range []string{"etc", ""} {
			t.Run(command+"/"+dir, func(t *testing.T) {
				before, after := reference(t, command)
				root := disk(t, command)
				target := filepath.Join(root, dir)
				mount(t, target, target, "", unix.MS_BIND, "")
				mount(t, "", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
				release := func() {
					if err := unix.Unmount(target, 0); err != nil {
						t.Error(err)
					}
				}
				if command == "apply" {
					if code, out := nodeagent(t, 0, "plan", "--root", root); code != 2 {
						t.Errorf("plan: exit code %d, %s", code, out)
					}
				}
				code, out := nodeagent(t, 0, append(commands[command], "--root", root)...)
				release()
				if code != 1 || !strings.Contains(out, "read-only file system") || strings.Contains(out, root) {
					t.Errorf("exit code %d, %s", code, out)
				}
				whole(t, tree(t, root), before, after)
				if code, out := nodeagent(t, 0, append(commands[command], "--root", root)...); code != 0 {
					t.Errorf("writable again: exit code %d, %s", code, out)
				}
				if diff := cmp.Diff(after, tree(t, root)); diff != "" {
					t.Errorf("writable again: %s", diff)
				}
			})
		}
	}
}
