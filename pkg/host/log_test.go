package host

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const logPath = "/var/log/nodeagent/packages.log"

func TestOpenLog(t *testing.T) {
	h := New(t.TempDir())
	if _, err := h.OpenLog(logPath); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a directory: %v, want fs.ErrNotExist", err)
	}
	if err := h.MkdirAll(filepath.Dir(logPath), 0o750); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"one\n", "two\n"} {
		f, err := h.OpenLog(logPath)
		if err == nil {
			_, err = f.WriteString(text)
		}
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	data, err := h.ReadFile(logPath)
	info, statErr := h.Stat(logPath)
	if err != nil || statErr != nil || string(data) != "one\ntwo\n" || info.Mode().Perm() != 0o600 {
		t.Errorf("%q, %v, %v, %v", data, info.Mode(), err, statErr)
	}
}

// Whatever lies where a log is to be, it is not what somebody else has chosen that is written to.
func TestOpenLogRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		plant func(log, precious string) error
		want  string
	}{
		"link":           {func(log, precious string) error { return os.Symlink(precious, log) }, ErrSymlink.Error()},
		"link to itself": {func(log, _ string) error { return os.Symlink(filepath.Base(log), log) }, ErrSymlink.Error()},
		"hard link":      {func(log, precious string) error { return os.Link(precious, log) }, "has a second name"},
		"pipe":           {func(log, _ string) error { return syscall.Mkfifo(log, 0o666) }, "no such device"},
		"directory":      {func(log, _ string) error { return os.Mkdir(log, 0o755) }, "is a directory"},
		"link of another user's on the way": {func(log, precious string) error {
			dir := filepath.Dir(log)
			return errors.Join(os.Chmod(filepath.Dir(dir), 0o777), os.Remove(dir), os.Symlink(filepath.Dir(precious), dir))
		}, ErrForeignLink.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			h, elsewhere := New(t.TempDir()), t.TempDir()
			precious := filepath.Join(elsewhere, "precious")
			err := errors.Join(h.MkdirAll(filepath.Dir(logPath), 0o750), os.WriteFile(precious, []byte("precious"), 0o600))
			if err == nil {
				err = test.plant(filepath.Join(h.Root, logPath), precious)
			}
			if err != nil {
				t.Fatal(err)
			}
			f, err := h.OpenLog(logPath)
			if err == nil {
				t.Error("opened", f.Close())
			} else if !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), logPath) {
				t.Errorf("%v, want %q", err, test.want)
			}
			entries, err := os.ReadDir(elsewhere)
			data, readErr := os.ReadFile(precious)
			if len(entries) != 1 || string(data) != "precious" || err != nil || readErr != nil {
				t.Errorf("elsewhere: %v, %q, %v, %v", entries, data, err, readErr)
			}
		})
	}
}
