package kernel

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestValidate(t *testing.T) {
	tests := map[string]struct {
		config Config
		want   []string // one error each, by how it begins
	}{
		"default": {config: DefaultConfig()},
		"full": {config: Config{Swap: "disable", Modules: []string{"nf_conntrack", "ip-vs", "8021q"}, Sysctls: []Sysctl{
			{"net.ipv4.ip_forward", "1"}, {"net/ipv4/conf/eth0.100/forwarding", "1"},
			{"net.ipv4.conf.eth0/200.forwarding", "1"}, {"net.ipv4.tcp_rmem", "4096\t87380 6291456"},
			{"kernel.core_pattern", "|/bin/false %p"},
		}}},
		"the same thing said twice": {config: Config{Swap: "disable", Sysctls: []Sysctl{
			{"net.ipv4.tcp_rmem", "1 2 3"}, {"net/ipv4/tcp_rmem", "1\t2  3"},
		}}},
		"keep":        {config: Config{Swap: "keep"}},
		"no swap":     {Config{}, []string{`swap: "" is not a choice`}},
		"swap in bad": {Config{Swap: "Disable"}, []string{`swap: "Disable" is not a choice`}},
		"modules": {Config{Swap: "disable", Modules: []string{"ok", "", "../evil", "a b", "-r", "x.ko"}},
			[]string{"modules[1]: ", "modules[2]: ", "modules[3]: ", "modules[4]: ", "modules[5]: "}},
		"sysctl names": {Config{Swap: "disable", Sysctls: []Sysctl{
			{"", "1"}, {"net", "1"}, {"net..ipv4", "1"}, {"net/../kernel/x", "1"}, {"/net/ipv4/ip_forward", "1"},
			{"net.ipv4.", "1"}, {"net.ipv4.conf.*.forwarding", "1"}, {"-net.ipv4.ip_forward", ""}, {"net.ipv4 .x", "1"}, {"a.b=c.d", "1"},
		}}, []string{
			"sysctls[0].name: ", "sysctls[1].name: ", "sysctls[2].name: ", "sysctls[3].name: ", "sysctls[4].name: ",
			"sysctls[5].name: ", "sysctls[6].name: ", "sysctls[7].", "sysctls[8].name: ", "sysctls[9].name: ",
		}},
		"sysctl values": {Config{Swap: "disable", Sysctls: []Sysctl{{"a.b", ""}, {"a.c", " \t"}, {"a.d", "1\nkernel.panic = 1"}, {"a.e", "\x00"}}},
			[]string{"sysctls[0].value: ", "sysctls[1].value: ", "sysctls[2].value: ", "sysctls[3].value: "}},
		"sysctls contradict": {Config{Swap: "disable", Sysctls: []Sysctl{{"net.ipv4.ip_forward", "1"}, {"net/ipv4/ip_forward", "0"}}},
			[]string{`sysctls[1].value: net/ipv4/ip_forward is "0" here and "1" in sysctls[0]`}},
		"sysctl aliases contradict": {Config{Swap: "disable", Sysctls: []Sysctl{{"net.ipv4.ip_forward", "1"}, {"net.ipv4.conf.all.forwarding", "0"}}},
			[]string{`sysctls[1].value: net.ipv4.conf.all.forwarding is "0" here and "1" in sysctls[0]`}},
		"all at once": {Config{Swap: "on", Modules: []string{"/"}, Sysctls: []Sysctl{{"x", "1"}}},
			[]string{"swap: ", "modules[0]: ", "sysctls[0].name: "}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var have []string
			if err := test.config.Validate(); err != nil {
				have = strings.Split(err.Error(), "\n")
			}
			if len(have) != len(test.want) {
				t.Fatalf("%d errors %q, want %d", len(have), have, len(test.want))
			}
			for i := range have {
				if !strings.HasPrefix(have[i], test.want[i]) {
					t.Errorf("error %d is %q, want it to begin with %q", i, have[i], test.want[i])
				}
			}
		})
	}
}

func TestSysctlPath(t *testing.T) {
	tests := map[string]string{
		"net.ipv4.ip_forward":               "net/ipv4/ip_forward",
		"net/ipv4/ip_forward":               "net/ipv4/ip_forward",
		"net/ipv4/conf/eth0.100/forwarding": "net/ipv4/conf/eth0.100/forwarding",
		"net.ipv4.conf.eth0/100.forwarding": "net/ipv4/conf/eth0.100/forwarding",
		"kernel/domainname":                 "kernel/domainname",
		"/net/ipv4/ip_forward":              "net/ipv4/ip_forward",
		"net//ipv4/./ip_forward":            "net/ipv4/ip_forward",
		"/../../etc/passwd":                 "etc/passwd",
		"x/../../etc/passwd":                "etc/passwd",
		"panic":                             "panic",
	}
	have := map[string]string{}
	for name := range tests {
		have[name] = sysctlPath(name)
	}
	if diff := cmp.Diff(tests, have); diff != "" {
		t.Errorf("paths (- wanted, + found):\n%s", diff)
	}
}
