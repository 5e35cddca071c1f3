package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
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

// debianModules is a machine of Debian's, with what its kernel has on disk.
func debianModules(release string, more map[string]string) map[string]string {
	files := map[string]string{
		"/proc/sys/kernel/osrelease": release + "\n",
		"/etc/os-release":            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\n",
		"/lib":                       "-> usr/lib",
		"/usr/lib/modules/" + release + "/modules.builtin": "kernel/fs/ext4/ext4.ko\nkernel/net/odd-name.ko\n",
		"/usr/lib/modules/" + release + "/modules.dep": "kernel/fs/overlayfs/overlay.ko:\nkernel/net/bridge/br_netfilter.ko: kernel/net/bridge/bridge.ko kernel/net/802/stp.ko\n" +
			"kernel/net/bridge/bridge.ko.xz: kernel/net/802/stp.ko\nkernel/net/netfilter/nf_conntrack.ko.zst:\n" +
			"kernel/net/netfilter/ipvs/ip_vs.ko: x.ko\nkernel/net/netfilter/ipvs/ip_vs_rr.ko:\nkernel/net/netfilter/ipvs/ip_vs_wrr.ko:\nkernel/net/netfilter/ipvs/ip_vs_sh.ko:\n",
		"/usr/lib/modules/" + release + "/modules.alias": "# Aliases\nalias ip_conntrack nf_conntrack\nalias pci:v00001d6Ad* atlantic\nalias fs-ext3 ext4\n",
	}
	maps.Copy(files, more)
	return files
}

func TestModulesConverges(t *testing.T) {
	h := machine(t, debianModules("6.1.0-9", map[string]string{"/sys/module/overlay/initstate": "live\n"}))
	ran := modprobes(t, h, "br_netfilter", "nf_conntrack", "bridge")
	s := Modules(h, false, []string{"nf-conntrack", "bridge", "odd_name", "br-netfilter", "ip-conntrack", "fs-ext3"})
	wantChanges(t, s,
		`module br_netfilter: "not loaded" → "loaded"`,
		`module nf_conntrack: "not loaded" → "loaded"`,
		`module bridge: "not loaded" → "loaded"`,
		`module ip-conntrack: "not loaded" → "loaded"`,
		`/etc/modules-load.d/nodeagent.conf: "missing" → "overlay, br_netfilter, nf_conntrack, bridge, odd_name, ip-conntrack, fs-ext3"`,
	)
	steptest.Converges(t, h, s)
	want := []string{"/sbin/modprobe modprobe -- br_netfilter", "/sbin/modprobe modprobe -- nf_conntrack", "/sbin/modprobe modprobe -- bridge"}
	if diff := cmp.Diff(want, *ran); diff != "" {
		t.Errorf("commands (- wanted, + run):\n%s", diff)
	}
	text := owned + "overlay\nbr_netfilter\nnf_conntrack\nbridge\nodd_name\nip-conntrack\nfs-ext3\n"
	if diff := cmp.Diff(text, read(t, h, modulesPath)); diff != "" {
		t.Errorf("file (- wanted, + found):\n%s", diff)
	}
}

func TestModulesForIPVS(t *testing.T) {
	h := machine(t, debianModules("6.1.0-9", nil))
	modprobes(t, h, "overlay", "br_netfilter", "nf_conntrack", "ip_vs", "ip_vs_rr", "ip_vs_wrr", "ip_vs_sh")
	s := Modules(h, true, []string{"ip-vs"})
	steptest.Converges(t, h, s)
	want := owned + "overlay\nbr_netfilter\nnf_conntrack\nip_vs\nip_vs_rr\nip_vs_wrr\nip_vs_sh\n"
	if diff := cmp.Diff(want, read(t, h, modulesPath)); diff != "" {
		t.Errorf("file (- wanted, + found):\n%s", diff)
	}
}

func TestModulesConvergesInAnImage(t *testing.T) {
	h := image(t, map[string]string{modulesPath: "# mine\n\noverlay\n", "/etc/modprobe.d/x.conf": "install overlay /bin/false\n"})
	s := Modules(h, false, nil)
	finding := `!module overlay now and at boot: "hindered by \"install overlay /bin/false\" in /etc/modprobe.d/x.conf line 1" → "remove that"`
	wantChanges(t, s, finding, modulesPath+`: "overlay" → "overlay, br_netfilter, nf_conntrack"`)
	steptest.Converges(t, h, s)
	wantChanges(t, s, finding)
}

