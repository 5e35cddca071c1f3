// Package systemd talks to the systemd of this host: units and their jobs over D-Bus, long
// children as transient units, readiness and watchdog through the notify socket, and the
// journal as a slog handler.
//
// A job is over when systemd says so: every method that queues one waits for the job's result
// and takes anything but "done" for an error.
package systemd

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
)

// callTimeout bounds one question to systemd. Jobs are bounded by the caller's ctx and by the
// unit's own timeouts instead.
const callTimeout = 30 * time.Second

// pollInterval is how often a waiter looks for itself, since a signal is lost with its
// connection.
const pollInterval = time.Second

// idleAfter is how long a connection that nobody uses is kept. Whoever is connected to systemd's own
// socket is sent every signal of every unit, wanted or not: in a bootstrap reading what systemd sent took
// 45 % of the agent's processor time, and asking 5.
const idleAfter = 500 * time.Millisecond

// Conn is a connection to systemd that is made when it is needed, made anew when it broke (systemd
// drops it when it re-executes itself, as an upgrade of its package does, and the bus when it
// restarts), and given up when it is not used. The zero Conn is ready to use; it may be shared between
// goroutines.
type Conn struct {
	mu    sync.Mutex
	bus   *dbus.Conn
	users int         // questions and jobs that are under way
	idle  *time.Timer // gives the connection up
}

// Connect returns a Conn that has reached systemd once.
func Connect(ctx context.Context) (*Conn, error) {
	c := &Conn{}
	_, done, err := c.use(ctx)
	if err != nil {
		return nil, err
	}
	done()
	return c, nil
}

// Close ends the connection. A Conn that is used afterwards connects again.
func (c *Conn) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bus != nil {
		c.bus.Close()
		c.bus = nil
	}
}

// use is the connection, kept until done is called.
func (c *Conn) use(ctx context.Context) (bus *dbus.Conn, done func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if bus, err = c.connected(ctx); err != nil {
		return nil, nil, err
	}
	c.users++
	if c.idle != nil {
		c.idle.Stop()
	}
	return bus, c.done, nil
}

func (c *Conn) done() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.users--; c.users == 0 {
		c.idle = time.AfterFunc(idleAfter, c.giveUp)
	}
}

func (c *Conn) giveUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.users == 0 && c.bus != nil {
		c.bus.Close()
		c.bus = nil
	}
}

// connected is the connection, made if there is none that works. c is locked.
func (c *Conn) connected(ctx context.Context) (*dbus.Conn, error) {
	if c.bus != nil && c.bus.Connected() {
		return c.bus, nil
	}
	if c.bus != nil {
		c.bus.Close()
		c.bus = nil
	}
	bus, err := dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to systemd: %w; is this host run by systemd? A directory that is to become one is worked on with --root", err)
	}
	c.bus = bus
	return bus, nil
}

// dial connects root to systemd's own socket, which needs no bus daemon and outlives its
// restarts, and anybody else, or where that fails, to the system bus.
func dial(ctx context.Context) (*dbus.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	// The library ties a connection's life to its context, which must therefore outlast this
	// call; while the call lasts, though, its deadline counts.
	life, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, hangUp)
	bus, err := dialAny(life)
	if !stop() && err == nil {
		bus.Close()
		err = context.Cause(ctx)
	}
	if err != nil {
		hangUp()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, err
	}
	return bus, nil
}

func dialAny(ctx context.Context) (*dbus.Conn, error) {
	if os.Geteuid() != 0 {
		return dbus.NewSystemConnectionContext(ctx)
	}
	bus, direct := dbus.NewSystemdConnectionContext(ctx)
	if direct == nil {
		return bus, nil
	}
	bus, err := dbus.NewSystemConnectionContext(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w, and %w", direct, err) // on one line: it is one answer
	}
	return bus, nil
}

// call runs one question, and once more on a new connection when the one it went out on turned
// out to be dead: systemd answers a question that may be repeated the same way twice.
func (c *Conn) call(ctx context.Context, do func(context.Context, *dbus.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for again := false; ; again = true {
		bus, done, err := c.use(ctx)
		if err != nil {
			return err
		}
		err = do(ctx, bus)
		alive := bus.Connected()
		done()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case again || alive:
			return err
		}
	}
}
