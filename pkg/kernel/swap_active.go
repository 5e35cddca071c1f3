package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/procfs"
)

const deletedSuffix = " (deleted)"

// swapArea is an area of swap in use.
type swapArea struct {
	Path    string
	Used    uint64 // KiB
	Deleted bool   // the file that the kernel swaps to has no name any more
}

func (a swapArea) have() string {
	if a.Deleted {
		return "on, and its file deleted"
	}
	return "on"
}

// parseSwaps reads /proc/swaps. Blanks, tabs, line ends and backslashes in names are escaped
// there, and nothing else is: a name may hold whatever else Unicode takes for white space.
func parseSwaps(data []byte) ([]swapArea, error) {
	var areas []swapArea
	number := 0
	for raw := range bytes.Lines(data) {
		number++
		f := strings.FieldsFunc(string(raw), func(r rune) bool { return r == ' ' || r == '\t' || r == '\n' })
		if number == 1 || len(f) == 0 {
			continue // the heading
		}
		if len(f) != 5 {
			return nil, fmt.Errorf("line %d has %d fields: %q", number, len(f), raw)
		}
		used, err := strconv.ParseUint(f[3], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		areas = append(areas, swapArea{Path: unescapeOctal(f[0]), Used: used})
	}
	return areas, nil
}

func (s swap) active() ([]swapArea, error) {
	if s.h.Offline {
		return nil, nil
	}
	data, err := s.h.ReadFile("/proc/swaps")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // a kernel without swap
	}
	if err != nil {
		return nil, err
	}
	areas, err := parseSwaps(data)
	if err != nil {
		return nil, err
	}
	for i, a := range areas {
		name, deleted := strings.CutSuffix(a.Path, deletedSuffix)
		if !deleted {
			continue
		}
		there, err := s.h.Exists(a.Path)
		if err != nil {
			return nil, err
		}
		if !there {
			areas[i].Path, areas[i].Deleted = name, true
		}
	}
	return areas, nil
}

// swapoff takes every area that is in use now out of it.
func (s swap) swapoff(ctx context.Context) error {
	active, err := s.active()
	if err != nil {
		return fmt.Errorf("read active swap: %w", err)
	}
	for _, a := range active {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		// The device of a deleted node is found by the node that took its place; a file is not.
		failed := s.sys.Swapoff(a.Path)
		if failed == nil {
			continue
		}
		now, err := s.active()
		if err != nil {
			return fmt.Errorf("swap off %s: %w", a.Path, errors.Join(failed, err))
		}
		if !slices.ContainsFunc(now, func(b swapArea) bool { return b.Path == a.Path && b.Deleted == a.Deleted }) {
			continue // somebody else was quicker
		}
		if a.Deleted {
			failed = fmt.Errorf("%w: the file was deleted while it was in use, and only a reboot ends that (swap stays off then)", failed)
		}
		return fmt.Errorf("swap off %s: %w", a.Path, failed)
	}
	return nil
}

// fits is an error when what lies in swap has no room in memory: swapoff would then take
// minutes, have processes killed, and fail.
func (s swap) fits(active []swapArea) error {
	if len(active) == 0 {
		return nil
	}
	path, err := s.h.Path("/proc")
	if err != nil {
		return err
	}
	proc, err := procfs.NewFS(path)
	if err != nil {
		return fmt.Errorf("read memory figures: %w", err)
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
		used += a.Used
	}
	if used >= *memory.MemAvailable {
		return fmt.Errorf("%d MiB are in swap and %d MiB of memory are available: stop something large, or reboot (swap stays off then)",
			used>>10, *memory.MemAvailable>>10)
	}
	return nil
}
