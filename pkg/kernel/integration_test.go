//go:build integration

// These tests need root and a real systemd: they are built with `go test -c -tags integration`
// and run inside a container that systemd has booted, with a network of its own.
package kernel

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/systemd"
)

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// files writes files of the container for the length of the test; "dir" and "-> target" are as
// in put.
func files(t *testing.T, text map[string]string) {
	t.Helper()
	for path, text := range text {
		t.Cleanup(func() {
			if err := os.RemoveAll(path); err != nil {
				t.Error(err)
			}
		})
		put(t, host.New("/"), path, text)
	}
}

// netSysctls are a network namespace's own, so that setting them touches nobody.
var netSysctls = []string{
	"net/ipv4/ip_forward", "net/ipv4/conf/all/forwarding", "net/ipv4/conf/lo/rp_filter", "net/ipv4/conf/default/rp_filter",
	"net/ipv4/conf/all/rp_filter", "net/ipv4/conf/lo/arp_ignore", "net/ipv4/conf/all/arp_ignore",
}

// randomSysctls is a file of sysctl.d with all that its syntax has.
func randomSysctls(r *rand.Rand) string {
	names := append(slices.Clone(netSysctls),
		"net.ipv4.conf.*.rp_filter", "net.ipv4.conf.a*.arp_ignore", "net.ipv4.conf.[!a]*.rp_filter", "net/ipv4/conf/?o/rp_filter",
		"net.ipv4.conf.*.forwarding", "net.ipv4.ip_forwar?", "net.ipv4.conf.lo.rp_filter", "net.ipv4.conf.all.forwarding")
	var out strings.Builder
	for range r.IntN(6) {
		name := names[r.IntN(len(names))]
		switch r.IntN(10) {
		case 0:
			fmt.Fprintf(&out, "-%s\n", name)
		case 1:
			fmt.Fprintf(&out, "  -%s =%d  \n", name, r.IntN(2))
		case 2:
			fmt.Fprintf(&out, "# %s = 1\n%s\n;\n", name, name)
		default:
			fmt.Fprintf(&out, "%s = %d\n", name, r.IntN(2))
		}
	}
	return out.String()
}

// Whatever files there are, the last line that we name is the one whose value the kernel has
// after the real program has read them.
func TestSysctlsAreAsTheProgramsSetThem(t *testing.T) {
	h := host.New("/")
	dirs := []string{"/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d"}
	const kept = sysctlConf + ".kept" // Debian 12's, which /etc/sysctl.d/99-sysctl.conf links to
	if err := os.Rename(sysctlConf, kept); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Rename(kept, sysctlConf); err != nil {
			t.Error(err)
		}
	})
	won := map[string]int{} // by the kind of line
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(1, seed))
		text := map[string]string{"/etc/sysctl.conf": randomSysctls(r)}
		for range 1 + r.IntN(5) {
			path := fmt.Sprintf("%s/%d-test.conf", dirs[r.IntN(len(dirs))], 95+r.IntN(3))
			text[path] = randomSysctls(r)
			if r.IntN(6) == 0 {
				text[path] = "-> /dev/null"
			}
		}
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			files(t, text)
			read, err := confFiles(h, sysctlDirs)
			if err != nil {
				t.Fatal(err)
			}
			var lines []setting
			for _, f := range read {
				lines = append(lines, parseSysctl(f)...)
			}
			late := parseSysctl(confFile{sysctlConf, []byte(text[sysctlConf])})
			for program, want := range map[string][]setting{
				"/lib/systemd/systemd-sysctl": bootOrder(lines),
				"/sbin/sysctl --system":       slices.Concat(lines, late),
			} {
				for _, path := range netSysctls {
					if err := h.WriteKernel(procSys+path, "0"); err != nil {
						t.Fatal(err)
					}
				}
				// Other files set what the container may not: the exit code says nothing.
				words := strings.Fields(program)
				out, _ := exec.CommandContext(t.Context(), words[0], words[1:]...).CombinedOutput()
				for _, path := range netSysctls {
					last, found := lastOf(want, path)
					value := "0"
					if found && !last.Exclude {
						value = last.Value
					}
					won[fmt.Sprint(found, last.Exclude, last.glob(), last.Path == path)]++
					data, err := h.ReadFile(procSys + path)
					if err != nil {
						t.Fatal(err)
					}
					if have := strings.TrimSpace(string(data)); have != value {
						t.Errorf("after %s %s is %s, and we say %s by %+v; files %q\n%s", program, path, have, value, last, text, out)
					}
				}
			}
		})
	}
	if len(won) < 5 {
		t.Errorf("only these kinds of lines came to win: %v", won)
	}
}

