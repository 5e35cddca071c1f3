package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// The locks of a host. A command that needs both takes LockHost first.
const (
	// LockHost is held by what changes the host: apply, drift mending, renewal, restore.
	LockHost = "host"
	// LockBackup is held by what changes the backups: save, prune.
	LockBackup = "backup"
)

// HeldError is a lock that somebody else holds.
type HeldError struct{ Lock, Holder string }

func (e *HeldError) Error() string {
	holder := e.Holder
	if holder == "" { // it has taken the lock this moment and not yet said who it is
		holder = "another nodeagent"
	}
	return fmt.Sprintf("take lock %q: held by %s", e.Lock, holder)
}

const lockDir = "/run/nodeagent"

// TryLock takes a lock of the host for purpose ("apply", "snapshot save"), or returns a
// *HeldError that says who holds it. The lock is the process's: the kernel frees it when the
// process ends, however it ends. A lock file that is left behind means nothing.
func (h *Host) TryLock(name, purpose string) (unlock func(), err error) {
	l, err := h.openLock(name)
	if err != nil {
		return nil, fmt.Errorf("take lock %q: %w", name, err)
	}
	return l.try(purpose)
}

// Lock is TryLock that waits while ctx lasts; told is called once, with the holder, when it
// has to. Those who wait get the lock in the order in which they came, as Linux has it (fs/locks.c), so
// that nobody who comes again and again keeps others from it. When ctx ends it returns the *HeldError
// of who holds the lock then, joined with ctx's error.
func (h *Host) Lock(ctx context.Context, name, purpose string, told func(holder string)) (unlock func(), err error) {
	l, err := h.openLock(name)
	if err != nil {
		return nil, fmt.Errorf("take lock %q: %w", name, err)
	}
	unlock, err = l.try(purpose)
	var held *HeldError
	if !errors.As(err, &held) {
		return unlock, err
	}
	if told != nil {
		told(held.Holder)
	}
	if l, err = h.openLock(name); err != nil {
		return nil, fmt.Errorf("take lock %q: %w", name, err)
	}
	// Nothing ends the wait of the kernel's: whoever gives up leaves it to come to its end.
	got := make(chan error, 1)
	go func() { got <- l.flock(0) }()
	select {
	case err := <-got:
		if err != nil {
			return nil, fmt.Errorf("take lock %q: %w", name, errors.Join(err, l.file.Close()))
		}
		return l.hold(purpose), nil
	case <-ctx.Done():
		held.Holder = l.holder()
		go func() {
			_ = errors.Join(<-got, l.file.Close()) // which gives it back; nobody is there to be told
		}()
		return nil, errors.Join(held, context.Cause(ctx))
	}
}

// lockFile is the open file of a lock, not yet locked.
type lockFile struct {
	name string
	file *os.File
}

func (h *Host) openLock(name string) (*lockFile, error) {
	if err := h.MkdirAll(lockDir, 0o755); err != nil {
		return nil, err
	}
	file := filepath.Join(lockDir, name+".lock")
	dir, base, err := h.parent(file, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }() // nothing in it needs to last
	if info, err := dir.Lstat(base); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return nil, fmt.Errorf("%s %w", file, ErrSymlink)
	}
	f, err := dir.OpenFile(base, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, h.asSeen(err, file)
	}
	if err := onlyName(dir, base, f); err != nil { // who holds it is written into it
		return nil, fmt.Errorf("%s %w", file, errors.Join(err, f.Close()))
	}
	return &lockFile{name, f}, nil
}

// try takes the lock, or closes the file.
func (l *lockFile) try(purpose string) (unlock func(), err error) {
	err = l.flock(syscall.LOCK_NB)
	if err == nil {
		return l.hold(purpose), nil
	}
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = &HeldError{Lock: l.name, Holder: l.holder()}
	} else {
		err = fmt.Errorf("take lock %q: %w", l.name, err)
	}
	if closing := l.file.Close(); closing != nil {
		err = errors.Join(err, closing)
	}
	return nil, err
}

// flock is flock(2), again when a signal has ended it.
func (l *lockFile) flock(how int) error {
	for {
		err := syscall.Flock(int(l.file.Fd()), syscall.LOCK_EX|how)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// hold writes who holds the lock, a courtesy to whoever waits: a failure to say so is no reason to fail.
func (l *lockFile) hold(purpose string) (unlock func()) {
	_ = l.file.Truncate(0)
	_, _ = l.file.WriteAt([]byte(fmt.Sprintf("%s (pid %d)\n", purpose, os.Getpid())), 0)
	return func() { _ = l.file.Close() }
}

// holder is who has written that he holds the lock.
func (l *lockFile) holder() string {
	data, _ := io.ReadAll(io.NewSectionReader(l.file, 0, 4096)) // a courtesy too
	return strings.TrimSpace(string(data))
}
