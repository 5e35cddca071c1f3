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
	"github.com/google/go-cmp/cmp/cmpopts"

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

const kubernetesSays = "net.bridge.bridge-nf-call-iptables = 1, net.bridge.bridge-nf-call-ip6tables = 1, net.ipv4.ip_forward = 1"

func TestSysctlsConverges(t *testing.T) {
	h := machine(t, freshSysctls(map[string]string{
		"/proc/sys/net/ipv4/tcp_rmem":                 "4096\t131072\t6291456\n",
		"/proc/sys/net/ipv4/conf/eth0.100/forwarding": "0\n",
		"/proc/sys/kernel/panic":                      "0\n",
	}))
	s := Sysctls(h, []Sysctl{
		{"net.ipv4.tcp_rmem", "4096 131072  6291456"}, {"net.ipv4.conf.eth0/100.forwarding", "1"},
		{"net/bridge/bridge-nf-call-ip6tables", "0"}, {"kernel.panic", " 10 "},
	})
	wantChanges(t, s,
		`net.ipv4.ip_forward: "0" → "1"`,
		`net.ipv4.conf.eth0/100.forwarding: "0" → "1"`,
		`kernel.panic: "0" → " 10 "`,
		`/etc/sysctl.d/90-nodeagent.conf: "missing" → "net.bridge.bridge-nf-call-iptables = 1, net/bridge/bridge-nf-call-ip6tables = 0, net.ipv4.ip_forward = 1, `+
			`net.ipv4.tcp_rmem = 4096 131072  6291456, net.ipv4.conf.eth0/100.forwarding = 1, kernel.panic = 10"`,
	)
	steptest.Converges(t, h, s)
	for path, want := range map[string]string{
		"net/ipv4/ip_forward": "1", "net/ipv4/conf/eth0.100/forwarding": "1", "kernel/panic": "10",
		"net/ipv4/tcp_rmem": "4096\t131072\t6291456\n", "net/bridge/bridge-nf-call-ip6tables": "0\n",
	} {
		if have := read(t, h, procSys+path); have != want {
			t.Errorf("%s is %q, want %q", path, have, want)
		}
	}
}

func TestSysctlsConvergesInAnImage(t *testing.T) {
	h := image(t, map[string]string{sysctlFile: "net.ipv4.ip_forward = 0\n"})
	s := Sysctls(h, nil)
	wantChanges(t, s, sysctlFile+`: "net.ipv4.ip_forward = 0" → "`+kubernetesSays+`"`)
	steptest.Converges(t, h, s)
}

func TestSysctlsMendsAFileOfTheSameLength(t *testing.T) {
	h := image(t, nil)
	s := Sysctls(h, nil)
	apply(t, s)
	put(t, h, sysctlFile, strings.Replace(read(t, h, sysctlFile), "ip_forward = 1", "ip_forward = 0", 1))
	wantChanges(t, s, sysctlFile+`: "`+strings.TrimSuffix(kubernetesSays, "1")+`0" → "`+kubernetesSays+`"`)
	steptest.Converges(t, h, s)
}

func TestSysctlsMendsTheFilesMode(t *testing.T) {
	h := image(t, nil)
	s := Sysctls(h, nil)
	apply(t, s)
	if err := os.Chmod(filepath.Join(h.Root, sysctlFile), 0o666); err != nil {
		t.Fatal(err)
	}
	wantChanges(t, s, sysctlFile+` mode: "0666" → "0644"`)
	steptest.Converges(t, h, s)
}

func TestSysctlsWaitForTheirModule(t *testing.T) {
	h := machine(t, map[string]string{"/proc/sys/net/ipv4/ip_forward": "0\n"})
	_, err := Sysctls(h, nil).Check(t.Context())
	var blocked step.Blocked
	if !errors.As(err, &blocked) || blocked.On != Modules(h, nil).Name {
		t.Errorf("check: %v, want it blocked on the modules step", err)
	}
}

func TestSysctlsThatTheKernelDoesNotKnow(t *testing.T) {
	h := machine(t, freshSysctls(nil))
	s := Sysctls(h, []Sysctl{{"net.netfilter.nf_conntrack_max", "1000"}})
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
	if err := Sysctls(h, nil).Apply(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("apply: %v, want it cancelled", err)
	}
	if have := read(t, h, "/proc/sys/net/ipv4/ip_forward"); have != "0\n" {
		t.Errorf("ip_forward was set to %q", have)
	}
}

