package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
)

const (
	modulesPath = "/etc/modules-load.d/nodeagent.conf"
	modprobe    = "/sbin/modprobe"
	modulesStep = "kernel/modules"
)

// Modules returns the step "kernel/modules": overlay, br_netfilter and the extra ones are in
// the kernel now, loaded or built in, and are loaded at boot.
func Modules(h *host.Host, extra []string) step.Step {
	m := modules{h: h}
	for _, name := range append([]string{"overlay", "br_netfilter"}, extra...) {
		if !slices.ContainsFunc(m.names, func(n string) bool { return underscored(n) == underscored(name) }) {
			m.names = append(m.names, name)
		}
	}
	return step.Step{Name: modulesStep, Check: m.check, Apply: m.apply}
}

type modules struct {
	h     *host.Host
	names []string
}

// underscored is a module's name as the kernel shows it: modprobe takes either.
func underscored(name string) string { return strings.ReplaceAll(name, "-", "_") }

func (m modules) file() string { return owned + strings.Join(m.names, "\n") + "\n" }

func (m modules) check(context.Context) ([]step.Change, error) {
	missing, err := m.missing()
	if err != nil {
		return nil, err
	}
	var changes []step.Change
	for _, name := range missing {
		changes = append(changes, step.Change{Subject: "module " + name, Have: "not loaded", Want: "loaded"})
	}
	file, err := checkFile(m.h, modulesPath, m.file())
	return append(changes, file...), err
}

func (m modules) apply(ctx context.Context) error {
	if err := m.h.WriteFile(modulesPath, []byte(m.file()), ownedMode); err != nil {
		return err
	}
	missing, err := m.missing()
	if err != nil {
		return err
	}
	for _, name := range missing {
		if _, err := m.h.Run(ctx, modprobe, "--", name); err != nil {
			return fmt.Errorf("load module %s: %w%s", name, err, m.hint())
		}
	}
	return nil
}

// missing are the modules that the running kernel has neither loaded nor built in.
func (m modules) missing() ([]string, error) {
	if m.h.Offline {
		return nil, nil
	}
	builtin, err := m.builtin()
	if err != nil {
		return nil, err
	}
	var missing []string
	for _, name := range m.names {
		loaded, err := m.loaded(underscored(name))
		if err != nil {
			return nil, fmt.Errorf("check module %s: %w", name, err)
		}
		if !loaded && !slices.Contains(builtin, underscored(name)) {
			missing = append(missing, name)
		}
	}
	return missing, nil
}

// loaded looks for what a module leaves in the running kernel. A built-in one without
// parameters leaves nothing in /sys/module, and a kernel made without modules has no list of
// those built in; br_netfilter is then known by its sysctls.
func (m modules) loaded(name string) (bool, error) {
	there, err := m.h.Exists("/sys/module/" + name)
	if err == nil && !there && name == "br_netfilter" {
		return m.h.Exists(procSys + "net/bridge/bridge-nf-call-iptables")
	}
	return there, err
}

// builtin lists the modules that are part of the running kernel. A kernel without that list
// (a container's host, a kernel made by hand) has none that we know of.
func (m modules) builtin() ([]string, error) {
	release, err := m.release()
	if err != nil {
		return nil, err
	}
	data, err := m.h.ReadFile("/lib/modules/" + release + "/modules.builtin")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list built-in modules: %w", err)
	}
	return parseBuiltin(data), nil
}

// parseBuiltin reads modules.builtin: lines such as "kernel/fs/overlayfs/overlay.ko".
func parseBuiltin(data []byte) []string {
	var names []string
	for line := range bytes.Lines(data) {
		name, _, ok := strings.Cut(path.Base(strings.TrimSpace(string(line))), ".ko")
		if ok && name != "" {
			names = append(names, underscored(name))
		}
	}
	return names
}

func (m modules) release() (string, error) {
	data, err := m.h.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "", fmt.Errorf("read kernel release: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// hint is what usually stands behind a module that modprobe does not find.
func (m modules) hint() string {
	release, err := m.release()
	if err != nil {
		return ""
	}
	if there, err := m.h.Exists("/lib/modules/" + release); err == nil && !there {
		return fmt.Sprintf(": the running kernel %s has no modules on disk: reboot into the kernel that is installed", release)
	}
	return fmt.Sprintf(": if the module is missing, on Ubuntu the package linux-modules-extra-%s may have it", release)
}
