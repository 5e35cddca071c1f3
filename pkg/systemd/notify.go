package systemd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// Notifier tells systemd how the agent is. Outside a unit of Type=notify, and as the zero
// value, it does nothing.
type Notifier struct {
	socket   string
	watchdog time.Duration
}

// NewNotifier takes NOTIFY_SOCKET and WATCHDOG_* out of the environment, so that no child can
// speak for the agent, and returns the one Notifier that knows them.
func NewNotifier() (*Notifier, error) {
	n := &Notifier{socket: os.Getenv("NOTIFY_SOCKET")}
	watchdog, err := daemon.SdWatchdogEnabled(true)
	if err := errors.Join(err, os.Unsetenv("NOTIFY_SOCKET")); err != nil {
		return nil, fmt.Errorf("read systemd's environment: %w", err)
	}
	n.watchdog = watchdog
	return n, nil
}

// Ready says that the agent has started, or has reloaded.
func (n *Notifier) Ready() error { return n.send(daemon.SdNotifyReady) }

// Reloading says that a reload has begun; Ready ends it.
func (n *Notifier) Reloading() error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("notify systemd: read clock: %w", err)
	}
	return n.send(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, now.Nano()/1000))
}

// Stopping says that the agent is on its way out.
func (n *Notifier) Stopping() error { return n.send(daemon.SdNotifyStopping) }

// Status sets the line that systemctl status shows.
func (n *Notifier) Status(text string) error {
	return n.send("STATUS=" + strings.Join(strings.Fields(text), " "))
}

// ExtendStart asks for more time before READY=1 (or for STOPPING) than the unit's timeout.
func (n *Notifier) ExtendStart(d time.Duration) error {
	return n.send(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", d.Microseconds()))
}

// WatchdogInterval is how often Watchdog has to be called: half of what systemd waits. Zero:
// nobody waits.
func (n *Notifier) WatchdogInterval() time.Duration { return n.watchdog / 2 }

// Watchdog says that the agent is alive. Call it where that has been made sure of.
func (n *Notifier) Watchdog() error { return n.send(daemon.SdNotifyWatchdog) }

func (n *Notifier) send(state string) error {
	if n.socket == "" {
		return nil
	}
	var dialer net.Dialer
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	conn, err := dialer.DialContext(ctx, "unixgram", n.socket)
	if err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	if _, err := conn.Write([]byte(state)); err != nil {
		return errors.Join(fmt.Errorf("notify systemd: %w", err), conn.Close())
	}
	return conn.Close()
}
