package kernel

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeagent/nodeagent/pkg/step/steptest"
)

func TestParseSwaps(t *testing.T) {
	have, err := parseSwaps([]byte(threeAreas + "/a\\011b\\134c\u00a0d                              file\t\t1\t\t7\t\t-4\n"))
	want := []swapArea{{Path: "/dev/vdb1", Used: 2048}, {Path: "/swap file"}, {Path: "/dev/zram0"}, {Path: "/a\tb\\c\u00a0d", Used: 7}}
	if diff := cmp.Diff(want, have); diff != "" || err != nil {
		t.Errorf("%v (- wanted, + found):\n%s", err, diff)
	}
}

func FuzzParseSwaps(f *testing.F) {
	for _, seed := range []string{"", swapsHeader, threeAreas, swapsHeader + "/x\\040(deleted) file 1 1 1", "\n\n", swapsHeader + "a b 1 -1 1"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		areas, err := parseSwaps(data)
		if lines := strings.Count(string(data), "\n"); err == nil && len(areas) > lines {
			t.Errorf("%d areas in %d lines below the heading", len(areas), lines)
		}
	})
}

// The kernel tells a file that has lost its name from others by a word after it.
func TestSwapWhoseFileIsDeleted(t *testing.T) {
	const deleted = swapsHeader + `/swapfile\040(deleted)  file 1024 0 -2` + "\n"
	on := `swap /swapfile: "on, and its file deleted" → "off"`
	t.Run("file", func(t *testing.T) {
		h := machine(t, map[string]string{"/proc/swaps": deleted, "/proc/meminfo": enoughMemory, "/swapfile": "another one"})
		k := newKernelSwap(t, h)
		s := k.step()
		wantChanges(t, s, on, onlyTarget, `unit swapfile.swap: "not masked" → "masked"`)
		wantError(t, s.Apply(t.Context()), "swap off /swapfile", "deleted while it was in use", "reboot")
		k.wantDid("reload", "off /swapfile")
		wantChanges(t, s, on)
	})
	t.Run("node of a device", func(t *testing.T) {
		h := machine(t, map[string]string{"/proc/swaps": strings.ReplaceAll(deleted, "/swapfile", "/dev/dm-0"), "/proc/meminfo": enoughMemory})
		k := newKernelSwap(t, h)
		k.nodes = true
		steptest.Converges(t, h, k.step())
		k.wantDid("reload", "off /dev/dm-0")
	})
	t.Run("a name that ends so", func(t *testing.T) {
		h := machine(t, map[string]string{"/proc/swaps": deleted, "/proc/meminfo": enoughMemory, "/swapfile (deleted)": ""})
		k := newKernelSwap(t, h)
		s := k.step()
		wantChanges(t, s, `swap /swapfile (deleted): "on" → "off"`, onlyTarget, `unit swapfile\x20\x28deleted\x29.swap: "not masked" → "masked"`)
		steptest.Converges(t, h, s)
		k.wantDid("reload", "off /swapfile (deleted)")
	})
}

func TestSwapThatSomebodyElseTakesOff(t *testing.T) {
	h := machine(t, map[string]string{"/proc/swaps": threeAreas, "/proc/meminfo": enoughMemory})
	k := newKernelSwap(t, h)
	sys := k.system()
	sys.Swapoff = func(path string) error {
		if path == "/dev/vdb1" {
			if err := os.WriteFile(filepath.Join(h.Root, "proc/swaps"), []byte(strings.Replace(threeAreas, onePartition, swapsHeader, 1)), 0o644); err != nil {
				return err
			}
		}
		return k.swapoff(path)
	}
	s := Swap(h, sys)
	apply(t, s)
	k.wantDid("reload", "off /dev/vdb1", "off /swap file", "off /dev/zram0")
	wantChanges(t, s)
}
