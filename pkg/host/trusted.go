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

// ReadTrusted reads a file of at most limit bytes that the agent goes by. It is opened as
// OpenTrusted opens it.
func (h *Host) ReadTrusted(path string, limit int) (data []byte, err error) {
	f, err := h.OpenTrusted(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	data, err = io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err == nil && len(data) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return data, h.asSeen(err, path)
}

// OpenTrusted opens a file that the agent goes by for reading. Links are followed
// within Root. The file is a regular one of root's or of this process's user that nobody else
// can write, and nobody else can have put it there: no directory or link that leads to it,
// from Root on, belongs to another user, and no directory can be written by others unless it
// is sticky. What is not so is ErrUntrusted, with the command that mends it.
func (h *Host) OpenTrusted(path string) (*os.File, error) {
	return h.openChecked(path, trustedFile)
}

// CheckTrusted says why a file or a directory that another program goes by is not safe to go by,
// by OpenTrusted's rule; nil if it is.
func (h *Host) CheckTrusted(path string) error {
	return h.check(path, func(info fs.FileInfo, at string) error {
		if info.IsDir() {
			return nil // as a part of its own way
		}
		return trustedFile(info, at)
	})
}

// CheckSecret says why a file that another program reads a secret from is none that a secret may
// lie in, by ReadSecret's rule; nil if it is.
func (h *Host) CheckSecret(path string) error { return h.check(path, private) }

func (h *Host) check(path string, check func(info fs.FileInfo, at string) error) error {
	real, err := h.followTrusted(path)
	if err != nil {
		return h.asSeen(err, path)
	}
	info, err := os.Lstat(real)
	if err != nil {
		return h.asSeen(err, path)
	}
	if err := check(info, h.seen(real)); err != nil {
		return fmt.Errorf("%s %w", path, err)
	}
	return nil
}

// openChecked opens a file that nobody else can have put there and that check has nothing
// against.
func (h *Host) openChecked(path string, check func(info fs.FileInfo, at string) error) (*os.File, error) {
	real, err := h.followTrusted(path)
	if err != nil {
		return nil, h.asSeen(err, path)
	}
	const flags = os.O_RDONLY | syscall.O_NOFOLLOW | syscall.O_NONBLOCK // a pipe would hold us up
	f, err := os.OpenFile(real, flags, 0)
	if err != nil {
		return nil, h.asSeen(err, path)
	}
	info, err := f.Stat() // of what is open, not of what lies there by now
	if err != nil {
		return nil, errors.Join(h.asSeen(err, path), f.Close())
	}
	if err := check(info, h.seen(real)); err != nil {
		return nil, errors.Join(fmt.Errorf("%s %w", path, err), f.Close())
	}
	return f, nil
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
	case mode.IsDir() && othersCanReplaceIn(info):
		return fmt.Errorf("directory %s %w: others can replace what lies in it (mode %04o); chmod go-w %[1]s", h.seen(at), ErrUntrusted, mode.Perm())
	case mode.IsDir() && !ownerTrusted(info):
		return fmt.Errorf("directory %s %w: it belongs to another user (mode %04o); chown root %[1]s", h.seen(at), ErrUntrusted, mode.Perm())
	case mode&fs.ModeSymlink != 0 && !ownerTrusted(info):
		return fmt.Errorf("link %s %w: it belongs to another user; remove it, or chown -h root %[1]s", h.seen(at), ErrUntrusted)
	}
	return nil
}

// othersCanReplaceIn says whether somebody beside its owner can rename what lies in a
// directory. Its group counts unless it is root's or this process's own, which with most
// distributions has one member.
func othersCanReplaceIn(info fs.FileInfo) bool {
	mode := info.Mode()
	if mode&fs.ModeSticky != 0 {
		return false
	}
	return mode.Perm()&0o002 != 0 || mode.Perm()&0o020 != 0 && !groupTrusted(info)
}

// trustedFile is why the agent does not go by the file that lies at a path, nil if it does.
func trustedFile(info fs.FileInfo, at string) error {
	mode := info.Mode()
	switch {
	case mode.IsDir():
		return errors.New("is a directory, not a file")
	case !mode.IsRegular():
		return errors.New("is not a regular file")
	case mode.Perm()&0o022 != 0:
		return fmt.Errorf("%w: others can write it (mode %04o); chmod go-w %s", ErrUntrusted, mode.Perm(), at)
	case !ownerTrusted(info):
		return fmt.Errorf("%w: it belongs to another user (mode %04o); chown root %s", ErrUntrusted, mode.Perm(), at)
	}
	return nil
}

func ownerTrusted(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && (stat.Uid == 0 || int(stat.Uid) == os.Geteuid())
}

func groupTrusted(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && (stat.Gid == 0 || int(stat.Gid) == os.Getegid())
}

// seen is a real path as the machine sees it.
func (h *Host) seen(real string) string {
	rel, err := filepath.Rel(h.Root, real)
	if err != nil {
		return real
	}
	return filepath.Join("/", rel)
}
