package host

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// draftName is what is to be called name is called in its directory until it is whole, so that nobody ever
// finds it half made. There is one such name for each path: what a writer who was killed left
// there goes when the next one writes the same path. It is hidden and its ending is ours, so
// that nothing which reads a directory (systemd, kubelet, containerd) takes it for its own.
func draftName(name string) string { return "." + name + ".nodeagent" }

// errBusy is another writer of the same path. Whoever changes a host holds one of its locks, so
// that there is none.
var errBusy = errors.New("another process is writing it at this moment")

// createDraft opens the draft of a file, which is locked as long as it is open: one that is not
// locked is a dead writer's, and is removed.
func createDraft(dir *os.Root, name string) (*os.File, error) {
	draft := draftName(name)
	const flags = os.O_WRONLY | os.O_CREATE | os.O_EXCL
	f, err := dir.OpenFile(draft, flags, 0o600)
	if errors.Is(err, fs.ErrExist) {
		if err := removeDead(dir, draft); err != nil {
			return nil, err
		}
		f, err = dir.OpenFile(draft, flags, 0o600)
	}
	if err != nil {
		return nil, err
	}
	if err := lockDraft(dir, draft, f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func removeDead(dir *os.Root, draft string) error {
	info, err := dir.Lstat(draft)
	if err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return &fs.PathError{Op: "open", Path: draft, Err: syscall.ELOOP}
	}
	if err != nil {
		return gone(err)
	}
	f, err := openThere(dir, draft, info)
	if err != nil {
		return gone(err)
	}
	if err = lockDraft(dir, draft, f); err == nil {
		err = dir.Remove(draft)
	}
	return errors.Join(err, f.Close())
}

// lockDraft locks a draft that is still to be found by its name; errBusy says that somebody
// else has it, or had it and is done. A file system without locks is no reason to fail.
func lockDraft(dir *os.Root, draft string, f *os.File) error {
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); errors.Is(err, syscall.EWOULDBLOCK) {
		return errBusy
	}
	ours, err := f.Stat()
	if err != nil {
		return err
	}
	there, err := dir.Lstat(draft)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(ours, there) {
		return errBusy
	}
	return err
}

// makeDirectory makes one directory with mode perm. It has that mode from its first moment: one
// that was made first and given its mode then would keep the wrong one after a kill in between,
// since nobody changes the mode of a directory that is there.
func makeDirectory(dir *os.Root, name string, perm fs.FileMode) error {
	draft := draftName(name)
	err := dir.Mkdir(draft, perm)
	if errors.Is(err, fs.ErrExist) {
		info, statErr := dir.Lstat(draft)
		if err = statErr; err == nil && (!info.IsDir() || !ownerTrusted(info)) {
			err = errors.Join(dir.Remove(draft), dir.Mkdir(draft, perm))
		}
	}
	if err == nil {
		err = chmodDirectory(dir, draft, perm) // the umask has had its say
	}
	if err == nil {
		err = dir.Rename(draft, name)
	}
	if err == nil {
		return nil
	}
	if removeErr := gone(dir.Remove(draft)); removeErr != nil {
		err = errors.Join(err, removeErr)
	}
	if info, statErr := dir.Lstat(name); statErr == nil && info.IsDir() {
		return nil // somebody else has made it meanwhile
	}
	return err
}

// chmodDirectory gives a draft its mode through an open descriptor, which is that of a directory.
func chmodDirectory(dir *os.Root, draft string, perm fs.FileMode) (err error) {
	info, err := dir.Lstat(draft)
	if err != nil {
		return err
	}
	d, err := openThere(dir, draft, info)
	if err != nil {
		return err
	}
	return errors.Join(d.Chmod(perm), d.Sync(), d.Close())
}

// makeLink makes name a link to target; replace says that a link lies there already.
func makeLink(dir *os.Root, target, name string, replace bool) error {
	if !replace {
		return dir.Symlink(target, name)
	}
	draft := draftName(name)
	if err := gone(dir.Remove(draft)); err != nil {
		return err
	}
	if err := dir.Symlink(target, draft); err != nil {
		return err
	}
	return dir.Rename(draft, name)
}
