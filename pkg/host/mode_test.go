package host

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestNarrow(t *testing.T) {
	h := &Host{Root: t.TempDir()}
	real := func(path string) string { return filepath.Join(h.Root, path) }
	mode := func(path string) os.FileMode {
		t.Helper()
		info, err := os.Lstat(real(path))
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode().Perm()
	}
	for _, test := range []struct{ have, perm, want os.FileMode }{
		{0o644, 0o600, 0o600}, {0o600, 0o600, 0o600}, {0o400, 0o600, 0o400}, {0o755, 0o644, 0o644}, {0o440, 0o600, 0o400},
	} {
		if err := os.WriteFile(real("f"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(real("f"), test.have); err != nil {
			t.Fatal(err)
		}
		if err := h.Narrow("/f", test.perm); err != nil || mode("f") != test.want {
			t.Errorf("%+v: %v, %v", test, mode("f"), err)
		}
		if err := os.Remove(real("f")); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(real("d"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := h.Narrow("/d", 0o700); err != nil || mode("d") != 0o700 {
		t.Errorf("a directory: %v, %v", mode("d"), err)
	}
	if err := os.WriteFile(real("target"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(real("target"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("target", real("link")); err != nil {
		t.Fatal(err)
	}
	if err := h.Narrow("/link", 0o600); err == nil || mode("target") != 0o644 {
		t.Errorf("a link is followed: %v, %v", mode("target"), err)
	}
	if err := syscall.Mkfifo(real("pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := h.Narrow("/pipe", 0o600); err == nil {
		t.Error("a pipe is taken")
	}
	if err := h.Narrow("/absent", 0o600); err == nil || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
}
