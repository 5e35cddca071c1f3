package systemd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// Transient is a program that is run as a service of its own: without the agent's sandbox,
// with its own limits, and alive when the agent is restarted.
type Transient struct {
	Unit        string   // "nodeagent-kubeadm-certs.service"; the name is the lock: one runs at a time
	Description string   // for systemctl status
	Argv        []string // Argv[0] is absolute. No secrets: everybody can read it.
	Env         []string // "KEY=value"; readable by everybody too
	LogFile     string   // standard output and error are appended to it, opened by host.OpenLog; "": the journal
	MemoryMax   uint64   // bytes; 0: no limit
	IOWeight    uint64   // 1 to 10000; 0: systemd's default, 100
	CPUWeight   uint64   // 1 to 10000; 0: systemd's default, 100
	// IOBandwidth bounds, in bytes per second, what is read from and what is written to each of
	// the disks that the files or directories of IOPaths lie on; 0: no limit. systemd finds the
	// disk below a partition, LUKS and LVM; a filesystem without one (tmpfs) has no limit. A
	// weight would do nothing: the schedulers that VMs use for their disks know none.
	IOBandwidth uint64
	IOPaths     []string
	OOMScore    int    // OOMScoreAdjust, -1000 to 1000: whom the kernel takes first where memory is short
	UMask       uint32 // of the program; 0: 0077
	// Timeout is how long the program may run before systemd ends it; required. It counts
	// from the program's start, so that it also bounds a run that is adopted.
	Timeout time.Duration
}

// Result is how a transient unit ended.
type Result struct {
	Code    int    // exit code, when it exited by itself
	Signal  int    // the signal that ended it, or 0
	Result  string // systemd's word: "success", "exit-code", "signal", "oom-kill", "timeout", …
	Adopted bool   // it had been started earlier, by somebody else
}

// ErrStopped is a transient unit that somebody stopped, or that a shutdown did. What it was
// stopped in the middle of is not known.
var ErrStopped = errors.New("was stopped before it ended")

// endGrace is what systemd has to end a program that ran out of time: 90 s by default until it
// sends SIGKILL.
const endGrace = 5 * time.Minute

var errOverdue = errors.New("systemd has not ended it though its timeout is long over")

// UnitError is a transient unit that ran and did not succeed.
type UnitError struct {
	Unit    string
	LogFile string
	Result  Result
}

func (e *UnitError) Error() string {
	how := e.Result.Result
	switch {
	case e.Result.Signal != 0:
		how = fmt.Sprintf("%s (signal %d)", how, e.Result.Signal)
	case e.Result.Code != 0:
		how = fmt.Sprintf("%s %d", how, e.Result.Code)
	}
	see := "journalctl -u " + e.Unit
	if e.LogFile != "" {
		see = e.LogFile
	}
	return fmt.Sprintf("run %s: ended with %s; see: %s", e.Unit, how, see)
}

// RunTransient runs a program as a transient unit and waits for its end. A program that fails,
// is killed or runs out of its Timeout is a *UnitError, with the same Result beside it.
//
// A unit of that name that is running is adopted, whatever its arguments are: nothing is
// started, its end is waited for and its result returned, with Adopted set. A unit that ended
// earlier and whose result nobody read (the agent was killed meanwhile) tells about an attempt
// that this call did not ask for: it is cleared away and the program is run anew. So a caller
// looks at the host first, to see whether that attempt did what was wanted.
//
// When ctx is done its error is returned and the unit goes on: a later call adopts it.
func (c *Conn) RunTransient(ctx context.Context, t Transient) (Result, error) {
	if err := t.validate(); err != nil {
		return Result{}, fmt.Errorf("run %s: %w", t.Unit, err)
	}
	// systemd ends the program at its timeout; should it not, or not be heard of again, this
	// call ends nevertheless.
	ctx, cancel := context.WithTimeoutCause(ctx, t.Timeout+endGrace, errOverdue)
	defer cancel()
	result, err := c.runTransient(ctx, t)
	if err != nil {
		return result, fmt.Errorf("run %s: %w", t.Unit, err)
	}
	if result.Result != "success" {
		return result, &UnitError{Unit: t.Unit, LogFile: t.LogFile, Result: result}
	}
	return result, nil
}

