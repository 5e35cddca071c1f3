package host

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// RenameNew gives a file in dir, which nobody else renames, another name, and takes it from nobody: hosts
// that share the directory may want the same at the same moment, and all but one of them get fs.ErrExist.
// Where the filesystem cannot rename in that way, which NFS cannot, it is linked. One that knows neither, as
// some in user space, leaves a moment in which one of two takes it from the other.
func RenameNew(dir *os.Root, from, to string) error {
	err := renameNew(dir, from, to)
	if !lacking(err) {
		return err
	}
	err = link(dir, from, to)
	if !lacking(err) {
		return err
	}
	_, err = dir.Lstat(to)
	if err == nil {
		return fs.ErrExist
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return dir.Rename(from, to)
}

// link is a rename by another name and the removal of the first. A crash between leaves both.
func link(dir *os.Root, from, to string) error {
	err := dir.Link(from, to)
	if errors.Is(err, fs.ErrExist) {
		// An answer of the server's that was lost, and asked for again, is of a link which it has made.
		ours, errOurs := dir.Lstat(from)
		there, errThere := dir.Lstat(to)
		if errOurs == nil && errThere == nil && os.SameFile(ours, there) {
			err = nil
		}
	}
	if err != nil {
		return err
	}
	return dir.Remove(from)
}

// renameNew is a rename that fails with fs.ErrExist where it would replace something.
func renameNew(dir *os.Root, from, to string) error {
	d, err := dir.Open(".")
	if err != nil {
		return err
	}
	err = unix.Renameat2(int(d.Fd()), from, int(d.Fd()), to, unix.RENAME_NOREPLACE)
	if err != nil {
		err = &os.LinkError{Op: "renameat2", Old: from, New: to, Err: err}
	}
	return errors.Join(err, d.Close())
}

// lacking says that a filesystem, or the kernel, does not know what it was asked for: EINVAL is
// rename(2)'s word for that, the others are link(2)'s.
func lacking(err error) bool {
	for _, errno := range []error{unix.EINVAL, unix.ENOSYS, unix.EOPNOTSUPP, unix.EPERM} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}
