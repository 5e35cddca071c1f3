package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// kernelModules is what the running kernel has of modules on disk. It is empty for a kernel
// that was made without any, and for a tree that is no machine's.
type kernelModules struct {
	release string
	dir     bool                // /lib/modules has a directory for it
	builtin []string            // part of the kernel itself
	files   []string            // that can be loaded
	alias   map[string][]string // another name of modules → theirs
	systems []string            // the file systems that it knows, most of them named as their modules
}

func (m modules) kernel() (k kernelModules, err error) {
	if m.h.Offline {
		return k, nil
	}
	release, err := m.h.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return k, fmt.Errorf("read kernel release: %w", err)
	}
	k.release = strings.TrimSpace(string(release))
	dir := "/lib/modules/" + k.release
	if k.dir, err = m.h.Exists(dir); err != nil {
		return k, fmt.Errorf("list modules: %w", err)
	}
	list := func(name string) []byte {
		data, readErr := m.h.ReadFile(path.Join(dir, name))
		if readErr != nil && !errors.Is(readErr, fs.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("list modules: %w", readErr))
		}
		return data
	}
	k.builtin, k.files = parseModules(list("modules.builtin")), parseModules(list("modules.dep"))
	// A long list, and seldom needed: the names wanted are those of files.
	if slices.ContainsFunc(m.names, func(name string) bool { return !k.onDisk(name) }) {
		k.alias = parseAliases(list("modules.alias"))
	}
	systems, readErr := m.h.ReadFile("/proc/filesystems")
	if readErr != nil && !errors.Is(readErr, fs.ErrNotExist) {
		err = errors.Join(err, fmt.Errorf("list file systems: %w", readErr))
	}
	k.systems = strings.Fields(string(systems))
	return k, err
}

// onDisk says whether modprobe will find a module, as far as can be told without patterns, and
// where depmod has made its list.
func (k kernelModules) onDisk(name string) bool {
	name = underscored(name)
	return k.dir && len(k.files) == 0 || slices.Contains(k.files, name) || slices.Contains(k.builtin, name) || len(k.alias[name]) > 0
}

// parseModules reads modules.builtin and modules.dep: lines such as
// "kernel/fs/overlayfs/overlay.ko.xz: kernel/lib/other.ko.xz".
func parseModules(data []byte) []string {
	var names []string
	for line := range bytes.Lines(data) {
		file, _, _ := strings.Cut(string(line), ":")
		name, _, ok := strings.Cut(path.Base(strings.TrimSpace(file)), ".ko")
		if ok && name != "" {
			names = append(names, underscored(name))
		}
	}
	return names
}

// parseAliases reads modules.alias: lines such as "alias ip_conntrack nf_conntrack". Patterns
// of hardware are nobody's name for a module.
func parseAliases(data []byte) map[string][]string {
	aliases := map[string][]string{}
	for line := range bytes.Lines(data) {
		f := strings.Fields(string(line))
		if len(f) == 3 && f[0] == "alias" && !strings.ContainsAny(f[1], "*?[:") {
			aliases[underscored(f[1])] = append(aliases[underscored(f[1])], underscored(f[2]))
		}
	}
	return aliases
}

// moduleShows is what shows that a kernel has a module where /sys/module does not: a built-in
// one without parameters leaves nothing there, a kernel made without modules has no list of
// those built in, and a container may have no /sys/module at all.
var moduleShows = map[string]string{
	"br_netfilter": procSys + "net/bridge/bridge-nf-call-iptables",
	"nf_conntrack": procSys + "net/netfilter/nf_conntrack_max",
	"ip_vs":        "/proc/net/ip_vs",
}

// has says whether the running kernel has a module, loaded or built in.
func (m modules) has(k kernelModules, name string) (bool, error) {
	if m.h.Offline {
		return false, nil
	}
	for _, n := range append([]string{underscored(name)}, k.alias[underscored(name)]...) {
		if slices.Contains(k.builtin, n) || slices.Contains(k.systems, n) {
			return true, nil
		}
		there, err := m.h.Exists("/sys/module/" + n)
		if shows, known := moduleShows[n]; err == nil && !there && known {
			there, err = m.h.Exists(shows)
		}
		if err != nil {
			return false, fmt.Errorf("check module %s: %w", name, err)
		}
		if there {
			return true, nil
		}
	}
	return false, nil
}

// remedy is what mends a module that is not on disk.
func (m modules) remedy(k kernelModules) string {
	system, err := m.h.ReadFile("/etc/os-release")
	if err != nil {
		system = nil // then it is the words for any system
	}
	flavor := k.release[strings.LastIndex(k.release, "-")+1:] // Debian's: the architecture
	switch {
	case !k.dir:
		return fmt.Sprintf("the running kernel %s has no modules on disk: reboot into the kernel that is installed", k.release)
	case like(string(system), "ubuntu"):
		return "apt-get install linux-modules-extra-" + k.release + ", or remove it from kernel.modules if the name is wrong"
	case like(string(system), "debian") && strings.Contains(k.release, "-cloud-"):
		return fmt.Sprintf("the cloud kernel leaves it out: apt-get install linux-image-%s, and reboot into that kernel", flavor)
	case like(string(system), "debian"):
		return "apt-get install --reinstall linux-image-" + k.release + ", or remove it from kernel.modules if the name is wrong"
	}
	return fmt.Sprintf("install the package with the modules of kernel %s", k.release)
}

// like says whether os-release describes a system, or one made from it.
func like(osRelease, system string) bool {
	for line := range strings.Lines(osRelease) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if (key == "ID" || key == "ID_LIKE") && slices.Contains(strings.Fields(strings.Trim(value, `"'`)), system) {
			return true
		}
	}
	return false
}
