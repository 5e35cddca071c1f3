package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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

// Modules returns the step "kernel/modules": overlay, br_netfilter, nf_conntrack, for kube-proxy
// in its ipvs mode those of ipvs with its schedulers, and the extra ones are in the kernel now,
// loaded or built in, and are loaded at boot. What hinders one of them, in modprobe.d or on the
// kernel's command line, is a finding.
func Modules(h *host.Host, ipvs bool, extra []string) step.Step {
	names := []string{"overlay", "br_netfilter", "nf_conntrack"}
	if ipvs {
		names = append(names, "ip_vs", "ip_vs_rr", "ip_vs_wrr", "ip_vs_sh")
	}
	m := modules{h: h}
	for _, name := range append(names, extra...) {
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
	kernel, err := m.kernel()
	if err != nil {
		return nil, err
	}
	var changes []step.Change
	for _, name := range m.names {
		there, err := m.has(kernel, name)
		if err != nil {
			return nil, err
		}
		if !there && !m.h.Offline {
			c := step.Change{Subject: "module " + name, Have: "not loaded", Want: "loaded"}
			if !kernel.onDisk(name) {
				c.Have, c.Want = "not loaded, and not on disk", "loaded: "+m.remedy(kernel)
			}
			changes = append(changes, c)
		}
		bans, err := m.bans(kernel, name)
		if err != nil {
			return nil, err
		}
		for _, b := range bans {
			changes = append(changes, b.finding(name))
		}
	}
	file, err := checkFile(m.h, modulesPath, m.file())
	return append(changes, file...), err
}

func (b moduleBan) finding(module string) step.Change {
	when := " at boot"
	if !b.Boot {
		when = " now and at boot"
	}
	return step.Change{
		Subject: "module " + module + when, Have: fmt.Sprintf("hindered by %q in %s", b.What, b.Where), Want: "remove that", Manual: true,
	}
}

func (m modules) apply(ctx context.Context) error {
	if err := m.h.WriteFile(modulesPath, []byte(m.file()), ownedMode); err != nil {
		return err
	}
	if m.h.Offline {
		return nil
	}
	kernel, err := m.kernel()
	if err != nil {
		return err
	}
	for _, name := range m.names {
		there, err := m.has(kernel, name)
		if err != nil {
			return err
		}
		if there {
			continue
		}
		if err := m.load(ctx, kernel, name); err != nil {
			return fmt.Errorf("load module %s: %w", name, err)
		}
	}
	return nil
}

// load runs modprobe, which says nothing and succeeds where the module is hindered: so it is
// looked for afterwards.
func (m modules) load(ctx context.Context, k kernelModules, name string) error {
	_, failed := m.h.Run(ctx, modprobe, "--", name)
	if errors.Is(failed, fs.ErrNotExist) {
		return fmt.Errorf("%w: install the package kmod", failed)
	}
	if failed == nil {
		there, err := m.has(k, name)
		if err != nil || there {
			return err
		}
		failed = errors.New("modprobe succeeds and it is not there")
	}
	bans, err := m.bans(k, name)
	if err != nil {
		return errors.Join(failed, err)
	}
	for _, b := range bans {
		if !b.Boot {
			return fmt.Errorf("%w: it is hindered by %q in %s", failed, b.What, b.Where)
		}
	}
	if ctx.Err() != nil {
		return failed
	}
	switch disabled, err := m.h.ReadFile("/proc/sys/kernel/modules_disabled"); {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return errors.Join(failed, err)
	case strings.TrimSpace(string(disabled)) == "1":
		return fmt.Errorf("%w: the sysctl kernel.modules_disabled is 1, after which only a reboot loads any (it is loaded at boot)", failed)
	case k.onDisk(name):
		return failed
	}
	return fmt.Errorf("%w: %s", failed, m.remedy(k))
}

// bans are what hinders a module, or one that its name stands for. One that is built in needs
// no loading.
func (m modules) bans(k kernelModules, name string) ([]moduleBan, error) {
	if slices.Contains(k.builtin, underscored(name)) {
		return nil, nil
	}
	files, err := confFiles(m.h, modprobeDirs)
	if err != nil {
		return nil, fmt.Errorf("read modprobe.d: %w", err)
	}
	var cmdline []byte
	if !m.h.Offline {
		cmdline, err = m.h.ReadFile("/proc/cmdline")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read kernel command line: %w", err)
		}
	}
	var bans []moduleBan
	for _, n := range append([]string{name}, k.alias[underscored(name)]...) {
		bans = append(append(bans, modprobeBans(files, n)...), cmdlineBans(string(cmdline), n)...)
	}
	return bans, nil
}
