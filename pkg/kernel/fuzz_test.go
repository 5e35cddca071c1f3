package kernel

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func FuzzSwapPath(f *testing.F) {
	for _, seed := range []string{"", "UUID=x", "LABEL=\"a b\"", "LABEL='", "/swap\xff file", "/a/../b", "PARTLABEL=é\\/", "/"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		path := swapPath(spec)
		if path != "" && !filepath.IsAbs(path) {
			t.Errorf("%q becomes %q", spec, path)
		}
		if path != spec && strings.ContainsAny(strings.TrimPrefix(path, "/dev/disk/"), " \t\n\"'") {
			t.Errorf("%q becomes %q, which udev does not write", spec, path)
		}
		name := swapUnitName(path)
		odd := func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune("/\"'", r) }
		if name != "" && (strings.ContainsFunc(name, odd) || len(name) > 255 || !strings.HasSuffix(name, ".swap") || name[0] == '.') {
			t.Errorf("%q is for the unit %q", spec, name)
		}
	})
}

func FuzzSwapThatOthersMake(f *testing.F) {
	for _, seed := range []string{"", "ResourceDisk.Format=y\nResourceDisk.EnableSwap=y\r\n", " ResourceDisk.EnableSwap = \"Y\"#\nResourceDisk.EnableSwap", "a; (swapon -a)\n", "ExecStart=-/sbin/swapon /x"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		lines := slices.Collect(strings.Lines(string(data)))
		if n := waagentSwap(data); n < 0 || n > len(lines) || n > 0 && !strings.Contains(lines[n-1], "ResourceDisk.EnableSwap") {
			t.Errorf("line %d of %q", n, lines)
		}
		for _, line := range lines {
			if runsSwapon(line) && !strings.Contains(line, "swapon") {
				t.Errorf("%q does not run swapon", line)
			}
		}
	})
}

func FuzzKubeletSwap(f *testing.F) {
	for _, seed := range []string{"", "failSwapOn: false\nmemorySwap: {swapBehavior: NoSwap}", "X=\"--fail-swap-on=false\"", "X='--fail-swap-on' --fail-swap-on-x", "a: &a [*a]"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if k, err := parseKubeletSwap(data); err == nil && !slices.Contains([]string{"", "true", "false"}, k.FailSwapOn) {
			t.Errorf("failSwapOn is %q", k.FailSwapOn)
		}
		if value := parseFailSwapOn(string(data)); value != "" && !strings.Contains(string(data), "--fail-swap-on") {
			t.Errorf("the flag is %q", value)
		}
	})
}

func FuzzAdvertisedBy(f *testing.F) {
	f.Add("00 00 00 00 00 00 00 00 00450003 eth0\n00 00 00 00 00 00 00 00 fffffffff lo\n")
	f.Fuzz(func(t *testing.T, routes string) {
		names := advertisedBy(routes)
		for i, name := range names {
			if name == "" || slices.Contains(names[:i], name) || !strings.Contains(routes, name) {
				t.Errorf("%q are the interfaces", names)
			}
		}
	})
}

func FuzzZram(f *testing.F) {
	for _, seed := range []string{"", "[zram0]\n", " [zram12] \r\n#[zram1]\n[zramx]\n[zram0", "zram-size = ram\n[zram0]#"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, device := range zramDevices(data) {
			if !strings.Contains(string(data), "["+device+"]") || swapUnitName("/dev/"+device) != "dev-"+device+".swap" && len(device) < 200 {
				t.Errorf("device %q of %q", device, data)
			}
		}
	})
}

// Whatever the configuration accepts stays in /proc/sys, on one line of sysctl.d, and is one
// word for modprobe.
func FuzzConfig(f *testing.F) {
	for _, seed := range []string{"net.ipv4.ip_forward", "net/ipv4/conf/eth0.100/forwarding", "..", "a/../b", "a.*", "-a.b", "a.b=c", "a..b", "kernel/./x", "\u00e9.x"} {
		f.Add(seed, "1")
		f.Add(seed, "a\n-b.c\n")
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		c := Config{Swap: "keep", Sysctls: []Sysctl{{name, value}}}
		if c.Validate() == nil {
			if path := sysctlPath(name); !filepath.IsLocal(path) || strings.ContainsAny(path, "*?[]\n ") || filepath.Clean(path) != path {
				t.Errorf("%q lies at %q", name, path)
			}
			lines := parseSysctl(confFile{Data: []byte(name + " = " + strings.TrimSpace(value) + "\n")})
			if len(lines) != 1 || lines[0].Path != sysctlPath(name) || lines[0].Value != strings.TrimSpace(value) || lines[0].Exclude {
				t.Errorf("%q = %q is read as %+v", name, value, lines)
			}
		}
		c = Config{Swap: "keep", Modules: []string{name}}
		if c.Validate() == nil && (strings.ContainsAny(name, " \t\n/.#") || name == "" || name[0] == '-') {
			t.Errorf("module %q", name)
		}
	})
}

func FuzzLike(f *testing.F) {
	f.Add("ID=ubuntu\nID_LIKE=\"debian x\"\n", "debian")
	f.Fuzz(func(t *testing.T, data, system string) {
		if like(data, system) && !strings.Contains(data, system) {
			t.Errorf("%q is like %q", data, system)
		}
		if says := summary(data); strings.Contains(says, "\n") || says == "" {
			t.Errorf("%q says %q", data, says)
		}
	})
}
