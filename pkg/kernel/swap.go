package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/unit"
	"github.com/prometheus/procfs"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
)

const (
	fstabPath = "/etc/fstab"
	unitDir   = "/etc/systemd/system"
	// swapTarget is what pulls in every swap unit at boot.
	swapTarget = "swap.target"
)

// SwapSystem is what the swap step needs of the running machine beyond its files. An Offline
// host uses none of it.
type SwapSystem struct {
	// Swapoff takes one swap area out of use, named as /proc/swaps names it, unescaped.
	Swapoff func(path string) error
	// DaemonReload has systemd read its unit files, fstab's among them, again.
	DaemonReload func(context.Context) error
}

// Swap returns the step "kernel/swap": no swap area is in use, none comes back at boot.
//
// What brings swap back is stopped before swap is, so that a crash or a reboot in between
// leaves nothing half done that the next run does not find: fstab's entries commented, the
// swap units and swap.target masked, systemd told, and only then swapoff.
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
	active []*procfs.Swap
	unmask []string // units that are to be masked and are not
	native []string // unit files that somebody wrote: they cannot be masked
}

func (s swapState) entries() []fstabLine {
	return slices.DeleteFunc(slices.Clone(s.fstab), func(l fstabLine) bool { return !l.Swap })
}

func (s swap) check(context.Context) ([]step.Change, error) {
	state, err := s.look()
	if err != nil {
		return nil, err
	}
	var changes []step.Change
	for _, a := range state.active {
		changes = append(changes, step.Change{Subject: "swap " + a.Filename, Have: "on", Want: "off"})
	}
	for _, l := range state.entries() {
		changes = append(changes, step.Change{
			Subject: fmt.Sprintf("%s line %d", fstabPath, l.Number), Have: strings.TrimSpace(l.Raw), Want: "commented out",
		})
	}
	for _, name := range state.unmask {
		changes = append(changes, step.Change{Subject: "unit " + name, Have: "not masked", Want: "masked"})
	}
	for _, name := range state.native {
		changes = append(changes, step.Change{
			Subject: filepath.Join(unitDir, name), Have: "a unit file, which may bring swap back",
			Want: fmt.Sprintf("gone: systemctl disable --now %s, then remove the file", shellWord(name)), Manual: true,
		})
	}
	return changes, nil
}

func (s swap) apply(ctx context.Context) error {
	state, err := s.look()
	if err != nil {
		return err
	}
	if len(state.entries()) > 0 {
		if err := s.writeFstab(state.fstab); err != nil {
			return err
		}
	}
	for _, name := range state.unmask {
		if err := s.h.Symlink("/dev/null", filepath.Join(unitDir, name)); err != nil {
			return fmt.Errorf("mask unit %s: %w", name, err)
		}
	}
	changed := len(state.entries())+len(state.unmask)+len(state.active) > 0
	if s.h.Offline || !changed {
		return nil
	}
	if err := s.sys.DaemonReload(ctx); err != nil {
		return fmt.Errorf("reload systemd: %w", err)
	}
	return s.swapoff(ctx, state.active)
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

func (s swap) swapoff(ctx context.Context, active []*procfs.Swap) error {
	if len(active) == 0 {
		return nil
	}
	if err := s.fits(active); err != nil {
		return fmt.Errorf("swap off: %w", err)
	}
	for _, a := range active {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if err := s.sys.Swapoff(a.Filename); err != nil {
			return fmt.Errorf("swap off %s: %w", a.Filename, err)
		}
	}
	return nil
}

// fits is an error when what lies in swap has no room in memory: swapoff would then take
// minutes, have processes killed, and fail.
func (s swap) fits(active []*procfs.Swap) error {
	proc, err := s.proc()
	if err != nil {
		return err
	}
	memory, err := proc.Meminfo()
	if err != nil {
		return fmt.Errorf("read memory figures: %w", err)
	}
	if memory.MemAvailable == nil {
		return errors.New("read memory figures: no MemAvailable in /proc/meminfo")
	}
	var used uint64 // KiB, as all figures here
	for _, a := range active {
		used += uint64(max(a.Used, 0))
	}
	if used >= *memory.MemAvailable {
		return fmt.Errorf("%d MiB are in swap and %d MiB of memory are available: stop something large, or reboot (swap stays off then)",
			used>>10, *memory.MemAvailable>>10)
	}
	return nil
}

// proc is the machine's /proc.
func (s swap) proc() (procfs.FS, error) {
	path, err := s.h.Path("/proc")
	if err != nil {
		return procfs.FS{}, err
	}
	return procfs.NewFS(path)
}

func (s swap) look() (swapState, error) {
	var state swapState
	data, err := s.h.ReadFile(fstabPath)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return state, fmt.Errorf("read fstab: %w", err)
	}
	state.fstab = parseFstab(data)
	if state.active, err = s.active(); err != nil {
		return state, fmt.Errorf("read active swap: %w", err)
	}
	if state.native, err = s.native(); err != nil {
		return state, fmt.Errorf("list swap units: %w", err)
	}
	for _, name := range swapUnits(state) {
		masked, err := s.masked(name)
		if err != nil {
			return state, fmt.Errorf("check unit %s: %w", name, err)
		}
		if !masked && !slices.Contains(state.native, name) {
			state.unmask = append(state.unmask, name)
		}
	}
	return state, nil
}

func (s swap) active() ([]*procfs.Swap, error) {
	if s.h.Offline {
		return nil, nil
	}
	proc, err := s.proc()
	if err != nil {
		return nil, err
	}
	active, err := proc.Swaps()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // a kernel without swap
	}
	for _, a := range active {
		a.Filename = unescapeOctal(a.Filename)
	}
	return active, err
}

// swapUnits are the units that are to be masked: swap.target and one for each path in use or
// in fstab. The entries that we have commented count, since once swap is off and the line is a
// comment nothing else tells that the unit is to stay masked.
func swapUnits(state swapState) []string {
	names := []string{swapTarget}
	add := func(path string) {
		if name := unit.UnitNamePathEscape(path) + ".swap"; filepath.IsAbs(path) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, a := range state.active {
		add(a.Filename)
	}
	for _, l := range state.fstab {
		if l.Swap || l.Ours {
			add(l.Spec)
		}
	}
	return names
}

// native lists what lies where a mask would, and is none: systemd refuses to mask such a unit.
func (s swap) native() ([]string, error) {
	entries, err := s.h.ReadDir(unitDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() || e.Name() != swapTarget && !strings.HasSuffix(e.Name(), ".swap") {
			continue
		}
		masked, err := s.masked(e.Name())
		if err != nil {
			return nil, err
		}
		if !masked {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// masked follows systemd: a link to /dev/null or an empty file.
func (s swap) masked(name string) (bool, error) {
	path := filepath.Join(unitDir, name)
	info, err := s.h.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if info.Mode()&fs.ModeSymlink == 0 {
		return info.Mode().IsRegular() && info.Size() == 0, nil
	}
	target, err := s.h.Readlink(path)
	return target == "/dev/null", err
}

// shellWord quotes a unit name, whose escapes a shell would eat.
func shellWord(name string) string {
	if strings.Contains(name, `\`) {
		return "'" + name + "'"
	}
	return name
}
