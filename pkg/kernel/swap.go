package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/systemd"
)

const fstabPath = "/etc/fstab"

// SwapSystem is what the swap step needs of the running machine beyond its files. An Offline
// host uses none of it.
type SwapSystem struct {
	// Swapoff takes one swap area out of use, named as /proc/swaps names it, unescaped.
	Swapoff func(path string) error
	// DaemonReload has systemd read its unit files, fstab's among them, again.
	DaemonReload func(context.Context) error
	// State is what systemd knows of a unit, and Stop stops one.
	State func(ctx context.Context, unit string) (systemd.State, error)
	Stop  func(ctx context.Context, unit string) error
}

// Swap returns the step "kernel/swap": no swap area is in use, none comes back at boot.
//
// What brings swap back is stopped before swap is, so that a crash or a reboot in between
// leaves nothing half done that the next run does not find: fstab's entries commented, every
// swap unit and swap.target masked, systemd told, and only then the services that make swap
// stopped, and swapoff.
func Swap(h *host.Host, sys SwapSystem) step.Step {
	s := swap{h: h, sys: sys}
	return step.Step{Name: "kernel/swap", Check: s.check, Apply: s.apply}
}

type swap struct {
	h   *host.Host
	sys SwapSystem
}

// swapState is what the host has of swap.
type swapState struct {
	fstab  []fstabLine
	active []swapArea
	units  []swapUnit
}

func (s swapState) entries() []fstabLine {
	return slices.DeleteFunc(slices.Clone(s.fstab), func(l fstabLine) bool { return !l.Swap })
}

func (s swap) check(ctx context.Context) ([]step.Change, error) {
	state, err := s.look(ctx)
	if err != nil {
		return nil, err
	}
	var changes []step.Change
	for _, a := range state.active {
		changes = append(changes, step.Change{Subject: "swap " + a.Path, Have: a.have(), Want: "off"})
	}
	for _, l := range state.entries() {
		changes = append(changes, step.Change{
			Subject: fmt.Sprintf("%s line %d", fstabPath, l.Number), Have: strings.TrimSpace(l.Raw), Want: "commented out",
		})
	}
	for _, u := range state.units {
		changes = append(changes, u.changes()...)
	}
	others, err := s.others()
	return append(changes, others...), err
}

func (s swap) apply(ctx context.Context) error {
	state, err := s.look(ctx)
	if err != nil {
		return err
	}
	if len(state.entries()) > 0 {
		if err := s.writeFstab(state.fstab); err != nil {
			return err
		}
	}
	if s.h.Offline {
		return s.stopUnits(state.units)
	}
	if state, err = s.stopForGood(ctx, state); err != nil {
		return err
	}
	running := slices.ContainsFunc(state.units, func(u swapUnit) bool { return u.running })
	if len(state.active) == 0 && !running {
		return nil
	}
	if err := s.fits(state.active); err != nil {
		return fmt.Errorf("swap off: %w", err)
	}
	// Before swapoff: one of them makes swap whenever it thinks that there should be more.
	for _, u := range state.units {
		if u.running {
			if err := s.sys.Stop(ctx, u.name); err != nil {
				return fmt.Errorf("stop what makes swap: %w", err)
			}
		}
	}
	return s.swapoff(ctx)
}

// stopForGood masks the units and has systemd read that. Then it looks again, since systemd
// may have generated further ones: without an entry in fstab, swap on the root's disk gets a
// unit by itself.
func (s swap) stopForGood(ctx context.Context, state swapState) (swapState, error) {
	edited := len(state.entries()) > 0
	for rounds := 0; rounds < 3 && (edited || slices.ContainsFunc(state.units, swapUnit.differs)); rounds++ {
		edited = false
		if err := s.stopUnits(state.units); err != nil {
			return state, err
		}
		if err := s.sys.DaemonReload(ctx); err != nil {
			return state, fmt.Errorf("reload systemd: %w", err)
		}
		var err error
		if state, err = s.look(ctx); err != nil {
			return state, err
		}
	}
	return state, nil
}

func (s swap) writeFstab(lines []fstabLine) error {
	info, err := s.h.Stat(fstabPath)
	if err != nil {
		return fmt.Errorf("edit fstab: %w", err)
	}
	if err := s.h.KeepOriginal(fstabPath); err != nil {
		return fmt.Errorf("edit fstab: %w", err)
	}
	return s.h.WriteFile(fstabPath, commentSwap(lines), info.Mode().Perm())
}

func (s swap) look(ctx context.Context) (swapState, error) {
	var state swapState
	data, err := s.h.ReadFile(fstabPath)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return state, fmt.Errorf("read fstab: %w", err)
	}
	state.fstab = parseFstab(data)
	if state.active, err = s.active(); err != nil {
		return state, fmt.Errorf("read active swap: %w", err)
	}
	state.units, err = s.units(ctx, state)
	return state, err
}
