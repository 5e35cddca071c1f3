// Package host is the only door to the machine: files under a root, commands, and the locks
// that keep two agents from working on one host. It is the only importer of os/exec.
package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	securejoin "github.com/cyphar/filepath-securejoin"
)

// Host is a machine, or the tree of one.
type Host struct {
	// Root is the prefix of every path: "/", a VM image that is being baked, or a test's
	// temporary directory. Symbolic links are resolved as if Root were "/". It is a prefix,
	// not a security boundary.
	Root string

	// Offline says that the tree is not a running machine (`--root`): it has no /proc and
	// /sys to read or write, and no command may be run for it.
	Offline bool

	// Exec runs one command; New sets it to Exec of this package. Tests replace it.
	Exec func(context.Context, Command) ([]byte, error)
}

// New returns the host rooted at root. Any root but "/" is Offline.
func New(root string) *Host {
	return &Host{Root: root, Offline: filepath.Clean(root) != "/", Exec: Exec}
}

// Path is where path (absolute, as the machine sees it) lies below Root. Links in its
// directories are followed within Root; its last element is not followed.
func (h *Host) Path(path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("resolve %q: not an absolute path", path)
	}
	path = filepath.Clean(path)
	if path == "/" {
		return h.Root, nil
	}
	dir, err := securejoin.SecureJoin(h.Root, filepath.Dir(path))
	if err != nil {
		return "", fmt.Errorf("resolve %s: %w", path, err)
	}
	return filepath.Join(dir, filepath.Base(path)), nil
}

// follow is Path with the last element followed too, within Root.
func (h *Host) follow(path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("resolve %q: not an absolute path", path)
	}
	real, err := securejoin.SecureJoin(h.Root, path)
	if err != nil {
		return "", fmt.Errorf("resolve %s: %w", path, err)
	}
	return real, nil
}

// ReadFile reads a file, following links within Root. The error of a file that is not there
// is fs.ErrNotExist.
func (h *Host) ReadFile(path string) ([]byte, error) {
	real, err := h.follow(path)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(real)
	return data, h.asSeen(err, path)
}

// Exists says whether something, a dangling link included, lies at path. An error other than
// fs.ErrNotExist is returned, never taken for an answer.
func (h *Host) Exists(path string) (bool, error) {
	_, err := h.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Stat is os.Stat with links followed within Root.
func (h *Host) Stat(path string) (fs.FileInfo, error) {
	real, err := h.follow(path)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(real)
	return info, h.asSeen(err, path)
}

// Lstat is os.Lstat: the last element is not followed.
func (h *Host) Lstat(path string) (fs.FileInfo, error) {
	real, err := h.Path(path)
	if err != nil {
		return nil, err
	}
	info, err := os.Lstat(real)
	return info, h.asSeen(err, path)
}

// Readlink is where the link at path points, as written in it.
func (h *Host) Readlink(path string) (string, error) {
	real, err := h.Path(path)
	if err != nil {
		return "", err
	}
	target, err := os.Readlink(real)
	return target, h.asSeen(err, path)
}

// ReadDir lists a directory by name. One that is not there is fs.ErrNotExist.
func (h *Host) ReadDir(path string) ([]fs.DirEntry, error) {
	real, err := h.follow(path)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(real)
	return entries, h.asSeen(err, path)
}

// Open opens a file for reading, following links within Root.
func (h *Host) Open(path string) (*os.File, error) {
	real, err := h.follow(path)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(real)
	return f, h.asSeen(err, path)
}

// asSeen names the path in an error as the machine sees it, not as it lies below Root.
func (h *Host) asSeen(err error, path string) error {
	var pathErr *fs.PathError
	var linkErr *os.LinkError // of a rename or a link: both its names are real ones
	switch {
	case errors.As(err, &pathErr):
		return &fs.PathError{Op: pathErr.Op, Path: path, Err: pathErr.Err}
	case errors.As(err, &linkErr):
		return &fs.PathError{Op: linkErr.Op, Path: path, Err: linkErr.Err}
	}
	return err
}