// Such a kernel has neither directories nor lists of modules.
func TestModulesOfAKernelMadeWithoutAny(t *testing.T) {
	h := machine(t, freshSysctls(map[string]string{
		"/proc/sys/kernel/osrelease": "6.18.1-custom\n", "/proc/filesystems": "nodev\tproc\n\text4\nnodev\toverlay\n",
		"/proc/sys/net/netfilter/nf_conntrack_max": "262144\n", "/proc/net/ip_vs": "IP Virtual Server\n",
	}))
	s := Modules(h, false, []string{"ip_vs"})
	wantChanges(t, s, modulesPath+`: "missing" → "overlay, br_netfilter, nf_conntrack, ip_vs"`)
	steptest.Converges(t, h, s)
}

func TestModulesThatCannotBeLoaded(t *testing.T) {
	const ubuntu = "NAME=\"Ubuntu\"\nID=ubuntu\nID_LIKE=debian\n"
	lists := func(release string) map[string]string {
		return map[string]string{"/proc/sys/kernel/osrelease": release, "/lib/modules/" + release + "/modules.dep": "kernel/overlay.ko:\n"}
	}
	on := func(release, system string) map[string]string {
		files := lists(release)
		files["/etc/os-release"] = system
		return files
	}
	tests := map[string]struct {
		files map[string]string
		words string
	}{
		"ubuntu":         {on("6.8.0-31-generic", ubuntu), "apt-get install linux-modules-extra-6.8.0-31-generic"},
		"debian's cloud": {on("6.1.0-18-cloud-amd64", "ID=debian\n"), "the cloud kernel leaves it out: apt-get install linux-image-amd64, and reboot into that kernel"},
		"debian":         {on("6.1.0-18-arm64", "ID=\"debian\"\n"), "apt-get install --reinstall linux-image-6.1.0-18-arm64"},
		"like debian":    {on("6.1.0-18-cloud-arm64", "ID=mine\nID_LIKE='other debian'\n"), "apt-get install linux-image-arm64,"},
		"elsewhere":      {on("6.9.9", "ID=fedora\n"), "install the package with the modules of kernel 6.9.9"},
		"no os-release":  {lists("6.9.9"), "install the package with the modules of kernel 6.9.9"},
		"kernel is gone": {map[string]string{"/proc/sys/kernel/osrelease": "6.1.0-9", "/lib/modules/6.1.0-10/modules.dep": ""}, "6.1.0-9 has no modules on disk: reboot"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			h := machine(t, test.files)
			modprobes(t, h, "overlay")
			s := Modules(h, false, nil)
			changes, err := s.Check(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if c := changes[1]; c.Have != "not loaded, and not on disk" || !strings.Contains(c.Want, test.words) || c.Manual {
				t.Errorf("check says %v, want it to say %q", c, test.words)
			}
			err = s.Apply(t.Context())
			wantError(t, err, test.words, "load module br_netfilter: ", "FATAL: Module br_netfilter not found")
			var command *host.CommandError
			if !errors.As(err, &command) {
				t.Errorf("%v hides the command's error", err)
			}
		})
	}
	t.Run("no modprobe", func(t *testing.T) {
		h := machine(t, debianModules("6.1.0-9", nil))
		h.Exec = func(_ context.Context, c host.Command) ([]byte, error) {
			return nil, fmt.Errorf("run %s: %w", c, fs.ErrNotExist)
		}
		wantError(t, Modules(h, false, nil).Apply(t.Context()), "load module overlay: run modprobe", "install the package kmod")
	})
	t.Run("loading is switched off", func(t *testing.T) {
		h := machine(t, debianModules("6.1.0-9", map[string]string{"/proc/sys/kernel/modules_disabled": "1\n"}))
		modprobes(t, h)
		wantError(t, Modules(h, false, nil).Apply(t.Context()), "load module overlay: ", "kernel.modules_disabled is 1")
	})
	t.Run("on disk and broken", func(t *testing.T) {
		h := machine(t, debianModules("6.1.0-9", nil))
		modprobes(t, h)
		err := Modules(h, false, nil).Apply(t.Context())
		wantError(t, err, "load module overlay: ")
		if strings.Contains(err.Error(), "apt-get") {
			t.Errorf("%v names a package, and the module is there", err)
		}
	})
}

