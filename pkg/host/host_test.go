package host_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// inner makes a root with a directory beside it that nothing may reach, so that a path that
// escapes is seen.
func inner(t *testing.T) (h *host.Host, outside string) {
	t.Helper()
	dir := t.TempDir()
	outside = filepath.Join(dir, "outside")
	for _, d := range []string{"root/etc", "outside"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		entries, err := os.ReadDir(outside)
		if err != nil || len(entries) > 0 {
			t.Errorf("outside of the root there is %v, %v", entries, err)
		}
	})
	return host.New(filepath.Join(dir, "root")), outside
}

func link(t *testing.T, h *host.Host, target, path string) {
	t.Helper()
	if err := os.Symlink(target, filepath.Join(h.Root, path)); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, h *host.Host, path, text string, perm fs.FileMode) {
	t.Helper()
	if err := h.WriteFile(path, []byte(text), perm); err != nil {
		t.Fatal(err)
	}
}

// raw is a file below the root, read without the package under test.
func raw(t *testing.T, h *host.Host, path string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(h.Root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func mode(t *testing.T, h *host.Host, path string) fs.FileMode {
	t.Helper()
	info, err := os.Lstat(filepath.Join(h.Root, path))
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode()
}

func TestNewIsOfflineButAtTheRoot(t *testing.T) {
	for root, want := range map[string]bool{"/": false, "//": false, "/mnt/..": false, "/mnt/image": true} {
		if h := host.New(root); h.Offline != want || h.Exec == nil {
			t.Errorf("New(%q) is %+v, want Offline %v and a runner", root, h, want)
		}
	}
}

func TestPath(t *testing.T) {
	h, outside := inner(t)
	link(t, h, "/etc", "absolute")
	link(t, h, "../../../../etc", "climbs")
	link(t, h, outside, "out")
	tests := map[string]string{
		"/":                    "",
		"/etc/fstab":           "/etc/fstab",
		"/etc/../../../x":      "/x",
		"/absolute/fstab":      "/etc/fstab",
		"/climbs/fstab":        "/etc/fstab",
		"/absolute":            "/absolute", // the last element is not followed
		"/not/there//yet/./ok": "/not/there/yet/ok",
		"/out/x":               outside + "/x",
	}
	for path, want := range tests {
		have, err := h.Path(path)
		if err != nil || have != h.Root+want {
			t.Errorf("Path(%q) = %q, %v, want %q below the root", path, have, err, want)
		}
	}
	for _, path := range []string{"", "etc/fstab", "./etc"} {
		if _, err := h.Path(path); err == nil {
			t.Errorf("Path(%q) is no error", path)
		}
		if _, err := h.ReadFile(path); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("ReadFile(%q): %v, want it refused as not absolute", path, err)
		}
	}
}

func TestReadingStaysWithinTheRoot(t *testing.T) {
	h, _ := inner(t)
	write(t, h, "/etc/real", "ours", 0o644)
	link(t, h, "/etc/real", "etc/link")
	link(t, h, "/etc/nothing", "etc/dangling")
	link(t, h, "/etc/shadow", "etc/own-shadow") // there is one on the machine that runs this

	if data, err := h.ReadFile("/etc/link"); err != nil || string(data) != "ours" {
		t.Errorf("read through a link: %q, %v", data, err)
	}
	if _, err := h.ReadFile("/etc/own-shadow"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a link that leaves the root was read: %v", err)
	}
	f, err := h.Open("/etc/link")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if info, err := h.Stat("/etc/link"); err != nil || info.Size() != 4 || info.Mode()&fs.ModeSymlink != 0 {
		t.Errorf("stat follows links: %v, %v", info, err)
	}
	if info, err := h.Lstat("/etc/link"); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("lstat does not: %v, %v", info, err)
	}
	if target, err := h.Readlink("/etc/link"); err != nil || target != "/etc/real" {
		t.Errorf("readlink: %q, %v", target, err)
	}
	for path, want := range map[string]bool{"/etc/real": true, "/etc/link": true, "/etc/dangling": true, "/etc/nothing": false, "/no/where": false} {
		if there, err := h.Exists(path); err != nil || there != want {
			t.Errorf("Exists(%s) = %v, %v", path, there, err)
		}
	}
	if there, err := h.Exists("/etc/real/below"); err == nil || there {
		t.Errorf("below a file: %v, %v, want an error", there, err)
	}
	entries, err := h.ReadDir("/etc")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if diff := cmp.Diff([]string{"dangling", "link", "own-shadow", "real"}, names); diff != "" {
		t.Errorf("directory (- wanted, + read):\n%s", diff)
	}
}

func TestErrorsNameThePathAsTheMachineSeesIt(t *testing.T) {
	h, _ := inner(t)
	calls := map[string]func() error{
		"ReadFile":    func() error { _, err := h.ReadFile("/etc/none"); return err },
		"Stat":        func() error { _, err := h.Stat("/etc/none"); return err },
		"Lstat":       func() error { _, err := h.Lstat("/etc/none"); return err },
		"Readlink":    func() error { _, err := h.Readlink("/etc/none"); return err },
		"ReadDir":     func() error { _, err := h.ReadDir("/etc/none"); return err },
		"Open":        func() error { _, err := h.Open("/etc/none"); return err },
		"WriteKernel": func() error { return h.WriteKernel("/etc/none", "1") },
	}
	for name, call := range calls {
		var pathErr *fs.PathError
		if err := call(); !errors.As(err, &pathErr) || pathErr.Path != "/etc/none" || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, want /etc/none does not exist", name, err)
		}
	}
}
