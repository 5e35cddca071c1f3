package host

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// ErrSymlink is the refusal to write where a symbolic link lies: replacing it would surprise
// its owner, and following it would let whoever made it choose the file.
var ErrSymlink = errors.New("is a symbolic link: replace it by a regular file, or remove it")

// WriteFile makes path hold data with exactly mode perm, atomically and durably: a temporary
// file in the same directory, owner and mode set, fsync, rename, fsync of the directory. A
// file that was there keeps its owner. What a killed writer left goes with the next write. Directories missing above it are made, 0755. A file
// that is already so is left alone, its time included.
func (h *Host) WriteFile(path string, data []byte, perm fs.FileMode) error {
	real, err := h.Path(path)
	if err != nil {
		return err
	}
	info, err := os.Lstat(real)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := h.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		// The directory may be a link that was dangling a moment ago: look again.
		if real, err = h.Path(path); err != nil {
			return err
		}
	case err != nil:
		return fmt.Errorf("write %s: %w", path, h.asSeen(err, path))
	case info.Mode()&fs.ModeSymlink != 0:
		return fmt.Errorf("write %s: %w", path, ErrSymlink)
	case !info.Mode().IsRegular():
		return fmt.Errorf("write %s: is not a regular file", path)
	case info.Mode().Perm() == perm && holds(real, data):
		return nil
	}
	if err := replace(real, data, perm, info); err != nil {
		return fmt.Errorf("write %s: %w", path, h.asSeen(err, path))
	}
	return nil
}

func holds(real string, data []byte) bool {
	have, err := os.ReadFile(real)
	return err == nil && bytes.Equal(have, data)
}

func replace(real string, data []byte, perm fs.FileMode, old fs.FileInfo) error {
	f, err := createDraft(real)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it is synced by then, and what failed has been told
	if err := fill(f, data, perm, old); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if err := os.Rename(f.Name(), real); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return SyncDir(filepath.Dir(real))
}

// fill gives a draft its owner, its mode and its content, durably.
func fill(f *os.File, data []byte, perm fs.FileMode, old fs.FileInfo) error {
	if old != nil {
		if stat, ok := old.Sys().(*syscall.Stat_t); ok {
			if err := keepOwner(f, stat); err != nil {
				return err
			}
		}
	}
	if err := f.Chmod(perm); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Sync()
}

func keepOwner(f *os.File, old *syscall.Stat_t) error {
	if int(old.Uid) == os.Geteuid() && int(old.Gid) == os.Getegid() {
		return nil
	}
	return f.Chown(int(old.Uid), int(old.Gid))
}

// SyncDir makes the names in a directory (a real path, not one below Root) durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	if err := d.Sync(); err != nil {
		return errors.Join(err, d.Close())
	}
	return d.Close()
}

// WriteKernel writes value to a file of /proc or /sys, in place. It never creates one.
func (h *Host) WriteKernel(path, value string) error {
	real, err := h.follow(path)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(real, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return h.asSeen(err, path)
	}
	if _, err := f.WriteString(value); err != nil {
		return errors.Join(h.asSeen(err, path), f.Close())
	}
	return h.asSeen(f.Close(), path)
}

// Symlink makes path a link to target, atomically. What lies there otherwise is an error,
// unless it is a link, which is replaced.
func (h *Host) Symlink(target, path string) error {
	if err := h.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	real, err := h.Path(path)
	if err != nil {
		return err
	}
	info, err := os.Lstat(real)
	if err == nil && info.Mode()&fs.ModeSymlink == 0 {
		return fmt.Errorf("link %s: something else is there: %w", path, fs.ErrExist)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("link %s: %w", path, h.asSeen(err, path))
	}
	if err := makeLink(target, real, err == nil); err != nil {
		return fmt.Errorf("link %s: %w", path, h.asSeen(err, path))
	}
	return SyncDir(filepath.Dir(real))
}

// MkdirAll makes a directory and those above it, with mode perm whatever the umask is for
// those it makes, and durably. One that is there keeps its mode.
func (h *Host) MkdirAll(path string, perm fs.FileMode) error {
	real, err := h.follow(path)
	if err != nil {
		return err
	}
	info, err := os.Stat(real)
	if err == nil && info.IsDir() {
		return nil
	}
	if err == nil {
		return fmt.Errorf("make directory %s: %w", path, syscall.ENOTDIR)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("make directory %s: %w", path, h.asSeen(err, path))
	}
	if real != filepath.Clean(h.Root) {
		// What real needs above it, not what path does: path may lead through a dangling link.
		parent, err := filepath.Rel(h.Root, filepath.Dir(real))
		if err != nil {
			return fmt.Errorf("make directory %s: %w", path, err)
		}
		if err := h.MkdirAll("/"+parent, perm); err != nil {
			return err
		}
	}
	if err := makeDirectory(real, perm); err != nil {
		return fmt.Errorf("make directory %s: %w", path, h.asSeen(err, path))
	}
	return SyncDir(filepath.Dir(real))
}

// Rename moves a file, durably. Both paths are below Root; the new one's directory exists.
func (h *Host) Rename(from, to string) error {
	realFrom, err := h.Path(from)
	if err != nil {
		return err
	}
	realTo, err := h.Path(to)
	if err != nil {
		return err
	}
	if err := os.Rename(realFrom, realTo); err != nil {
		return fmt.Errorf("rename %s to %s: %w", from, to, errors.Unwrap(err))
	}
	return errors.Join(SyncDir(filepath.Dir(realTo)), SyncDir(filepath.Dir(realFrom)))
}

// Remove removes a file or an empty directory, durably. One that is not there is fine.
func (h *Host) Remove(path string) error {
	real, err := h.Path(path)
	if err != nil {
		return err
	}
	if err := os.Remove(real); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return h.asSeen(err, path)
	}
	return SyncDir(filepath.Dir(real))
}

// RemoveAll removes a directory and what is in it, durably; links in it are removed, not
// followed. One that is not there is fine. It is for directories that are the agent's own.
func (h *Host) RemoveAll(path string) error {
	real, err := h.Path(path)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(real); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := os.RemoveAll(real); err != nil {
		return h.asSeen(err, path)
	}
	return SyncDir(filepath.Dir(real))
}

// originals is where a user's file is kept as it was before the agent's first change to it.
// It lies outside the directories that other programs scan: kubelet would run a copy left in
// its manifest directory as a pod.
const originals = "/var/lib/nodeagent/originals"

// KeepOriginal copies a file that a user may own to originals, once: a copy that is there
// already is the older one and stays. A file that does not exist needs no copy.
func (h *Host) KeepOriginal(path string) error {
	kept := filepath.Join(originals, path)
	if there, err := h.Exists(kept); err != nil || there {
		return err
	}
	data, err := h.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("keep original: %w", err)
	}
	// The tree above is everybody's, in an image that is being made too.
	if err := h.MkdirAll(filepath.Dir(filepath.Dir(originals)), 0o755); err != nil {
		return fmt.Errorf("keep original: %w", err)
	}
	if err := h.MkdirAll(filepath.Dir(kept), 0o700); err != nil {
		return fmt.Errorf("keep original: %w", err)
	}
	return h.WriteFile(kept, data, 0o600)
}
