package systemd

import (
	"context"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
)

// State is what systemd knows of a unit. The words are systemd's own. Fields that a kind of
// unit does not have (a target has no main process) are zero.
type State struct {
	LoadState     string // "loaded", "not-found", "masked", …
	ActiveState   string // "active", "inactive", "failed", "activating", …
	SubState      string // "running", "exited", "dead", …
	UnitFileState string // "enabled", "disabled", "masked", "static", "transient", … or ""
	Result        string // of the last run: "success", "exit-code", "signal", "timeout", …

	ExecMainCode   int // how the main process ended: CLD_EXITED 1, CLD_KILLED 2, CLD_DUMPED 3; 0: not yet
	ExecMainStatus int // its exit status, or the signal
	MainPID        int // 0 when it has none

	ActiveEnterTimestamp   time.Time // zero: never
	StateChangeTimestamp   time.Time
	ExecMainStartTimestamp time.Time // when the main process was started: what it read at start is older

	// NeedDaemonReload says that the unit's file changed since systemd read it.
	NeedDaemonReload bool

	// Job is the number of the job that is queued or running for the unit; 0: none.
	Job int
}

// Active says that the unit has started and runs, or has done what it is for.
func (s State) Active() bool { return s.ActiveState == "active" || s.ActiveState == "reloading" }

// Enabled says that the unit is started at boot.
func (s State) Enabled() bool { return s.UnitFileState == "enabled" }

// State asks systemd for the state of a unit. One that does not exist has LoadState
// "not-found" and is no error.
func (c *Conn) State(ctx context.Context, unit string) (State, error) {
	var p map[string]any
	err := c.call(ctx, func(ctx context.Context, bus *dbus.Conn) (err error) {
		p, err = bus.GetAllPropertiesContext(ctx, unit)
		return err
	})
	if err != nil {
		return State{}, fmt.Errorf("read state of %s: %w", unit, err)
	}
	return stateOf(p), nil
}

func stateOf(p map[string]any) State {
	job, _ := p["Job"].([]any) // (number, path)
	id := uint32(0)
	if len(job) > 0 {
		id, _ = job[0].(uint32)
	}
	return State{
		Job:                    int(id),
		LoadState:              get[string](p, "LoadState"),
		ActiveState:            get[string](p, "ActiveState"),
		SubState:               get[string](p, "SubState"),
		UnitFileState:          get[string](p, "UnitFileState"),
		Result:                 get[string](p, "Result"),
		ExecMainCode:           int(get[int32](p, "ExecMainCode")),
		ExecMainStatus:         int(get[int32](p, "ExecMainStatus")),
		MainPID:                int(get[uint32](p, "MainPID")),
		ActiveEnterTimestamp:   stamp(p, "ActiveEnterTimestamp"),
		StateChangeTimestamp:   stamp(p, "StateChangeTimestamp"),
		ExecMainStartTimestamp: stamp(p, "ExecMainStartTimestamp"),
		NeedDaemonReload:       get[bool](p, "NeedDaemonReload"),
	}
}

func get[T any](p map[string]any, name string) T {
	v, _ := p[name].(T) // a unit without the property has the zero value
	return v
}

// stamp reads microseconds since 1970; systemd has 0 for "never".
func stamp(p map[string]any, name string) time.Time {
	usec := get[uint64](p, name)
	if usec == 0 {
		return time.Time{}
	}
	return time.UnixMicro(int64(usec))
}

// Enable has a unit started at boot. It does not start it.
func (c *Conn) Enable(ctx context.Context, unit string) error {
	return c.files(ctx, "enable", unit, func(ctx context.Context, bus *dbus.Conn) error {
		_, _, err := bus.EnableUnitFilesContext(ctx, []string{unit}, false, false)
		return err
	})
}

// Disable is the opposite of Enable. It does not stop the unit.
func (c *Conn) Disable(ctx context.Context, unit string) error {
	return c.files(ctx, "disable", unit, func(ctx context.Context, bus *dbus.Conn) error {
		_, err := bus.DisableUnitFilesContext(ctx, []string{unit}, false)
		return err
	})
}

// Mask makes a unit impossible to start. A unit whose file lies in /etc cannot be masked:
// systemd says that the file exists already; such a one is disabled instead.
func (c *Conn) Mask(ctx context.Context, unit string) error {
	return c.files(ctx, "mask", unit, func(ctx context.Context, bus *dbus.Conn) error {
		_, err := bus.MaskUnitFilesContext(ctx, []string{unit}, false, false)
		return err
	})
}

// Unmask is the opposite of Mask.
func (c *Conn) Unmask(ctx context.Context, unit string) error {
	return c.files(ctx, "unmask", unit, func(ctx context.Context, bus *dbus.Conn) error {
		_, err := bus.UnmaskUnitFilesContext(ctx, []string{unit}, false)
		return err
	})
}

// files changes links of unit files and has systemd read them again: until then State would
// tell the old UnitFileState.
func (c *Conn) files(ctx context.Context, verb, unit string, do func(context.Context, *dbus.Conn) error) error {
	if err := c.call(ctx, do); err != nil {
		return fmt.Errorf("%s %s: %w", verb, unit, err)
	}
	return c.DaemonReload(ctx)
}

// DaemonReload has systemd read its unit files again.
func (c *Conn) DaemonReload(ctx context.Context) error {
	err := c.call(ctx, func(ctx context.Context, bus *dbus.Conn) error { return bus.ReloadContext(ctx) })
	if err != nil {
		return fmt.Errorf("reload systemd: %w", err)
	}
	return nil
}
