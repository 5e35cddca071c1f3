package kernel

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeagent/nodeagent/pkg/step/steptest"
)

// debianSysctls is what Debian 12's kernel shows after boot, br_netfilter loaded.
func debianSysctls(more map[string]string) map[string]string {
	files := freshSysctls(map[string]string{
		"/proc/sys/vm/overcommit_memory":          "0\n",
		"/proc/sys/vm/panic_on_oom":               "0\n",
		"/proc/sys/kernel/panic":                  "0\n",
		"/proc/sys/kernel/panic_on_oops":          "0\n",
		"/proc/sys/kernel/keys/root_maxkeys":      "1000000\n",
		"/proc/sys/kernel/keys/root_maxbytes":     "25000000\n",
		"/proc/sys/fs/inotify/max_user_instances": "128\n",
		"/proc/sys/fs/inotify/max_user_watches":   "29218\n",
		"/proc/sys/net/ipv6/conf/all/forwarding":  "0\n",
	})
	maps.Copy(files, more)
	return files
}

func TestSysctlsOfAFreshDebian(t *testing.T) {
	h := machine(t, debianSysctls(nil))
	s := Sysctls(h, true, nil)
	wantChanges(t, s,
		`net.bridge.bridge-nf-call-ip6tables: "0" → "1"`,
		`net.ipv4.ip_forward: "0" → "1"`,
		`net.ipv6.conf.all.forwarding: "0" → "1"`,
		`vm.overcommit_memory: "0" → "1"`,
		`kernel.panic: "0" → "10"`,
		`kernel.panic_on_oops: "0" → "1"`,
		`fs.inotify.max_user_instances: "128" → "8192"`,
		`fs.inotify.max_user_watches: "29218" → "524288"`,
		sysctlFile+`: "missing" → "`+needed+", net.ipv6.conf.all.forwarding = 1, "+protected+", "+limits+`"`,
	)
	steptest.Converges(t, h, s)
	for path, want := range map[string]string{"kernel/panic": "10", "fs/inotify/max_user_watches": "524288", "net/ipv6/conf/all/forwarding": "1"} {
		if have := read(t, h, procSys+path); have != want {
			t.Errorf("%s is %q, want %q", path, have, want)
		}
	}
}

func TestSysctlsNeverLowerALimit(t *testing.T) {
	const watches = "fs.inotify.max_user_watches"
	live := func(value string) map[string]string {
		return debianSysctls(map[string]string{"/proc/sys/fs/inotify/max_user_watches": value + "\n"})
	}
	with := func(files map[string]string, path, text string) map[string]string { files[path] = text; return files }
	tests := map[string]struct {
		files        map[string]string
		extra        []Sysctl
		file, kernel string
	}{
		"the kernel has more":       {live("1048576"), nil, "1048576", "1048576"},
		"an earlier file sets more": {with(live("1048576"), "/etc/sysctl.d/10-x.conf", watches+"=2000000"), nil, "2000000", "1048576"},
		"an earlier file sets more, not yet": {
			with(live("8192"), "/etc/sysctl.d/10-x.conf", watches+"=2000000"), nil, "2000000", "2000000"},
		"a later file sets more":            {with(live("2000000"), "/etc/sysctl.d/99-x.conf", watches+"=2000000"), nil, "2000000", "2000000"},
		"an earlier glob sets more":         {with(live("8192"), "/etc/sysctl.d/10-x.conf", "fs.inotify.*=600000"), nil, "600000", "600000"},
		"an earlier file sets less":         {with(live("8192"), "/etc/sysctl.d/10-x.conf", watches+"=100"), nil, "524288", "524288"},
		"ours has more":                     {with(live("8192"), sysctlFile, "-"+watches+" = 700000\n"), nil, "700000", "700000"},
		"ours has less":                     {with(live("8192"), sysctlFile, "-"+watches+" = 7\n"), nil, "524288", "524288"},
		"ours has none":                     {with(live("8192"), sysctlFile, "-"+watches+" = many\n"), nil, "524288", "524288"},
		"raised by hand once ours is there": {with(live("999999"), sysctlFile, "-"+watches+" = 524288\n"), nil, "524288", "999999"},
		"the operator wants less":           {live("1048576"), []Sysctl{{watches, "65536"}}, "65536", "65536"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			h := machine(t, test.files)
			s := Sysctls(h, false, test.extra)
			steptest.Converges(t, h, s)
			if have := strings.TrimSpace(read(t, h, "/proc/sys/fs/inotify/max_user_watches")); have != test.kernel {
				t.Errorf("the kernel has %s, want %s", have, test.kernel)
			}
			if have := read(t, h, sysctlFile); !strings.Contains(have, watches+" = "+test.file+"\n") {
				t.Errorf("the file says\n%swant %s", have, test.file)
			}
		})
	}
}

