package kernel

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/step/steptest"
)

const (
	swapsHeader  = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
	onePartition = swapsHeader + "/dev/vdb1                               partition\t524284\t\t2048\t\t-2\n"
	threeAreas   = onePartition + `/swap\040file                           file		1024	0	-3` + "\n" + "/dev/zram0                              partition\t1024\t\t0\t\t100\n"
	enoughMemory = "MemTotal:        4000000 kB\nMemFree:         1000 kB\nMemAvailable:    3000000 kB\n"
	rootLine     = "UUID=root / ext4 errors=remount-ro 0 1\n"
)

func TestSwapConverges(t *testing.T) {
	h := machine(t, map[string]string{
		"/etc/fstab":    rootLine + "UUID=swap none swap sw 0 0\n/dev/vdc1\tnone\tswap\tsw\n",
		"/proc/swaps":   threeAreas,
		"/proc/meminfo": enoughMemory,
	})
	k := newKernelSwap(t, h)
	s := k.step()
	wantChanges(t, s,
		`swap /dev/vdb1: "on" → "off"`,
		`swap /swap file: "on" → "off"`,
		`swap /dev/zram0: "on" → "off"`,
		`/etc/fstab line 2: "UUID=swap none swap sw 0 0" → "commented out"`,
		`/etc/fstab line 3: "/dev/vdc1\tnone\tswap\tsw" → "commented out"`,
		`unit swap.target: "not masked" → "masked"`,
		`unit dev-vdb1.swap: "not masked" → "masked"`,
		`unit swap\x20file.swap: "not masked" → "masked"`,
		`unit dev-zram0.swap: "not masked" → "masked"`,
		`unit dev-disk-by\x2duuid-swap.swap: "not masked" → "masked"`,
		`unit dev-vdc1.swap: "not masked" → "masked"`,
	)
	steptest.Converges(t, h, s)
	k.wantDid("reload", "off /dev/vdb1", "off /swap file", "off /dev/zram0")

	want := rootLine + swapOff + "UUID=swap none swap sw 0 0\n" + swapOff + "/dev/vdc1\tnone\tswap\tsw\n"
	if diff := cmp.Diff(want, read(t, h, "/etc/fstab")); diff != "" {
		t.Errorf("fstab (- wanted, + found):\n%s", diff)
	}
	for _, name := range []string{"swap.target", "dev-vdb1.swap", `swap\x20file.swap`, "dev-zram0.swap", `dev-disk-by\x2duuid-swap.swap`, "dev-vdc1.swap"} {
		if target, err := h.Readlink("/etc/systemd/system/" + name); err != nil || target != "/dev/null" {
			t.Errorf("%s is not masked: %q, %v", name, target, err)
		}
	}
	kept := read(t, h, "/var/lib/nodeagent/originals/etc/fstab")
	if diff := cmp.Diff(rootLine+"UUID=swap none swap sw 0 0\n/dev/vdc1\tnone\tswap\tsw\n", kept); diff != "" {
		t.Errorf("kept original (- wanted, + found):\n%s", diff)
	}

	// Once swap is off and the entries are comments, a mask that goes missing is still missed.
	if err := h.Remove("/etc/systemd/system/dev-vdc1.swap"); err != nil {
		t.Fatal(err)
	}
	wantChanges(t, s, `unit dev-vdc1.swap: "not masked" → "masked"`)
}

func TestSwapConvergesInAnImage(t *testing.T) {
	h := image(t, map[string]string{"/etc/fstab": rootLine + "/dev/vdb1 none swap sw 0 0"})
	k := newKernelSwap(t, h)
	s := k.step()
	wantChanges(t, s,
		`/etc/fstab line 2: "/dev/vdb1 none swap sw 0 0" → "commented out"`,
		`unit swap.target: "not masked" → "masked"`,
		`unit dev-vdb1.swap: "not masked" → "masked"`,
	)
	steptest.Converges(t, h, s)
	k.wantDid()
}

func TestSwapWithoutAnyIsOnlyTheTarget(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"nothing":           {"/proc/swaps": swapsHeader},
		"a swapless kernel": {"/proc/meminfo": enoughMemory, "/etc/fstab": rootLine},
	} {
		t.Run(name, func(t *testing.T) {
			h := machine(t, files)
			k := newKernelSwap(t, h)
			s := k.step()
			wantChanges(t, s, `unit swap.target: "not masked" → "masked"`)
			steptest.Converges(t, h, s)
			k.wantDid("reload")
		})
	}
}

