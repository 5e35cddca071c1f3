package kernel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
)

const (
	sysctlFile = "/etc/sysctl.d/90-nodeagent.conf"
	sysctlConf = "/etc/sysctl.conf"
	procSys    = "/proc/sys/"
)

// wanted is a sysctl and how much it is wanted.
type wanted struct {
	Sysctl
	// AtLeast says that the value is a limit's least: a higher one that is there stays.
	AtLeast bool
	// Optional says that a node works without it: where the kernel does not have it, or does
	// not let it be set (in a container), it is left alone.
	Optional bool
}

// Sysctls returns the step "kernel/sysctl": bridged traffic passes iptables, IPv4 is forwarded
// and, for pods or services with IPv6, IPv6 too, the kernel is as kubelet's
// protectKernelDefaults demands, inotify has room for a node's pods, and the extra ones are
// set, now and at boot. Of a name that is in both, the extra one holds. A file of somebody else
// that wins over ours is a finding.
//
// Without br_netfilter the kernel has no net.bridge, so Check is blocked on kernel/modules.
func Sysctls(h *host.Host, ipv6 bool, extra []Sysctl) step.Step {
	base := []wanted{
		{Sysctl: Sysctl{"net.bridge.bridge-nf-call-iptables", "1"}},
		{Sysctl: Sysctl{"net.bridge.bridge-nf-call-ip6tables", "1"}},
		{Sysctl: Sysctl{"net.ipv4.ip_forward", "1"}},
	}
	if ipv6 {
		base = append(base, wanted{Sysctl: Sysctl{ipv6Forwarding, "1"}})
	}
	for _, s := range kubeletSysctls {
		base = append(base, wanted{Sysctl: s, Optional: true})
	}
	base = append(base,
		wanted{Sysctl: Sysctl{"fs.inotify.max_user_instances", "8192"}, Optional: true, AtLeast: true},
		wanted{Sysctl: Sysctl{"fs.inotify.max_user_watches", "524288"}, Optional: true, AtLeast: true},
	)
	s := sysctls{h: h, want: merge(base, extra)}
	return step.Step{Name: "kernel/sysctl", Check: s.check, Apply: s.apply}
}

// kubeletSysctls are those that kubelet compares for equality; root_maxbytes is 25 for each key.
var kubeletSysctls = []Sysctl{
	{"vm.overcommit_memory", "1"},
	{"vm.panic_on_oom", "0"},
	{"kernel.panic", "10"},
	{"kernel.panic_on_oops", "1"},
	{"kernel.keys.root_maxkeys", "1000000"},
	{"kernel.keys.root_maxbytes", "25000000"},
}

// KubeletSysctl is the value without which a kubelet that has protectKernelDefaults does not
// start, and whether name, in any spelling of sysctl.d(5), is of a variable that has one.
func KubeletSysctl(name string) (value string, is bool) {
	for _, s := range kubeletSysctls {
		if variable(s.Name) == variable(name) {
			return s.Value, true
		}
	}
	return "", false
}

// merge is base with extra: a value in its place where the name is there, else at the end.
func merge(base []wanted, extra []Sysctl) []wanted {
	out := slices.Clone(base)
	for _, s := range extra {
		same := func(w wanted) bool { return variable(w.Name) == variable(s.Name) }
		if i := slices.IndexFunc(out, same); i >= 0 {
			out[i] = wanted{Sysctl: s}
		} else {
			out = append(out, wanted{Sysctl: s})
		}
	}
	return out
}

// variable is the path of a sysctl, one for the several names of one variable of the kernel.
func variable(name string) string {
	path := sysctlPath(name)
	return min(path, cmp.Or(sysctlAlias[path], path))
}

type sysctls struct {
	h    *host.Host
	want []wanted
}

func (s sysctls) check(context.Context) ([]step.Change, error) {
	boot, err := s.boot()
	if err != nil {
		return nil, fmt.Errorf("read sysctl.d: %w", err)
	}
	changes, err := s.checkLive(boot)
	if err != nil {
		return nil, err
	}
	file, err := checkFile(s.h, sysctlFile, boot.file)
	if err != nil {
		return nil, err
	}
	overrides, err := s.overrides(boot)
	return append(append(changes, file...), overrides...), err
}

