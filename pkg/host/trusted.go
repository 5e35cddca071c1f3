package host

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// ErrUntrusted is the refusal of a file that somebody else than root or this process's user can
// change: whoever writes what the agent goes by is root.
var ErrUntrusted = errors.New("is not safe to go by")

// ReadTrusted reads a file of at most limit bytes that the agent goes by. Links are followed
// within Root. The file is a regular one of root's or of this process's user that nobody else
// can write, and nobody else can have put it there: no directory or link that leads to it,
// from Root on, belongs to another user, and no directory can be written by everybody unless it
// is sticky. A directory's group is trusted, since the file's owner is looked at. What is not so
// is ErrUntrusted.
func (h *Host) ReadTrusted(path string, limit int) (data []byte, err error) {
	real, err := h.followTrusted(path)
	if err != nil {
		return nil, h.asSeen(err, path)
	}
	const flags = os.O_RDONLY | syscall.O_NOFOLLOW | syscall.O_NONBLOCK // a pipe would hold us up
	f, err := os.OpenFile(real, flags, 0)
	if err != nil {
		return nil, h.asSeen(err, path)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat() // of what is open, not of what lies there by now
	if err != nil {
		return nil, h.asSeen(err, path)
	}
	if err := trustedFile(info); err != nil {
		return nil, fmt.Errorf("%s %w", path, err)
	}
	data, err = io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err == nil && len(data) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return data, h.asSeen(err, path)
}

// maxLinks is Linux's own limit.
const maxLinks = 40

// followTrusted is follow that looks at every directory and link on the way.
func (h *Host) followTrusted(path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("resolve %q: not an absolute path", path)
	}
	root := filepath.Clean(h.Root)
	at, rest, links := root, path, 0
	for {
		info, err := os.Lstat(at)
		if err != nil {
			return "", err
		}
		if err := h.trustedWay(at, info); err != nil {
			return "", err
		}
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			if links++; links > maxLinks {
				return "", fmt.Errorf("resolve %s: %w", path, syscall.ELOOP)
			}
			target, err := os.Readlink(at)
			if err != nil {
				return "", err
			}
			rest = target + "/" + rest
			if at = filepath.Dir(at); filepath.IsAbs(target) {
				at = root
			}
		case !info.IsDir() && strings.Trim(rest, "/") != "":
			return "", fmt.Errorf("resolve %s: %s: %w", path, h.seen(at), syscall.ENOTDIR)
		case strings.Trim(rest, "/") == "":
			return at, nil
		}
		var next string
		next, rest, _ = strings.Cut(strings.TrimLeft(rest, "/"), "/")
		if at = filepath.Join(at, next); at != root && !strings.HasPrefix(at, strings.TrimSuffix(root, "/")+"/") {
			at = root // ".." does not lead out of it
		}
	}
}

// trustedWay looks at a directory or a link; files are looked at when they are open.
func (h *Host) trustedWay(at string, info fs.FileInfo) error {
	mode := info.Mode()
	switch {
	case mode.IsDir() && mode.Perm()&0o002 != 0 && mode&fs.ModeSticky == 0:
		return fmt.Errorf("directory %s %w: everybody can replace what lies in it (mode %04o); chmod o-w", h.seen(at), ErrUntrusted, mode.Perm())
	case mode.IsDir() && !ownerTrusted(info):
		return fmt.Errorf("directory %s %w: it belongs to another user; chown it to root", h.seen(at), ErrUntrusted)
	case mode&fs.ModeSymlink != 0 && !ownerTrusted(info):
		return fmt.Errorf("link %s %w: it belongs to another user; remove it", h.seen(at), ErrUntrusted)
	}
	return nil
}

func trustedFile(info fs.FileInfo) error {
	switch {
	case info.IsDir():
		return errors.New("is a directory, not a file")
	case !info.Mode().IsRegular():
		return errors.New("is not a regular file")
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("%w: others can write it (mode %04o); chmod go-w", ErrUntrusted, info.Mode().Perm())
	case !ownerTrusted(info):
		return fmt.Errorf("%w: it belongs to another user; chown it to root", ErrUntrusted)
	}
	return nil
}

func ownerTrusted(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && (stat.Uid == 0 || int(stat.Uid) == os.Geteuid())
}

// seen is a real path as the machine sees it.
func (h *Host) seen(real string) string {
	rel, err := filepath.Rel(h.Root, real)
	if err != nil {
		return real
	}
	return filepath.Join("/", rel)
}