func (t Transient) validate() error {
	switch {
	case !strings.HasSuffix(t.Unit, ".service"):
		return errors.New("name of a transient unit does not end in .service")
	case len(t.Argv) == 0 || !strings.HasPrefix(t.Argv[0], "/"):
		return errors.New("program is not given by an absolute path")
	case t.Timeout <= 0:
		return errors.New("no timeout")
	case t.LogFile != "" && !strings.HasPrefix(t.LogFile, "/"):
		return errors.New("log file is not given by an absolute path")
	}
	return nil
}

func (c *Conn) runTransient(ctx context.Context, t Transient) (Result, error) {
	for {
		state, err := c.settled(ctx, t.Unit)
		if err != nil {
			return Result{}, err
		}
		if running(state) {
			return c.await(ctx, t.Unit, true)
		}
		if err := c.clear(ctx, t.Unit, state); err != nil {
			return Result{}, err
		}
		err = c.startTransient(ctx, t)
		var refused godbus.Error
		if errors.As(err, &refused) && refused.Name == "org.freedesktop.systemd1.UnitExists" {
			// Somebody was quicker, or systemd has not yet forgotten the unit: look again.
			if err := sleep(ctx, firstPoll); err != nil {
				return Result{}, err
			}
			continue
		}
		if err != nil {
			return Result{}, err
		}
		return c.await(ctx, t.Unit, false)
	}
}

// settled is the state of a unit that is neither just being stopped nor about to be started.
func (c *Conn) settled(ctx context.Context, unit string) (State, error) {
	for {
		state, err := c.activity(ctx, unit)
		stopping := state.ActiveState == "deactivating" || state.Job != 0 && !running(state)
		if err != nil || !stopping {
			return state, err
		}
		if err := sleep(ctx, firstPoll); err != nil {
			return State{}, err
		}
	}
}

// running tells a unit whose program runs from one that ended ("exited" under
// RemainAfterExit, failed) or is not there.
func running(s State) bool {
	switch s.ActiveState {
	case "activating", "reloading", "deactivating":
		return true
	case "active":
		return s.SubState != "exited"
	}
	return false
}

// clear makes systemd forget a unit that ended, so that its name can be used again.
func (c *Conn) clear(ctx context.Context, unit string, s State) error {
	switch s.ActiveState {
	case "active":
		return c.Stop(ctx, unit)
	case "failed":
		return c.ResetFailed(ctx, unit)
	}
	return nil
}

func (c *Conn) startTransient(ctx context.Context, t Transient) error {
	properties := t.properties()
	if t.LogFile != "" {
		// systemd gets the open file, and not its name: by that it would follow whatever link
		// lies on the way, and make a file that everybody can read.
		log, err := host.New("/").OpenLog(t.LogFile)
		if err != nil {
			return err
		}
		defer func() { _ = log.Close() }() // the unit has it by then
		fd := godbus.UnixFD(log.Fd())
		properties = append(properties, property("StandardOutputFileDescriptor", fd), property("StandardErrorFileDescriptor", fd))
	}
	bus, done, err := c.use(ctx)
	if err != nil {
		return err
	}
	defer done()
	// The result of the start job is not waited for: the unit's own state tells it, and more.
	// A program that cannot be executed is a unit that failed.
	if _, err := bus.StartTransientUnitContext(ctx, t.Unit, "fail", properties, nil); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	return nil
}

func property(name string, value any) dbus.Property {
	return dbus.Property{Name: name, Value: godbus.MakeVariant(value)}
}

func (t Transient) properties() []dbus.Property {
	umask := t.UMask
	if umask == 0 {
		umask = 0o077
	}
	p := []dbus.Property{
		dbus.PropDescription(t.Description),
		dbus.PropType("exec"), // and not oneshot, which RuntimeMaxUSec does not bound
		dbus.PropRemainAfterExit(true),
		property("ExecStart", []execCommand{{Path: t.Argv[0], Argv: literal(t.Argv)}}),
		property("RuntimeMaxUSec", uint64(t.Timeout/time.Microsecond)),
		property("UMask", umask),
	}
	if len(t.Env) > 0 {
		p = append(p, property("Environment", t.Env))
	}
	if t.MemoryMax > 0 {
		p = append(p, property("MemoryMax", t.MemoryMax))
	}
	if t.IOWeight > 0 {
		p = append(p, property("IOWeight", t.IOWeight))
	}
	if t.CPUWeight > 0 {
		p = append(p, property("CPUWeight", t.CPUWeight))
	}
	if t.IOBandwidth > 0 && len(t.IOPaths) > 0 {
		var limits []ioLimit
		for _, path := range t.IOPaths {
			limits = append(limits, ioLimit{path, t.IOBandwidth})
		}
		p = append(p, property("IOReadBandwidthMax", limits), property("IOWriteBandwidthMax", limits))
	}
	if t.OOMScore != 0 {
		p = append(p, property("OOMScoreAdjust", int32(t.OOMScore)))
	}
	return p
}

