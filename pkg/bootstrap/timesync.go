package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
)

// syncTimeout is how long a clock has to become synchronized before the first certificate is
// made: one made by a clock that is ahead is not valid yet for everybody else.
const syncTimeout = 2 * time.Minute

// TimeSync makes the step "preflight/time". Before there is a CA on the host it waits for the
// clock, and goes on with a finding when that takes too long; later it only reports. ignore
// may name TimeSync, which skips the wait. synced is ClockSynced.
func TimeSync(h *host.Host, ignore []string, synced func() (bool, error)) step.Step {
	waited := slices.Contains(ignore, "TimeSync")
	check := func(context.Context) ([]step.Change, error) {
		if h.Offline {
			return nil, step.Blocked{On: step.Boot}
		}
		ok, err := synced()
		if err != nil || ok {
			return nil, err
		}
		certified, err := h.Exists("/etc/kubernetes/pki/ca.crt")
		if err != nil {
			return nil, err
		}
		return []step.Change{{
			Subject: "TimeSync", Have: "the clock is not synchronized",
			Want:   "synchronized: timedatectl set-ntp true, or apt-get install chrony",
			Manual: waited || certified,
		}}, nil
	}
	apply := func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, syncTimeout)
		defer cancel()
		err := poll(ctx, syncTimeout, func(context.Context) error {
			ok, err := synced()
			if err == nil && !ok {
				err = errUnsynced
			}
			return err
		})
		if errors.Is(err, errUnsynced) {
			waited = true // the second check makes it a finding
			return nil
		}
		return err
	}
	return step.Step{Name: "preflight/time", Check: check, Apply: apply}
}

var errUnsynced = errors.New("the clock is not synchronized")

// ClockSynced asks the kernel whether something disciplines its clock: adjtimex(2), the same
// answer that timedatectl gives.
func ClockSynced() (bool, error) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return false, fmt.Errorf("read clock state: %w", err)
	}
	return state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0, nil
}
