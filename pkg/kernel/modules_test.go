package kernel

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step/steptest"
)

// modprobes lets the machine load modules, those named only, and returns what was run.
func modprobes(t *testing.T, h *host.Host, known ...string) *[]string {
	var ran []string
	h.Exec = func(_ context.Context, c host.Command) ([]byte, error) {
		ran = append(ran, c.Path+" "+c.String())
		name := c.Args[len(c.Args)-1]
		if !slices.Contains(known, name) {
			return nil, &host.CommandError{Command: c, Code: 1, Err: errors.New("exit status 1"),
				Stderr: "modprobe: FATAL: Module " + name + " not found in directory /lib/modules/6.1.0-9"}
		}
		put(t, h, "/sys/module/"+underscored(name)+"/initstate", "live\n")
		return nil, nil
	}
	return &ran
}

func TestModulesConverges(t *testing.T) {
	h := machine(t, map[string]string{
		"/proc/sys/kernel/osrelease":               "6.1.0-9\n",
		"/sys/module/ip_vs/initstate":              "live\n",
		"/lib":                                     "-> usr/lib",
		"/usr/lib/modules/6.1.0-9/modules.builtin": "kernel/fs/overlayfs/overlay.ko\nkernel/net/odd-name.ko\n",
	})
	ran := modprobes(t, h, "br_netfilter", "nf-conntrack")
	s := Modules(h, []string{"nf-conntrack", "ip_vs", "odd_name", "br-netfilter", "ip-vs"})
	wantChanges(t, s,
		`module br_netfilter: "not loaded" → "loaded"`,
		`module nf-conntrack: "not loaded" → "loaded"`,
		`/etc/modules-load.d/nodeagent.conf: "missing" → "overlay, br_netfilter, nf-conntrack, ip_vs, odd_name"`,
	)
	steptest.Converges(t, h, s)
	if diff := cmp.Diff([]string{"/sbin/modprobe modprobe -- br_netfilter", "/sbin/modprobe modprobe -- nf-conntrack"}, *ran); diff != "" {
		t.Errorf("commands (- wanted, + run):\n%s", diff)
	}
	want := owned + "overlay\nbr_netfilter\nnf-conntrack\nip_vs\nodd_name\n"
	if diff := cmp.Diff(want, read(t, h, modulesPath)); diff != "" {
		t.Errorf("file (- wanted, + found):\n%s", diff)
	}
}

func TestModulesConvergesInAnImage(t *testing.T) {
	h := image(t, map[string]string{modulesPath: "# mine\n\noverlay\n"})
	s := Modules(h, nil)
	wantChanges(t, s, modulesPath+`: "overlay" → "overlay, br_netfilter"`)
	steptest.Converges(t, h, s)
}

func TestModulesOfAKernelMadeWithoutAny(t *testing.T) {
	h := machine(t, freshSysctls(map[string]string{"/proc/sys/kernel/osrelease": "6.18.1-custom\n", "/sys/module/overlay/parameters/x": "N"}))
	s := Modules(h, nil)
	wantChanges(t, s, modulesPath+`: "missing" → "overlay, br_netfilter"`)
	steptest.Converges(t, h, s)
}

func TestModulesThatCannotBeLoaded(t *testing.T) {
	tests := map[string]struct {
		files map[string]string
		words []string
	}{
		"not on disk":    {map[string]string{"/lib/modules/6.1.0-9/modules.dep": ""}, []string{"FATAL: Module br_netfilter not found", "linux-modules-extra-6.1.0-9"}},
		"kernel is gone": {map[string]string{"/lib/modules/6.1.0-10/modules.dep": ""}, []string{"6.1.0-9 has no modules on disk: reboot"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			h := machine(t, test.files)
			put(t, h, "/proc/sys/kernel/osrelease", "6.1.0-9\n")
			modprobes(t, h, "overlay")
			s := Modules(h, nil)
			err := s.Apply(t.Context())
			wantError(t, err, append(test.words, "load module br_netfilter: ")...)
			var command *host.CommandError
			if !errors.As(err, &command) {
				t.Errorf("%v hides the command's error", err)
			}
			wantChanges(t, s, `module br_netfilter: "not loaded" → "loaded"`)
		})
	}
}

func TestModulesWithoutAKernelToAsk(t *testing.T) {
	_, err := Modules(machine(t, nil), nil).Check(t.Context())
	wantError(t, err, "read kernel release", "/proc/sys/kernel/osrelease")
}

func FuzzParseBuiltin(f *testing.F) {
	f.Add([]byte("kernel/fs/overlayfs/overlay.ko\nkernel/net/odd-name.ko.xz\r\n\n/\n.ko\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, name := range parseBuiltin(data) {
			if name == "" || strings.ContainsAny(name, "-/\n") {
				t.Errorf("%q is no module name", name)
			}
		}
	})
}
