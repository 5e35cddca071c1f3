package host_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/host"
)

func TestWriteFile(t *testing.T) {
	old := syscall.Umask(0o077)
	t.Cleanup(func() { syscall.Umask(old) })
	h, _ := inner(t)
	for _, perm := range []fs.FileMode{0o600, 0o644, 0o640, 0o755, 0o444} { // each over the one before
		write(t, h, "/etc/new/dir/file", perm.String(), perm)
		if have := mode(t, h, "/etc/new/dir/file"); have != perm {
			t.Errorf("mode %v, want %v", have, perm)
		}
		if have := raw(t, h, "/etc/new/dir/file"); have != perm.String() {
			t.Errorf("content %q, want %q", have, perm)
		}
	}
	if have := mode(t, h, "/etc/new"); have != fs.ModeDir|0o755 {
		t.Errorf("a directory made on the way has mode %v", have)
	}
	write(t, h, "/etc/new/dir/empty", "", 0o600)
	entries, err := os.ReadDir(filepath.Join(h.Root, "etc/new/dir"))
	if err != nil || len(entries) != 2 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestWriteFileReplacesAtomically(t *testing.T) {
	h, _ := inner(t)
	write(t, h, "/etc/file", "old", 0o644)
	before, err := h.Open("/etc/file")
	if err != nil {
		t.Fatal(err)
	}
	write(t, h, "/etc/file", "new and longer", 0o644)
	buf := make([]byte, 32)
	n, err := before.Read(buf)
	if err != nil || string(buf[:n]) != "old" {
		t.Errorf("who has the old file open reads %q, %v", buf[:n], err)
	}
	if err := before.Close(); err != nil {
		t.Error(err)
	}
}

func TestWriteFileLeavesAloneWhatIsSo(t *testing.T) {
	h, _ := inner(t)
	write(t, h, "/etc/file", "same", 0o644)
	long := time.Date(2001, 2, 3, 4, 5, 6, 7, time.UTC)
	if err := os.Chtimes(filepath.Join(h.Root, "etc/file"), long, long); err != nil {
		t.Fatal(err)
	}
	modified := func() time.Time {
		info, err := h.Stat("/etc/file")
		if err != nil {
			t.Fatal(err)
		}
		return info.ModTime()
	}
	write(t, h, "/etc/file", "same", 0o644)
	if !modified().Equal(long) {
		t.Error("an unchanged file was written")
	}
	write(t, h, "/etc/file", "same", 0o600)
	if modified().Equal(long) || mode(t, h, "/etc/file") != 0o600 {
		t.Error("a file with another mode was left alone")
	}
}

// Only root can give a file away; anybody else's file at least stays theirs.
func TestWriteFileKeepsTheOwner(t *testing.T) {
	h, _ := inner(t)
	write(t, h, "/etc/file", "old", 0o640)
	uid, gid := os.Geteuid(), os.Getegid()
	if uid == 0 {
		uid, gid = 4242, 4343
		if err := os.Chown(filepath.Join(h.Root, "etc/file"), uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	write(t, h, "/etc/file", "new", 0o640)
	info, err := h.Stat("/etc/file")
	if err != nil {
		t.Fatal(err)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || int(stat.Uid) != uid || int(stat.Gid) != gid {
		t.Errorf("owner %+v, want %d:%d", info.Sys(), uid, gid)
	}
	if raw(t, h, "/etc/file") != "new" || mode(t, h, "/etc/file") != 0o640 {
		t.Error("the file was not written")
	}
}

func TestWriteFileRefuses(t *testing.T) {
	h, outside := inner(t)
	write(t, h, "/etc/real", "real", 0o644)
	link(t, h, "real", "etc/link")
	link(t, h, outside+"/made", "etc/dangling")
	if err := os.Mkdir(filepath.Join(h.Root, "etc/dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/etc/link", "/etc/dangling"} {
		if err := h.WriteFile(path, []byte("x"), 0o644); !errors.Is(err, host.ErrSymlink) || !strings.Contains(err.Error(), "write "+path) {
			t.Errorf("over a link: %v", err)
		}
	}
	if err := h.WriteFile("/etc/dir", nil, 0o644); err == nil {
		t.Error("a directory was written")
	}
	if err := h.WriteFile("/etc/real/below", nil, 0o644); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("below a file: %v", err)
	}
	if err := h.WriteFile("etc/relative", nil, 0o644); err == nil {
		t.Error("a relative path was written")
	}
	if have := raw(t, h, "/etc/real"); have != "real" {
		t.Errorf("the link's target became %q", have)
	}
}

func TestWriteFileThroughLinkedDirectories(t *testing.T) {
	h, outside := inner(t)
	link(t, h, "/data/deep/conf", "etc/conf")    // dangles: what it needs is made
	link(t, h, "../../../../../../up", "etc/up") // climbs no higher than the root
	link(t, h, outside, "etc/out")               // as the machine sees it, below its own root
	for path, lies := range map[string]string{
		"/etc/conf/sub/file": "/data/deep/conf/sub/file", "/etc/up/file": "/up/file", "/etc/out/file": outside + "/file",
	} {
		write(t, h, path, path, 0o644)
		if have := raw(t, h, lies); have != path {
			t.Errorf("%s holds %q", lies, have)
		}
	}
}

func TestMkdirAll(t *testing.T) {
	old := syscall.Umask(0o077)
	t.Cleanup(func() { syscall.Umask(old) })
	h, _ := inner(t)
	if err := os.Chmod(filepath.Join(h.Root, "etc"), 0o711); err != nil {
		t.Fatal(err)
	}
	if err := h.MkdirAll("/etc/a/b", 0o750); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]fs.FileMode{"/etc": 0o711, "/etc/a": 0o750, "/etc/a/b": 0o750} {
		if have := mode(t, h, path); have != fs.ModeDir|want {
			t.Errorf("%s has mode %v, want %v", path, have, want)
		}
	}
	write(t, h, "/etc/file", "", 0o644)
	for _, path := range []string{"/etc/file", "/etc/file/below"} {
		if err := h.MkdirAll(path, 0o755); !errors.Is(err, syscall.ENOTDIR) {
			t.Errorf("MkdirAll(%s): %v", path, err)
		}
	}
}

func TestWriteKernel(t *testing.T) {
	h, _ := inner(t)
	write(t, h, "/proc/sys/kernel/panic", "a long value", 0o644)
	before, err := h.Stat("/proc/sys/kernel/panic")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.WriteKernel("/proc/sys/kernel/panic", "10"); err != nil {
		t.Fatal(err)
	}
	after, err := h.Stat("/proc/sys/kernel/panic")
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("the file was replaced: %v", err)
	}
	if have := raw(t, h, "/proc/sys/kernel/panic"); have != "10" {
		t.Errorf("it holds %q", have)
	}
	if err := h.WriteKernel("/proc/sys/kernel/none", "1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a parameter that is not there: %v", err)
	}
	if there, err := h.Exists("/proc/sys/kernel/none"); err != nil || there {
		t.Errorf("it was made: %v", err)
	}
}

func TestSymlink(t *testing.T) {
	h, outside := inner(t)
	path := "/etc/systemd/system/swap.target"
	for _, target := range []string{"/dev/null", outside, "../x"} { // each replaces the one before
		if err := h.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
		if have, err := h.Readlink(path); err != nil || have != target {
			t.Errorf("it points to %q, %v, want %q", have, err, target)
		}
	}
	write(t, h, "/etc/file", "mine", 0o644)
	for _, taken := range []string{"/etc/file", "/etc/systemd"} {
		if err := h.Symlink("/dev/null", taken); !errors.Is(err, fs.ErrExist) {
			t.Errorf("over %s: %v", taken, err)
		}
	}
	if have := raw(t, h, "/etc/file"); have != "mine" {
		t.Errorf("the file became %q", have)
	}
}

func TestRename(t *testing.T) {
	h, _ := inner(t)
	write(t, h, "/etc/a", "a", 0o600)
	write(t, h, "/var/b", "b", 0o600)
	if err := h.Rename("/etc/a", "/var/b"); err != nil {
		t.Fatal(err)
	}
	if have := raw(t, h, "/var/b"); have != "a" {
		t.Errorf("it holds %q", have)
	}
	err := h.Rename("/etc/a", "/var/b")
	if !errors.Is(err, fs.ErrNotExist) || strings.Contains(err.Error(), h.Root) {
		t.Errorf("a file that is gone: %v", err)
	}
}

func TestRemove(t *testing.T) {
	h, outside := inner(t)
	write(t, h, "/etc/dir/file", "", 0o600)
	link(t, h, outside, "etc/link")
	if err := h.Remove("/etc/dir"); !errors.Is(err, syscall.ENOTEMPTY) {
		t.Errorf("a directory that is not empty: %v", err)
	}
	for _, path := range []string{"/etc/dir/file", "/etc/dir", "/etc/link", "/etc/never", "/no/where"} {
		if err := h.Remove(path); err != nil {
			t.Errorf("remove %s: %v", path, err)
		}
		if there, err := h.Exists(path); err != nil || there {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
}

func TestKeepOriginal(t *testing.T) {
	h, _ := inner(t)
	const kept = "/var/lib/nodeagent/originals/etc/deep/fstab"
	if err := h.KeepOriginal("/etc/deep/fstab"); err != nil {
		t.Fatalf("a file that is not there: %v", err)
	}
	if there, err := h.Exists(kept); err != nil || there {
		t.Errorf("a copy of nothing was made: %v", err)
	}
	for _, text := range []string{"first", "second"} {
		write(t, h, "/etc/deep/fstab", text, 0o644)
		if err := h.KeepOriginal("/etc/deep/fstab"); err != nil {
			t.Fatal(err)
		}
		if have := raw(t, h, kept); have != "first" {
			t.Errorf("the copy holds %q after the %s", have, text)
		}
	}
	if have := mode(t, h, kept); have != 0o600 {
		t.Errorf("the copy has mode %v", have)
	}
}