func TestModulesThatAreHindered(t *testing.T) {
	const module = "br_netfilter"
	tests := map[string]struct {
		path, text string
		finding    string // "" for none
		fails      bool   // to load it now
	}{
		"blacklist":     {"/etc/modprobe.d/x.conf", "# no\nblacklist br-netfilter\n", `at boot: "hindered by \"blacklist br-netfilter\" in /etc/modprobe.d/x.conf line 2"`, false},
		"install true":  {"/usr/lib/modprobe.d/x.conf", "install br_netfilter /bin/true\n", `now and at boot: "hindered by \"install br_netfilter /bin/true\" in /usr/lib/modprobe.d/x.conf line 1"`, true},
		"install false": {"/run/modprobe.d/x.conf", "\n\tinstall \\\n br_netfilter  /bin/false", `now and at boot: "hindered by \"install br_netfilter /bin/false\" in /run/modprobe.d/x.conf line 2"`, true},
		"install globs": {"/etc/modprobe.d/x.conf", "install br-* /usr/bin/false\n", `now and at boot: "hindered by \"install br-* /usr/bin/false\" in /etc/modprobe.d/x.conf line 1"`, true},
		"alias off":     {"/lib/modprobe.d/x.conf", "alias br_netfilter off\n", `now and at boot: "hindered by \"alias br_netfilter off\" in /lib/modprobe.d/x.conf line 1"`, true},
		"kernel":        {"/proc/cmdline", "quiet module_blacklist=a,br_netfilter x\n", `now and at boot: "hindered by \"module_blacklist=a,br_netfilter\" in the kernel's command line"`, true},
		"kmod":          {"/proc/cmdline", "modprobe.blacklist=br_netfilter", `at boot: "hindered by \"modprobe.blacklist=br_netfilter\" in the kernel's command line"`, false},
		"an install that loads it": {"/etc/modprobe.d/x.conf",
			"install br_netfilter /sbin/modprobe --ignore-install br_netfilter && /sbin/sysctl -q -p\n", "", false},
		"another's":        {"/etc/modprobe.d/x.conf", "blacklist br_netfilter2\ninstall bridge /bin/true\nalias other off\noptions br_netfilter a=1\nsoftdep br_netfilter pre: x\n", "", false},
		"a glob for names": {"/etc/modprobe.d/x.conf", "blacklist br_*\n", "", false},
		"a comment":        {"/etc/modprobe.d/x.conf", "#blacklist br_netfilter\n", "", false},
		"not .conf":        {"/etc/modprobe.d/x.conf.dpkg-old", "blacklist br_netfilter\n", "", false},
		"too short":        {"/etc/modprobe.d/x.conf", "blacklist\ninstall br_netfilter\nalias br_netfilter\n\\\n", "", false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			files := debianModules("6.1.0-9", nil)
			if strings.HasPrefix(test.path, "/lib/") {
				delete(files, "/lib") // a system whose /usr is its own
				maps.Copy(files, map[string]string{"/lib/modules/6.1.0-9/modules.dep": files["/usr/lib/modules/6.1.0-9/modules.dep"]})
			}
			files[test.path] = test.text
			h := machine(t, files)
			known := []string{"overlay", "nf_conntrack", module}
			modprobes(t, h, known...)
			real := h.Exec
			h.Exec = func(ctx context.Context, c host.Command) ([]byte, error) {
				if test.fails && c.Args[1] == module {
					return nil, nil // as modprobe does where it is told to do nothing
				}
				return real(ctx, c)
			}
			s := Modules(h, false, nil)
			var want []string
			if test.finding != "" {
				want = []string{"!module " + module + " " + test.finding + ` → "remove that"`}
			}
			if test.fails {
				wantError(t, s.Apply(t.Context()), "load module br_netfilter: ", "modprobe succeeds and it is not there", "it is hindered by ")
				want = append([]string{`module br_netfilter: "not loaded" → "loaded"`}, want...)
				want = append(want, `module nf_conntrack: "not loaded" → "loaded"`)
			} else {
				steptest.Converges(t, h, s)
			}
			wantChanges(t, s, want...)
		})
	}
	t.Run("built in", func(t *testing.T) {
		h := machine(t, debianModules("6.1.0-9", map[string]string{"/etc/modprobe.d/x.conf": "install odd_name /bin/false\n"}))
		modprobes(t, h, "overlay", "br_netfilter", "nf_conntrack")
		s := Modules(h, false, []string{"odd-name"})
		steptest.Converges(t, h, s)
		wantChanges(t, s)
	})
	t.Run("under another name", func(t *testing.T) {
		h := machine(t, debianModules("6.1.0-9", map[string]string{"/etc/modprobe.d/x.conf": "\nblacklist nf-conntrack\n"}))
		modprobes(t, h, "overlay", "br_netfilter", "nf_conntrack")
		s := Modules(h, false, []string{"ip-conntrack"})
		steptest.Converges(t, h, s)
		const by = ` at boot: "hindered by \"blacklist nf-conntrack\" in /etc/modprobe.d/x.conf line 2" → "remove that"`
		wantChanges(t, s, "!module nf_conntrack"+by, "!module ip-conntrack"+by)
	})
	t.Run("hidden by its namesake", func(t *testing.T) {
		h := machine(t, debianModules("6.1.0-9", map[string]string{
			"/usr/lib/modprobe.d/x.conf": "blacklist overlay\n", "/etc/modprobe.d/x.conf": "-> /dev/null",
		}))
		modprobes(t, h, "overlay", "br_netfilter", "nf_conntrack")
		s := Modules(h, false, nil)
		steptest.Converges(t, h, s)
		wantChanges(t, s)
	})
}