// execCommand is ExecStart on the bus, "(sasb)". The library has it too, with the meaning of
// the flag turned round.
type execCommand struct {
	Path          string
	Argv          []string
	IgnoreFailure bool
}

// ioLimit is IOReadBandwidthMax and its like on the bus, "(st)".
type ioLimit struct {
	Path  string
	Bytes uint64
}

// literal keeps systemd from expanding variables in arguments, as it does in a unit file.
func literal(argv []string) []string {
	out := make([]string, len(argv))
	for i, a := range argv {
		out[i] = strings.ReplaceAll(a, "$", "$$")
	}
	return out
}

// A waiter for a program begins with short pauses, for programs that are, and ends up with lastPoll.
const (
	firstPoll = 25 * time.Millisecond
	lastPoll  = pollInterval / 4
)

// await waits for the end of a running unit, reads its result and clears it away. It asks when the
// unit's main process has ended, and where that cannot be seen again and again, since a signal would be
// lost with its connection; an error in asking is not one of the unit, and is only returned when ctx is
// done.
func (c *Conn) await(ctx context.Context, unit string, adopted bool) (Result, error) {
	for pause := firstPoll; ; pause = min(2*pause, lastPoll) {
		over, err := c.over(ctx, unit)
		if err == nil && over {
			state, err := c.State(ctx, unit)
			if err == nil {
				result := resultOf(state)
				result.Adopted = adopted
				if state.ActiveState == "inactive" {
					return result, ErrStopped
				}
				return result, c.clear(ctx, unit, state)
			}
		}
		if err == nil && c.watch(ctx, unit) {
			// All who wait see the end at once; whoever reads the result clears it away, which is first
			// of all for the one who started the program.
			if pause = firstPoll; adopted {
				pause = lastPoll
			}
		}
		if ctxErr := sleep(ctx, pause); ctxErr != nil {
			return Result{Adopted: adopted}, errors.Join(ctxErr, err)
		}
	}
}

// over says whether a unit's program has ended.
func (c *Conn) over(ctx context.Context, unit string) (bool, error) {
	state, err := c.activity(ctx, unit)
	// Just after the start the unit is inactive still, with the start job in the queue.
	return err == nil && !running(state) && state.Job == 0, err
}

// activity is the part of State that says what a unit does: LoadState, ActiveState, SubState and Job.
// State has it too, at a price: it asks for all of the hundreds of properties that a service has, and
// a wait asks again and again.
func (c *Conn) activity(ctx context.Context, unit string) (State, error) {
	var found []dbus.UnitStatus
	err := c.call(ctx, func(ctx context.Context, bus *dbus.Conn) (err error) {
		found, err = bus.ListUnitsByNamesContext(ctx, []string{unit})
		return err
	})
	if err != nil {
		return State{}, fmt.Errorf("read state of %s: %w", unit, err)
	}
	if len(found) != 1 {
		return State{}, fmt.Errorf("read state of %s: systemd told of %d units", unit, len(found))
	}
	return State{LoadState: found[0].LoadState, ActiveState: found[0].ActiveState, SubState: found[0].SubState, Job: int(found[0].JobId)}, nil
}

func resultOf(s State) Result {
	r := Result{Result: s.Result}
	switch s.ExecMainCode {
	case cldExited:
		r.Code = s.ExecMainStatus
	case cldKilled, cldDumped:
		r.Signal = s.ExecMainStatus
	}
	return r
}

// Values of si_code, as systemd hands them on in ExecMainCode.
const (
	cldExited = 1
	cldKilled = 2
	cldDumped = 3
)

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