func TestSwapKeepsFstabsModeAndItsFirstOriginal(t *testing.T) {
	h := machine(t, map[string]string{"/etc/fstab": "/dev/vdb1 none swap sw 0 0\n", "/proc/swaps": swapsHeader})
	if err := os.Chmod(filepath.Join(h.Root, "etc/fstab"), 0o640); err != nil {
		t.Fatal(err)
	}
	s := newKernelSwap(t, h).step()
	apply(t, s)
	if info, err := h.Stat("/etc/fstab"); err != nil || info.Mode() != 0o640 {
		t.Errorf("fstab: %v, %v, want mode 0640", info.Mode(), err)
	}
	if err := h.WriteFile("/etc/fstab", []byte("/dev/vdb1 none swap sw 0 0\n/dev/vdz none swap sw 0 0\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	apply(t, s)
	if kept := read(t, h, "/var/lib/nodeagent/originals/etc/fstab"); kept != "/dev/vdb1 none swap sw 0 0\n" {
		t.Errorf("the original kept is %q", kept)
	}
	wantChanges(t, s)
}

func TestSwapIsMadeSafeBeforeItIsTakenOff(t *testing.T) {
	files := map[string]string{"/etc/fstab": "/dev/vdb1 none swap sw 0 0\n", "/proc/swaps": onePartition, "/proc/meminfo": enoughMemory}
	boom := errors.New("boom")
	const on = `swap /dev/vdb1: "on" → "off"`
	for name, test := range map[string]struct {
		breakIt   func(*SwapSystem)
		left, did []string
	}{
		"reload": {func(sys *SwapSystem) { sys.DaemonReload = func(context.Context) error { return boom } },
			[]string{
				on, `unit swap.target: "stopped on disk, and systemd has not read it" → "systemd reloaded"`,
				`unit dev-vdb1.swap: "stopped on disk, and systemd has not read it" → "systemd reloaded"`,
			}, []string{"reload", "off /dev/vdb1"}},
		"swapoff": {func(sys *SwapSystem) { sys.Swapoff = func(string) error { return boom } }, []string{on}, []string{"off /dev/vdb1"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := machine(t, files)
			k := newKernelSwap(t, h)
			broken := k.system()
			test.breakIt(&broken)
			if err := Swap(h, broken).Apply(t.Context()); !errors.Is(err, boom) {
				t.Fatalf("apply: %v, want boom", err)
			}
			wantChanges(t, Swap(h, broken), test.left...)
			k.did = nil
			steptest.Converges(t, h, k.step())
			k.wantDid(test.did...)
		})
	}
}

func TestSwapThatDoesNotFitIsLeftOn(t *testing.T) {
	h := machine(t, map[string]string{
		"/proc/swaps":   swapsHeader + "/dev/vdb1 partition 2000000 1048576 -2\n/dev/vdc1 partition 2000000 1048576 -3\n",
		"/proc/meminfo": "MemTotal: 4000000 kB\nMemAvailable: 2097152 kB\n",
	})
	k := newKernelSwap(t, h)
	s := k.step()
	wantError(t, s.Apply(t.Context()), "swap off: 2048 MiB are in swap and 2048 MiB of memory are available", "reboot")
	k.wantDid("reload")
	put(t, h, "/proc/meminfo", "MemTotal: 4000000 kB\nMemAvailable: 2097153 kB\n")
	apply(t, s)
	k.wantDid("reload", "off /dev/vdb1", "off /dev/vdc1")
}

func TestSwapStopsBetweenAreasWhenCancelled(t *testing.T) {
	h := machine(t, map[string]string{"/proc/swaps": threeAreas, "/proc/meminfo": enoughMemory})
	k := newKernelSwap(t, h)
	ctx, cancel := context.WithCancel(t.Context())
	sys := k.system()
	off := sys.Swapoff
	sys.Swapoff = func(path string) error { cancel(); return off(path) }
	if err := Swap(h, sys).Apply(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("apply: %v, want it cancelled", err)
	}
	k.wantDid("reload", "off /dev/vdb1")
}

func TestSwapRefusesWhatItCannotRead(t *testing.T) {
	good := map[string]string{"/etc/fstab": "/dev/vdb1 none swap sw 0 0\n", "/proc/swaps": onePartition, "/proc/meminfo": enoughMemory}
	tests := map[string]struct{ path, text, want string }{
		"swaps":        {"/proc/swaps", swapsHeader + "/dev/vdb1 partition many\n", "read active swap: line 2"},
		"swaps' use":   {"/proc/swaps", swapsHeader + "/dev/vdb1 partition 1 x 1\n", "read active swap: line 2"},
		"fstab linked": {"/etc/fstab", "-> fstab.real", "is a symbolic link"},
		"fstab a dir":  {"/etc/fstab", "dir", "read fstab"},
		"meminfo":      {"/proc/meminfo", "MemTotal: 4000000 kB\n", "no MemAvailable"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{"/etc/fstab.real": good["/etc/fstab"]}
			maps.Copy(files, good)
			files[test.path] = test.text
			h := machine(t, files)
			wantError(t, newKernelSwap(t, h).step().Apply(t.Context()), test.want)
			if read(t, h, "/proc/swaps") != files["/proc/swaps"] {
				t.Error("swap was taken off")
			}
		})
	}
}

func TestSwapoffSaysWhatTheKernelSays(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	if err := Swapoff(missing); !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EPERM) {
		t.Errorf("swapoff of a missing file: %v", err)
	}
	if err := Swapoff("a\x00b"); !errors.Is(err, unix.EINVAL) {
		t.Errorf("swapoff of a name with a zero byte: %v", err)
	}
}
