package kernel

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/systemd"
)

// kernelSwap is the swap of a machine's kernel and what its systemd has read of unit files:
// what is taken off leaves /proc/swaps, and a unit that systemd holds in memory stays as it was
// until a reload.
type kernelSwap struct {
	t        *testing.T
	h        *host.Host
	did      []string
	loaded   map[string]bool // units that systemd holds → as masked
	dropIns  map[string]bool // read at the last reload
	running  map[string]bool // services
	onReload func()          // what generators do
	nodes    bool            // a device has its node again when it was deleted
}

func newKernelSwap(t *testing.T, h *host.Host) *kernelSwap {
	k := &kernelSwap{t: t, h: h, loaded: map[string]bool{}, dropIns: map[string]bool{}, running: map[string]bool{}}
	hold := []string{swapTarget}
	if data, err := h.ReadFile("/proc/swaps"); err == nil {
		areas, _ := parseSwaps(data) // a broken list is a test's own doing
		for _, a := range areas {
			hold = append(hold, swapUnitName(a.Path))
		}
	}
	for _, name := range hold {
		k.loaded[name] = k.masked(name)
	}
	return k
}

func (k *kernelSwap) masked(name string) bool {
	masked, err := masks(k.h, filepath.Join(unitDir, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		k.t.Fatal(err)
	}
	return masked
}

func (k *kernelSwap) dropIn(name string) bool {
	there, err := k.h.Exists(swapUnit{name: name}.dropIn())
	if err != nil {
		k.t.Fatal(err)
	}
	return there
}

// step is the swap step on this machine.
func (k *kernelSwap) step() step.Step { return Swap(k.h, k.system()) }

func (k *kernelSwap) system() SwapSystem {
	return SwapSystem{DaemonReload: k.reload, Swapoff: k.swapoff, State: k.state, Stop: k.stop}
}

func (k *kernelSwap) reload(context.Context) error {
	k.did = append(k.did, "reload")
	if k.onReload != nil {
		k.onReload()
	}
	for name := range k.loaded {
		k.loaded[name] = k.masked(name)
	}
	for name := range k.dropIns {
		k.dropIns[name] = k.dropIn(name)
	}
	return nil
}

func (k *kernelSwap) swapoff(path string) error {
	k.did = append(k.did, "off "+path)
	escaped := strings.ReplaceAll(path, " ", `\040`) + " "
	lines := strings.SplitAfter(read(k.t, k.h, "/proc/swaps"), "\n")
	if k.nodes {
		escaped = strings.TrimSuffix(escaped, " ")
	}
	left := slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return strings.HasPrefix(l, escaped) })
	if len(left) == len(lines) {
		return unix.EINVAL
	}
	return os.WriteFile(filepath.Join(k.h.Root, "proc/swaps"), []byte(strings.Join(left, "")), 0o644)
}

func (k *kernelSwap) state(_ context.Context, name string) (systemd.State, error) {
	masked, holds := k.loaded[name]
	if !holds {
		masked = k.masked(name)
	}
	read, known := k.dropIns[name]
	if !known { // it is looked at for the first time
		read = k.dropIn(name)
		k.dropIns[name] = read
	}
	state := systemd.State{LoadState: "loaded", ActiveState: "inactive", NeedDaemonReload: read != k.dropIn(name)}
	if masked {
		state.LoadState = "masked"
	}
	if k.running[name] {
		state.ActiveState = "active"
	}
	return state, nil
}

func (k *kernelSwap) stop(_ context.Context, name string) error {
	k.did = append(k.did, "stop "+name)
	k.running[name] = false
	return nil
}

func (k *kernelSwap) wantDid(want ...string) {
	k.t.Helper()
	if diff := cmp.Diff(want, k.did); diff != "" {
		k.t.Errorf("system calls (- wanted, + made):\n%s", diff)
	}
}
