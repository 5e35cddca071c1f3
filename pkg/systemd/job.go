package systemd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
)

// JobError is a job that systemd did not carry out.
type JobError struct {
	Unit string
	Job  string // "start", "stop", "restart"
	// Result is the job's: "failed", "timeout", "canceled" (another job took its place),
	// "dependency", "skipped".
	Result string
	// State is the unit's afterwards; its Result says why, as in "exit-code".
	State State
}

func (e *JobError) Error() string {
	why := ""
	if e.State.LoadState == "not-found" || e.State.LoadState == "masked" {
		why = ", unit is " + e.State.LoadState
	} else if e.State.Result != "" && e.State.Result != "success" {
		why = ", unit ended with " + e.State.Result
	}
	return fmt.Sprintf("%s %s: job %s%s; see: journalctl -u %s", e.Job, e.Unit, e.Result, why, e.Unit)
}

// Start starts a unit and waits until it has started; one that runs is left alone.
func (c *Conn) Start(ctx context.Context, unit string) error {
	return c.job(ctx, "start", unit, func(s State) bool { return s.Active() }, (*dbus.Conn).StartUnitContext)
}

// Stop stops a unit and waits until it has stopped.
func (c *Conn) Stop(ctx context.Context, unit string) error {
	down := func(s State) bool { return s.ActiveState == "inactive" || s.ActiveState == "failed" }
	return c.job(ctx, "stop", unit, down, (*dbus.Conn).StopUnitContext)
}

// Restart stops and starts a unit, or starts it, and waits until it has started.
func (c *Conn) Restart(ctx context.Context, unit string) error {
	return c.job(ctx, "restart", unit, func(s State) bool { return s.Active() }, (*dbus.Conn).RestartUnitContext)
}

// ResetFailed forgets that a unit failed, and how often it was started of late: systemd refuses
// one that was started too often ("start-limit-hit").
func (c *Conn) ResetFailed(ctx context.Context, unit string) error {
	err := c.call(ctx, func(ctx context.Context, bus *dbus.Conn) error { return bus.ResetFailedUnitContext(ctx, unit) })
	if err != nil {
		return fmt.Errorf("reset %s: %w", unit, err)
	}
	return nil
}

type queue func(bus *dbus.Conn, ctx context.Context, unit, mode string, result chan<- string) (int, error)

func (c *Conn) job(ctx context.Context, verb, unit string, reached func(State) bool, put queue) error {
	if err := c.runJob(ctx, verb, unit, reached, put); err != nil {
		var job *JobError
		if errors.As(err, &job) {
			return err
		}
		return fmt.Errorf("%s %s: %w", verb, unit, err)
	}
	return nil
}

func (c *Conn) runJob(ctx context.Context, verb, unit string, reached func(State) bool, put queue) error {
	bus, done, err := c.use(ctx)
	if err != nil {
		return err
	}
	defer done()                   // the result comes on this connection
	result := make(chan string, 1) // the library sends under a lock: it must never wait for us
	if _, err := put(bus, ctx, unit, "replace", result); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for bus.Connected() {
		select {
		case r := <-result:
			if r == "done" {
				return nil
			}
			state, err := c.State(ctx, unit)
			return errors.Join(&JobError{Unit: unit, Job: verb, Result: r, State: state}, err)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	return c.outlive(ctx, verb, unit, reached)
}

// outlive waits for a job whose result went to a connection that broke: what became of it can
// be told from the unit's state once no job is queued for it.
func (c *Conn) outlive(ctx context.Context, verb, unit string, reached func(State) bool) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		state, err := c.State(ctx, unit)
		switch {
		case err != nil && ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil && state.Job == 0 && reached(state):
			return nil
		case err == nil && state.Job == 0:
			return &JobError{Unit: unit, Job: verb, Result: "lost with the connection", State: state}
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}
