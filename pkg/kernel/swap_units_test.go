package kernel

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeagent/nodeagent/pkg/step/steptest"
	"github.com/nodeagent/nodeagent/pkg/systemd"
)

const onlyTarget = `unit swap.target: "not masked" → "masked"`

func TestSwapUnitsThatCannotBeMaskedAreDisabled(t *testing.T) {
	const text = "[Swap]\nWhat=/dev/vdb1\n[Install]\nWantedBy=swap.target\n"
	h := machine(t, map[string]string{
		"/etc/systemd/system/dev-vdb1.swap":                   text,
		`/etc/systemd/system/opt-x.swap`:                      "-> /opt/units/data.swap",
		"/etc/systemd/system/empty.swap":                      "",
		"/etc/systemd/system/relative.swap":                   "-> ../../../dev//null",
		"/etc/systemd/system/other.service":                   "[Service]\n",
		"/etc/systemd/system/swap.target.wants/dev-vdb1.swap": "-> ../dev-vdb1.swap",
		"/etc/systemd/system/a.target.requires/dev-vdb1.swap": "-> /etc/systemd/system/dev-vdb1.swap",
		"/etc/systemd/system/swap.target.wants/other.service": "-> ../other.service",
		"/etc/fstab":    rootLine,
		"/proc/swaps":   onePartition,
		"/proc/meminfo": enoughMemory,
	})
	k := newKernelSwap(t, h)
	s := k.step()
	wantChanges(t, s,
		`swap /dev/vdb1: "on" → "off"`, onlyTarget,
		`unit dev-vdb1.swap: "may start, from /etc/systemd/system/dev-vdb1.swap" → "kept from starting by /etc/systemd/system/dev-vdb1.swap.d/nodeagent.conf"`,
		`/etc/systemd/system/a.target.requires/dev-vdb1.swap: "starts it at boot" → "removed"`,
		`/etc/systemd/system/swap.target.wants/dev-vdb1.swap: "starts it at boot" → "removed"`,
		`unit opt-x.swap: "may start, from /etc/systemd/system/opt-x.swap" → "kept from starting by /etc/systemd/system/opt-x.swap.d/nodeagent.conf"`,
	)
	steptest.Converges(t, h, s)
	k.wantDid("reload", "off /dev/vdb1")
	if have := read(t, h, "/etc/systemd/system/dev-vdb1.swap"); have != text {
		t.Errorf("the unit file is %q", have)
	}
	if have := read(t, h, "/etc/systemd/system/dev-vdb1.swap.d/nodeagent.conf"); !strings.HasSuffix(have, "\n[Unit]\nConditionPathExists=!/\n") {
		t.Errorf("the drop-in is\n%s", have)
	}
	if there, err := h.Exists("/etc/systemd/system/swap.target.wants/other.service"); !there || err != nil {
		t.Errorf("somebody else's link is gone: %v", err)
	}
	wantChanges(t, s)

	if err := os.WriteFile(filepath.Join(h.Root, "etc/systemd/system/dev-vdb1.swap.d/nodeagent.conf"), []byte("[Unit]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	k.did = nil
	steptest.Converges(t, h, s)
	k.wantDid("reload")
}

func TestSwapUnitsOfPackagesAndGeneratorsAreMasked(t *testing.T) {
	h := machine(t, map[string]string{
		"/usr/lib/systemd/system/vendor.swap":        "[Swap]\n",
		"/usr/lib/systemd/system/masked.swap":        "-> /dev/null",
		"/lib/systemd/system/old.swap":               "[Swap]\n",
		"/usr/local/lib/systemd/system/local.swap":   "[Swap]\n",
		"/run/systemd/system/runtime.swap":           "-> /dev/null",
		"/run/systemd/system/passing.swap":           "[Swap]\n",
		"/run/systemd/generator/dev-zram1.swap":      "[Swap]\n",
		"/run/systemd/generator.late/dev-vda3.swap":  "[Swap]\n",
		"/run/systemd/generator/swap.target.wants":   "dir",
		"/usr/lib/systemd/system/swap.target":        "[Unit]\n",
		"/usr/lib/systemd/system/systemd-x.service":  "[Service]\n",
		"/etc/systemd/system/dev-zram1.swap.d/x.txt": "",
		"/proc/swaps": swapsHeader,
	})
	k := newKernelSwap(t, h)
	s := k.step()
	var want []string
	for _, name := range []string{"swap.target", "local.swap", "vendor.swap", "old.swap", "passing.swap", "dev-zram1.swap", "dev-vda3.swap"} {
		want = append(want, `unit `+name+`: "not masked" → "masked"`)
	}
	wantChanges(t, s, want...)
	steptest.Converges(t, h, s)
	k.wantDid("reload")
}

// Once fstab has no entry, systemd-gpt-auto-generator makes a unit of a swap partition on the
// root's disk, which is there only after the reload.
func TestSwapThatSystemdFindsByItself(t *testing.T) {
	h := machine(t, map[string]string{
		"/etc/fstab": "UUID=0a-1b none swap sw 0 0\n", "/proc/swaps": swapsHeader, "/run/systemd/generator.late": "dir",
	})
	k := newKernelSwap(t, h)
	k.onReload = func() {
		if strings.HasPrefix(read(t, h, "/etc/fstab"), "#") {
			if err := os.WriteFile(filepath.Join(h.Root, "run/systemd/generator.late/dev-vda2.swap"), []byte("[Swap]\n"), 0o644); err != nil {
				t.Error(err)
			}
		}
	}
	// The tree changes with the reload, so it is not Converges that looks on.
	s := k.step()
	apply(t, s)
	wantChanges(t, s)
	k.wantDid("reload", "reload")
	for _, name := range []string{`dev-disk-by\x2duuid-0a\x2d1b.swap`, "dev-vda2.swap", "swap.target"} {
		if !k.masked(name) {
			t.Errorf("%s is not masked", name)
		}
	}
	apply(t, s)
	k.wantDid("reload", "reload")
}

func TestSwapUnitsThatGoOnComing(t *testing.T) {
	h := machine(t, map[string]string{"/proc/swaps": swapsHeader, "/run/systemd/generator": "dir"})
	k := newKernelSwap(t, h)
	k.onReload = func() { put(t, h, "/run/systemd/generator/"+strings.Repeat("a", len(k.did))+".swap", "[Swap]\n") }
	s := k.step()
	apply(t, s)
	k.wantDid("reload", "reload", "reload")
	wantChanges(t, s, `unit aaa.swap: "not masked" → "masked"`)
}

func TestSwapNoticesALostReload(t *testing.T) {
	h := machine(t, map[string]string{"/proc/swaps": swapsHeader, "/etc/systemd/system/x.swap": "[Swap]\n"})
	k := newKernelSwap(t, h)
	if _, err := k.state(t.Context(), "x.swap"); err != nil { // systemd has read it without the drop-in
		t.Fatal(err)
	}
	sys := k.system()
	killed := errors.New("killed")
	sys.DaemonReload = func(context.Context) error { return killed }
	if err := Swap(h, sys).Apply(t.Context()); !errors.Is(err, killed) {
		t.Fatal(err)
	}
	s := k.step()
	wantChanges(t, s,
		`unit swap.target: "stopped on disk, and systemd has not read it" → "systemd reloaded"`,
		`unit x.swap: "stopped on disk, and systemd has not read it" → "systemd reloaded"`,
	)
	steptest.Converges(t, h, s)
	k.wantDid("reload")
}

func TestServicesThatMakeSwap(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"zramswap": {
			"/lib/systemd/system/zramswap.service":                             "[Service]\nExecStart=/usr/sbin/zramswap start\n",
			"/etc/systemd/system/multi-user.target.wants/zramswap.service":     "-> /lib/systemd/system/zramswap.service",
			"/etc/systemd/system/multi-user.target.wants/containerd.service":   "-> /lib/systemd/system/containerd.service",
			"/usr/lib/systemd/system/systemd-zram-setup@.service":              "[Service]\n",
			"/usr/lib/systemd/system-generators/systemd-fstab-generator":       "",
			"/etc/systemd/system/multi-user.target.wants/also-zramswap.target": "-> x",
		},
		"dphys-swapfile": {
			"/etc/init.d/dphys-swapfile":                                         "#!/bin/sh\n",
			"/etc/systemd/system/multi-user.target.wants/dphys-swapfile.service": "-> /lib/systemd/system/dphys-swapfile.service",
		},
	} {
		t.Run(name, func(t *testing.T) {
			unit := name + ".service"
			link := "/etc/systemd/system/multi-user.target.wants/" + unit
			files := maps.Clone(files)
			files["/proc/swaps"] = swapsHeader + "/dev/zram0 partition 1024 512 100\n"
			files["/proc/meminfo"] = enoughMemory
			h := machine(t, files)
			k := newKernelSwap(t, h)
			k.loaded[unit], k.running[unit] = false, true
			s := k.step()
			wantChanges(t, s,
				`swap /dev/zram0: "on" → "off"`, onlyTarget, `unit dev-zram0.swap: "not masked" → "masked"`,
				`unit `+unit+`: "not masked" → "masked"`, link+`: "starts it at boot" → "removed"`, `unit `+unit+`: "running" → "stopped"`,
			)
			steptest.Converges(t, h, s)
			k.wantDid("reload", "stop "+unit, "off /dev/zram0")

			// Started again by hand, somehow: found again.
			k.running[unit], k.did = true, nil
			wantChanges(t, s, `unit `+unit+`: "running" → "stopped"`)
			apply(t, s)
			k.wantDid("stop " + unit)
		})
	}
}

func TestAServiceThatMakesSwapIsLeftOnWhereItDoesNotFit(t *testing.T) {
	h := machine(t, map[string]string{
		"/lib/systemd/system/swapspace.service": "[Service]\n",
		"/proc/swaps":                           swapsHeader + "/var/lib/swapspace/1 file 3000000 2097152 100\n",
		"/proc/meminfo":                         "MemTotal: 4000000 kB\nMemAvailable: 1000 kB\n",
	})
	k := newKernelSwap(t, h)
	k.running["swapspace.service"] = true
	wantError(t, k.step().Apply(t.Context()), "swap off: 2048 MiB are in swap", "reboot")
	k.wantDid("reload")
}

func TestZramGenerator(t *testing.T) {
	const generator = "/lib/systemd/system-generators/zram-generator"
	tests := map[string]struct {
		files map[string]string
		want  []string
	}{
		"debian's": {map[string]string{generator: "", "/etc/systemd/zram-generator.conf": "# comment\n[zram0]\n"}, []string{"dev-zram0.swap"}},
		"several": {map[string]string{
			generator: "", "/etc/systemd/zram-generator.conf": " [zram0] \nzram-size = ram\n[zram1]\nmount-point=/x\n[other]\n[zram]\n#[zram9]\n",
			"/usr/lib/systemd/zram-generator.conf.d/10-x.conf": "[zram2]\r\n", "/etc/systemd/zram-generator.conf.d/x.conf": "-> /dev/null",
			"/etc/systemd/zram-generator.conf.d/x.txt": "[zram7]\n",
		}, []string{"dev-zram0.swap", "dev-zram1.swap", "dev-zram2.swap"}},
		"no devices":  {map[string]string{generator: ""}, nil},
		"not there":   {map[string]string{"/etc/systemd/zram-generator.conf": "[zram0]\n"}, nil},
		"other name":  {map[string]string{"/usr/lib/systemd/system-generators/systemd-zram-generator": "", "/usr/lib/systemd/zram-generator.conf": "[zram0]"}, []string{"dev-zram0.swap"}},
		"a directory": {map[string]string{generator: "", "/usr/lib/systemd/zram-generator.conf.d": "[zram0]\n"}, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			h := image(t, test.files)
			s := newKernelSwap(t, h).step()
			want := []string{onlyTarget}
			for _, unit := range test.want {
				want = append(want, `unit `+unit+`: "not masked" → "masked"`)
			}
			changes, err := s.Check(t.Context())
			var have []string
			for _, c := range changes {
				have = append(have, c.String())
			}
			sorted := cmp.Transformer("sort", func(in []string) map[string]bool {
				out := map[string]bool{}
				for _, s := range in {
					out[s] = true
				}
				return out
			})
			if diff := cmp.Diff(want, have, sorted); diff != "" || err != nil || len(want) != len(have) {
				t.Errorf("changes %v (- wanted, + found):\n%s", err, diff)
			}
			steptest.Converges(t, h, s)
		})
	}
}