// In a container some sysctls are the machine's: not there, or not to be set.
func TestSysctlsInAContainer(t *testing.T) {
	files := debianSysctls(nil)
	delete(files, "/proc/sys/kernel/keys/root_maxkeys")
	delete(files, "/proc/sys/fs/inotify/max_user_instances")
	h := machine(t, files)
	for _, path := range []string{"kernel/panic", "vm/panic_on_oom", "fs/inotify/max_user_watches"} {
		if err := os.Chmod(filepath.Join(h.Root, procSys, path), 0o444); err != nil {
			t.Fatal(err)
		}
	}
	s := Sysctls(h, false, nil)
	steptest.Converges(t, h, s)
	wantChanges(t, s,
		`!kernel.panic: "0, read-only" → "10: set it on the machine that this container runs on"`,
		`!fs.inotify.max_user_watches: "29218, read-only" → "524288: set it on the machine that this container runs on"`,
	)
	for path, want := range map[string]string{"kernel/panic": "0\n", "fs/inotify/max_user_watches": "29218\n", "kernel/panic_on_oops": "1"} {
		if have := read(t, h, procSys+path); have != want {
			t.Errorf("%s is %q, want %q", path, have, want)
		}
	}
	if there, err := h.Exists("/proc/sys/kernel/keys/root_maxkeys"); there || err != nil {
		t.Errorf("a sysctl was made: %v, %v", there, err)
	}
	// What the operator asks for by name is not left alone.
	for _, name := range []string{"kernel.keys.root_maxkeys", "fs.inotify.max_user_instances"} {
		s := Sysctls(h, false, []Sysctl{{name, "5"}})
		wantError(t, s.Apply(t.Context()), "set sysctl "+name, "not known to this kernel")
	}
}

func TestSysctlsWithoutIPv6(t *testing.T) {
	files := debianSysctls(nil)
	delete(files, "/proc/sys/net/ipv6/conf/all/forwarding")
	h := machine(t, files)
	wantError(t, Sysctls(h, true, nil).Apply(t.Context()), "set sysctl net.ipv6.conf.all.forwarding", "ipv6.disable=1")
	steptest.Converges(t, h, Sysctls(h, false, nil))
}

// A kernel that forwards IPv6 forgets the default route that a router has advertised to it.
func TestSysctlsSayThatForwardingDropsAnAdvertisedRoute(t *testing.T) {
	const (
		zero   = "00000000000000000000000000000000"
		router = "fe80000000000000000000000000beef"
		// As the kernel prints them: learned, set by hand, a learned network, and off loopback.
		learned = zero + " 00 " + zero + " 00 " + router + " 00000400 00000001 00000000 00450003     eth0\n"
		static  = zero + " 00 " + zero + " 00 " + router + " 00000400 00000002 00000000 00000003     eth1\n"
		prefix  = "20010db8000000000000000000000000 40 " + zero + " 00 " + zero + " 00000100 00000001 00000000 00440001     eth2\n"
		reject  = zero + " 00 " + zero + " 00 " + zero + " ffffffff 00000001 00000000 00200200       lo\n"
	)
	finding := `!net/ipv6/conf/eth0/accept_ra: "1, and the default route is from a router's advertisement" → ` +
		`"2: add it to kernel.sysctls, or a host that forwards IPv6 drops that route"`
	tests := map[string]struct {
		accept, routes string
		ipv6           bool
		extra          []Sysctl
		want           []string
	}{
		"learned":          {"1", reject + prefix + learned + learned + static, true, nil, []string{finding}},
		"by userspace":     {"0", learned, true, nil, nil},
		"accepted anyway":  {"2", learned, true, nil, nil},
		"static":           {"1", reject + prefix + static, true, nil, nil},
		"no IPv6 for pods": {"1", learned, false, nil, nil},
		"thought of":       {"1", learned, true, []Sysctl{{"net.ipv6.conf.eth0.accept_ra", "2"}}, []string{}},
		"no forwarding":    {"1", learned, true, []Sysctl{{"net.ipv6.conf.all.forwarding", "0"}}, nil},
		"cut off":          {"1", learned[:40] + "\n" + zero, true, nil, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			files := debianSysctls(map[string]string{"/proc/net/ipv6_route": test.routes})
			for _, name := range []string{"eth0", "eth1", "eth2", "lo"} {
				files["/proc/sys/net/ipv6/conf/"+name+"/accept_ra"] = test.accept + "\n"
			}
			s := Sysctls(machine(t, files), test.ipv6, test.extra)
			changes, err := s.Check(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var have []string
			for _, c := range changes {
				if c.Manual {
					have = append(have, "!"+c.String())
				}
			}
			if diff := cmp.Diff(test.want, have); diff != "" && len(test.want)+len(have) > 0 {
				t.Errorf("findings (- wanted, + found):\n%s", diff)
			}
		})
	}
}

// The kubelet's own are those that the step sets, in any spelling.
func TestKubeletSysctl(t *testing.T) {
	for name, want := range map[string]string{
		"vm.overcommit_memory": "1", "vm/overcommit_memory": "1", "kernel.panic": "10", "kernel/keys/root_maxbytes": "25000000",
		"net.ipv4.ip_forward": "", "vm.swappiness": "", "": "",
	} {
		if got, is := KubeletSysctl(name); got != want || is != (want != "") {
			t.Errorf("%q: %q, %v", name, got, is)
		}
	}
}
