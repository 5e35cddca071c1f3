package agent

import (
	"context"
	"time"
)

// Notifier is systemd's watchdog; *systemd.Notifier is the real one.
type Notifier interface {
	// WatchdogInterval is how often to call Watchdog; 0 is never.
	WatchdogInterval() time.Duration
	Watchdog() error
}

// FeedWatchdog keeps systemd from restarting the agent while healthy returns nil. It returns
// when ctx is done. The first error of the notify socket is returned: nobody is listening.
func FeedWatchdog(ctx context.Context, n Notifier, healthy func() error) error {
	interval := n.WatchdogInterval()
	if interval <= 0 {
		return nil
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		if healthy() == nil {
			if err := n.Watchdog(); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
