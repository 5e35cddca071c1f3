package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
)

// StateFile is where State lies.
const StateFile = stateDir + "/state.json"

// State is what the host itself cannot tell: what the agent did last. It feeds status and the
// metrics that outlive a restart; nothing reads it to decide what to do.
type State struct {
	Version int                  `json:"version"` // 1
	Steps   map[string]StepState `json:"steps"`
	Jobs    map[string]JobState  `json:"jobs"`
	Drills  DrillState           `json:"drills,omitzero"`
}

// DrillState is how drills of backups ended. Those that succeeded are proofs beside the backups;
// of the others there is only this.
type DrillState struct {
	Results map[string]int `json:"results,omitempty"` // how many, by their reason
	Last    []DrillResult  `json:"last,omitempty"`    // of each store
}

// DrillResult is how one drill ended, or why it was not begun.
type DrillResult struct {
	At     time.Time `json:"at"`
	Store  string    `json:"store"`
	Object string    `json:"object,omitempty"`
	Reason string    `json:"reason"` // "restored", "object", or what went wrong in a word
	Error  string    `json:"error,omitempty"`
}

// Of is a store's last result; zero where there is none.
func (d *DrillState) Of(store string) DrillResult {
	for _, r := range d.Last {
		if r.Store == store {
			return r
		}
	}
	return DrillResult{}
}

// Add counts a result, and keeps it as its store's last.
func (d *DrillState) Add(r DrillResult) {
	if d.Results == nil {
		d.Results = map[string]int{}
	}
	d.Results[r.Reason]++
	d.Replace(r)
}

// Replace keeps a result as its store's last, and does not count it.
func (d *DrillState) Replace(r DrillResult) {
	for i := range d.Last {
		if d.Last[i].Store == r.Store {
			d.Last[i] = r
			return
		}
	}
	d.Last = append(d.Last, r)
}

// StepState is the last result of a step.
type StepState struct {
	Outcome step.Outcome  `json:"outcome"`
	Changes []step.Change `json:"changes,omitempty"`
	Error   string        `json:"error,omitempty"`
	At      time.Time     `json:"at"`
	Took    time.Duration `json:"tookNanoseconds"`
	// ApplyTook is how long its last apply took, however many checks have been since; 0: none.
	ApplyTook time.Duration `json:"applyTookNanoseconds,omitempty"`
}

// JobState is the last run of a job.
type JobState struct {
	LastRun     time.Time `json:"lastRun,omitzero"`     // when it last ended
	LastSuccess time.Time `json:"lastSuccess,omitzero"` // when it last ended well
	Error       string    `json:"error,omitempty"`      // why the last run failed
	Next        time.Time `json:"next,omitzero"`        // when it is due; past while it runs
}

// LoadState reads the state. One that is not there is empty, and so is one that cannot be
// parsed, with the error beside it: it is a memory, and must never be in the way.
func LoadState(h *host.Host) (State, error) {
	empty := State{Version: 1, Steps: map[string]StepState{}, Jobs: map[string]JobState{}}
	data, err := h.ReadFile(StateFile)
	if errors.Is(err, fs.ErrNotExist) {
		return empty, nil
	}
	if err != nil {
		return empty, fmt.Errorf("read state: %w", err)
	}
	state := State{Steps: map[string]StepState{}, Jobs: map[string]JobState{}}
	if err := json.Unmarshal(data, &state); err != nil {
		return empty, fmt.Errorf("read state: %s: %w", StateFile, err)
	}
	if state.Version != 1 || state.Steps == nil || state.Jobs == nil {
		return empty, fmt.Errorf("read state: %s: version %d is not 1", StateFile, state.Version)
	}
	return state, nil
}

// stateRoom is what is to be free where the state lies: a write is a new file beside the old one.
const stateRoom = 64 << 10

// StateTrouble says why the state cannot be written as things are: syscall.EROFS or syscall.ENOSPC
// with its path, nil for neither. The state itself cannot tell that: it is old then.
func StateTrouble(h *host.Host) error {
	path, err := h.Path(stateDir)
	if err != nil {
		return err
	}
	err = unix.Access(path, unix.W_OK)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil // it is made when it is needed; others than root ask too
	}
	var disk unix.Statfs_t
	if err == nil {
		err = unix.Statfs(path, &disk)
	}
	if err == nil && (disk.Bfree*uint64(disk.Bsize) < stateRoom || disk.Files > 0 && disk.Ffree == 0) {
		err = syscall.ENOSPC
	}
	if err != nil {
		return &fs.PathError{Op: "write to", Path: stateDir, Err: err}
	}
	return nil
}

// UpdateState reads, changes and writes the state under a lock of its own, since the daemon
// and a command write it side by side.
func UpdateState(ctx context.Context, h *host.Host, change func(*State)) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	unlock, err := h.Lock(ctx, "state", "update state", nil)
	if err != nil {
		return err
	}
	defer unlock()
	// A state that cannot be read is begun anew: the next write is what mends it.
	state, _ := LoadState(h)
	change(&state)
	data, err := json.MarshalIndent(state, "", "  ")
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	if err := h.MkdirAll(stateDir, 0o700); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return h.WriteFile(StateFile, append(data, '\n'), 0o600)
}
