package host_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// mkdir makes a directory below the root with just that mode.
func mkdir(t *testing.T, h *host.Host, path string, mode fs.FileMode) {
	t.Helper()
	real := filepath.Join(h.Root, path)
	if err := os.MkdirAll(real, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(real, mode); err != nil {
		t.Fatal(err)
	}
}

func TestReadTrusted(t *testing.T) {
	h, _ := inner(t)
	mkdir(t, h, "tmp", 0o777|fs.ModeSticky)
	mkdir(t, h, "group", 0o775)
	for _, path := range []string{"/etc/good", "/tmp/good", "/group/good"} {
		write(t, h, path, "good", 0o644)
	}
	link(t, h, "good", "etc/link")
	link(t, h, "/etc/../etc/link", "tmp/far")
	link(t, h, "../../../etc", "group/dir")
	for _, path := range []string{"/etc/good", "/tmp/good", "/group/good", "/etc/link", "/tmp/far", "/group/dir/good", "/../etc//./good"} {
		if got, err := h.ReadTrusted(path, 4); err != nil || string(got) != "good" {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	if _, err := h.ReadTrusted("/etc/good", 3); err == nil || err.Error() != "/etc/good is larger than 3 bytes" {
		t.Errorf("a byte too many: %v", err)
	}
	for _, path := range []string{"/etc/none", "/none/none", "/tmp/none"} {
		if _, err := h.ReadTrusted(path, 4); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), h.Root) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestReadTrustedRefuses(t *testing.T) {
	h, outside := inner(t)
	mkdir(t, h, "open", 0o777)
	mkdir(t, h, "open/closed", 0o755)
	write(t, h, "/etc/good", "good", 0o600)
	write(t, h, "/etc/group", "bad", 0o620)
	write(t, h, "/etc/world", "bad", 0o602)
	write(t, h, "/open/closed/file", "bad", 0o600)
	link(t, h, "../open/closed/file", "etc/into")
	link(t, h, "/etc/good", "open/closed/out")
	link(t, h, "../open/closed/out", "etc/by-way-of")
	link(t, h, "/etc", "open/etc")
	link(t, h, outside, "etc/outside")
	link(t, h, "loop", "etc/loop")
	if err := syscall.Mkfifo(filepath.Join(h.Root, "etc/pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/etc/group":         "/etc/group is not safe to go by: others can write it (mode 0620); chmod go-w /etc/group",
		"/etc/world":         "/etc/world is not safe to go by: others can write it (mode 0602); chmod go-w /etc/world",
		"/open/closed/file":  "directory /open is not safe to go by: others can replace what lies in it (mode 0777); chmod go-w /open",
		"/etc/into":          "directory /open is not safe to go by: ",
		"/etc/by-way-of":     "directory /open is not safe to go by: ",
		"/open/etc/good":     "directory /open is not safe to go by: ",
		"/etc":               "/etc is a directory, not a file",
		"/etc/pipe":          "/etc/pipe is not a regular file",
		"/etc/loop":          "resolve /etc/loop: too many levels of symbolic links",
		"/etc/good/file":     "resolve /etc/good/file: /etc/good: not a directory",
		"/etc/outside/passw": "no such file or directory",
		"relative":           `resolve "relative": not an absolute path`,
	} {
		_, err := h.ReadTrusted(path, 100)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), h.Root) {
			t.Errorf("%s: got %v, want %s", path, err, want)
		}
		if untrusted := strings.Contains(want, "not safe"); errors.Is(err, host.ErrUntrusted) != untrusted {
			t.Errorf("%s: untrusted is not %v: %v", path, untrusted, err)
		}
	}
}

// What belongs to somebody else is refused, the file itself as well as what leads to it.
func TestReadTrustedForeign(t *testing.T) {
	if os.Geteuid() != 0 {
		// This user's own file is read above, and root's here. Only root can make a third one's.
		if _, err := host.New("/").ReadTrusted("/etc/passwd", 1<<20); err != nil {
			t.Error(err)
		}
		return
	}
	for path, want := range map[string]string{
		"etc/x/file": "/link/x/file is not safe to go by: it belongs to another user (mode 0600); chown root /etc/x/file",
		"etc/x":      "directory /etc/x is not safe to go by: it belongs to another user (mode 0755); chown root /etc/x",
		"link":       "link /link is not safe to go by: it belongs to another user; remove it, or chown -h root /link",
	} {
		h, _ := inner(t)
		write(t, h, "/etc/x/file", "x", 0o600)
		link(t, h, "etc", "link")
		if _, err := h.ReadTrusted("/link/x/file", 1); err != nil {
			t.Fatal(err)
		}
		if err := os.Lchown(filepath.Join(h.Root, path), 4711, 0); err != nil {
			t.Fatal(err)
		}
		_, err := h.ReadTrusted("/link/x/file", 1)
		if err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", path, err, want)
		}
		_, err = h.ReadSecret("/link/x/file")
		if err == nil || err.Error() != "read secret: "+want {
			t.Errorf("%s: got %v for a secret, want %s", path, err, want)
		}
	}
}

// A group that is not root's can rename what lies in a directory that it can write.
func TestReadTrustedInTheDirectoryOfAGroup(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("only root can give a directory to another group")
		return
	}
	for mode, want := range map[fs.FileMode]string{
		0o755:                 "",
		0o775:                 "directory /etc/x is not safe to go by: others can replace what lies in it (mode 0775); chmod go-w /etc/x",
		0o775 | fs.ModeSticky: "",
		0o775 | fs.ModeSetgid: "directory /etc/x is not safe to go by: others can replace what lies in it (mode 0775); chmod go-w /etc/x",
	} {
		h, _ := inner(t)
		write(t, h, "/etc/x/file", "x", 0o600)
		dir := filepath.Join(h.Root, "etc/x")
		if err := errors.Join(os.Chown(dir, 0, 4711), os.Chmod(dir, mode)); err != nil {
			t.Fatal(err)
		}
		_, trusted := h.ReadTrusted("/etc/x/file", 1)
		_, secret := h.ReadSecret("/etc/x/file")
		if want == "" {
			if err := errors.Join(trusted, secret); err != nil {
				t.Errorf("%v: %v", mode, err)
			}
			continue
		}
		if trusted == nil || trusted.Error() != want || secret == nil || secret.Error() != "read secret: "+want {
			t.Errorf("%v: got %v and %v, want %s", mode, trusted, secret, want)
		}
	}
}
