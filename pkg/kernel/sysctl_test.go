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

	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/step/steptest"
)

// freshSysctls is what a machine shows right after br_netfilter was loaded.
func freshSysctls(more map[string]string) map[string]string {
	files := map[string]string{
		"/proc/sys/net/bridge/bridge-nf-call-iptables":  "1\n",
		"/proc/sys/net/bridge/bridge-nf-call-ip6tables": "0\n",
		"/proc/sys/net/ipv4/ip_forward":                 "0\n",
	}
	maps.Copy(files, more)
	return files
}

// What our file says where there is nothing else: what a node needs, then what kubelet wants.
const (
	needed         = "net.bridge.bridge-nf-call-iptables = 1, net.bridge.bridge-nf-call-ip6tables = 1, net.ipv4.ip_forward = 1"
	protected      = "-vm.overcommit_memory = 1, -vm.panic_on_oom = 0, -kernel.panic = 10, -kernel.panic_on_oops = 1, -kernel.keys.root_maxkeys = 1000000, -kernel.keys.root_maxbytes = 25000000"
	limits         = "-fs.inotify.max_user_instances = 8192, -fs.inotify.max_user_watches = 524288"
	kubernetesSays = needed + ", " + protected + ", " + limits
)

func TestSysctlsConverges(t *testing.T) {
	h := machine(t, freshSysctls(map[string]string{
		"/proc/sys/net/ipv4/tcp_rmem":                 "4096\t131072\t6291456\n",
		"/proc/sys/net/ipv4/conf/eth0.100/forwarding": "0\n",
		"/proc/sys/kernel/panic":                      "0\n",
	}))
	s := Sysctls(h, false, []Sysctl{
		{"net.ipv4.tcp_rmem", "4096 131072  6291456"}, {"net.ipv4.conf.eth0/100.forwarding", "1"},
		{"net/bridge/bridge-nf-call-ip6tables", "0"}, {"kernel.panic", " 11 "},
	})
	wantChanges(t, s,
		`net.ipv4.ip_forward: "0" → "1"`,
		`kernel.panic: "0" → "11"`,
		`net.ipv4.conf.eth0/100.forwarding: "0" → "1"`,
		`/etc/sysctl.d/90-nodeagent.conf: "missing" → "net.bridge.bridge-nf-call-iptables = 1, net/bridge/bridge-nf-call-ip6tables = 0, net.ipv4.ip_forward = 1, `+
			strings.Replace(protected, "-kernel.panic = 10", "kernel.panic = 11", 1)+", "+limits+`, `+
			`net.ipv4.tcp_rmem = 4096 131072  6291456, net.ipv4.conf.eth0/100.forwarding = 1"`,
	)
	steptest.Converges(t, h, s)
	for path, want := range map[string]string{
		"net/ipv4/ip_forward": "1", "net/ipv4/conf/eth0.100/forwarding": "1", "kernel/panic": "11",
		"net/ipv4/tcp_rmem": "4096\t131072\t6291456\n", "net/bridge/bridge-nf-call-ip6tables": "0\n",
	} {
		if have := read(t, h, procSys+path); have != want {
			t.Errorf("%s is %q, want %q", path, have, want)
		}
	}
}

func TestSysctlsConvergesInAnImage(t *testing.T) {
	h := image(t, map[string]string{sysctlFile: "net.ipv4.ip_forward = 0\n"})
	s := Sysctls(h, false, nil)
	wantChanges(t, s, sysctlFile+`: "net.ipv4.ip_forward = 0" → "`+kubernetesSays+`"`)
	steptest.Converges(t, h, s)
}

func TestSysctlsMendsAFileOfTheSameLength(t *testing.T) {
	h := image(t, nil)
	s := Sysctls(h, false, nil)
	apply(t, s)
	put(t, h, sysctlFile, strings.Replace(read(t, h, sysctlFile), "ip_forward = 1", "ip_forward = 0", 1))
	wantChanges(t, s, sysctlFile+`: "`+strings.Replace(kubernetesSays, "ip_forward = 1", "ip_forward = 0", 1)+`" → "`+kubernetesSays+`"`)
	steptest.Converges(t, h, s)
}

func TestSysctlsMendsTheFilesMode(t *testing.T) {
	h := image(t, nil)
	s := Sysctls(h, false, nil)
	apply(t, s)
	if err := os.Chmod(filepath.Join(h.Root, sysctlFile), 0o666); err != nil {
		t.Fatal(err)
	}
	wantChanges(t, s, sysctlFile+` mode: "0666" → "0644"`)
	steptest.Converges(t, h, s)
}

func TestSysctlsWaitForTheirModule(t *testing.T) {
	h := machine(t, map[string]string{"/proc/sys/net/ipv4/ip_forward": "0\n"})
	_, err := Sysctls(h, false, nil).Check(t.Context())
	var blocked step.Blocked
	if !errors.As(err, &blocked) || blocked.On != Modules(h, false, nil).Name {
		t.Errorf("check: %v, want it blocked on the modules step", err)
	}
}

func TestSysctlsThatTheKernelDoesNotKnow(t *testing.T) {
	h := machine(t, freshSysctls(nil))
	s := Sysctls(h, false, []Sysctl{{"net.netfilter.nf_conntrack_max", "1000"}})
	changes, err := s.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := step.Change{Subject: "net.netfilter.nf_conntrack_max", Have: "not known to this kernel", Want: "1000"}
	if diff := cmp.Diff(want, changes[2]); diff != "" {
		t.Errorf("change (- wanted, + found):\n%s", diff)
	}
	wantError(t, s.Apply(t.Context()), "set sysctl net.netfilter.nf_conntrack_max", "kernel.modules")
	if _, err := os.Stat(filepath.Join(h.Root, procSys, "net/netfilter")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was made below /proc/sys: %v", err)
	}
}

func TestSysctlsCancelled(t *testing.T) {
	h := machine(t, freshSysctls(nil))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Sysctls(h, false, nil).Apply(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("apply: %v, want it cancelled", err)
	}
	if have := read(t, h, "/proc/sys/net/ipv4/ip_forward"); have != "0\n" {
		t.Errorf("ip_forward was set to %q", have)
	}
}
