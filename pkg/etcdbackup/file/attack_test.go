package file_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup/file"
	"github.com/nodeagent/nodeagent/pkg/host"
)

// elsewhere is a directory that the store has no business in, below the host's root and outside of
// it, with a file in it; untouched fails the test if that changed.
func elsewhere(t *testing.T, h *host.Host) (dir string, untouched func()) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "elsewhere")
	both := []string{dir, filepath.Join(h.Root, dir)}
	for _, at := range both {
		if err := errors.Join(os.MkdirAll(at, 0o755), os.WriteFile(at+"/precious", []byte("precious"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return dir, func() {
		t.Helper()
		for _, at := range both {
			entries, err := os.ReadDir(at)
			data, readErr := os.ReadFile(at + "/precious")
			if err != nil || readErr != nil || len(entries) != 1 || string(data) != "precious" {
				t.Errorf("%s holds %v, %q (%v, %v)", at, entries, data, err, readErr)
			}
		}
	}
}

// What is put in the place of the store's directory, or of the one above it, while a save is under
// way gets nothing of it: the draft is read and named where it was begun.
func TestSwappedWhileSaving(t *testing.T) {
	for _, swapped := range []string{dir, filepath.Dir(dir)} {
		for name, end := range map[string]func(*testing.T, interface{ Abort() error }) error{
			"commit": nil,
			"abort":  func(_ *testing.T, d interface{ Abort() error }) error { return d.Abort() },
		} {
			t.Run(name+swapped, func(t *testing.T) {
				h, s := newStore(t, "cp1")
				there, untouched := elsewhere(t, h)
				d, err := s.Create(t.Context(), 1)
				if err != nil {
					t.Fatal(err)
				}
				real := filepath.Join(h.Root, swapped)
				if err := errors.Join(os.Rename(real, real+".moved"), os.Symlink(there, real)); err != nil {
					t.Fatal(err)
				}
				if _, err := d.Write([]byte("secret")); err != nil {
					t.Fatal(err)
				}
				data := make([]byte, 16)
				if n, err := d.File().ReadAt(data, 0); !errors.Is(err, io.EOF) || string(data[:n]) != "secret" {
					t.Errorf("to be verified is %q, %v", data[:n], err)
				}
				want := ""
				if end != nil {
					err = end(t, d)
				} else {
					err, want = d.Commit(t.Context(), "a.db"), "a.db"
				}
				if err != nil {
					t.Fatal(err)
				}
				moved := strings.Replace(filepath.Join(h.Root, dir), real, real+".moved", 1)
				entries, err := os.ReadDir(moved)
				if err != nil || len(entries) > 1 || len(entries) == 1 && entries[0].Name() != want || want != "" && len(entries) == 0 {
					t.Errorf("the directory that was moved holds %v, %v", entries, err)
				}
				untouched()
			})
		}
	}
}

// A link that another user could have made leads the store nowhere, be it the directory or one
// above it: here it is the directory that it lies in that others can write.
func TestForeignDirectory(t *testing.T) {
	for _, replaced := range []string{dir, filepath.Dir(dir)} {
		t.Run(replaced, func(t *testing.T) {
			h, s := newStore(t, "cp1")
			put(t, s, "a")
			there, untouched := elsewhere(t, h)
			real := filepath.Join(h.Root, replaced)
			if err := errors.Join(os.RemoveAll(real), os.Symlink(there, real), os.Chmod(filepath.Dir(real), 0o777)); err != nil {
				t.Fatal(err)
			}
			if d, err := s.Create(t.Context(), 1); !errors.Is(err, host.ErrForeignLink) {
				t.Errorf("create: %v, %v", d, err)
			}
			if list, err := s.List(t.Context()); !errors.Is(err, host.ErrForeignLink) {
				t.Errorf("list: %v, %v", list, err)
			}
			if f, err := s.Open(t.Context(), "precious"); !errors.Is(err, host.ErrForeignLink) {
				t.Errorf("open: %v, %v", f, err)
			}
			if err := s.Delete(t.Context(), "precious"); !errors.Is(err, host.ErrForeignLink) {
				t.Errorf("delete: %v", err)
			}
			untouched()
		})
	}
}

// What lies under the name of an object, or of a draft, is not written to, read or followed.
func TestPlantedNames(t *testing.T) {
	plants := map[string]func(at, precious string) error{
		"link":          func(at, precious string) error { return os.Symlink(precious, at) },
		"dangling link": func(at, precious string) error { return os.Symlink(precious+"-new", at) },
		"hard link":     func(at, precious string) error { return os.Link(precious, at) },
		"pipe":          func(at, _ string) error { return syscall.Mkfifo(at, 0o666) },
		"directory":     func(at, _ string) error { return os.Mkdir(at, 0o777) },
	}
	for name, plant := range plants {
		t.Run("object, "+name, func(t *testing.T) {
			h, s := newStore(t, "cp1")
			there, untouched := elsewhere(t, h)
			d, err := s.Create(t.Context(), 1)
			if err == nil {
				err = plant(filepath.Join(h.Root, dir, "a.db"), filepath.Join(there, "precious"))
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := d.Commit(t.Context(), "a.db"); !errors.Is(err, fs.ErrExist) {
				t.Errorf("commit: %v, want fs.ErrExist", err)
			}
			if f, err := s.Open(t.Context(), "a.db"); err == nil && name != "hard link" {
				t.Error("open succeeded", f.Close())
			}
			if err := s.Delete(t.Context(), "a.db"); err != nil {
				t.Errorf("delete: %v", err)
			}
			if got := names(t, h); len(got) != 0 {
				t.Errorf("left %q", got)
			}
			untouched()
		})
		t.Run("draft, "+name, func(t *testing.T) {
			h, s := newStore(t, "cp1")
			there, untouched := elsewhere(t, h)
			d, err := s.Create(t.Context(), 1)
			if err != nil {
				t.Fatal(err)
			}
			draft := filepath.Join(h.Root, dir, names(t, h)[0])
			if err := errors.Join(os.Remove(draft), plant(draft, filepath.Join(there, "precious"))); err != nil {
				t.Fatal(err)
			}
			if _, err := d.Write([]byte("secret")); err != nil {
				t.Fatal(err)
			}
			if err := d.Commit(t.Context(), "a.db"); err == nil {
				t.Error("what was planted was committed")
			}
			// A later save takes away what it may, and works.
			put(t, s, "b.db")
			untouched()
		})
	}
}

// The name of a host is in the names of its drafts, and leads nowhere.
func TestHostileHost(t *testing.T) {
	for _, node := range []string{"../../../etc", "..", "a/../../b", "a\x00b", "-", "*"} {
		h, s := newStore(t, node)
		there, untouched := elsewhere(t, h)
		d, err := s.Create(t.Context(), 1)
		if err != nil {
			t.Fatalf("%q: %v", node, err)
		}
		if got := names(t, h); len(got) != 1 {
			t.Errorf("%q: the draft is not in the directory: %q", node, got)
		}
		if err := d.Abort(); err != nil {
			t.Error(err)
		}
		untouched()
		_ = there
	}
	h := host.New(t.TempDir())
	s := file.New(h, "/var/lib/nodeagent/../../../../srv/backups", "cp1") // of Root it is Root
	put(t, s, "a.db")
	if _, err := os.Stat(filepath.Join(h.Root, "srv/backups/a.db")); err != nil {
		t.Error(err)
	}
}
