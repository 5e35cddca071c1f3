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