func TestSysctlFilesAreInSystemdsOrder(t *testing.T) {
	files(t, map[string]string{
		"/etc/sysctl.d/98-a.conf": "# etc", "/usr/lib/sysctl.d/98-a.conf": "# usr", "/run/sysctl.d/Z.conf": "# run", "/usr/local/lib/sysctl.d/zz.conf": "# local",
		"/run/sysctl.d/98-a.conf": "# run", "/usr/lib/sysctl.d/a_b.conf": "# x", "/usr/lib/sysctl.d/a-b.conf": "# x", "/usr/lib/sysctl.d/a.conf": "# x",
	})
	var want, have []string
	for line := range strings.Lines(command(t, "systemd-analyze", "cat-config", "sysctl.d")) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "# /"); ok && strings.HasSuffix(path, ".conf") {
			want = append(want, filepath.Base(path))
		}
	}
	read, err := confFiles(host.New("/"), sysctlDirs)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range read {
		have = append(have, filepath.Base(f.Path))
	}
	if diff := cmp.Diff(want, have); diff != "" || len(have) < 8 {
		t.Errorf("order (- systemd's, + ours):\n%s", diff)
	}
}

// machines are the changes of sysctls that are not of a network: the machine's own. There may be
// none, on a machine that has been a node.
func machines(changes []step.Change) (out []step.Change) {
	for _, c := range changes {
		if !strings.HasPrefix(c.Subject, "net.") && !strings.HasPrefix(c.Subject, "/") {
			out = append(out, c)
		}
	}
	return out
}