func TestModulesWithoutAKernelToAsk(t *testing.T) {
	_, err := Modules(machine(t, nil), false, nil).Check(t.Context())
	wantError(t, err, "read kernel release", "/proc/sys/kernel/osrelease")
}

func TestModulesCancelled(t *testing.T) {
	h := machine(t, debianModules("6.1.0-9", nil))
	ctx, cancel := context.WithCancel(t.Context())
	h.Exec = func(ctx context.Context, _ host.Command) ([]byte, error) { cancel(); return nil, context.Cause(ctx) }
	if err := Modules(h, false, nil).Apply(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("apply: %v, want it cancelled", err)
	}
}

func FuzzParseModules(f *testing.F) {
	f.Add([]byte("kernel/fs/overlayfs/overlay.ko\nkernel/net/odd-name.ko.xz: a.ko b.ko\r\n\n/\n.ko\nalias a-b c\nalias x* y\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, name := range parseModules(data) {
			if name == "" || strings.ContainsAny(name, "-/\n") {
				t.Errorf("%q is no module name", name)
			}
		}
		for alias, names := range parseAliases(data) {
			if alias == "" || len(names) == 0 || strings.ContainsAny(alias, "-* \n") || slices.Contains(names, "") {
				t.Errorf("%q is an alias of %q", alias, names)
			}
		}
	})
}

func FuzzModprobe(f *testing.F) {
	for _, seed := range []string{"", "blacklist a\n", "install a\\\n \\\n /bin/true", "\\\n#\nalias a off\r\n", "install [ /bin/true\ninstall a* :"} {
		f.Add([]byte(seed), "a")
	}
	f.Fuzz(func(t *testing.T, data []byte, module string) {
		lines := modprobeLines(data)
		last := 0
		for _, l := range lines {
			if l.number <= last || strings.ContainsRune(l.text, '\n') {
				t.Errorf("%+v after line %d", l, last)
			}
			last = l.number
		}
		if bans := modprobeBans([]confFile{{"f", data}}, module); len(bans) > len(lines) {
			t.Errorf("%d bans in %d lines", len(bans), len(lines))
		}
		for _, b := range cmdlineBans(string(data), module) {
			if !strings.Contains(underscored(b.What), underscored(module)) {
				t.Errorf("%+v does not name %q", b, module)
			}
		}
	})
}
