package host

import (
	"errors"
	"fmt"
	"io/fs"
)

// Narrow takes from the mode of a file or directory what perm does not have, and adds nothing. A
// link at the end of path is an error and not followed, and so is what is neither file nor
// directory.
func (h *Host) Narrow(path string, perm fs.FileMode) (err error) {
	dir, name, err := h.parent(path, 0)
	if err != nil {
		return fmt.Errorf("narrow mode: %w", err)
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	info, err := dir.Lstat(name)
	if err != nil {
		return fmt.Errorf("narrow mode: %w", h.asSeen(err, path))
	}
	if !info.Mode().IsRegular() && !info.IsDir() {
		return fmt.Errorf("narrow mode: %s is neither a file nor a directory", path)
	}
	f, err := openThere(dir, name, info)
	if err != nil {
		return fmt.Errorf("narrow mode: %w", h.asSeen(err, path))
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	have := info.Mode().Perm()
	if have&^perm == 0 {
		return nil
	}
	if err := f.Chmod(have & perm); err != nil {
		return fmt.Errorf("narrow mode: %w", h.asSeen(err, path))
	}
	return f.Sync()
}

// OwnedByRoot says whether a file is root's and root's group's, or, for a process that is not
// root, its own.
func OwnedByRoot(info fs.FileInfo) bool {
	return ownerTrusted(info) && groupTrusted(info)
}