func TestSwapUnitNames(t *testing.T) {
	for path, want := range map[string]string{ // as systemd-escape --path --suffix=swap prints them
		"/swap file": `swap\x20file.swap`, `/dev/disk/by-label/my\x20swap`: `dev-disk-by\x2dlabel-my\x5cx20swap.swap`,
		"/.swap": `\x2eswap.swap`, "/a/.b": "a-.b.swap", "/x//y/": "x-y.swap", "/x/./y": "x-y.swap", "/é": `\xc3\xa9.swap`, "/t\tab": `t\x09ab.swap`,
		`/a-b\c`: `a\x2db\x5cc.swap`, "/a:b_c": "a:b_c.swap",
		"": "", "/": "", "/a/../b": "", "/" + strings.Repeat("x", 250): strings.Repeat("x", 250) + ".swap", "/" + strings.Repeat("x", 251): "",
	} {
		if have := swapUnitName(path); have != want {
			t.Errorf("%s: %s, want %s", path, have, want)
		}
	}
}

func TestSwapRefusesWhatSystemdDoesNotTell(t *testing.T) {
	h := machine(t, map[string]string{"/proc/swaps": onePartition, "/proc/meminfo": enoughMemory})
	k := newKernelSwap(t, h)
	sys := k.system()
	gone := errors.New("no answer")
	sys.State = func(context.Context, string) (systemd.State, error) { return systemd.State{}, gone }
	s := Swap(h, sys)
	_, err := s.Check(t.Context())
	wantError(t, err, "check unit swap.target: no answer")
	wantError(t, s.Apply(t.Context()), "no answer")
	k.wantDid()
}
