package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// maxAdopted bounds how often a run that was started before is waited for.
const maxAdopted = 10

// action is one run of apt or dpkg. It says whether it waited for one that had been started
// before instead.
type action struct {
	name string
	run  func(context.Context) (adopted bool, err error)
}

// apply looks at dpkg's state, does the next thing that it asks for and looks again, until
// nothing is left. So it goes on from wherever an earlier run ended.
func (p packages) apply(ctx context.Context) error {
	tried, adopted := map[string]bool{}, 0
	for {
		next, err := p.next(ctx, tried[repairAction])
		if err != nil || next.run == nil {
			return err
		}
		if tried[next.name] {
			return fmt.Errorf("%s: it made no difference; see %s", next.name, packagesLog)
		}
		was, err := next.run(ctx)
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", next.name, err)
		case !was:
			tried[next.name] = true
		case adopted == maxAdopted:
			return fmt.Errorf("%s: %s is started by somebody else again and again", next.name, packagesUnit)
		default:
			adopted++
		}
	}
}

const repairAction = "repair interrupted dpkg"

// next is what is to be done now; an action without run when that is nothing.
func (p packages) next(ctx context.Context, repaired bool) (action, error) {
	unit, err := p.units.State(ctx, packagesUnit)
	if err != nil {
		return action{}, err
	}
	if unit.SubState == "running" || unit.SubState == "start" {
		return action{"wait for " + packagesUnit, p.adopt}, nil
	}
	if err := awaitUnlocked(ctx, p.host); err != nil {
		return action{}, fmt.Errorf("wait for dpkg's lock: %w", err)
	}
	s, err := readDpkg(p.host)
	if err != nil {
		return action{}, err
	}
	noted, err := p.host.Exists(packagesNote)
	if err != nil {
		return action{}, err
	}
	w, err := p.wants(s)
	if err != nil {
		return action{}, err
	}
	unfinished := s.unfinished()
	switch {
	case w.nothing() && !noted:
		return action{}, nil
	case len(unfinished) > 0 && !noted:
		return action{}, othersUnfinished(unfinished)
	case len(unfinished) > 0 && !repaired:
		return action{repairAction, p.repair}, nil
	case w.installs() || len(unfinished) > 0:
		return action{"install packages", func(ctx context.Context) (bool, error) { return p.install(ctx, w) }}, nil
	case len(w.hold) > 0:
		return action{"hold packages", func(ctx context.Context) (bool, error) {
			return p.change(ctx, holdTimeout, append([]string{"/usr/bin/apt-mark", "hold"}, w.hold...)...)
		}}, nil
	}
	return action{"end", func(context.Context) (bool, error) { return false, p.host.Remove(packagesNote) }}, nil
}

// adopt waits for the end of a run that a killed agent left; dpkg's state tells how it ended.
// Should it have ended by now, a program that does nothing runs in its place.
func (p packages) adopt(ctx context.Context) (bool, error) {
	_, err := p.run(ctx, installTimeout, "/bin/true")
	if errors.As(err, new(*aptError)) {
		err = nil
	}
	return true, err
}

// repair has dpkg go on from where it was interrupted. What it cannot configure, since
// something is missing, the install brings next, and that one's error is the one to tell.
func (p packages) repair(ctx context.Context) (bool, error) {
	adopted, err := p.run(ctx, installTimeout, "/usr/bin/dpkg", "--force-confdef", "--force-confold", "--configure", "-a")
	if errors.As(err, new(*aptError)) {
		err = nil
	}
	return adopted, err
}

// change is run for what changes dpkg's state, with the note that it was the agent. The note
// stays when that ended in the middle; when all is done it goes.
func (p packages) change(ctx context.Context, limit time.Duration, argv ...string) (bool, error) {
	// The tree above is everybody's, the directory is not.
	if err := p.host.MkdirAll("/var/lib/nodeagent", 0o700); err != nil {
		return false, err
	}
	if err := p.host.WriteFile(packagesNote, []byte(packagesNoteText), 0o600); err != nil {
		return false, err
	}
	adopted, err := p.run(ctx, limit, argv...)
	if adopted || !errors.As(err, new(*aptError)) {
		return adopted, err
	}
	s, stateErr := readDpkg(p.host)
	if stateErr == nil && len(s.unfinished()) == 0 {
		stateErr = p.host.Remove(packagesNote)
	}
	return false, errors.Join(err, stateErr)
}
