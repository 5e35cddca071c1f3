package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
)

const (
	unitDir = "/etc/systemd/system"
	// swapTarget is what pulls in every swap unit at boot.
	swapTarget = "swap.target"
)

// Where else unit files lie: those of packages, and those that generators made at this boot.
var (
	packageDirs   = []string{"/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}
	generatedDirs = []string{"/run/systemd/system", "/run/systemd/generator.early", "/run/systemd/generator", "/run/systemd/generator.late"}
)

// swapServices make swap by themselves: zram-tools, Ubuntu's zram-config, dphys-swapfile,
// swapspace.
var swapServices = []string{"zramswap.service", "zram-config.service", "dphys-swapfile.service", "swapspace.service"}

// swapUnit is a unit that is to be masked. One whose file lies where its mask would cannot be:
// it is disabled, and a condition that never holds keeps it from starting.
type swapUnit struct {
	name    string
	native  bool     // its file lies in unitDir
	stopped bool     // masked, or kept from starting, on disk
	links   []string // that start it at boot
	stale   bool     // systemd has not read that it is stopped
	running bool     // a service
}

// onlyIf stands in the drop-in of a unit that cannot be masked.
const onlyIf = owned + "# kernel.swap is disable: this unit is not to start.\n[Unit]\nConditionPathExists=!/\n"

func (u swapUnit) dropIn() string { return filepath.Join(unitDir, u.name+".d", "nodeagent.conf") }

// differs says that its files are not as they are to be, or that systemd has not read them.
func (u swapUnit) differs() bool { return !u.stopped || len(u.links) > 0 || u.stale }

func (u swapUnit) changes() []step.Change {
	var changes []step.Change
	add := func(have, want string) {
		changes = append(changes, step.Change{Subject: "unit " + u.name, Have: have, Want: want})
	}
	switch {
	case !u.stopped && u.native:
		add("may start, from "+filepath.Join(unitDir, u.name), "kept from starting by "+u.dropIn())
	case !u.stopped:
		add("not masked", "masked")
	case u.stale:
		add("stopped on disk, and systemd has not read it", "systemd reloaded")
	}
	for _, link := range u.links {
		changes = append(changes, step.Change{Subject: link, Have: "starts it at boot", Want: "removed"})
	}
	if u.running {
		add("running", "stopped")
	}
	return changes
}

// units are all that may bring swap back. Those of entries that we have commented count, since
// once swap is off and the line is a comment nothing else tells that the unit is to stay masked.
func (s swap) units(ctx context.Context, state swapState) ([]swapUnit, error) {
	names := []string{swapTarget}
	add := func(name string) {
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, a := range state.active {
		add(swapUnitName(a.Path))
	}
	for _, l := range state.fstab {
		if l.Swap || l.Ours {
			add(swapUnitName(swapPath(l.Spec)))
		}
	}
	found, err := s.findUnits()
	if err != nil {
		return nil, fmt.Errorf("list swap units: %w", err)
	}
	for _, name := range found {
		add(name)
	}
	links, err := s.links()
	if err != nil {
		return nil, fmt.Errorf("list enabled units: %w", err)
	}
	units := make([]swapUnit, 0, len(names))
	for _, name := range names {
		u, err := s.unit(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("check unit %s: %w", name, err)
		}
		u.links = links[name]
		units = append(units, u)
	}
	return units, nil
}

// swapUnitName is the name of the unit for a path. It is "" where systemd makes none of that
// name.
func swapUnitName(path string) string {
	if path == "" || slices.Contains(strings.Split(path, "/"), "..") {
		return ""
	}
	var name strings.Builder
	for i, c := range []byte(strings.Trim(filepath.Clean(path), "/")) {
		switch {
		case c == '/':
			name.WriteByte('-')
		case c >= '0' && c <= '9', c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c == ':', c == '_', c == '.' && i > 0:
			name.WriteByte(c)
		default:
			fmt.Fprintf(&name, `\x%02x`, c)
		}
	}
	const longest = 255
	if name.Len() == 0 || name.Len()+len(".swap") > longest {
		return ""
	}
	return name.String() + ".swap"
}

// findUnits lists the swap units that have a file anywhere, the services that make swap, and
// the devices of zram-generator, which has no units yet in a tree that is no machine's.
func (s swap) findUnits() ([]string, error) {
	var names []string
	dirs := append([]string{unitDir}, packageDirs...)
	if !s.h.Offline {
		dirs = append(dirs, generatedDirs...)
	}
	for _, dir := range dirs {
		entries, err := s.h.ReadDir(dir)
		if err != nil && !absent(err) {
			return nil, err
		}
		for _, e := range entries {
			if !strings.HasSuffix(e.Name(), ".swap") && !slices.Contains(swapServices, e.Name()) || e.IsDir() {
				continue
			}
			masked, err := masks(s.h, filepath.Join(dir, e.Name()))
			if err != nil {
				return nil, err
			}
			if !masked {
				names = append(names, e.Name())
			}
		}
	}
	for _, service := range swapServices {
		there, err := s.h.Exists("/etc/init.d/" + strings.TrimSuffix(service, ".service"))
		if err != nil {
			return nil, err
		}
		if there {
			names = append(names, service)
		}
	}
	zram, err := s.zramUnits()
	return append(names, zram...), err
}

// masks says whether systemd takes the file for a mask: a link to /dev/null or an empty file.
func masks(h *host.Host, path string) (bool, error) {
	info, err := h.Lstat(path)
	if err != nil {
		return false, err
	}
	if info.Mode()&fs.ModeSymlink == 0 {
		return info.Mode().IsRegular() && info.Size() == 0, nil
	}
	target, err := h.Readlink(path)
	if !filepath.IsAbs(target) {
		target = filepath.Join(filepath.Dir(path), target)
	}
	return filepath.Clean(target) == "/dev/null", err
}

// links are those that have units started at boot, by unit.
func (s swap) links() (map[string][]string, error) {
	entries, err := s.h.ReadDir(unitDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	links := map[string][]string{}
	for _, e := range entries {
		switch filepath.Ext(e.Name()) {
		case ".wants", ".requires", ".upholds":
		default:
			continue
		}
		dir := filepath.Join(unitDir, e.Name())
		inside, err := s.h.ReadDir(dir)
		if err != nil && !absent(err) {
			return nil, err
		}
		for _, l := range inside {
			links[l.Name()] = append(links[l.Name()], filepath.Join(dir, l.Name()))
		}
	}
	return links, nil
}

func (s swap) unit(ctx context.Context, name string) (swapUnit, error) {
	u := swapUnit{name: name}
	masked, err := masks(s.h, filepath.Join(unitDir, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return u, err
	}
	u.native, u.stopped = err == nil && !masked, masked
	if u.native {
		changes, err := checkFile(s.h, u.dropIn(), onlyIf)
		if err != nil {
			return u, err
		}
		u.stopped = len(changes) == 0
	}
	if s.h.Offline {
		return u, nil
	}
	state, err := s.sys.State(ctx, name)
	if err != nil {
		return u, err
	}
	u.running = strings.HasSuffix(name, ".service") && !slices.Contains([]string{"inactive", "failed", ""}, state.ActiveState)
	if u.stopped {
		u.stale = state.NeedDaemonReload || !u.native && state.LoadState != "masked"
	}
	return u, nil
}

// stopUnits makes the files of units as they are to be. A unit that is kept from starting is
// so before what starts it goes.
func (s swap) stopUnits(units []swapUnit) error {
	for _, u := range units {
		var err error
		if u.native {
			err = s.h.WriteFile(u.dropIn(), []byte(onlyIf), ownedMode)
		} else if !u.stopped {
			err = s.h.Symlink("/dev/null", filepath.Join(unitDir, u.name))
		}
		for _, link := range u.links {
			if err == nil {
				err = s.h.Remove(link)
			}
		}
		if err != nil {
			return fmt.Errorf("mask unit %s: %w", u.name, err)
		}
	}
	return nil
}
