package vm

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// NeedsRoom fails where fewer bytes are free for machines: QEMU holds a machine whose disk cannot
// grow, and what fails then says nothing of that.
func NeedsRoom(t testing.TB, bytes uint64) {
	t.Helper()
	if err := sweep(); err != nil {
		t.Fatal(err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(os.TempDir(), &fs); err != nil {
		t.Fatalf("look for room: %v", err)
	}
	if free := fs.Bavail * uint64(fs.Bsize); free < bytes {
		t.Fatalf("%s has %d MiB free, and the machine's disk and its saved states take up to %d", os.TempDir(), free>>20, bytes>>20)
	}
}

const dirPattern = "nodeagent-vm-*"

// claim marks a machine's directory as in use until this process ends, however that comes.
func claim(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, fmt.Errorf("claim %s: %w", dir, err)
	}
	return f, nil
}

// sweep removes the directories of machines whose process was killed: each has gigabytes.
func sweep() error {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), dirPattern))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		claimed, err := claim(dir)
		if err != nil {
			continue // somebody's, or just gone
		}
		err = os.RemoveAll(dir)
		_ = claimed.Close() // read only
		if err != nil {
			return fmt.Errorf("remove a killed machine: %w", err)
		}
	}
	return nil
}

// Forget removes what Save has kept: the disk keeps its size, and what is saved next takes the room.
// QEMU says nothing of a state that is not there.
func (v *VM) Forget(ctx context.Context, name string) error {
	if err := v.monitor(ctx, "delvm "+name); err != nil {
		return fmt.Errorf("forget vm: %w", err)
	}
	return nil
}
