package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
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
	if err := h.MkdirAll(lockDir, 0o755); err != nil {
		return nil, fmt.Errorf("take lock %q: %w", name, err)
	}
	file := filepath.Join(lockDir, name+".lock")
	dir, base, err := h.parent(file, 0)
	if err != nil {
		return nil, fmt.Errorf("take lock %q: %w", name, err)
	}
	defer func() { _ = dir.Close() }() // nothing in it needs to last
	if info, err := dir.Lstat(base); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return nil, fmt.Errorf("take lock %q: %s %w", name, file, ErrSymlink)
	}
	f, err := dir.OpenFile(base, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("take lock %q: %w", name, h.asSeen(err, file))
	}
	if err := onlyName(dir, base, f); err != nil { // who holds it is written into it
		return nil, fmt.Errorf("take lock %q: %s %w", name, file, errors.Join(err, f.Close()))
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, readErr := dir.ReadFile(base)
		closeErr := f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("take lock %q: %w", name, errors.Join(err, readErr, closeErr))
		}
		return nil, &HeldError{Lock: name, Holder: strings.TrimSpace(string(holder))}
	}
	// Who holds it is a courtesy to whoever waits: a failure to say so is no reason to fail.
	_ = f.Truncate(0)
	_, _ = f.WriteAt([]byte(fmt.Sprintf("%s (pid %d)\n", purpose, os.Getpid())), 0)
	return func() { _ = f.Close() }, nil
}

// Lock is TryLock that waits while ctx lasts; told is called once, with the holder, when it
// has to. It then returns the *HeldError of the last try joined with ctx's error.
func (h *Host) Lock(ctx context.Context, name, purpose string, told func(holder string)) (unlock func(), err error) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for first := true; ; first = false {
		unlock, err := h.TryLock(name, purpose)
		var held *HeldError
		if !errors.As(err, &held) {
			return unlock, err
		}
		if first && told != nil {
			told(held.Holder)
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(held, context.Cause(ctx))
		case <-tick.C:
		}
	}
}