func TestSysctlsNameTheFileThatWins(t *testing.T) {
	tests := map[string]struct {
		files map[string]string
		want  []string
	}{
		"later": {map[string]string{"/etc/sysctl.d/99-mine.conf": "# mine\n\nnet.ipv4.ip_forward=0\n"},
			[]string{`!net.ipv4.ip_forward at boot: "0, by /etc/sysctl.d/99-mine.conf line 3" → "1: remove that line"`}},
		"debian's link to sysctl.conf": {map[string]string{"/etc/sysctl.conf": "net/ipv4/ip_forward = 0", "/etc/sysctl.d/99-sysctl.conf": "-> ../sysctl.conf"},
			[]string{`!net.ipv4.ip_forward at boot: "0, by /etc/sysctl.d/99-sysctl.conf line 1" → "1: remove that line"`}},
		"later by name, not by directory": {map[string]string{"/usr/lib/sysctl.d/95-vendor.conf": "-net.bridge.bridge-nf-call-iptables = 0\n"},
			[]string{`!net.bridge.bridge-nf-call-iptables at boot: "0, by /usr/lib/sysctl.d/95-vendor.conf line 1" → "1: remove that line"`}},
		"hidden by its namesake": {map[string]string{"/usr/lib/sysctl.d/99-x.conf": "net.ipv4.ip_forward = 0", "/run/sysctl.d/99-x.conf": "# nothing"}, nil},
		"hidden by a mask":       {map[string]string{"/usr/local/lib/sysctl.d/99-x.conf": "net.ipv4.ip_forward = 0", "/etc/sysctl.d/99-x.conf": "-> /dev/null"}, nil},
		"earlier":                {map[string]string{"/etc/sysctl.d/10-x.conf": "net.ipv4.ip_forward = 0"}, nil},
		"agrees":                 {map[string]string{"/etc/sysctl.d/99-x.conf": "net.ipv4.ip_forward =1 "}, nil},
		"set back":               {map[string]string{"/etc/sysctl.d/98-x.conf": "net.ipv4.ip_forward = 0", "/etc/sysctl.d/99-x.conf": "net.ipv4.ip_forward = 1"}, nil},
		"not .conf":              {map[string]string{"/etc/sysctl.d/99-x.conf.bak": "net.ipv4.ip_forward = 0"}, nil},
		"a glob":                 {map[string]string{"/etc/sysctl.d/99-x.conf": "net.ipv4.ip_* = 0"}, nil},
		"elsewhere":              {map[string]string{"/etc/sysctl.d/99-x.conf": "kernel.panic = 0"}, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			for kind, h := range map[string]step.Step{"machine": Sysctls(machine(t, freshSysctls(test.files)), nil), "image": Sysctls(image(t, test.files), nil)} {
				apply(t, h)
				t.Log(kind)
				wantChanges(t, h, test.want...)
			}
		})
	}
}

func TestParseSysctl(t *testing.T) {
	const file = "; old comment\n#net.a = 1\n\n  net.ipv4.ip_forward\t= 1  \r\n- kernel.x=a=b\nnet/ipv4/conf/eth0.1/x = 1 2\t3\nnot an assignment\n-net.skip\nnet.*.y = 1\n= 1\nempty.value =\n"
	want := []setting{
		{"net/ipv4/ip_forward", "1", 4}, {"kernel/x", "a=b", 5}, {"net/ipv4/conf/eth0.1/x", "1 2\t3", 6}, {"empty/value", "", 11},
	}
	if diff := cmp.Diff(want, parseSysctl([]byte(file)), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("settings (- wanted, + found):\n%s", diff)
	}
}

func FuzzParseSysctl(f *testing.F) {
	for _, seed := range []string{"", "a.b = 1", "-a/b.c=1\r\n#x\n", "../../x = 1", "= =\n-=\n", "a\x00.b=\xff"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		last := 0
		for _, s := range parseSysctl(data) {
			if s.Line <= last {
				t.Errorf("line %d comes after line %d", s.Line, last)
			}
			last = s.Line
			if !filepath.IsLocal(s.Path) && s.Path != "" {
				t.Errorf("path %q leaves /proc/sys", s.Path)
			}
			if again := parseSysctl([]byte("x/../" + s.Path + " = " + s.Value)); s.Path != "" && (len(again) != 1 || again[0].Value != s.Value) {
				t.Errorf("%+v printed reads as %+v", s, again)
			}
		}
	})
}
