package host

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// ErrNotTheirs is the refusal to work in a home directory that is not there, that its user does
// not own, or where something else than the user's own directory or file is in the way.
var ErrNotTheirs = errors.New("is not the user's own")

// HomeFile is a file in a home directory.
type HomeFile struct {
	Data     []byte
	Mode     fs.FileMode // the permissions
	UID, GID int
}

// ReadInHome reads the file dir/name in a user's home directory. The home is the user's, who can
// put a link anywhere in it at any moment: nothing outside of it is ever reached, and the
// file itself is no link. One that is not there is fs.ErrNotExist; a home that is not there, what is no regular file, or is
// larger than limit bytes, or lies in a directory of somebody else's, is ErrNotTheirs.
func (h *Host) ReadInHome(u User, dir, name string, limit int) (file HomeFile, err error) {
	root, err := h.openInHome(u, dir, false)
	if err != nil {
		return file, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	path := filepath.Join(u.Home, dir, name)
	if info, err := root.Lstat(name); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return file, fmt.Errorf("%s %w: it is a symbolic link", path, ErrNotTheirs)
	}
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0) // a pipe would hold us up
	if err != nil {
		return file, h.asSeen(err, path)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat() // of what is open, not of what lies there by now
	if err != nil {
		return file, h.asSeen(err, path)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.Mode().IsRegular() {
		return file, fmt.Errorf("%s %w: it is no regular file", path, ErrNotTheirs)
	}
	data, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil {
		return file, h.asSeen(err, path)
	}
	if len(data) > limit {
		return file, fmt.Errorf("%s %w: it is larger than %d bytes", path, ErrNotTheirs, limit)
	}
	return HomeFile{Data: data, Mode: info.Mode().Perm(), UID: int(stat.Uid), GID: int(stat.Gid)}, nil
}

// WriteInHome makes dir/name in a user's home directory hold data, with mode perm and the user
// as its owner, atomically and durably: what lies there is replaced, never written to. A dir that
// is missing is made, 0700 and the user's. What is not the user's own is ErrNotTheirs.
func (h *Host) WriteInHome(u User, dir, name string, data []byte, perm fs.FileMode) (err error) {
	path := filepath.Join(u.Home, dir, name)
	root, err := h.openInHome(u, dir, true)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	draft := draftName(name)
	if err := root.RemoveAll(draft); err != nil { // a killed run's, or whatever the user has put there
		return fmt.Errorf("write %s: %w", path, h.asSeen(err, path))
	}
	f, err := root.OpenFile(draft, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, h.asSeen(err, path))
	}
	// Through the open file: what the name leads to is the user's to change.
	if err = f.Chown(u.UID, u.GID); err == nil {
		err = fill(f, data, perm, nil)
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = root.Rename(draft, name)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, errors.Join(h.asSeen(err, path), gone(root.Remove(draft))))
	}
	return SyncDir(root)
}

// RemoveInHome removes dir/name in a user's home directory, durably. One that is not there is
// fine; a link is removed, not followed.
func (h *Host) RemoveInHome(u User, dir, name string) (err error) {
	root, err := h.openInHome(u, dir, false)
	if err != nil {
		return gone(err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	if err := gone(root.Remove(name)); err != nil {
		return h.asSeen(err, filepath.Join(u.Home, dir, name))
	}
	return SyncDir(root)
}

// gone is err unless it says that there is nothing.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// openInHome opens a directory in a user's home, which is made if it is to be. What it returns is
// a directory that the user owns, wherever links in the home have led to.
func (h *Host) openInHome(u User, dir string, create bool) (*os.Root, error) {
	home, err := h.openHome(u)
	if err != nil {
		return nil, err
	}
	defer func() { _ = home.Close() }() // nothing was written to it
	path := filepath.Join(u.Home, dir)
	if create {
		if err := home.Mkdir(dir, 0o700); err == nil {
			err = SyncDir(home)
			if err != nil {
				return nil, h.asSeen(err, path)
			}
		} else if !errors.Is(err, fs.ErrExist) {
			return nil, h.asSeen(err, path)
		}
	}
	root, err := openSub(home, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, h.asSeen(err, path)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %w: %w", path, ErrNotTheirs, h.asSeen(err, path))
	}
	if err := ownDirectory(root, u, create); err != nil {
		return nil, errors.Join(fmt.Errorf("%s %w", path, err), root.Close())
	}
	return root, nil
}

// openSub opens a directory in an open one. os.Root's own way opens whatever lies there, and a pipe
// that the user has put there would hold us up for ever.
func openSub(dir *os.Root, name string) (*os.Root, error) {
	d, err := dir.OpenFile(name, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = d.Close() }() // read only
	return os.OpenRoot("/proc/self/fd/" + strconv.FormatUint(uint64(d.Fd()), 10))
}

// ownDirectory says whether the user owns a directory that is open. One of root's with nothing
// in it was made for the user a moment ago, or by a run that was killed then: it is given to them
// if it may be changed.
func ownDirectory(root *os.Root, u User, change bool) error {
	d, err := root.Open(".")
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }() // read only
	info, err := d.Stat()
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if ok && int(stat.Uid) == u.UID {
		return nil
	}
	if ok && int(stat.Uid) == os.Geteuid() {
		if _, err := d.Readdirnames(1); errors.Is(err, io.EOF) {
			if !change {
				return nil
			}
			return d.Chown(u.UID, u.GID)
		}
	}
	return fmt.Errorf("%w: it belongs to another user; chown it to %s", ErrNotTheirs, u.Name)
}

// openHome opens a user's home directory. Nobody but root can have put another directory in its
// place: those above it are root's, it is no link, and it is the user's or root's.
func (h *Host) openHome(u User) (*os.Root, error) {
	home := filepath.Clean(u.Home)
	if !filepath.IsAbs(home) || home == "/" {
		return nil, fmt.Errorf("home directory %q of %s %w", u.Home, u.Name, ErrNotTheirs)
	}
	refuse := func(err error) error {
		return fmt.Errorf("home directory %s %w: %w", home, ErrNotTheirs, h.asSeen(err, home))
	}
	above, err := h.followTrusted(filepath.Dir(home))
	if err != nil {
		return nil, refuse(err)
	}
	real := filepath.Join(above, filepath.Base(home))
	d, err := os.OpenFile(real, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, refuse(err)
	}
	defer func() { _ = d.Close() }() // read only
	info, err := d.Stat()
	if err != nil {
		return nil, refuse(err)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || int(stat.Uid) != u.UID && stat.Uid != 0 {
		return nil, fmt.Errorf("home directory %s %w: it belongs to another user", home, ErrNotTheirs)
	}
	root, err := os.OpenRoot(real)
	if err != nil {
		return nil, refuse(err)
	}
	again, err := root.Stat(".")
	if err == nil && !os.SameFile(info, again) {
		err = errors.New("it was replaced a moment ago")
	}
	if err != nil {
		return nil, errors.Join(refuse(err), root.Close())
	}
	return root, nil
}
