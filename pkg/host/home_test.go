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

// homeOf is a host with a home directory of a user: another one than this process's where that
// may be.
func homeOf(t *testing.T) (*host.Host, host.User, string) {
	t.Helper()
	h := &host.Host{Root: t.TempDir()}
	u := host.User{Name: "alice", UID: os.Getuid(), GID: os.Getgid(), Home: "/home/alice"}
	if u.UID == 0 {
		u.UID, u.GID = 12345, 12346
	}
	home := filepath.Join(h.Root, u.Home)
	if err := errors.Join(os.MkdirAll(home, 0o755), os.Chown(home, u.UID, u.GID)); err != nil {
		t.Fatal(err)
	}
	return h, u, home
}

func ownerOf(t *testing.T, path string) (uid, gid int) {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		t.Fatal("no owner to be had")
	}
	return int(stat.Uid), int(stat.Gid)
}

func TestWriteInHome(t *testing.T) {
	h, u, home := homeOf(t)
	if _, err := h.ReadInHome(u, ".kube", "config", 100); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, host.ErrNotTheirs) {
		t.Errorf("nothing there: %v", err)
	}
	// What an earlier run left when it was killed is no hindrance.
	if err := errors.Join(os.Mkdir(filepath.Join(home, ".kube"), 0o700), os.WriteFile(filepath.Join(home, ".kube", ".config.nodeagent"), []byte("half"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Join(home, ".kube"), u.UID, u.GID); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"one", "two and longer"} {
		if err := h.WriteInHome(u, ".kube", "config", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := h.ReadInHome(u, ".kube", "config", 100)
		if err != nil || string(got.Data) != text || got.Mode != 0o600 || got.UID != u.UID || got.GID != u.GID {
			t.Errorf("%+v, %v", got, err)
		}
	}
	entries, err := os.ReadDir(filepath.Join(home, ".kube"))
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	if _, err := h.ReadInHome(u, ".kube", "config", 3); !errors.Is(err, host.ErrNotTheirs) {
		t.Errorf("too large: %v", err)
	}
	for range 2 {
		if err := h.RemoveInHome(u, ".kube", "config"); err != nil {
			t.Error(err)
		}
	}
	if _, err := h.ReadInHome(u, ".kube", "config", 100); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removed: %v", err)
	}
	if err := h.RemoveInHome(u, ".none", "config"); err != nil {
		t.Errorf("from nowhere: %v", err)
	}
}

// A directory that was made for the user is theirs, also when the run that made it was killed
// before it had given it to them.
func TestWriteInHomeMakesTheDirectory(t *testing.T) {
	for name, killed := range map[string]bool{"at once": false, "after a kill": true} {
		t.Run(name, func(t *testing.T) {
			h, u, home := homeOf(t)
			if killed {
				if err := os.Mkdir(filepath.Join(home, ".kube"), 0o700); err != nil {
					t.Fatal(err)
				}
				if _, err := h.ReadInHome(u, ".kube", "config", 100); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("an empty directory of ours: %v", err)
				}
			}
			if err := h.WriteInHome(u, ".kube", "config", []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, path := range []string{".kube", ".kube/config"} {
				if uid, gid := ownerOf(t, filepath.Join(home, path)); uid != u.UID || gid != u.GID {
					t.Errorf("%s belongs to %d:%d", path, uid, gid)
				}
			}
		})
	}
}

