package systemd

import (
	"context"
	"errors"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	"golang.org/x/sys/unix"
)

const (
	// watchFor bounds what is waited for a process: its number may have become another's before it was
	// looked at, or be one in another namespace.
	watchFor = 10 * time.Second
	// ctxEvery is how late the end of a context may be seen meanwhile.
	ctxEvery = 200 * time.Millisecond
)

// watch waits until a unit's main process has ended, for a while, without asking systemd for anything
// meanwhile; false where there is none, or none that can be watched (pidfd_open(2), Linux 5.3).
func (c *Conn) watch(ctx context.Context, unit string) bool {
	pid := 0
	err := c.call(ctx, func(ctx context.Context, bus *dbus.Conn) error {
		p, err := bus.GetServicePropertyContext(ctx, unit, "MainPID")
		if err != nil {
			return err
		}
		number, _ := p.Value.Value().(uint32)
		pid = int(number)
		return nil
	})
	if err != nil || pid == 0 {
		return false // whoever asks for the unit's state is told what is wrong
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	for waited := time.Duration(0); waited < watchFor && ctx.Err() == nil; waited += ctxEvery {
		ended, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(ctxEvery/time.Millisecond))
		if ended > 0 {
			return true
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return false
		}
	}
	return true
}
