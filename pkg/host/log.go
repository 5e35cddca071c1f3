package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// OpenLog opens a file to append to it, for a program whose output is to go there: it is handed the
// open file, and never a name that somebody could put something else under. The file is made 0600
// if it is not there; its directory is. A link in its place is ErrSymlink, one on the way, of
// another user's, ErrForeignLink. A file with a second name is refused as well: it may be one that
// somebody else has chosen.
func (h *Host) OpenLog(path string) (*os.File, error) {
	f, err := h.openLog(path)
	if err != nil {
		return nil, fmt.Errorf("open log file %s: %w", path, cause(err))
	}
	return f, nil
}

func (h *Host) openLog(path string) (*os.File, error) {
	dir, name, err := h.parent(path, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }() // what a log tells need not outlast a loss of power
	if info, err := dir.Lstat(name); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return nil, ErrSymlink
	}
	// A link that is put there now does not lead out of the directory.
	f, err := dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	if err := onlyName(dir, name, f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// onlyName is nil for a regular file that has one name, the one that it was opened by.
func onlyName(dir *os.Root, name string, f *os.File) error {
	opened, err := f.Stat()
	if err != nil {
		return err
	}
	there, err := dir.Lstat(name)
	if err != nil {
		return err
	}
	stat, ok := opened.Sys().(*syscall.Stat_t)
	switch {
	case !opened.Mode().IsRegular():
		return errors.New("is not a regular file")
	case !os.SameFile(opened, there):
		return errors.New("it was replaced a moment ago")
	case !ok || stat.Nlink != 1:
		return errors.New("has a second name, by a hard link: remove it")
	}
	return nil
}
