package host

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ScratchFile makes a file that has no name, mode 0600, on the filesystem of a directory, which
// is made, 0700, if it is missing. Its space is free again once it is closed, however the process
// ends. Where the filesystem has no such files (O_TMPFILE in open(2)) it has a name for a moment.
func (h *Host) ScratchFile(dir string) (file *os.File, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("make scratch file in %s: %w", dir, h.asSeen(err, dir))
		}
	}()
	root, err := h.openDir(dir, 0o700)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	at, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	fd, err := unix.Openat(int(at.Fd()), ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	err = errors.Join(err, at.Close())
	if err == nil {
		return os.NewFile(uintptr(fd), dir+"/(scratch)"), nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EINVAL) {
		return nil, err
	}
	name := ".nodeagent-scratch-" + rand.Text()
	file, err = root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := root.Remove(name); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}
