package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
)

const (
	sysctlFile = "/etc/sysctl.d/90-nodeagent.conf"
	procSys    = "/proc/sys/"
)

// Sysctls returns the step "kernel/sysctl": bridged traffic passes iptables, IPv4 is forwarded,
// and the extra ones are set, now and at boot. Of a name that is in both, the extra one holds.
// A sysctl.d file of somebody else that wins over ours at boot is a finding.
//
// Without br_netfilter the kernel has no net.bridge, so Check is blocked on kernel/modules.
func Sysctls(h *host.Host, extra []Sysctl) step.Step {
	s := sysctls{h: h, want: merge([]Sysctl{
		{Name: "net.bridge.bridge-nf-call-iptables", Value: "1"},
		{Name: "net.bridge.bridge-nf-call-ip6tables", Value: "1"},
		{Name: "net.ipv4.ip_forward", Value: "1"},
	}, extra)}
	return step.Step{Name: "kernel/sysctl", Check: s.check, Apply: s.apply}
}

// merge is base with extra: a value in its place where the name is there, else at the end.
func merge(base, extra []Sysctl) []Sysctl {
	out := append([]Sysctl{}, base...)
	at := map[string]int{}
	for i, s := range out {
		at[sysctlPath(s.Name)] = i
	}
	for _, s := range extra {
		path := sysctlPath(s.Name)
		if i, there := at[path]; there {
			out[i] = s
			continue
		}
		at[path] = len(out)
		out = append(out, s)
	}
	return out
}

type sysctls struct {
	h    *host.Host
	want []Sysctl
}

func (s sysctls) file() string {
	var out strings.Builder
	out.WriteString(owned)
	for _, w := range s.want {
		fmt.Fprintf(&out, "%s = %s\n", w.Name, strings.TrimSpace(w.Value))
	}
	return out.String()
}

func (s sysctls) check(context.Context) ([]step.Change, error) {
	changes, err := s.checkLive()
	if err != nil {
		return nil, err
	}
	file, err := checkFile(s.h, sysctlFile, s.file())
	if err != nil {
		return nil, err
	}
	overrides, err := s.overrides()
	return append(append(changes, file...), overrides...), err
}

func (s sysctls) checkLive() ([]step.Change, error) {
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
		if errors.Is(err, fs.ErrNotExist) {
			have = "not known to this kernel"
		} else if err != nil {
			return nil, fmt.Errorf("read sysctl %s: %w", w.Name, err)
		}
		if !sameValue(have, w.Value) {
			changes = append(changes, step.Change{Subject: w.Name, Have: have, Want: w.Value})
		}
	}
	return changes, nil
}

func (s sysctls) live(name string) (string, error) {
	data, err := s.h.ReadFile(procSys + sysctlPath(name))
	return strings.TrimSpace(string(data)), err
}

// apply writes the file first: after a crash the next boot sets what was not set. Each value is
// read just before it is written, since setting ip_forward resets others, which come after it.
func (s sysctls) apply(ctx context.Context) error {
	if err := s.h.WriteFile(sysctlFile, []byte(s.file()), ownedMode); err != nil {
		return err
	}
	if s.h.Offline {
		return nil
	}
	for _, w := range s.want {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if err := s.set(w); err != nil {
			return fmt.Errorf("set sysctl %s: %w", w.Name, err)
		}
	}
	return nil
}

func (s sysctls) set(w Sysctl) error {
	have, err := s.live(w.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("not known to this kernel: add the module that brings it to kernel.modules, or remove it from kernel.sysctls")
	}
	if err != nil {
		return err
	}
	if sameValue(have, w.Value) {
		return nil
	}
	return s.h.WriteKernel(procSys+sysctlPath(w.Name), strings.TrimSpace(w.Value))
}

// overrides are the values that the boot would set otherwise than our file says.
func (s sysctls) overrides() ([]step.Change, error) {
	settings, err := bootSettings(s.h)
	if err != nil {
		return nil, fmt.Errorf("read sysctl.d: %w", err)
	}
	var changes []step.Change
	for _, w := range s.want {
		set, there := settings[sysctlPath(w.Name)]
		if !there || set.file == sysctlFile || sameValue(set.Value, w.Value) {
			continue
		}
		changes = append(changes, step.Change{
			Subject: w.Name + " at boot", Have: fmt.Sprintf("%s, by %s line %d", set.Value, set.file, set.Line),
			Want: w.Value + ": remove that line", Manual: true,
		})
	}
	return changes, nil
}

// sameValue compares values as the kernel shows them: several numbers are parted by a tab.
func sameValue(a, b string) bool {
	return strings.Join(strings.Fields(a), " ") == strings.Join(strings.Fields(b), " ")
}