func (s sysctls) checkLive(boot sysctlBoot) ([]step.Change, error) {
	if s.h.Offline {
		return nil, nil
	}
	bridge, err := s.h.Exists(procSys + "net/bridge")
	if err != nil {
		return nil, fmt.Errorf("check sysctl net.bridge: %w", err)
	}
	if !bridge {
		return nil, step.Blocked{On: modulesStep}
	}
	var changes []step.Change
	for _, w := range s.want {
		have, err := s.live(w.Name)
		switch {
		case errors.Is(err, fs.ErrNotExist) && w.Optional:
			continue
		case errors.Is(err, fs.ErrNotExist):
			have = "not known to this kernel"
		case err != nil:
			return nil, fmt.Errorf("read sysctl %s: %w", w.Name, err)
		}
		if w.holds(have) {
			continue
		}
		c := step.Change{Subject: w.Name, Have: have, Want: boot.value[w.Name]}
		if w.Optional && s.readOnly(w.Name) {
			c.Have, c.Want, c.Manual = have+", read-only", c.Want+": set it on the machine that this container runs on", true
		}
		changes = append(changes, c)
	}
	advertised, err := s.advertised()
	return append(changes, advertised...), err
}

// holds says whether a value is the one wanted.
func (w wanted) holds(value string) bool {
	if w.AtLeast {
		have, ok := number(value)
		least, _ := number(w.Value)
		return ok && have >= least
	}
	return sameValue(value, w.Value)
}

func number(value string) (int64, bool) {
	n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
	return n, err == nil
}

func (s sysctls) live(name string) (string, error) {
	data, err := s.h.ReadFile(procSys + sysctlPath(name))
	return strings.TrimSpace(string(data)), err
}

// readOnly says that nobody here can set a sysctl: /proc/sys is mounted read-only, as in a
// container, or the kernel's own root is another one.
func (s sysctls) readOnly(name string) bool {
	path := procSys + sysctlPath(name)
	info, err := s.h.Stat(path)
	if err != nil || info.Mode().Perm()&0o222 == 0 {
		return err == nil
	}
	real, err := s.h.Path(path)
	if err != nil {
		return false
	}
	err = unix.Access(real, unix.W_OK)
	return errors.Is(err, unix.EROFS) || os.Geteuid() == 0 && errors.Is(err, fs.ErrPermission)
}

// apply writes the file first: after a crash the next boot sets what was not set. Each value is
// read just before it is written, since setting ip_forward resets others, which come after it.
func (s sysctls) apply(ctx context.Context) error {
	boot, err := s.boot()
	if err != nil {
		return fmt.Errorf("read sysctl.d: %w", err)
	}
	if err := s.h.WriteFile(sysctlFile, []byte(boot.file), ownedMode); err != nil {
		return err
	}
	if s.h.Offline {
		return nil
	}
	for _, w := range s.want {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if err := s.set(w, boot.value[w.Name]); err != nil {
			return fmt.Errorf("set sysctl %s: %w", w.Name, err)
		}
	}
	return nil
}

func (s sysctls) set(w wanted, value string) error {
	have, err := s.live(w.Name)
	if errors.Is(err, fs.ErrNotExist) {
		if w.Optional {
			return nil
		}
		return unknown(w.Name)
	}
	if err != nil {
		return err
	}
	if w.holds(have) || w.Optional && s.readOnly(w.Name) {
		return nil
	}
	return s.h.WriteKernel(procSys+sysctlPath(w.Name), strings.TrimSpace(value))
}

func unknown(name string) error {
	if name == ipv6Forwarding {
		return errors.New("this kernel runs without IPv6: take ipv6.disable=1 from its command line, or the IPv6 subnets from network")
	}
	return errors.New("not known to this kernel: add the module that brings it to kernel.modules, or remove it from kernel.sysctls")
}

// sameValue compares values as the kernel shows them: several numbers are parted by a tab.
func sameValue(a, b string) bool {
	return strings.Join(strings.Fields(a), " ") == strings.Join(strings.Fields(b), " ")
}
