package host_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// leftovers are what a killed writer of /etc/x may have left, and what else may lie there.
var leftovers = map[string]func(path string) error{
	"file":           func(path string) error { return os.WriteFile(path, []byte("half"), 0o600) },
	"read-only file": func(path string) error { return os.WriteFile(path, nil, 0o444) },
	"directory":      func(path string) error { return os.Mkdir(path, 0o700) },
	"link":           func(path string) error { return os.Symlink("/etc/passwd", path) },
	"nothing":        func(string) error { return nil },
}

// The next one to make the same path, of whatever kind, has its own and leaves nothing else.
func TestLeftoversGo(t *testing.T) {
	makers := map[string]struct {
		leftovers []string // that this kind of maker leaves, and others that it may meet
		make      func(*host.Host) error
	}{
		"file":      {[]string{"file", "read-only file", "nothing"}, func(h *host.Host) error { return h.WriteFile("/etc/x", []byte("new"), 0o644) }},
		"directory": {[]string{"directory", "file", "link", "nothing"}, func(h *host.Host) error { return h.MkdirAll("/etc/x", 0o755) }},
		"link": {[]string{"link", "file", "directory", "nothing"}, func(h *host.Host) error {
			return errors.Join(h.Symlink("/one", "/etc/x"), h.Symlink("/two", "/etc/x"))
		}},
	}
	for kind, maker := range makers {
		for _, leftover := range maker.leftovers {
			t.Run(kind+" over "+leftover, func(t *testing.T) {
				h, _ := inner(t)
				if err := leftovers[leftover](filepath.Join(h.Root, "etc/.x.nodeagent")); err != nil {
					t.Fatal(err)
				}
				if err := maker.make(h); err != nil {
					t.Fatal(err)
				}
				entries, err := h.ReadDir("/etc")
				if err != nil || len(entries) != 1 || entries[0].Name() != "x" {
					t.Fatalf("there are %v, %v", entries, err)
				}
				want := map[string]fs.FileMode{"file": 0o644, "directory": fs.ModeDir | 0o755, "link": fs.ModeSymlink | 0o777}[kind]
				if have := mode(t, h, "/etc/x"); have != want {
					t.Errorf("mode %v, want %v", have, want)
				}
			})
		}
	}
}

// A link is not followed to be removed, nor written through.
func TestWriteFileRefusesALinkInItsWay(t *testing.T) {
	h, _ := inner(t)
	write(t, h, "/etc/precious", "mine", 0o600)
	link(t, h, "precious", "etc/.x.nodeagent")
	if err := h.WriteFile("/etc/x", []byte("new"), 0o644); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("error %v, want ELOOP", err)
	}
	if have := raw(t, h, "/etc/precious"); have != "mine" {
		t.Errorf("the link's target became %q", have)
	}
}

// One who writes at this moment is not disturbed.
func TestWriteFileLeavesALiveWriterAlone(t *testing.T) {
	h, _ := inner(t)
	f, err := os.Create(filepath.Join(h.Root, "etc/.x.nodeagent"))
	if err == nil {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := h.WriteFile("/etc/x", []byte("new"), 0o644); err == nil || !strings.Contains(err.Error(), "write /etc/x: another process") {
		t.Errorf("error %v", err)
	}
	if there, err := h.Exists("/etc/.x.nodeagent"); err != nil || !there {
		t.Errorf("its draft is gone: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, h, "/etc/x", "new", 0o644)
}

// Whatever comes of two writers at once, the file is one of theirs, whole.
func TestManyAtOnce(t *testing.T) {
	h, _ := inner(t)
	const writers, times = 8, 50
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			text := strings.Repeat(fmt.Sprint(w), 10_000)
			for i := range times {
				if err := h.MkdirAll(fmt.Sprintf("/etc/dir%d/sub", i), 0o755); err != nil {
					t.Error(err)
				}
				// Another writer may be at it: that is an error, and no half of a file.
				_ = h.WriteFile("/etc/file", []byte(text), 0o644)
			}
		})
	}
	wg.Wait()
	have := raw(t, h, "/etc/file")
	if len(have) != 10_000 || strings.Trim(have, have[:1]) != "" {
		t.Errorf("the file is a mixture: %d bytes, %.20s…", len(have), have)
	}
	if err := h.WriteFile("/etc/file", []byte("last"), 0o644); err != nil {
		t.Error(err)
	}
	err := filepath.WalkDir(filepath.Join(h.Root, "etc"), func(path string, _ fs.DirEntry, err error) error {
		if strings.HasPrefix(filepath.Base(path), ".") {
			t.Errorf("left behind: %s", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
