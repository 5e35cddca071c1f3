package file_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/file"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/storetest"
	"github.com/nodeagent/nodeagent/pkg/host"
)

const dir = "/var/lib/nodeagent/backups"

func TestContract(t *testing.T) {
	storetest.RunLocal(t, func(t *testing.T) etcdbackup.Local {
		return file.New(host.New(t.TempDir()), dir, "cp1")
	})
}

// The directory may be a link to a larger disk; an absolute one leads elsewhere below root.
func TestContractThroughLink(t *testing.T) {
	storetest.RunLocal(t, func(t *testing.T) etcdbackup.Local {
		h := host.New(t.TempDir())
		if err := errors.Join(h.MkdirAll("/mnt/disk", 0o700), h.Symlink("/mnt/disk", dir)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if there, err := h.Exists(dir); err != nil || !there {
				t.Errorf("the link is gone: %v", err)
			}
		})
		return file.New(h, dir, "cp1")
	})
}

func newStore(t *testing.T, node string) (*host.Host, *file.Store) {
	t.Helper()
	h := host.New(t.TempDir())
	return h, file.New(h, dir, node)
}

func put(t *testing.T, s *file.Store, name string) {
	t.Helper()
	d, err := s.Create(t.Context(), 1)
	if err == nil {
		_, err = d.Write([]byte("x"))
	}
	if err == nil {
		err = d.Commit(t.Context(), name)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestModes(t *testing.T) {
	old := unix.Umask(0)
	defer unix.Umask(old)
	h, s := newStore(t, "cp1")
	put(t, s, "a")
	for path, want := range map[string]fs.FileMode{filepath.Dir(dir): 0o755, dir: 0o700, dir + "/a": 0o600} {
		info, err := h.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %o, want %o", path, info.Mode().Perm(), want)
		}
	}
}

// names lists the directory with what is hidden in it.
func names(t *testing.T, h *host.Host) []string {
	t.Helper()
	entries, err := h.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// kubespray#13412: what interrupted backups left stayed for ever.
func TestLeftovers(t *testing.T) {
	h, s := newStore(t, "cp1")
	put(t, s, "kept")
	stay := []string{
		"kept",
		".nodeagent-cp1-b-123.part", // of host cp1-b
		".nodeagent-cp2-123.part",
		".nodeagent-cp1-.part", ".nodeagent-cp1-12x.part", ".nodeagent-cp1-12",
		".user", "user.part",
	}
	for _, name := range append(stay[1:], ".nodeagent-cp1-123.part", ".nodeagent-cp1-4.part") {
		if err := h.WriteFile(filepath.Join(dir, name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Symlink("/etc/passwd", filepath.Join(dir, ".nodeagent-cp1-77.part")); err != nil {
		t.Fatal(err)
	}
	// One that a live process is writing stays too, and can be committed afterwards.
	live, err := s.Create(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	stay = append(stay, filepath.Base(live.File().Name()), ".nodeagent-cp1-77.part")
	other, err := s.Create(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Abort(); err != nil {
		t.Fatal(err)
	}
	got := names(t, h)
	slices.Sort(stay)
	if !slices.Equal(got, stay) {
		t.Errorf("left\n%q, want\n%q", got, stay)
	}
	if err := live.Commit(t.Context(), "live"); err != nil {
		t.Error(err)
	}
}

func TestListIgnores(t *testing.T) {
	h, s := newStore(t, "cp1")
	put(t, s, "a")
	if err := errors.Join(
		h.MkdirAll(dir+"/directory", 0o700),
		h.Symlink("/etc/passwd", dir+"/link"),
		h.WriteFile(dir+"/.hidden", nil, 0o600),
	); err != nil {
		t.Fatal(err)
	}
	objects, err := s.List(t.Context())
	if err != nil || len(objects) != 1 || objects[0].Name != "a" || objects[0].Size != 1 || time.Since(objects[0].Modified).Abs() > time.Hour {
		t.Errorf("listed %v, %v, want only a", objects, err)
	}
	if _, err := s.Open(t.Context(), "link"); err == nil {
		t.Error("a link was opened")
	}
}

func TestUnusableDirectory(t *testing.T) {
	h, s := newStore(t, "cp1")
	if err := h.WriteFile(dir, []byte("a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(t.Context(), 1); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("create: %v, want ENOTDIR", err)
	}
	if objects, err := s.List(t.Context()); err == nil {
		t.Errorf("list: %v, want an error", objects)
	}
}

// A draft that cannot be written whole can be aborted and nothing of it stays: here the limit
// of the process's file size stands for a full disk.
func TestWriteFails(t *testing.T) {
	if os.Getenv("LIMIT") == "" {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		out, err := host.Exec(t.Context(), host.Command{Path: self, Args: []string{"-test.run=^TestWriteFails$"}, Env: []string{"LIMIT=1"}})
		if err != nil || !strings.Contains(string(out), "limited") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	h, s := newStore(t, "cp1")
	d, err := s.Create(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	limit := unix.Rlimit{Cur: 1 << 16, Max: 1 << 16}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	var n int
	for err == nil && n < 1<<20 {
		var wrote int
		wrote, err = d.Write(make([]byte, 10_000))
		n += wrote
	}
	if !errors.Is(err, unix.EFBIG) {
		t.Errorf("after %d bytes: %v, want EFBIG", n, err)
	}
	if err := d.Abort(); err != nil {
		t.Error(err)
	}
	if got := names(t, h); len(got) != 0 {
		t.Errorf("left %q", got)
	}
	fmt.Println("limited")
}
