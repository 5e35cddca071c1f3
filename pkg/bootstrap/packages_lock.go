package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// lockTimeout is how long others may be at work with apt or dpkg: unattended-upgrades on a
// fresh VM takes its time.
const lockTimeout = 20 * time.Minute

// aptLocks are the files that apt and dpkg lock, apt-get(8) and dpkg(1).
var aptLocks = []string{
	dpkgDir + "/lock-frontend", dpkgDir + "/lock",
	"/var/lib/apt/lists/lock", "/var/cache/apt/archives/lock",
}

// errLocked is somebody else's lock.
var errLocked = errors.New("somebody else is at work with the packages")

// unlocked is nil when nobody holds a lock of apt or dpkg, and otherwise says who does. It
// takes no lock itself.
func unlocked(h *host.Host) error {
	for _, path := range aptLocks {
		pid, err := lockHolder(h, path)
		if err != nil {
			return fmt.Errorf("look who holds %s: %w", path, err)
		}
		if pid != 0 {
			return fmt.Errorf("%w: %s is held by %s", errLocked, path, holder(h, pid))
		}
	}
	return nil
}

// lockHolder is the process that holds a POSIX lock on a file, 0 when there is none and -1
// when it is not to be seen from here.
func lockHolder(h *host.Host, path string) (int, error) {
	f, err := h.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	err = unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock)
	if err := errors.Join(err, f.Close()); err != nil {
		return 0, err
	}
	switch {
	case lock.Type == unix.F_UNLCK:
		return 0, nil
	case lock.Pid <= 0:
		return -1, nil
	}
	return int(lock.Pid), nil
}

func holder(h *host.Host, pid int) string {
	if pid < 0 {
		return "a process that is not to be seen from here"
	}
	name, err := h.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return fmt.Sprintf("process %d", pid)
	}
	return fmt.Sprintf("%s, process %d", strings.TrimSpace(string(name)), pid)
}

// awaitUnlocked waits until nobody holds a lock.
func awaitUnlocked(ctx context.Context, h *host.Host) error {
	return poll(ctx, lockTimeout, func(context.Context) error { return unlocked(h) })
}
