package host

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// draftName is where what is to lie at real is made before it is put there, so that nobody ever
// finds it half made. There is one such name for each path: what a writer who was killed left
// there goes when the next one writes the same path. It is hidden and its ending is ours, so
// that nothing which reads a directory (systemd, kubelet, containerd) takes it for its own.
func draftName(real string) string {
	return filepath.Join(filepath.Dir(real), "."+filepath.Base(real)+".nodeagent")
}

// errBusy is another writer of the same path. Whoever changes a host holds one of its locks, so
// that there is none.
var errBusy = errors.New("another process is writing it at this moment")

// createDraft opens the draft of a file, which is locked as long as it is open: one that is not
// locked is a dead writer's, and is removed.
func createDraft(real string) (*os.File, error) {
	name := draftName(real)
	const flags = os.O_WRONLY | os.O_CREATE | os.O_EXCL
	f, err := os.OpenFile(name, flags, 0o600)
	if errors.Is(err, fs.ErrExist) {
		if err := removeDead(name); err != nil {
			return nil, err
		}
		f, err = os.OpenFile(name, flags, 0o600)
	}
	if err != nil {
		return nil, err
	}
	if err := lockDraft(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func removeDead(name string) error {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err = lockDraft(f); err == nil {
		err = os.Remove(name)
	}
	return errors.Join(err, f.Close())
}

// lockDraft locks a draft that is still to be found by its name; errBusy says that somebody
// else has it, or had it and is done. A file system without locks is no reason to fail.
func lockDraft(f *os.File) error {
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); errors.Is(err, syscall.EWOULDBLOCK) {
		return errBusy
	}
	ours, err := f.Stat()
	if err != nil {
		return err
	}
	there, err := os.Lstat(f.Name())
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(ours, there) {
		return errBusy
	}
	return err
}

// makeDirectory makes one directory with mode perm. It has that mode from its first moment: one
// that was made first and given its mode then would keep the wrong one after a kill in between,
// since nobody changes the mode of a directory that is there.
func makeDirectory(real string, perm fs.FileMode) error {
	draft := draftName(real)
	err := os.Mkdir(draft, perm)
	if errors.Is(err, fs.ErrExist) {
		info, statErr := os.Lstat(draft)
		if err = statErr; err == nil && !info.IsDir() {
			err = errors.Join(os.Remove(draft), os.Mkdir(draft, perm))
		}
	}
	if err == nil {
		err = os.Chmod(draft, perm) // the umask has had its say
	}
	if err == nil {
		err = os.Rename(draft, real)
	}
	if err == nil {
		return nil
	}
	if removeErr := os.Remove(draft); removeErr != nil && !errors.Is(removeErr, fs.ErrNotExist) {
		err = errors.Join(err, removeErr)
	}
	if info, statErr := os.Stat(real); statErr == nil && info.IsDir() {
		return nil // somebody else has made it meanwhile
	}
	return err
}

// makeLink makes real a link to target; replace says that a link lies there already.
func makeLink(target, real string, replace bool) error {
	if !replace {
		return os.Symlink(target, real)
	}
	draft := draftName(real)
	if err := os.Remove(draft); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(target, draft); err != nil {
		return err
	}
	return os.Rename(draft, real)
}