// A container has the machine's kernel, and may set only what is of its own network.
func TestStepsInARealContainer(t *testing.T) {
	h := host.New("/")
	t.Cleanup(func() {
		for _, path := range []string{modulesPath, sysctlFile} {
			if err := os.Remove(path); err != nil {
				t.Error(err)
			}
		}
	})
	modules, sysctls := Modules(h, false, nil), Sysctls(h, true, nil)
	for _, s := range []step.Step{modules, sysctls} {
		before, err := s.Check(t.Context())
		if err != nil || len(before) == 0 {
			t.Fatalf("%s: %v, %v", s.Name, before, err)
		}
		apply(t, s)
		after, err := s.Check(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range after {
			t.Log(c)
			if !c.Manual || !strings.Contains(c.Have, ", read-only") {
				t.Errorf("%s still finds %v", s.Name, c)
			}
		}
		if refused := machines(before); s.Name == sysctls.Name && len(after) != len(refused) {
			t.Errorf("the container may not set %v, and after it there are %v", refused, after)
		}
	}
	for path, want := range map[string]string{"net/ipv4/ip_forward": "1\n", "net/ipv6/conf/all/forwarding": "1\n"} {
		if have := read(t, h, procSys+path); have != want {
			t.Errorf("%s is %q, want %q", path, have, want)
		}
	}
}

// The step on a real systemd. Swap itself is the host's, and none of it is touched.
func TestSwapUnitsOnARealSystemd(t *testing.T) {
	ctx := t.Context()
	conn, err := systemd.Connect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	const (
		native, vendor = "/etc/systemd/system/srv-native.swap", "/usr/lib/systemd/system/srv-vendor.swap"
		service        = "/usr/lib/systemd/system/zramswap.service"
		generator      = "/etc/systemd/system-generators/like-gpt-auto" // no swap in fstab: it finds some
		fstabUnit      = `dev-disk-by\x2duuid-6e6f6465\x2d6167\x2d656e\x2d7400\x2d737761700002.swap`
	)
	files(t, map[string]string{
		native: "[Swap]\nWhat=/srv/native\n[Install]\nWantedBy=multi-user.target\n", vendor: "[Swap]\nWhat=/srv/vendor\n",
		service:   "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\nExecStop=/bin/false\n[Install]\nWantedBy=multi-user.target\n",
		generator: "#!/bin/sh\ngrep -q '^[^#].* swap ' /etc/fstab || printf '[Swap]\\nWhat=/srv/late\\n' > \"$3/srv-late.swap\"\n",
	})
	if err := os.Chmod(generator, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, name := range []string{"swap.target", "srv-vendor.swap", "srv-late.swap", "zramswap.service", "srv-native.swap.d"} {
			if err := os.RemoveAll("/etc/systemd/system/" + name); err != nil {
				t.Error(err)
			}
		}
	})
	if err := conn.DaemonReload(ctx); err != nil {
		t.Fatal(err)
	}
	command(t, "systemctl", "enable", "srv-native.swap")
	command(t, "systemctl", "enable", "--now", "zramswap.service")
	command(t, "systemctl", "is-active", "zramswap.service", "swap.target")

	h := host.New("/")
	sys := SwapSystem{DaemonReload: conn.DaemonReload, State: conn.State, Stop: conn.Stop, Swapoff: func(path string) error {
		return fmt.Errorf("swap %s is the host's", path)
	}}
	s := Swap(h, sys)
	wantChanges(t, s,
		`/etc/fstab line 4: "UUID=6e6f6465-6167-656e-7400-737761700002 none swap sw                0 0" → "commented out"`,
		onlyTarget,
		`unit `+fstabUnit+`: "not masked" → "masked"`,
		`unit srv-native.swap: "may start, from /etc/systemd/system/srv-native.swap" → "kept from starting by /etc/systemd/system/srv-native.swap.d/nodeagent.conf"`,
		`/etc/systemd/system/multi-user.target.wants/srv-native.swap: "starts it at boot" → "removed"`,
		`unit srv-vendor.swap: "not masked" → "masked"`,
		`unit zramswap.service: "not masked" → "masked"`,
		`/etc/systemd/system/multi-user.target.wants/zramswap.service: "starts it at boot" → "removed"`,
		`unit zramswap.service: "running" → "stopped"`,
	)

	// The agent dies before the reload, and finds that.
	killed := errors.New("killed")
	dies := sys
	dies.DaemonReload = func(context.Context) error { return killed }
	if err := Swap(h, dies).Apply(ctx); !errors.Is(err, killed) {
		t.Fatalf("apply: %v, want it killed", err)
	}
	wantChanges(t, s,
		`unit swap.target: "stopped on disk, and systemd has not read it" → "systemd reloaded"`,
		`unit srv-native.swap: "stopped on disk, and systemd has not read it" → "systemd reloaded"`,
		`unit zramswap.service: "stopped on disk, and systemd has not read it" → "systemd reloaded"`,
		`unit zramswap.service: "running" → "stopped"`,
	)
	apply(t, s)
	wantChanges(t, s)

	for unit, want := range map[string]string{"swap.target": "masked", fstabUnit: "masked", "srv-late.swap": "masked", "srv-vendor.swap": "masked", "zramswap.service": "masked", "srv-native.swap": "disabled"} {
		out, _ := exec.CommandContext(ctx, "systemctl", "is-enabled", unit).Output()
		if have := strings.TrimSpace(string(out)); have != want {
			t.Errorf("%s is %s, want %s", unit, have, want)
		}
	}
	// Started by hand it does nothing, and does not fail.
	command(t, "systemctl", "start", "srv-native.swap")
	if out := command(t, "systemctl", "show", "-p", "ConditionResult", "-p", "ActiveState", "srv-native.swap"); !strings.Contains(out, "ConditionResult=no") || !strings.Contains(out, "ActiveState=inactive") {
		t.Errorf("started, the unit is\n%s", out)
	}
	if out, err := exec.CommandContext(ctx, "systemctl", "start", "srv-vendor.swap").CombinedOutput(); err == nil || !strings.Contains(string(out), "masked") {
		t.Errorf("start of a masked unit: %v\n%s", err, out)
	}
	wantChanges(t, s)
}
