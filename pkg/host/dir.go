package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// ErrForeignLink is the refusal to change what lies behind a symbolic link that somebody else
// than root or this process's user has made or could replace: they would choose the file.
var ErrForeignLink = errors.New("is a symbolic link that another user can choose the target of: remove it")

// making is what the error of a directory that cannot be made says.
const making = "make directory"

// way is the directories that a path has led through from Root on, all of them open: nobody can
// put a link in the place of one any more. The last is where it has got to.
type way struct {
	host  *Host
	open  []*os.Root
	names []string // of all but the first
	links int
}

// OpenDir opens a directory below Root, for a caller that changes more in it than one file: from
// then on nobody can put another in its place. The way to it is gone along as MkdirAll goes it: a
// link that another user has made or could replace is ErrForeignLink. What is missing is made with
// mode create, or is fs.ErrNotExist if that is 0. The caller closes it.
func (h *Host) OpenDir(path string, create fs.FileMode) (*os.Root, error) {
	dir, err := h.openDir(path, create)
	if err != nil {
		return nil, fmt.Errorf("open directory %s: %w", path, err)
	}
	return dir, nil
}

// OpenIn opens a regular file in an open directory for reading. A link, a pipe or whatever else lies
// there is an error; one that is not there is fs.ErrNotExist.
func OpenIn(dir *os.Root, name string) (*os.File, error) {
	info, err := dir.Lstat(name)
	if err != nil {
		return nil, err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		return nil, fmt.Errorf("open %s: %w", name, ErrSymlink)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("open %s: is not a regular file", name)
	}
	return openThere(dir, name, info)
}

// SyncDir makes the names in a directory durable.
func SyncDir(dir *os.Root) error {
	d, err := dir.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// openDir opens a directory below Root to change something in it. A link that leads to it is
// followed within Root if it and the directory that it lies in are root's or this process's user's
// alone; any other is ErrForeignLink. What is missing is made with mode create, or is
// fs.ErrNotExist if that is 0.
func (h *Host) openDir(path string, create fs.FileMode) (dir *os.Root, err error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("resolve %q: not an absolute path", path)
	}
	root, err := os.OpenRoot(h.Root)
	if errors.Is(err, fs.ErrNotExist) && create != 0 { // an image that is begun
		if err = errors.Join(os.Mkdir(h.Root, create), os.Chmod(h.Root, create)); err == nil {
			root, err = os.OpenRoot(h.Root)
		}
	}
	if err != nil {
		return nil, err
	}
	w := &way{host: h, open: []*os.Root{root}}
	defer func() {
		if err == nil {
			dir, w.open = w.at(), w.open[:len(w.open)-1]
		}
		w.back(0)
	}()
	return nil, w.follow(path, create)
}

func (w *way) at() *os.Root { return w.open[len(w.open)-1] }

// back closes all but the first n directories.
func (w *way) back(n int) {
	for len(w.open) > n {
		_ = w.at().Close() // nothing was written to it
		w.open = w.open[:len(w.open)-1]
	}
	w.names = w.names[:min(len(w.names), max(n-1, 0))]
}

// seen is where a name in the last directory is, as the machine sees it.
func (w *way) seen(name string) string {
	return "/" + filepath.Join(append(append([]string{}, w.names...), name)...)
}

// follow goes on along a path, element by element.
func (w *way) follow(path string, create fs.FileMode) error {
	if strings.HasPrefix(path, "/") {
		w.back(1)
	}
	for name := range strings.SplitSeq(path, "/") {
		switch name {
		case "", ".":
			continue
		case "..": // of Root it is Root
			w.back(max(len(w.open)-1, 1))
			continue
		}
		if err := w.enter(name, create); err != nil {
			return err
		}
	}
	return nil
}

// enter goes into a directory, or to where a link of its name leads.
func (w *way) enter(name string, create fs.FileMode) error {
	info, err := w.at().Lstat(name)
	if errors.Is(err, fs.ErrNotExist) && create != 0 {
		if err = errors.Join(makeDirectory(w.at(), name, create), SyncDir(w.at())); err != nil {
			return &fs.PathError{Op: making, Path: w.seen(name), Err: cause(err)}
		}
		info, err = w.at().Lstat(name)
	}
	switch {
	case err != nil:
		return &fs.PathError{Op: "open", Path: w.seen(name), Err: cause(err)}
	case info.Mode()&fs.ModeSymlink != 0:
		return w.link(name, info, create)
	case !info.IsDir():
		return &fs.PathError{Op: "open", Path: w.seen(name), Err: syscall.ENOTDIR}
	}
	next, err := w.at().OpenRoot(name)
	if err != nil {
		return err
	}
	w.open, w.names = append(w.open, next), append(w.names, name)
	opened, err := next.Stat(".")
	if err == nil && !os.SameFile(info, opened) {
		err = fmt.Errorf("%s was replaced a moment ago", w.seen(""))
	}
	return err
}

func (w *way) link(name string, info fs.FileInfo, create fs.FileMode) error {
	at, err := w.at().Stat(".")
	if err != nil {
		return err
	}
	if !ownerTrusted(info) || !ownerTrusted(at) || othersCanReplaceIn(at) {
		return fmt.Errorf("%s %w", w.seen(name), ErrForeignLink)
	}
	if w.links++; w.links > maxLinks {
		return &fs.PathError{Op: "open", Path: w.seen(name), Err: syscall.ELOOP}
	}
	target, err := w.at().Readlink(name)
	if err != nil {
		return err
	}
	return w.follow(target, create)
}

// cause is what is wrong without the path, which is one below an open directory.
func cause(err error) error {
	var pathErr *fs.PathError
	var linkErr *os.LinkError
	switch {
	case errors.As(err, &pathErr):
		return pathErr.Err
	case errors.As(err, &linkErr):
		return linkErr.Err
	}
	return err
}

// parent opens the directory that path lies in, and says what it is called there.
func (h *Host) parent(path string, create fs.FileMode) (dir *os.Root, name string, err error) {
	clean := filepath.Clean(path)
	if name = filepath.Base(clean); clean == "/" {
		return nil, "", fmt.Errorf("%q is no file", path)
	}
	dir, err = h.openDir(filepath.Dir(clean), create)
	return dir, name, err
}

// openThere opens what was looked at before by its name, or fails if something else lies there
// by now.
func openThere(dir *os.Root, name string, info fs.FileInfo) (*os.File, error) {
	f, err := dir.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe would hold us up
	if err != nil {
		return nil, err
	}
	opened, err := f.Stat()
	if err == nil && !os.SameFile(info, opened) {
		err = errors.New("it was replaced a moment ago")
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
