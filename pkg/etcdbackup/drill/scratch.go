package drill

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// walSpace is what etcd sets aside for its log: a file of 64 MiB, and the next one.
const walSpace = 128 << 20

// Space is what a drill takes of the scratch directory for a snapshot of so many bytes: itself,
// the database that is restored from it, and etcd's log.
func Space(size int64) int64 { return 2*size + walSpace + 64<<20 }

// Memory is what a drill is to be given, page cache and all: an etcd maps the whole database, and
// one that has less than that takes minutes where it took seconds. Its own part grows with the
// number of keys.
func Memory(size int64) int64 { return size + size/8 + ownMemory }

const ownMemory = 256 << 20

// GoMemory is what of Memory the Go runtime may take before it collects harder.
func GoMemory(size int64) int64 { return size/8 + ownMemory*3/4 }

const scratchPrefix = "nodeagent-drill-"

// scratch is a directory of one drill, 0700 and with a name of its own, in one that Host.Path found:
// etcd's libraries write into it by paths, so that this does too, and not through package host. It is locked as long as its process lives: what lies about
// unlocked is a dead one's.
type scratch struct {
	path string
	lock *os.File
}

func newScratch(in string) (*scratch, error) {
	path, err := os.MkdirTemp(in, scratchPrefix) // 0700: a cluster's secrets will lie in it
	if err != nil {
		return nil, fmt.Errorf("make scratch directory: %w", err)
	}
	lock, err := os.Open(path)
	if err != nil {
		return nil, errors.Join(err, os.Remove(path))
	}
	s := &scratch{path, lock}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), s.remove())
	}
	return s, nil
}

func (s *scratch) remove() error {
	if err := errors.Join(os.RemoveAll(s.path), s.lock.Close()); err != nil {
		return fmt.Errorf("remove what was restored: %w", err)
	}
	return nil
}

// nameless is a file in the directory that is gone with its last descriptor.
func (s *scratch) nameless() (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(s.path, "snapshot"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Sweep removes what drills that were killed have left in a directory, which need not be there.
// Those that still run are left alone.
func Sweep(in string) error {
	entries, err := os.ReadDir(in)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for what earlier drills left: %w", err)
	}
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), scratchPrefix) {
			continue
		}
		if err := removeUnlocked(filepath.Join(in, e.Name())); err != nil {
			return fmt.Errorf("remove what an earlier drill left: %w", err)
		}
	}
	return nil
}

// removeUnlocked leaves a directory of another user's alone: the scratch directory may be one
// where everybody can write.
func removeUnlocked(path string) error {
	dir, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_DIRECTORY, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }() // it was only read
	info, err := dir.Stat()
	if err != nil {
		return err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || int(stat.Uid) != os.Geteuid() {
		return nil
	}
	err = unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.RemoveAll(path)
}
