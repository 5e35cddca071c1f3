package host

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrSymlink is the refusal to write where a symbolic link lies: replacing it would surprise
// its owner, and following it would let whoever made it choose the file.
var ErrSymlink = errors.New("is a symbolic link: replace it by a regular file, or remove it")

// WriteFile makes path hold data with exactly mode perm, atomically and durably: a temporary
// file in the same directory, owner and mode set, fsync, rename, fsync of the directory. A
// file that was there keeps its owner. What a killed writer left goes with the next write. Directories missing above it are made, 0755. A file
// that is already so is left alone, its time included. A link that lies there is ErrSymlink; one
// on the way, of another user's, is ErrForeignLink.
func (h *Host) WriteFile(path string, data []byte, perm fs.FileMode) error {
	dir, name, err := h.parent(path, 0o755)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() { _ = dir.Close() }() // it is synced by then, and what failed has been told
	info, err := dir.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("write %s: %w", path, h.asSeen(err, path))
	case info.Mode()&fs.ModeSymlink != 0:
		return fmt.Errorf("write %s: %w", path, ErrSymlink)
	case !info.Mode().IsRegular():
		return fmt.Errorf("write %s: is not a regular file", path)
	case info.Mode().Perm() == perm && holds(dir, name, data):
		return nil
	}
	if err := replace(dir, name, data, perm, info); err != nil {
		return fmt.Errorf("write %s: %w", path, h.asSeen(err, path))
	}
	return nil
}

func holds(dir *os.Root, name string, data []byte) bool {
	have, err := dir.ReadFile(name)
	return err == nil && bytes.Equal(have, data)
}

func replace(dir *os.Root, name string, data []byte, perm fs.FileMode, old fs.FileInfo) error {
	f, err := createDraft(dir, name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it is synced by then, and what failed has been told
	if err := fill(f, data, perm, old); err != nil {
		return errors.Join(err, dir.Remove(draftName(name)))
	}
	if err := dir.Rename(draftName(name), name); err != nil {
		return errors.Join(err, dir.Remove(draftName(name)))
	}
	return SyncDir(dir)
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
	dir, name, err := h.parent(path, 0o755)
	if err != nil {
		return fmt.Errorf("link %s: %w", path, err)
	}
	defer func() { _ = dir.Close() }() // as in WriteFile
	info, err := dir.Lstat(name)
	if err == nil && info.Mode()&fs.ModeSymlink == 0 {
		return fmt.Errorf("link %s: something else is there: %w", path, fs.ErrExist)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("link %s: %w", path, h.asSeen(err, path))
	}
	if err := makeLink(dir, target, name, err == nil); err != nil {
		return fmt.Errorf("link %s: %w", path, h.asSeen(err, path))
	}
	return SyncDir(dir)
}

// MkdirAll makes a directory and those above it, with mode perm whatever the umask is for
// those it makes, and durably. One that is there keeps its mode. Links are followed as openDir
// has it.
func (h *Host) MkdirAll(path string, perm fs.FileMode) error {
	dir, err := h.openDir(path, perm)
	var made *fs.PathError
	if errors.As(err, &made) && made.Op == making {
		return err
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", making, path, err)
	}
	return dir.Close()
}

// Rename moves a file, durably. Both paths are below Root; the new one's directory exists.
func (h *Host) Rename(from, to string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("rename %s to %s: %w", from, to, cause(err))
		}
	}()
	fromDir, fromName, err := h.parent(from, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, fromDir.Close()) }()
	toDir, toName, err := h.parent(to, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, toDir.Close()) }()
	a, err := fromDir.Open(".")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	b, err := toDir.Open(".")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if err := unix.Renameat(int(a.Fd()), fromName, int(b.Fd()), toName); err != nil {
		return err
	}
	return errors.Join(b.Sync(), a.Sync())
}

// Remove removes a file or an empty directory, durably. One that is not there is fine.
func (h *Host) Remove(path string) error { return h.remove(path, (*os.Root).Remove) }

// RemoveAll removes a directory and what is in it, durably; links in it are removed, not
// followed. One that is not there is fine. It is for directories that are the agent's own.
func (h *Host) RemoveAll(path string) error { return h.remove(path, (*os.Root).RemoveAll) }

func (h *Host) remove(path string, remove func(dir *os.Root, name string) error) error {
	dir, name, err := h.parent(path, 0)
	if err != nil {
		return gone(err)
	}
	defer func() { _ = dir.Close() }() // as in WriteFile
	if _, err := dir.Lstat(name); err != nil {
		return gone(h.asSeen(err, path))
	}
	if err := remove(dir, name); err != nil {
		return gone(h.asSeen(err, path))
	}
	return SyncDir(dir)
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