// Whatever a user puts into their home: nothing outside of it is read, written, removed or
// given to them.
func TestHomeIsNoWayOut(t *testing.T) {
	for name, test := range map[string]struct {
		trap func(home, outside string) error
		want error // of a write; nil: it is done, in the home
	}{
		"the directory is a link to root's": {func(home, outside string) error {
			return os.Symlink(outside, filepath.Join(home, ".kube"))
		}, host.ErrNotTheirs},
		"a relative link": {func(home, _ string) error {
			return os.Symlink("../../etc", filepath.Join(home, ".kube"))
		}, host.ErrNotTheirs},
		"a link to nowhere": {func(home, _ string) error {
			return os.Symlink("/none", filepath.Join(home, ".kube"))
		}, host.ErrNotTheirs},
		"the file is a link": {func(home, outside string) error {
			return errors.Join(mkdirLike(home, ".kube"), os.Symlink(filepath.Join(outside, "shadow"), filepath.Join(home, ".kube", "config")))
		}, nil},
		"the file is a hard link": {func(home, outside string) error {
			return errors.Join(mkdirLike(home, ".kube"), os.Link(filepath.Join(outside, "shadow"), filepath.Join(home, ".kube", "config")))
		}, nil},
		"the draft is a link": {func(home, outside string) error {
			return errors.Join(mkdirLike(home, ".kube"), os.Symlink(filepath.Join(outside, "shadow"), filepath.Join(home, ".kube", ".config.nodeagent")))
		}, nil},
		"the draft is a hard link": {func(home, outside string) error {
			return errors.Join(mkdirLike(home, ".kube"), os.Link(filepath.Join(outside, "shadow"), filepath.Join(home, ".kube", ".config.nodeagent")))
		}, nil},
		"the draft is a directory": {func(home, outside string) error {
			draft := filepath.Join(home, ".kube", ".config.nodeagent")
			return errors.Join(mkdirLike(home, ".kube"), os.Mkdir(draft, 0o700), os.Symlink(outside, filepath.Join(draft, "x")))
		}, nil},
		"the home is a link": {func(home, outside string) error {
			return errors.Join(os.Remove(home), os.Symlink(outside, home))
		}, host.ErrNotTheirs},
		"the home is a file": {func(home, _ string) error {
			return errors.Join(os.Remove(home), os.WriteFile(home, nil, 0o644))
		}, host.ErrNotTheirs},
		"the home is not there": {func(home, _ string) error { return os.Remove(home) }, host.ErrNotTheirs},
		"anybody can replace the home": {func(home, _ string) error {
			return os.Chmod(filepath.Dir(home), 0o777)
		}, host.ErrNotTheirs},
	} {
		t.Run(name, func(t *testing.T) {
			h, u, home := homeOf(t)
			outside := filepath.Join(h.Root, "etc")
			if err := errors.Join(os.Mkdir(outside, 0o755), os.WriteFile(filepath.Join(outside, "shadow"), []byte("secret"), 0o640)); err != nil {
				t.Fatal(err)
			}
			if err := test.trap(home, outside); err != nil {
				t.Fatal(err)
			}
			uid, gid := ownerOf(t, outside)
			got, err := h.ReadInHome(u, ".kube", "config", 100)
			if string(got.Data) == "secret" && name != "the file is a hard link" {
				t.Errorf("read what lies outside: %v", err)
			}
			if err := h.WriteInHome(u, ".kube", "config", []byte("x"), 0o600); !errors.Is(err, test.want) {
				t.Errorf("write: %v, want %v", err, test.want)
			}
			if err := h.RemoveInHome(u, ".kube", "config"); !errors.Is(err, test.want) && name != "the home is not there" {
				t.Errorf("remove: %v, want %v", err, test.want)
			}
			data, err := os.ReadFile(filepath.Join(outside, "shadow"))
			if err != nil || string(data) != "secret" {
				t.Errorf("what lies outside is %q, %v", data, err)
			}
			entries, err := os.ReadDir(outside)
			if err != nil || len(entries) != 1 {
				t.Errorf("outside there are %v, %v", entries, err)
			}
			for _, path := range []string{outside, filepath.Join(outside, "shadow")} {
				if u, g := ownerOf(t, path); u != uid || g != gid {
					t.Errorf("%s was given away", path)
				}
			}
		})
	}
}

// mkdirLike makes a directory that belongs to whoever the one above it does.
func mkdirLike(above, name string) error {
	info, err := os.Stat(above)
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("no owner to be had")
	}
	path := filepath.Join(above, name)
	return errors.Join(os.Mkdir(path, 0o700), os.Chown(path, int(stat.Uid), int(stat.Gid)))
}

// A link within the home is the user's own affair.
func TestHomeWithDotfiles(t *testing.T) {
	h, u, home := homeOf(t)
	if err := errors.Join(mkdirLike(home, "dotfiles"), os.Symlink("dotfiles", filepath.Join(home, ".kube"))); err != nil {
		t.Fatal(err)
	}
	if err := h.WriteInHome(u, ".kube", "config", []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(filepath.Join(home, "dotfiles", "config")); err != nil || string(data) != "x" {
		t.Errorf("%q, %v", data, err)
	}
	if err := os.Symlink("config", filepath.Join(home, "dotfiles", "other")); err != nil {
		t.Fatal(err)
	}
	if _, err := h.ReadInHome(u, ".kube", "other", 100); !errors.Is(err, host.ErrNotTheirs) {
		t.Errorf("a file that is a link: %v", err)
	}
}

// A directory that `sudo kubectl` left to root is not written to, and the error says what to do.
func TestHomeWithADirectoryOfAnother(t *testing.T) {
	if os.Getuid() != 0 {
		u := host.User{Name: "alice", UID: os.Getuid() + 1, Home: "/home/alice"}
		h, _, _ := homeOf(t)
		if err := h.WriteInHome(u, ".kube", "config", nil, 0o600); !errors.Is(err, host.ErrNotTheirs) {
			t.Errorf("%v", err)
		}
		return
	}
	h, u, home := homeOf(t)
	if err := errors.Join(os.Mkdir(filepath.Join(home, ".kube"), 0o755), os.Mkdir(filepath.Join(home, ".kube", "cache"), 0o755)); err != nil {
		t.Fatal(err)
	}
	err := h.WriteInHome(u, ".kube", "config", []byte("x"), 0o600)
	if !errors.Is(err, host.ErrNotTheirs) || !strings.Contains(err.Error(), "chown it to alice") {
		t.Errorf("%v", err)
	}
}

func TestLookupUser(t *testing.T) {
	h := &host.Host{Root: t.TempDir()}
	if _, err := h.LookupUser("alice"); err == nil {
		t.Error("a host without /etc/passwd")
	}
	write(t, h, "/etc/passwd", "root:x:0:0:root:/root:/bin/bash\n#alice:x:1:1::/:/bin/sh\nalice:x:-1:1::/x:/bin/sh\nalice:x:1\n"+
		"alice:x:1000:1001:Alice, the first:/home/alice:/bin/bash\nalice:x:0:0::/root:\nbig:x:4294967295:1::/x:\n", 0o644)
	got, err := h.LookupUser("alice")
	if want := (host.User{Name: "alice", UID: 1000, GID: 1001, Home: "/home/alice"}); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	for _, name := range []string{"bob", "", "alic", "big", "#alice:x"} {
		if got, err := h.LookupUser(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %+v, %v", name, got, err)
		}
	}
}
